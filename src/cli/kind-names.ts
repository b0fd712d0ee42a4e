import { type ObjectRef, resourceOf } from '../model/index.ts';

// Short names as `kubectl api-resources` lists them for the kinds that Kubernetes itself has.
const SHORT: Readonly<Record<string, string>> = {
  cj: 'CronJob',
  cm: 'ConfigMap',
  crd: 'CustomResourceDefinition',
  crds: 'CustomResourceDefinition',
  cs: 'ComponentStatus',
  csr: 'CertificateSigningRequest',
  deploy: 'Deployment',
  ds: 'DaemonSet',
  ep: 'Endpoints',
  ev: 'Event',
  hpa: 'HorizontalPodAutoscaler',
  ing: 'Ingress',
  limits: 'LimitRange',
  netpol: 'NetworkPolicy',
  no: 'Node',
  ns: 'Namespace',
  pc: 'PriorityClass',
  pdb: 'PodDisruptionBudget',
  po: 'Pod',
  pv: 'PersistentVolume',
  pvc: 'PersistentVolumeClaim',
  quota: 'ResourceQuota',
  rc: 'ReplicationController',
  rs: 'ReplicaSet',
  sa: 'ServiceAccount',
  sc: 'StorageClass',
  sts: 'StatefulSet',
  svc: 'Service',
};

/**
 * Whether a kind as kubectl spells it (`deploy`, `deployment`, `deployments`, `deployment.apps`, `deployments.v1.apps`)
 * means the kind of an object.
 */
export function isKind(spelled: string, { kind, apiVersion }: Pick<ObjectRef, 'kind' | 'apiVersion'>): boolean {
  const [name = '', ...rest] = spelled.toLowerCase().split('.');
  const singular = kind.toLowerCase();
  if (name !== singular && name !== resourceOf(kind) && (!Object.hasOwn(SHORT, name) || SHORT[name] !== kind))
    return false;
  if (rest.length === 0) return true;
  const [group = '', version = ''] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const asked = rest.join('.');
  return asked === group || asked === `${version}.${group}` || (group === '' && asked === version);
}

/** Returns the kind that a spelling means, as an API server would name it, if it is a kind of Kubernetes itself. */
export function kindOf(spelled: string): string {
  const [name = ''] = spelled.toLowerCase().split('.');
  const short = Object.hasOwn(SHORT, name) ? SHORT[name] : undefined;
  return short ?? OWNED.find((kind) => name === kind.toLowerCase() || name === resourceOf(kind)) ?? spelled;
}

/** Kinds that a controller makes, with the API group they are served in: their owner is in Git, not they. */
export const OWNED_KINDS: Readonly<Record<string, string>> = {
  Pod: 'v1',
  ReplicaSet: 'apps/v1',
  ReplicationController: 'v1',
  Job: 'batch/v1',
  ControllerRevision: 'apps/v1',
  EndpointSlice: 'discovery.k8s.io/v1',
  Endpoints: 'v1',
};
const OWNED = Object.keys(OWNED_KINDS);
