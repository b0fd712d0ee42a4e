import type { Case, MachineryWrite } from './proof.ts';
import {
  ownedByAny,
  proveAdoption,
  proveAutoscaling,
  proveCertificateRequest,
  proveClaimBinding,
  proveClaimOfPod,
  proveClaimOfSet,
  proveClaimUpdate,
  proveCollected,
  proveCronJobRun,
  proveDefaultAccount,
  proveEndedJob,
  proveEndingNamespace,
  proveFinalizersOnly,
  proveIdentityLabels,
  proveLegacyToken,
  proveNewPod,
  proveOwnNode,
  provePodChange,
  provePodOf,
  proveReferencesOnly,
  proveReplicaSet,
  proveReplicaSetRemoval,
  proveReplicaSetUpdate,
  proveRequestRemoval,
  proveResourceClaim,
  proveRevision,
  proveRevisionUpdate,
  proveRolloutNumber,
  proveRootCertificate,
  proveSelectedNode,
  proveTokenSecret,
} from './prove-duty.ts';

/** One kind of write that a controller does. `prove` throws `Unproven` if its content does not follow. */
export type Duty = {
  readonly operations: readonly ('CREATE' | 'UPDATE' | 'DELETE')[];
  /** Group and kind (`apps/ReplicaSet`, `Pod`), or all of them. */
  readonly kinds: 'any' | readonly string[];
  readonly subresource?: string;
  readonly prove: (of: Case) => Promise<void>;
};

const [C, U, D] = ['CREATE', 'UPDATE', 'DELETE'] as const;

const podsOf = (...owners: readonly string[]): readonly Duty[] => [
  { operations: [C], kinds: ['Pod'], prove: proveNewPod(owners) },
  { operations: [U], kinds: ['Pod'], prove: proveAdoption(owners) },
  { operations: [D], kinds: ['Pod'], prove: ownedByAny(owners) },
];
const revisions: readonly Duty[] = [
  { operations: [C], kinds: ['apps/ControllerRevision'], prove: proveRevision },
  { operations: [U], kinds: ['apps/ControllerRevision'], prove: proveRevisionUpdate },
  { operations: [D], kinds: ['apps/ControllerRevision'], prove: ownedByAny(['apps/StatefulSet', 'apps/DaemonSet']) },
];
const anyController = ownedByAny('any');
const podRemoval: Duty = { operations: [D], kinds: ['Pod'], prove: anyController };

/**
 * Duties of the controllers in kube-system, by the name of their service account. Source: the ClusterRoles
 * `system:controller:*` of Kubernetes 1.34 to 1.37, and what those controllers write in fact. Writes of `status`,
 * events, leases and endpoints are not asked about at admission. A controller with an empty list writes nothing else in
 * a namespace.
 */
