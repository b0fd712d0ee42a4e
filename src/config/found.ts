import type { YamlDocument } from '../yaml/index.ts';

/** A problem of a document: where, and what. */
export type Problem = {
  readonly file: string;
  readonly line: number;
  readonly path: string;
  readonly text: string;
};

/** A document not checked yet: a part of a file, an object in a cluster, or one that an EnvironmentSet describes. */
export type Found = {
  readonly file: string;
  readonly document: YamlDocument;
  /** The namespace it declares, or empty; names in the document refer to that namespace. */
  readonly scope: string;
  /** The directory that relative file names refer to. */
  readonly here: string;
  readonly object: ConfigurationObject | undefined;
};

/** One of our documents as an object in a cluster. */
export type ConfigurationObject = {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** The whole object, as returned by the API server. */
  readonly object: Readonly<Record<string, unknown>>;
};
