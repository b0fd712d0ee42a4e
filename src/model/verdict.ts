import type { Approval, Signer } from './change.ts';
import type { Moment, SignatureFormat } from './commit.ts';
import type { KindScope } from './kind-scope.ts';
import type { ObjectRef } from './kubernetes.ts';
import type { SourceLine } from './place.ts';
import type { HookPhase } from './placement.ts';
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
  /** The Rego rule it comes from, if any. */
  readonly rule?: string;
  readonly severity?: string;
  /** The rule's title and controls, from its METADATA. */
  readonly title?: string;
  readonly controls?: readonly string[];
  /** The waiver that covers it, if any. */
  readonly waived?: {
    readonly waiver: string;
    readonly approver: string;
    readonly ticket: string;
    readonly reason: string;
    readonly until: string;
  };
};

/** Verdict on one commit of a change. `signer` is set only if its signature proved one. */
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
  /** Seconds since 1970, as claimed by the committer. */
  readonly committedAt: number;
  readonly reason: string;
  readonly hint?: string;
  readonly format?: SignatureFormat;
  readonly key?: string;
  readonly subkey?: string;
  readonly algorithm?: string;
  readonly signer?: Signer;
  /** Seconds since 1970, as claimed by an OpenPGP signature. */
  readonly signedAt?: number;
  readonly hardware?: { readonly touched: boolean; readonly verified: boolean };
  readonly certificate?: {
    readonly authority: string;
    readonly name: string;
    readonly keyId: string;
    readonly serial: string;
  };
  /** When it was first seen, ISO 8601, and the source of that time. */
  readonly seen: string;
  readonly basis: Moment['basis'];
  /** SHA-256 of the signed bytes. */
  readonly payload: string;
  /** Which commit of the first-parent line brought it in, from 1 on; only if there are several. */
  readonly step?: number;
  /** Paths at which a merge has content that neither parent has and an automatic merge does not produce. */
  readonly mergeAdds?: readonly string[];
  /** Signed tags in a merge. */
  readonly tags?: readonly { readonly name: string; readonly signer?: string; readonly code: CommitCode }[];
};

/** Inputs of a verdict: the same inputs always give the same verdict. */
type Consulted = {
  readonly trustDigest: string;
  readonly bundleDigest: string;
  /**
   * `ledger`: commits are judged at the time the ledger first named them; `now`: there is no ledger here, and the
   * cluster's may decide differently.
   */
  readonly time: 'ledger' | 'now';
  /** The time given to the rules, so that the evaluation can be repeated. */
  readonly at?: string;
  /**
   * The repository path the objects were rendered from, and how: `spec.source.path`, `spec.render` and
   * `spec.target.namespace` of the environment at the time.
   */
  readonly rendered?: Rendered;
  /** The cluster's answers about kinds, by `Kind.group`, where no content of the repository tells their scope. */
  readonly served?: Readonly<Record<string, KindScope>>;
};

/** Which directory of a repository is rendered, and how. */
export type Rendered = {
  readonly path: string;
  readonly render: HowRendered<Environment['spec']['render']>;
  /** The namespace for objects that do not set one. Older verdicts have only Helm's, as `render.namespace`. */
  readonly namespace?: string;
};

// Allowed sources, credentials and limits do not affect the result.
type HowRendered<T> = T extends unknown ? Omit<T, 'registries' | 'limits'> : never;

/** The decision on a change: outcome, every reason, and the inputs. */
export type Verdict = {
  readonly outcome: 'allowed' | 'denied';
  readonly environment: string;
  readonly from: string;
  readonly to: string;
  readonly tree: string;
  /**
   * SHA-256 over path, mode and SHA-256 of every file in the environment's directory: Git's own SHA-1 ids can collide.
   */
  readonly content?: string;
  /** The branch goes back to an earlier commit, through approvals that say so. */
  readonly rollback?: true;
  /** Irreversible actions that the signed commits of the change declare intended (`Countersign-Allow`). */
  readonly allows?: readonly string[];
  /** Digest of the TrustPolicy in the repository after this change, if it is kept there and differs. */
  readonly trustAfter?: string;
  readonly commits: readonly CommitVerdict[];
  readonly approvals: readonly Approval[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  /** Violations covered by waivers. */
  readonly waived?: readonly Violation[];
  readonly objects: number;
  /** Objects that are hooks, with the phases in which they run. */
  readonly hooks?: readonly { readonly object: ObjectRef; readonly phases: readonly HookPhase[] }[];
  readonly consulted: Consulted;
};
