import type { ObjectRef } from './kubernetes.ts';

/** One object a revision owns: what was rendered, what the API server made of it, and where it came from. */
export type OwnedObject = {
  readonly ref: ObjectRef;
  /** Digest of the rendered object. */
  readonly rendered: string;
  /** Digest of the object as the admission webhook saw it in the dry run; undefined where no webhook was asked. */
  readonly admitted?: string;
  /** Digest of the object as it stood in the cluster after it was applied; drift is any other. */
  readonly live?: string;
  /** The revision that gave the object its present content, and the ledger index of the verdict that allowed it. */
  readonly revision: string;
  readonly entry: number;
  readonly file: string;
  readonly line: number;
};

/** The objects a revision owns in the cluster. */
export type Inventory = { readonly objects: readonly OwnedObject[] };

/** What an intent is about to do. */
export type Plan = { readonly objects: readonly OwnedObject[]; readonly prune: readonly ObjectRef[] };
