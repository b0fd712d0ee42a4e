import type { ObjectRef } from './kubernetes.ts';
import type { IgnoreRule } from './schema.ts';

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

/**
 * The objects a revision owns in the cluster, and those that were deleted and that the API server still has
 * (finalizers).
 */
export type Inventory = { readonly objects: readonly OwnedObject[]; readonly leaving: readonly ObjectRef[] };

/** An inventory as a result names it: whole, or what is different from that of an earlier result. */
export type InventoryRecord = {
  /** Index of the `apply.result` that this one builds on. */
  readonly base?: number;
  /** New or different objects; without `base`, all of them. */
  readonly objects: readonly OwnedObject[];
  readonly removed?: readonly ObjectRef[];
  readonly leaving?: readonly ObjectRef[];
};

/** Something that a change does and that going back to the last good revision does not undo. */
export type Irreversible = {
  readonly action: 'delete' | 'replace' | 'run' | 'empty' | 'prune';
  readonly object?: ObjectRef;
};

/** What an intent is about to do: the objects it writes and those it removes. */
export type Plan = {
  readonly objects: readonly OwnedObject[];
  readonly prune: readonly ObjectRef[];
  /** Objects that are deleted and created again, because the API server does not let them be changed. */
  readonly replace?: readonly ObjectRef[];
  readonly irreversible?: readonly Irreversible[];
};

/** How an environment writes. `force` takes fields that others have; `ignore` leaves some to them. */
export type Writing = { readonly environment: string; readonly force: boolean; readonly ignore: readonly IgnoreRule[] };

/**
 * How an object that should be as rendered is: its fields that are not (JSON pointers), and which field manager wrote
 * last.
 */
export type Comparison =
  | { readonly kind: 'missing' | 'same' }
  | {
      readonly kind: 'different';
      readonly fields: readonly string[];
      readonly writer?: { readonly manager: string; readonly time: string };
    };
