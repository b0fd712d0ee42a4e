import type { CommitFacts } from './commit.ts';

/** The principal whose key verifiably signed something, and that key. */
export type Signer = { readonly principal: string; readonly kind: 'person' | 'bot' | 'platform'; readonly key: string };

/**
 * Strength of an approval. `A+`: the person's hardware key, touched or with PIN; `A`: the person's key. `B`: a forge
 * review of this very commit, signed by an importer; `C`: a forge review that names no commit, which alone counts for
 * nothing.
 */
type EvidenceClass = 'A+' | 'A' | 'B' | 'C';

/** A principal's signed statement that a given change may go ahead. */
export type Approval = {
  readonly principal: string;
  readonly key: string;
  readonly from: string;
  readonly commit: string;
  readonly tree: string;
  /** ISO 8601, as claimed by the approver. */
  readonly issuedAt: string;
  readonly reason: string;
  /** SHA-256 of the envelope as stored. */
  readonly envelope: string;
  readonly class: EvidenceClass;
  /** `exact`: this base and this tree; `equivalent`: the same change, after the base changed only in other files. */
  readonly match: 'exact' | 'equivalent';
  /** The approver also lets the change through a closed window, if allowed to (`spec.windowOverride`). */
  readonly override?: true;
  /** The bot that signed for a forge review. */
  readonly importer?: string;
};

/** One transition of one environment from the last applied revision (or `NO_REVISION`) to a new one. */
export type Change = {
  readonly environment: string;
  /** The source as named by the environment; approvals are bound to it. */
  readonly repository: string;
  /** The full ref, for example `refs/heads/main`. */
  readonly ref: string;
  readonly from: string;
  readonly to: string;
  /** The tree of `to`. */
  readonly tree: string;
  /** Every commit reachable from `to` and not from `from`, oldest first; the last one is `to`. */
  readonly commits: readonly CommitFacts[];
  /** The commit was on the branch before and is requested again: only approvals that say so allow it. */
  readonly rollback: boolean;
};

declare const verified: unique symbol;

/** A change whose every commit has a trusted signer and enough approvals. Only `trust` creates one. */
export type VerifiedChange = Change & {
  readonly approvals: readonly Approval[];
  readonly [verified]: true;
};
