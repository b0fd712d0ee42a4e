/** Settings from the process environment; every other room gets these as values. */
export type ProcessSettings = {
  /** Directories with Kubernetes test binaries, in envtest's layout. */
  readonly kubebuilderAssets: string | undefined;
  readonly path: string;
  readonly kubeconfig: string | undefined;
  readonly noColor: boolean;
  readonly logLevel: string;
  /** The namespace of our pod; undefined outside a cluster. */
  readonly podNamespace: string | undefined;
  /** The base commit of a pull request, as named by the CI system. */
  readonly ciBase: string | undefined;
  /** In a push hook: where the pushed objects are until the hook has decided. */
  readonly gitQuarantine: { readonly directory: string; readonly alternates: string } | undefined;
};

/** Reads the process environment once. */
export function readProcessSettings(env: NodeJS.ProcessEnv = process.env): ProcessSettings {
  return {
    kubebuilderAssets: env.KUBEBUILDER_ASSETS,
    path: env.PATH ?? '',
    kubeconfig: env.KUBECONFIG || undefined,
    noColor: (env.NO_COLOR ?? '') !== '',
    logLevel: env.COUNTERSIGN_LOG_LEVEL ?? 'info',
    podNamespace: env.POD_NAMESPACE || undefined,
    ciBase: env.CI_MERGE_REQUEST_DIFF_BASE_SHA ?? originBranch(env),
    gitQuarantine:
      env.GIT_QUARANTINE_PATH && env.GIT_OBJECT_DIRECTORY
        ? { directory: env.GIT_OBJECT_DIRECTORY, alternates: env.GIT_ALTERNATE_OBJECT_DIRECTORIES ?? '' }
        : undefined,
  };
}

// GitHub, Gitea, Jenkins, Azure Pipelines and Bitbucket each have their own variable for the target branch of a
// request.
function originBranch(env: NodeJS.ProcessEnv): string | undefined {
  const branch =
    env.GITHUB_BASE_REF ||
    env.CHANGE_TARGET ||
    env.SYSTEM_PULLREQUEST_TARGETBRANCH?.replace(/^refs\/heads\//, '') ||
    env.BITBUCKET_PR_DESTINATION_BRANCH;
  return branch ? `origin/${branch}` : undefined;
}
