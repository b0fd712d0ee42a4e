import type { Approval, Signer } from './change.ts';
import type { ObjectRef, SourceLine } from './kubernetes.ts';

/** One reason for "no". `code` is stable and documented; `message` is one line for people. */
export type Violation = {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly commit?: string;
  readonly object?: ObjectRef;
  readonly source?: SourceLine;
  /** The Rego rule that spoke, where it was one. */
  readonly rule?: string;
  readonly severity?: string;
};

/** How one commit of a change was judged. `signer` is there only when its signature proved one. */
export type CommitVerdict = {
  readonly commit: string;
  readonly subject: string;
  readonly author: string;
  readonly committer: string;
  /** Seconds since 1970, as the committer claims. */
  readonly committedAt: number;
  readonly outcome: 'verified' | 'refused';
  readonly code: string;
  readonly reason: string;
  readonly hint?: string;
  readonly format?: 'openpgp' | 'ssh';
  readonly key?: string;
  readonly signer?: Signer;
};

/** What a verdict was reached with: the same inputs always give the same verdict. */
export type Consulted = { readonly trustDigest: string; readonly bundleDigest: string };

/** The decision on a change: outcome, every reason, and what was consulted. */
export type Verdict = {
  readonly outcome: 'allowed' | 'denied';
  readonly environment: string;
  readonly from: string;
  readonly to: string;
  readonly tree: string;
  readonly commits: readonly CommitVerdict[];
  readonly approvals: readonly Approval[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly objects: number;
  readonly consulted: Consulted;
};
