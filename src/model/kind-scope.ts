import { groupOf, type ObjectRef } from './kubernetes.ts';

/** Whether objects of a kind are in a namespace, in the words of a CustomResourceDefinition. */
export type KindScope = 'Namespaced' | 'Cluster';

// Kinds of Kubernetes itself, by group, as the API servers of every supported version list them. A kind never moves
// from one scope to the other, so a newer Kubernetes only adds to these.
const NAMESPACED: Readonly<Record<string, readonly string[]>> = {
  '': [
    'Binding',
    'ConfigMap',
    'Endpoints',
    'Event',
    'LimitRange',
    'PersistentVolumeClaim',
    'Pod',
    'PodTemplate',
    'ReplicationController',
    'ResourceQuota',
    'Secret',
    'Service',
    'ServiceAccount',
  ],
  apps: ['ControllerRevision', 'DaemonSet', 'Deployment', 'ReplicaSet', 'StatefulSet'],
  'authorization.k8s.io': ['LocalSubjectAccessReview'],
  autoscaling: ['HorizontalPodAutoscaler'],
  batch: ['CronJob', 'Job'],
  'certificates.k8s.io': ['PodCertificateRequest'],
  'coordination.k8s.io': ['Lease'],
  'discovery.k8s.io': ['EndpointSlice'],
  'events.k8s.io': ['Event'],
  'networking.k8s.io': ['Ingress', 'NetworkPolicy'],
  policy: ['PodDisruptionBudget'],
  'rbac.authorization.k8s.io': ['Role', 'RoleBinding'],
  'resource.k8s.io': ['ResourceClaim', 'ResourceClaimTemplate'],
  'storage.k8s.io': ['CSIStorageCapacity'],
};
const CLUSTER: Readonly<Record<string, readonly string[]>> = {
  '': ['ComponentStatus', 'Namespace', 'Node', 'PersistentVolume'],
  'admissionregistration.k8s.io': [
    'MutatingAdmissionPolicy',
    'MutatingAdmissionPolicyBinding',
    'MutatingWebhookConfiguration',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
    'ValidatingWebhookConfiguration',
  ],
  'apiextensions.k8s.io': ['CustomResourceDefinition'],
  'apiregistration.k8s.io': ['APIService'],
  'authentication.k8s.io': ['SelfSubjectReview', 'TokenReview'],
  'authorization.k8s.io': ['SelfSubjectAccessReview', 'SelfSubjectRulesReview', 'SubjectAccessReview'],
  'certificates.k8s.io': ['CertificateSigningRequest', 'ClusterTrustBundle'],
  'flowcontrol.apiserver.k8s.io': ['FlowSchema', 'PriorityLevelConfiguration'],
  'networking.k8s.io': ['IPAddress', 'IngressClass', 'ServiceCIDR'],
  'node.k8s.io': ['RuntimeClass'],
  'rbac.authorization.k8s.io': ['ClusterRole', 'ClusterRoleBinding'],
  'resource.k8s.io': ['DeviceClass', 'DeviceTaintRule', 'ResourceSlice'],
  'scheduling.k8s.io': ['PriorityClass'],
  'storage.k8s.io': ['CSIDriver', 'CSINode', 'StorageClass', 'VolumeAttachment', 'VolumeAttributesClass'],
  'storagemigration.k8s.io': ['StorageVersionMigration'],
};

/** Returns the scope of a kind of Kubernetes itself; undefined for every other kind. */
export function builtInScope({ apiVersion, kind }: Pick<ObjectRef, 'apiVersion' | 'kind'>): KindScope | undefined {
  const isIn = (table: typeof CLUSTER) => {
    const group = groupOf(apiVersion);
    return Object.hasOwn(table, group) && table[group]?.includes(kind) === true;
  };
  if (isIn(NAMESPACED)) return 'Namespaced';
  return isIn(CLUSTER) ? 'Cluster' : undefined;
}

/** Returns the cluster-scoped kinds of Kubernetes itself, each with its group. */
export function clusterScopedKinds(): ReadonlyMap<string, string> {
  return new Map(Object.entries(CLUSTER).flatMap(([group, kinds]) => kinds.map((kind) => [kind, group] as const)));
}

// Requests, which no one can list.
const ASKED: ReadonlySet<string> = new Set(['Binding', 'LocalSubjectAccessReview']);

/** Returns the namespaced kinds of Kubernetes itself whose objects can be listed, each with its group. */
export function readableKinds(): readonly { readonly group: string; readonly kind: string }[] {
  return Object.entries(NAMESPACED).flatMap(([group, kinds]) =>
    kinds.filter((kind) => !ASKED.has(kind)).map((kind) => ({ group, kind })),
  );
}

// Kinds that some supported version of Kubernetes serves only as alpha or beta, or not at all.
const UNSTABLE: ReadonlySet<string> = new Set([
  'ClusterTrustBundle',
  'DeviceTaintRule',
  'MutatingAdmissionPolicy',
  'MutatingAdmissionPolicyBinding',
  'PodCertificateRequest',
  'StorageVersionMigration',
]);

/**
 * Returns the stable kinds that every supported version of Kubernetes serves, as charts ask for them:
 * `apps/v1/Deployment`, `v1/Service`.
 */
export function stableKinds(): readonly string[] {
  const all = [NAMESPACED, CLUSTER].flatMap((table) =>
    Object.entries(table).flatMap(([group, kinds]) =>
      kinds
        .filter((kind) => !UNSTABLE.has(kind))
        .flatMap((kind) =>
          (group === 'autoscaling' ? ['v1', 'v2'] : ['v1']).map((version) =>
            [...(group === '' ? [] : [group]), version, kind].join('/'),
          ),
        ),
    ),
  );
  return all.sort();
}
