import type { Environment } from './schema.ts';

type Target = Pick<Environment['spec']['target'], 'cluster' | 'kubeconfig' | 'context'>;

/**
 * Tests whether two environments are, or may be, in one cluster. Their documents say so by `cluster`; if either names
 * none, the same kubeconfig and context lead to the same cluster.
 */
export function areInOneCluster(a: Target, b: Target): boolean {
  if (a.cluster !== undefined && b.cluster !== undefined) return a.cluster === b.cluster;
  return a.kubeconfig === b.kubeconfig && a.context === b.context;
}