export const DUTIES: Readonly<Record<string, readonly Duty[]>> = {
  'attachdetach-controller': [],
  'certificate-controller': [],
  'clusterrole-aggregation-controller': [],
  'cronjob-controller': [
    { operations: [C], kinds: ['batch/Job'], prove: proveCronJobRun },
    { operations: [D], kinds: ['batch/Job'], prove: ownedByAny(['batch/CronJob']) },
    podRemoval,
  ],
  'daemon-set-controller': [...podsOf('apps/DaemonSet'), ...revisions],
  'deployment-controller': [
    { operations: [C], kinds: ['apps/ReplicaSet'], prove: proveReplicaSet },
    { operations: [U], kinds: ['apps/ReplicaSet'], prove: proveReplicaSetUpdate },
    { operations: [D], kinds: ['apps/ReplicaSet'], prove: proveReplicaSetRemoval },
    { operations: [U], kinds: ['apps/Deployment'], subresource: 'status', prove: proveRolloutNumber },
  ],
  'device-taint-eviction-controller': [podRemoval],
  'disruption-controller': [],
  'endpoint-controller': [],
  'endpointslice-controller': [],
  'endpointslicemirroring-controller': [],
  'ephemeral-volume-controller': [{ operations: [C], kinds: ['PersistentVolumeClaim'], prove: proveClaimOfPod }],
  'expand-controller': [],
  'generic-garbage-collector': [
    { operations: [D], kinds: 'any', prove: proveCollected },
    { operations: [U], kinds: 'any', prove: proveReferencesOnly },
  ],
  'horizontal-pod-autoscaler': [{ operations: [U], kinds: 'any', subresource: 'scale', prove: proveAutoscaling }],
  'job-controller': podsOf('batch/Job'),
  'kube-apiserver-serving-clustertrustbundle-publisher': [],
  'legacy-service-account-token-cleaner': [{ operations: [U, D], kinds: ['Secret'], prove: proveLegacyToken }],
  'namespace-controller': [
    { operations: [D], kinds: 'any', prove: proveEndingNamespace },
    { operations: [U], kinds: ['Namespace'], subresource: 'finalize', prove: proveEndingNamespace },
  ],
  'node-controller': [podRemoval],
  'persistent-volume-binder': [{ operations: [U], kinds: ['PersistentVolumeClaim'], prove: proveClaimBinding }],
  'pod-garbage-collector': [podRemoval],
  podcertificaterequestcleaner: [
    { operations: [D], kinds: ['certificates.k8s.io/PodCertificateRequest'], prove: proveRequestRemoval },
  ],
  'pv-protection-controller': [],
  'pvc-protection-controller': [
    {
      operations: [U],
      kinds: ['PersistentVolumeClaim'],
      prove: proveFinalizersOnly(['kubernetes.io/pvc-protection']),
    },
  ],
  'replicaset-controller': podsOf('apps/ReplicaSet'),
  'replication-controller': podsOf('ReplicationController'),
  'resource-claim-controller': [
    { operations: [C], kinds: ['resource.k8s.io/ResourceClaim'], prove: proveResourceClaim },
    {
      operations: [U],
      kinds: ['resource.k8s.io/ResourceClaim'],
      prove: proveFinalizersOnly(['resource.kubernetes.io/delete-protection']),
    },
    { operations: [D], kinds: ['resource.k8s.io/ResourceClaim'], prove: ownedByAny(['Pod']) },
  ],
  'resourcequota-controller': [],
  'root-ca-cert-publisher': [{ operations: [C, U], kinds: ['ConfigMap'], prove: proveRootCertificate }],
  'route-controller': [],
  'selinux-warning-controller': [],
  'service-account-controller': [{ operations: [C], kinds: ['ServiceAccount'], prove: proveDefaultAccount }],
  'service-cidrs-controller': [],
  'service-controller': [
    {
      operations: [U],
      kinds: ['Service'],
      subresource: 'status',
      prove: proveFinalizersOnly(['service.kubernetes.io/load-balancer-cleanup']),
    },
  ],
  'statefulset-controller': [
    ...podsOf('apps/StatefulSet'),
    { operations: [U], kinds: ['Pod'], prove: proveIdentityLabels },
    { operations: [C], kinds: ['PersistentVolumeClaim'], prove: proveClaimOfSet },
    { operations: [U], kinds: ['PersistentVolumeClaim'], prove: proveClaimUpdate },
    { operations: [D], kinds: ['PersistentVolumeClaim'], prove: ownedByAny(['apps/StatefulSet', 'Pod']) },
    ...revisions,
  ],
  'storage-version-migrator-controller': [],
  'ttl-after-finished-controller': [{ operations: [D], kinds: ['batch/Job'], prove: proveEndedJob }],
  'ttl-controller': [],
  'validatingadmissionpolicy-status-controller': [],
  'volumeattributesclass-protection-controller': [],
};

const tokens: readonly Duty[] = [{ operations: [U, D], kinds: ['Secret'], prove: proveTokenSecret }];

/** Duties of the other identities of the control plane. */
const OTHERS: Readonly<Record<string, readonly Duty[]>> = {
  // With one account for all controllers, it has all duties; the proofs are the same.
  'system:kube-controller-manager': [...tokens, ...Object.values(DUTIES).flat()],
  'system:kube-scheduler': [
    podRemoval,
    { operations: [U], kinds: ['PersistentVolumeClaim'], prove: proveSelectedNode },
  ],
  'system:apiserver': [],
};
const NODES: readonly Duty[] = [
  { operations: [D], kinds: ['Pod'], prove: proveOwnNode },
  { operations: [C], kinds: ['certificates.k8s.io/PodCertificateRequest'], prove: proveCertificateRequest },
];

const ACCOUNT = 'system:serviceaccount:kube-system:';
const NODE_GROUP = 'system:nodes';

/** The identities of the control plane, as `user:NAME` and `group:NAME`. */
export const CONTROL_PLANE: readonly string[] = [
  `group:${NODE_GROUP}`,
  ...Object.keys(OTHERS).map((name) => `user:${name}`),
  ...Object.keys(DUTIES).map((name) => `user:${ACCOUNT}${name}`),
].sort();

/** Duties that prove pods, and what makes pods: also what other controllers write of these kinds must be proven. */
export const CHILDREN: readonly Duty[] = [
  { operations: [C], kinds: ['Pod'], prove: provePodOf },
  { operations: [U], kinds: ['Pod'], prove: provePodChange },
  { operations: [C], kinds: ['apps/ReplicaSet'], prove: proveReplicaSet },
  { operations: [U], kinds: ['apps/ReplicaSet'], prove: proveReplicaSetUpdate },
  { operations: [C], kinds: ['batch/Job'], prove: proveCronJobRun },
  { operations: [C, U], kinds: ['apps/ControllerRevision'], prove: proveRevision },
];

/** Returns the duties of the user of a write; none if it is not of the control plane. */
export function dutiesOf({ user, groups }: Pick<MachineryWrite, 'user' | 'groups'>): readonly Duty[] | undefined {
  const account = user.startsWith(ACCOUNT) ? user.slice(ACCOUNT.length) : undefined;
  if (account !== undefined) return Object.hasOwn(DUTIES, account) ? DUTIES[account] : undefined;
  if (Object.hasOwn(OTHERS, user)) return OTHERS[user];
  return groups.includes(NODE_GROUP) ? NODES : undefined;
}
