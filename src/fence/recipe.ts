/** Read access: the bytes of a file, or undefined; and whether a path is a directory. */
type Tree = {
  readonly file: (path: string) => Promise<Uint8Array | undefined>;
  readonly directory: (path: string) => Promise<boolean>;
};

/** A repository at one revision. */
export type RepositoryTree = Tree & {
  readonly files: (directory: string) => Promise<readonly { readonly path: string; readonly mode: string }[]>;
};

/** The cluster as charts see it: its versions and kinds come from documents, never from a cluster that is reachable. */
type Capabilities = { readonly kubeVersion: string; readonly apiVersions: readonly string[] };

/** A kustomization. `namespace` is the release namespace of its charts that name none. */
export type KustomizeRecipe = Capabilities & { readonly with: 'kustomize'; readonly namespace: string | undefined };

/**
 * A chart with values from the repository. `chart` is a directory, or a file that pins a chart from one of the
 * `registries` (hosts).
 */
export type HelmRecipe = Capabilities & {
  readonly with: 'helm';
  readonly chart: string;
  readonly registries?: readonly string[];
  readonly values: readonly string[];
  readonly release: string;
  readonly namespace: string;
};

/** Input of a build. */
export type Recipe = KustomizeRecipe | HelmRecipe;
