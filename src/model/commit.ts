/** The name, address and time written in a commit: a claim, never an identity. `time` is in seconds since 1970. */
export type Author = { readonly name: string; readonly email: string; readonly time: number };

export type SignatureFormat = 'openpgp' | 'ssh';

/** One Git commit: fields read from the very bytes that hash to its id, and those bytes split into payload and signature. */
export type Commit = {
  readonly id: string;
  readonly tree: string;
  readonly parents: readonly string[];
  readonly author: Author;
  readonly committer: Author;
  readonly message: string;
  /** What the signature covers: the commit without its signature header. */
  readonly payload: Uint8Array;
  /** The armored signature, or undefined when the commit has none. */
  readonly signature: string | undefined;
};

/** First line of the message. */
export function subjectOf(commit: Commit): string {
  return commit.message.trimStart().split('\n', 1)[0] ?? '';
}

/** One file of a tree: its path from the root, its Git mode and the id of its blob. */
export type TreeEntry = { readonly path: string; readonly mode: string; readonly blob: string };

/** A path whose content differs between two trees; undefined where the path does not exist on that side. */
export type PathChange = {
  readonly path: string;
  readonly before: Omit<TreeEntry, 'path'> | undefined;
  readonly after: Omit<TreeEntry, 'path'> | undefined;
};

/** Stands for "no commit yet" wherever a revision is expected, as Git itself writes it. */
export const NO_REVISION = '0'.repeat(40);

/** Whether the text is a full SHA-1 or SHA-256 object id in lower-case hex. */
export function isObjectId(text: string): boolean {
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}
