import type { Commit, PathChange } from './commit.ts';

/** The principal whose key verifiably signed something, and the key that did. */
export type Signer = { readonly principal: string; readonly kind: 'person' | 'platform'; readonly key: string };

/** A principal's signed statement that a given change may go ahead. */
export type Approval = {
  readonly principal: string;
  readonly key: string;
  readonly from: string;
  readonly commit: string;
  readonly tree: string;
  /** ISO 8601, as the approver claims. */
  readonly issuedAt: string;
  readonly reason: string;
  /** SHA-256 of the envelope as stored. */
  readonly envelope: string;
};

/** One transition of one environment from the last applied revision (or `NO_REVISION`) to a new one. */
export type Change = {
  readonly environment: string;
  /** The source as the environment names it; approvals are bound to it. */
  readonly repository: string;
  /** The full ref, for example `refs/heads/main`. */
  readonly ref: string;
  readonly from: string;
  readonly to: string;
  /** Every commit reachable from `to` and not from `from`, oldest first; the last one is `to`. */
  readonly commits: readonly Commit[];
};

/** One hop on the first-parent line of a change, with the paths that differ. */
export type Step = { readonly from: string; readonly to: string; readonly tree: string; readonly paths: readonly PathChange[] };

declare const verified: unique symbol;

/** A change whose every commit has a trusted signer and enough approvals. Only `trust` makes one. */
export type VerifiedChange = Change & {
  readonly approvals: readonly Approval[];
  readonly [verified]: true;
};
