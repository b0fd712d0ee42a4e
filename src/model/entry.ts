import type { ObjectRef } from './kubernetes.ts';

/** Evidence too large for an entry, kept by its digest: canonical JSON whose SHA-256 is `sha256`. */
export type EvidenceRef = { readonly sha256: string; readonly size: number };

type Body =
  | { readonly type: 'log.opened'; readonly origin: string }
  | { readonly type: 'service.started'; readonly version: string; readonly environments: readonly string[]; readonly configuration: string }
  | {
      /** Commits that were met for the first time; the time of this entry is when they were first seen. */
      readonly type: 'commits.seen';
      readonly environment: string;
      readonly ref: string;
      readonly tip: string;
      readonly count: number;
      /** Their ids. */
      readonly evidence: EvidenceRef;
    }
  | {
      /** History up to this commit is taken as it is, by `spec.source.baseline`. */
      readonly type: 'history.sealed';
      readonly environment: string;
      readonly ref: string;
      readonly commit: string;
      readonly tree: string;
    }
  | {
      /** The TrustPolicy in the repository that is in force once `revision` is applied. */
      readonly type: 'trust.changed';
      readonly environment: string;
      readonly revision: string;
      readonly before: string;
      readonly after: string;
      /** Index of the `change.judged` entry that allows it. */
      readonly verdict: number;
      /** The whole TrustPolicy. */
      readonly evidence: EvidenceRef;
    }
  | {
      /** The branch has not moved for longer than `spec.source.staleAfter`. */
      readonly type: 'source.stale';
      readonly environment: string;
      readonly tip: string;
      /** When the tip was first seen; ISO 8601. */
      readonly since: string;
    }
  | {
      readonly type: 'change.judged';
      readonly environment: string;
      readonly from: string;
      readonly to: string;
      readonly tree: string;
      readonly outcome: 'allowed' | 'denied';
      readonly violations: number;
      /** The whole `Verdict`. */
      readonly evidence: EvidenceRef;
    }
  | {
      readonly type: 'apply.intent';
      readonly environment: string;
      readonly revision: string;
      readonly previous: string;
      /** Index of the `change.judged` entry that allows this. */
      readonly verdict: number;
      /** `apply` a new revision, `restore` the last good one after a failure or an interruption, `correct` drift. */
      readonly purpose: 'apply' | 'restore' | 'correct';
      /** Index of the earlier intent of the same run, when a change needs its namespaces or kinds to exist before the rest can be dry-run. */
      readonly continues?: number;
      /** Index of the intent that an earlier run left without a good result, and that this one carries on or undoes. */
      readonly takesOver?: number;
      /** The `Plan`: what will be in the cluster, and what will be removed. */
      readonly evidence: EvidenceRef;
    }
  | {
      readonly type: 'apply.result';
      readonly environment: string;
      readonly intent: number;
      /** The revision the environment is at now. */
      readonly revision: string;
      readonly outcome: 'applied' | 'failed';
      readonly applied: number;
      readonly pruned: number;
      readonly error?: string;
      /** The `Inventory` that is owned now. */
      readonly evidence: EvidenceRef;
    }
  | {
      /** The cluster would not take an allowed revision; nothing was written. */
      readonly type: 'apply.refused';
      readonly environment: string;
      readonly revision: string;
      readonly verdict: number;
      readonly error: string;
    }
  | { readonly type: 'drift.found'; readonly environment: string; readonly revision: string; readonly objects: readonly ObjectRef[] }
  | {
      readonly type: 'admission.denied';
      readonly environment: string;
      readonly user: string;
      readonly operation: string;
      readonly object: ObjectRef;
      readonly mode: 'enforce' | 'audit';
      readonly reason: string;
    }
  | {
      readonly type: 'breakglass.used';
      readonly environment: string;
      readonly user: string;
      readonly operation: string;
      readonly object: ObjectRef;
      readonly reason: string;
      /** Until when the object is left as it was made; ISO 8601. */
      readonly until: string;
    };

/** One record on the ledger as its writer gives it; `v` and `time` are added when it is recorded. */
export type EntryBody = Body;
export type EntryType = Body['type'];
export type Entry = Body & { readonly v: 1; readonly time: string };
export type EntryOf<T extends EntryType> = Extract<Entry, { type: T }>;

/** An entry and its place on the ledger. */
export type Recorded<E extends Entry = Entry> = { readonly index: number; readonly entry: E };
