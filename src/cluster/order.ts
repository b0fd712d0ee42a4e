import type { RenderedObject } from '../model/index.ts';

// Objects that others depend on come first. Webhooks come last, so that they never judge the objects they need to work.
const ORDER = [
  'CustomResourceDefinition',
  'Namespace',
  'PriorityClass',
  'StorageClass',
  'ResourceQuota',
  'LimitRange',
  'NetworkPolicy',
  'ServiceAccount',
  'Secret',
  'ConfigMap',
  'PersistentVolume',
  'PersistentVolumeClaim',
  'ClusterRole',
  'ClusterRoleBinding',
  'Role',
  'RoleBinding',
  'Service',
];
const LAST = ['APIService', 'MutatingWebhookConfiguration', 'ValidatingWebhookConfiguration'];

/** Groups objects that may be applied concurrently; each group waits for the previous one. */
export function stages<T extends { readonly ref: RenderedObject['ref'] }>(objects: readonly T[]): T[][] {
  const byRank = Map.groupBy(objects, (o) => rank(o.ref.kind));
  return [...byRank.keys()].sort((a, b) => a - b).map((r) => byRank.get(r) ?? []);
}

function rank(kind: string): number {
  const early = ORDER.indexOf(kind);
  if (early >= 0) return early;
  const late = LAST.indexOf(kind);
  return late < 0 ? ORDER.length : ORDER.length + 1 + late;
}
