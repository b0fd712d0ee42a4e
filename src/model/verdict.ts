import type { Approval, Signer } from './change.ts';
import type { Moment, SignatureFormat } from './commit.ts';
import type { ObjectRef } from './kubernetes.ts';
import type { SourceLine } from './place.ts';
import type { Environment } from './schema.ts';
import type { CommitCode, ViolationCode } from './violation-code.ts';

/** One reason for "no". `code` is stable and documented; `message` is one line for people. */
export type Violation = {
  readonly code: ViolationCode;
  readonly message: string;
  readonly hint?: string;
  readonly commit?: string;
  readonly object?: ObjectRef;
  readonly source?: SourceLine;
  /** The Rego rule that spoke, where it was one. */
  readonly rule?: string;
  readonly severity?: string;
  /** The rule's title and the controls it serves, from its METADATA. */
  readonly title?: string;
  readonly controls?: readonly string[];
  /** The waiver that lets it pass, where one does. */
  readonly waived?: {
    readonly waiver: string;
    readonly approver: string;
    readonly ticket: string;
    readonly reason: string;
    readonly until: string;
  };
};

/** How one commit of a change was judged. `signer` is there only when its signature proved one. */
export type CommitVerdict = AboutCommit &
  (
    | { readonly outcome: 'verified'; readonly code: 'verified' | 'merged' }
    | { readonly outcome: 'refused'; readonly code: ViolationCode }
  );

type AboutCommit = {
  readonly commit: string;
  readonly subject: string;
  readonly author: string;
  readonly committer: string;
  /** Seconds since 1970, as the committer claims. */
  readonly committedAt: number;
  readonly reason: string;
  readonly hint?: string;
  readonly format?: SignatureFormat;
  readonly key?: string;
  readonly subkey?: string;
  readonly algorithm?: string;
  readonly signer?: Signer;
  /** Seconds since 1970, as an OpenPGP signature claims. */
  readonly signedAt?: number;
  readonly hardware?: { readonly touched: boolean; readonly verified: boolean };
  readonly certificate?: {
    readonly authority: string;
    readonly name: string;
    readonly keyId: string;
    readonly serial: string;
  };
  /** When it was first seen, ISO 8601, and whose clock that was. */
  readonly seen: string;
  readonly basis: Moment['basis'];
  /** SHA-256 of what is signed. */
  readonly payload: string;
  /** Which commit of the line of first parents brought it in, from 1 on; only where there are several. */
  readonly step?: number;
  /** Paths at which a merge holds what neither parent has and an automatic merge does not make. */
  readonly mergeAdds?: readonly string[];
  /** Signed tags that a merge carries. */
  readonly tags?: readonly { readonly name: string; readonly signer?: string; readonly code: CommitCode }[];
};

/** What a verdict was reached with: the same inputs always give the same verdict. */
export type Consulted = {
  readonly trustDigest: string;
  readonly bundleDigest: string;
  /**
   * `ledger`: commits are judged at the time the ledger first named them; `now`: there is no ledger here, and the
   * cluster's may decide otherwise.
   */
  readonly time: 'ledger' | 'now';
  /** The moment the rules were told, so that they can be asked again as of then. */
  readonly at?: string;
  /**
   * What of the repository the objects were made of, and how: `spec.source.path` and `spec.render` of the environment
   * as it was.
   */
  readonly rendered?: Rendered;
};

/** Which directory of a repository is rendered, and how. */
export type Rendered = { readonly path: string; readonly render: HowRendered<Environment['spec']['render']> };

// Where bytes may come from, with which credentials, and how much there may be of them changes nothing that is made of
// them.
type HowRendered<T> = T extends unknown ? Omit<T, 'registries' | 'limits'> : never;

/** The decision on a change: outcome, every reason, and what was consulted. */
export type Verdict = {
  readonly outcome: 'allowed' | 'denied';
  readonly environment: string;
  readonly from: string;
  readonly to: string;
  readonly tree: string;
  /**
   * SHA-256 over path, mode and SHA-256 of every file of the environment's directory: Git's own SHA-1 names can be made
   * to collide.
   */
  readonly content?: string;
  /** The branch goes back to an earlier commit, by approvals that say so. */
  readonly rollback?: true;
  /** What the signed commits of the change say of things that cannot be undone (`Countersign-Allow`). */
  readonly allows?: readonly string[];
  /** Digest of the TrustPolicy in the repository after this change, where it is kept there and differs. */
  readonly trustAfter?: string;
  readonly commits: readonly CommitVerdict[];
  readonly approvals: readonly Approval[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  /** What would be violations, and is let pass by waivers. */
  readonly waived?: readonly Violation[];
  readonly objects: number;
  readonly consulted: Consulted;
};
