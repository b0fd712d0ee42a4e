import type { ObjectRef } from './kubernetes.ts';
import type { HookPhase, Occasion } from './placement.ts';
import type { IgnoreRule } from './schema.ts';
import type { TroubleSeen } from './trouble-seen.ts';

/** One object owned by a revision: as rendered, as accepted by the API server, and its origin. */
export type OwnedObject = {
  readonly ref: ObjectRef;
  /** Digest of the rendered object. */
  readonly rendered: string;
  /** Digest of the object as the admission webhook saw it in the dry run; undefined without a webhook. */
  readonly admitted?: string;
  /**
   * Digests of the templates in it that were approved (`templateDigest`), newest first: controllers make pods from
   * them. Where fields of a template are left to others, a second one is without these (`leftDigest`). Undefined
   * without a webhook, and for objects without a template.
   */
  readonly templates?: readonly string[];
  /** Digest of the object in the cluster after it was applied; any other digest is drift. */
  readonly live?: string;
  /** The revision that gave the object its current content, and the ledger index of the verdict that allowed it. */
  readonly revision: string;
  readonly entry: number;
  readonly file: string;
  readonly line: number;
  /** Its order among the objects of a change; undefined if it states none. */
  readonly order?: number;
  /**
   * Undefined for an ordinary object. A hook that `stays` is there like any object; one that `ran` is not missed: it
   * ran, its delete policy removed it, or nothing called for it.
   */
  readonly hook?: 'stays' | 'ran';
  /** Of a hook that ran: the uid of the object that did. */
  readonly uid?: string;
};

/** The objects a revision owns in the cluster, and deleted ones that the API server still has (finalizers). */
export type Inventory = { readonly objects: readonly OwnedObject[]; readonly leaving: readonly ObjectRef[] };

/** An inventory in a result: complete, or the difference from an earlier result. */
export type InventoryRecord = {
  /** Index of the `apply.result` that this one builds on. */
  readonly base?: number;
  /** New or changed objects; without `base`, all of them. */
  readonly objects: readonly OwnedObject[];
  readonly removed?: readonly ObjectRef[];
  readonly leaving?: readonly ObjectRef[];
  /** Of a failure: what was seen of the objects that did not become healthy. */
  readonly seen?: readonly TroubleSeen[];
};

/** An effect of a change that going back to the last good revision does not undo. */
export type Irreversible = {
  readonly action: 'delete' | 'replace' | 'run' | 'store' | 'empty' | 'prune';
  readonly object?: ObjectRef;
};

/** The actions of an intent: objects to write and objects to remove. */
export type Plan = {
  readonly objects: readonly OwnedObject[];
  readonly prune: readonly ObjectRef[];
  /** Objects to delete and create again, because the API server does not allow changing them. */
  readonly replace?: readonly ObjectRef[];
  readonly irreversible?: readonly Irreversible[];
  /** Namespaces that did not exist before. If the change fails, they are removed again unless others use them. */
  readonly created?: readonly ObjectRef[];
  /** New objects that were there before. If the change fails, they stay: others made them. */
  readonly existed?: readonly ObjectRef[];
  /** Hooks that run, in order; they are among the `objects`. Their delete policies may remove them. */
  readonly hooks?: readonly { readonly object: ObjectRef; readonly phase: HookPhase; readonly order: number }[];
  /** Why the change takes place, if it has hooks. */
  readonly occasion?: Occasion;
  /** Of a restore: effects of the failed change that it does not undo. */
  readonly remains?: readonly Irreversible[];
};

/** How an environment writes. */
export type Writing = {
  readonly environment: string;
  /** Takes fields that others own. */
  readonly force: boolean;
  /** Fields that are left to others. */
  readonly ignore: readonly IgnoreRule[];
  /**
   * Removes everything that is neither Git's, nor kept by the API server or a controller on this kind of object.
   * Otherwise, fields that others added beside Git's stay.
   */
  readonly exact?: boolean;
  /** Bounds within which a HorizontalPodAutoscaler of Git scales the object. */
  readonly scaled?: { readonly min: number; readonly max: number };
};

/**
 * Comparison of a live object with the rendered one: the fields that differ (JSON pointers), and the field manager that
 * wrote last.
 */
export type Comparison =
  | { readonly kind: 'missing' }
  /** With the digest of the object that was compared. */
  | { readonly kind: 'same'; readonly digest: string }
  | {
      readonly kind: 'different';
      readonly fields: readonly string[];
      readonly writer?: { readonly manager: string; readonly time: string };
    };
