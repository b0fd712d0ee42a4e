/**
 * Selects a cluster: a kubeconfig file and context, or (without a file) the pod's own account. May also name the
 * ServiceAccount to impersonate there, as `namespace/name`.
 */
export type ClusterAddress = {
  readonly kubeconfig: string | undefined;
  readonly context: string | undefined;
  readonly serviceAccount?: string | undefined;
  /** `operator` if a flag or the environment named it: only such a kubeconfig may start programs. */
  readonly namedBy?: 'operator' | 'document' | undefined;
};
