import type { StatedChange } from '../model/index.ts';

/** Definition of a report: everything its bytes depend on besides the ledger. */
export type ReportDefinition = {
  /** The organisation on the cover. */
  readonly entity: string;
  readonly classification: string;
  /** Names of frameworks in `frameworks`. */
  readonly frameworks: readonly Framework[];
  /** Only these environments; all if empty. */
  readonly environments: readonly string[];
  /** Seed and size of the auditor's sample, drawn once the checkpoint was published. */
  readonly sample: { readonly seed: string; readonly size: number } | undefined;
  /** Hours after a deployment in which a rollback or an emergency counts against it. */
  readonly failureHours: number;
  /** Hours within which a use of break-glass must be reviewed. */
  readonly reviewHours: number;
  /** The report that this one supersedes: its entry, its id, and the number of entries on the ledger at that time. */
  readonly supersedes?: { readonly entry: number; readonly report: string; readonly entries: number } | undefined;
};

/** A framework's requirements and our controls for them; ids are the framework's, titles our own words. */
export type Framework = {
  readonly id: string;
  readonly name: string;
  readonly requirements: Readonly<
    Record<string, readonly { readonly id: string; readonly title: string; readonly gap?: string }[]>
  >;
};

/** Result of one test of one change. `cannot tell` never counts as a pass. */
export type TestResult = 'pass' | 'fail' | 'n.a.' | 'cannot tell';

/** Attributes tested for each change (docs/report-format.md). */
export const ATTRIBUTES = {
  A: 'it names a ticket or request',
  B: 'every commit is signed by a known principal',
  C: 'someone other than its makers approved it',
  D: 'the approver was entitled to',
  E: 'the approval came before the deployment, for this very content',
  F: 'the rules passed before the deployment',
  G: 'the gate deployed it, and no person',
  H: 'what was deployed is what was approved',
  I: 'environments are separated',
  J: 'an emergency has its reason and was reviewed in time',
} as const;
export type Attribute = keyof typeof ATTRIBUTES;

export type ChangeType = 'standard' | 'emergency' | 'access' | 'rollback';

export type ChangeRecord = {
  readonly id: string;
  /** The entry of its last verdict, and that entry's leaf in the log (SHA-256 in hex). */
  readonly entry: number;
  readonly leaf: string;
  readonly time: string;
  /** Number of verdicts: one more whenever an approval arrived or a rule changed. */
  readonly judged: number;
  readonly environment: string;
  readonly ref: string;
  readonly from: string;
  readonly to: string;
  readonly tree: string;
  readonly type: ChangeType;
  readonly subject: string;
  readonly tickets: readonly string[];
  readonly outcome: 'applied' | 'allowed' | 'failed' | 'denied';
  readonly commits: readonly {
    readonly id: string;
    readonly subject: string;
    readonly author: string;
    readonly committer: string;
    readonly committedAt: string;
    readonly seen: string;
    readonly status: string;
    readonly scheme: string;
    readonly key: string;
    readonly signer: string;
  }[];
  readonly approvals: readonly {
    readonly principal: string;
    readonly key: string;
    readonly class: string;
    readonly match: string;
    readonly issuedAt: string;
    readonly reason: string;
    readonly envelope: string;
  }[];
  readonly policy: {
    readonly bundle: string;
    readonly denied: number;
    readonly warned: number;
    readonly waived: number;
  };
  readonly reasons: readonly string[];
  readonly objects: number;
  readonly written: number;
  readonly removed: number;
  readonly applyStartedAt: string;
  readonly appliedAt: string;
  readonly applyEntries: readonly number[];
  readonly healthy: boolean;
  readonly error: string;
  readonly exceptions: readonly string[];
  readonly attributes: Readonly<Record<Attribute, TestResult>>;
};

/** Types of exceptions: the sixteen that auditors ask about, then others a reader should ask about. */
export const EXCEPTION_TYPES = [
  'unsigned',
  'bad-signature',
  'unknown-signer',
  'self-approval',
  'too-few-approvals',
  'approver-not-entitled',
  'approval-after-apply',
  'tree-changed-after-approval',
  'policy-overridden',
  'break-glass',
  'out-of-band-change',
  'force-push',
  'gate-outage',
  'late-emergency-review',
  'clock-skew',
  'ledger-fault',
  'apply-failed',
  'apply-interrupted',
  'not-enforced',
  'gate-tampered',
  'record-refused',
] as const;
export type ExceptionType = (typeof EXCEPTION_TYPES)[number];

/** Outcome of an exception. `prevented` is the gate's own: nothing reached the cluster. */
export type Disposition = 'open' | 'prevented' | 'remediated' | 'accepted' | 'false-positive';

export type ExceptionRecord = {
  readonly id: string;
  readonly entry: number;
  readonly time: string;
  readonly environment: string;
  readonly type: ExceptionType;
  readonly severity: 'critical' | 'high' | 'medium' | 'low';
  readonly change: string;
  readonly object: string;
  readonly actor: string;
  readonly cause: string;
  /** Duration in seconds; undefined if unknown. */
  readonly exposed: number | undefined;
  /** The person in charge; empty if none was named. */
  readonly owner: string;
  readonly disposition: Disposition;
  readonly by: string;
  readonly at: string;
  readonly reason: string;
  readonly ticket: string;
  /** Location of the evidence for its disposition. */
  readonly link: string;
  /** Days until its disposition or, if it is open, until the report's own time. */
  readonly days: number;
};

export type Reconciliation = {
  readonly id: 'R1' | 'R2' | 'R3' | 'R4' | 'R5' | 'R6' | 'R7';
  readonly check: string;
  readonly left: { readonly source: string; readonly count: number };
  readonly right: { readonly source: string; readonly count: number };
  readonly explained: string;
  readonly unexplained: number;
  readonly status: 'ties' | 'does not tie' | 'not determinable';
};

export type ControlResult = {
  readonly id: string;
  readonly title: string;
  readonly requirements: readonly { readonly framework: string; readonly ids: readonly string[] }[];
  readonly population: number;
  readonly tested: number;
  readonly passed: number;
  readonly exceptions: number;
  readonly dispositioned: number;
  readonly undetermined: number;
};

export type EmergencyRecord = {
  readonly entry: number;
  readonly environment: string;
  readonly requester: string;
  /** The second person who approved it; empty if there is none. */
  readonly approver: string;
  readonly reason: string;
  readonly ticket: string;
  readonly opened: string;
  readonly closed: string;
  readonly uses: readonly {
    readonly entry: number;
    readonly at: string;
    readonly user: string;
    readonly what: string;
  }[];
  readonly reviewDue: string;
  readonly reviewedAt: string;
  readonly reviewer: string;
  readonly result: string;
};

export type AccessRecord = {
  readonly principal: string;
  readonly kind: string;
  readonly roles: readonly string[];
  readonly keys: readonly { readonly key: string; readonly from: string; readonly to: string }[];
  readonly signed: number;
  readonly approved: number;
  /**
   * Times of the first recorded TrustPolicy of the period that named them, and of the first that no longer did; empty
   * if there is none.
   */
  readonly listedFrom: string;
  readonly listedUntil: string;
  readonly firstUse: string;
  readonly lastUse: string;
};

export type AccessChange = {
  readonly entry: number;
  readonly time: string;
  readonly environment: string;
  readonly change: string;
  readonly joined: readonly string[];
  readonly left: readonly string[];
  readonly otherwise: readonly string[];
};

export type PolicyRecord = {
  readonly environment: string;
  readonly bundle: string;
  readonly from: string;
  readonly to: string;
  readonly verdicts: number;
  readonly denied: number;
  readonly waived: number;
};

export type RuleRecord = {
  readonly rule: string;
  readonly title: string;
  readonly severity: string;
  readonly controls: readonly string[];
  readonly denied: number;
  readonly warned: number;
  readonly waived: number;
};

/** Delivery metrics of one environment (dora.dev); durations in seconds, undefined if nothing was measured. */
export type DeliveryMetrics = {
  readonly environment: string;
  readonly deployments: number;
  readonly perWeek: number;
  readonly leadTime: { readonly n: number; readonly median: number | undefined; readonly p90: number | undefined };
  readonly failed: number;
  readonly failRate: number | undefined;
  readonly recoveryTime: { readonly n: number; readonly median: number | undefined; readonly open: number };
  readonly reworkRate: number | undefined;
};

type Difference = { readonly id: string; readonly before: string; readonly after: string };

/** Differences from the previous report; if an item exists in only one of them, the other text is empty. */
export type Differences = {
  readonly counts: readonly { readonly name: string; readonly before: number; readonly after: number }[];
  readonly changes: readonly Difference[];
  readonly exceptions: readonly Difference[];
};

export type SampleItem = { readonly stratum: string; readonly rank: string; readonly change: string };

/** The canonical document; every other format is generated from it alone. */
export type ReportModel = {
  readonly v: 2;
  readonly title: string;
  readonly id: string;
  readonly entity: string;
  readonly classification: string;
  readonly status: 'draft' | 'final';
  readonly period: { readonly from: string; readonly to: string };
  /** Time of the newest entry. */
  readonly asOf: string;
  readonly ledger: {
    readonly origin: string;
    /** Time of the very first entry, if the report includes it. */
    readonly begins: string;
    readonly first: number;
    readonly entries: number;
    readonly checkpoint: string;
    readonly anchors: number;
    /**
     * Names and addresses erased in the period: how many commitments can no longer be opened, the reason, and who
     * agreed.
     */
    readonly erased: readonly {
      readonly entry: number;
      readonly time: string;
      readonly claimedBy: string;
      readonly reason: string;
      readonly commitments: number;
      /** Exceptions about the person that were open then. */
      readonly exceptions: readonly string[];
      readonly approvedBy: string;
    }[];
  };
  readonly scope: {
    readonly environments: readonly {
      readonly name: string;
      readonly refs: readonly string[];
      readonly revision: string;
      /**
       * Repository, branch and path, from the newest record of the configuration in the period; empty if there is none.
       */
      readonly source: string;
      readonly namespaces: readonly string[];
      readonly admission: string;
      /** Groups whose members may use break-glass. */
      readonly breakGlass: readonly string[];
    }[];
    readonly excluded: readonly string[];
    /** People who used break-glass, or are known to have access to it. */
    readonly bypass: readonly string[];
    /** Changes of the configuration: each record in the period, compared with the previous one. */
    readonly changed: readonly ({ readonly entry: number; readonly time: string } & StatedChange)[];
  };
  readonly frameworks: readonly { readonly id: string; readonly name: string }[];
  readonly summary: {
    readonly changes: number;
    readonly applied: number;
    readonly denied: number;
    readonly failed: number;
    readonly exceptions: number;
    readonly open: number;
    readonly admissionsDenied: number;
  };
  readonly controls: readonly ControlResult[];
  readonly gaps: readonly {
    readonly framework: string;
    readonly id: string;
    readonly title: string;
    readonly gap: string;
  }[];
  readonly reconciliation: readonly Reconciliation[];
  readonly exceptions: readonly ExceptionRecord[];
  readonly emergencies: readonly EmergencyRecord[];
  readonly access: readonly AccessRecord[];
  readonly accessChanges: readonly AccessChange[];
  readonly policies: readonly PolicyRecord[];
  readonly rules: readonly RuleRecord[];
  readonly metrics: readonly DeliveryMetrics[];
  /**
   * Hours in which a deployment can turn out to have failed, and within which a use of break-glass must be reviewed.
   */
  readonly within: { readonly failureHours: number; readonly reviewHours: number };
  /** Changes over the period, by the time of the last verdict on each; `from` is the first day of a row. */
  readonly flow: {
    readonly unit: 'day' | 'week' | 'month';
    readonly rows: readonly ({ readonly from: string } & Readonly<Record<ChangeRecord['outcome'], number>>)[];
  };
  readonly sample: { readonly seed: string; readonly size: number; readonly items: readonly SampleItem[] } | null;
  /** Earlier reports of the same period, and the samples drawn in them. */
  readonly earlier: readonly {
    readonly entry: number;
    readonly time: string;
    readonly report: string;
    readonly seed: string;
    readonly size: number;
  }[];
  /** Sign-offs of these reports, with their comments. */
  readonly reviews: readonly {
    readonly entry: number;
    readonly time: string;
    readonly report: string;
    readonly name: string;
    readonly role: string;
    readonly remarks: string;
    /** The account that recorded it on the ledger. */
    readonly user: string;
  }[];
  /** The report that this one supersedes, and the differences. */
  readonly supersedes: { readonly entry: number; readonly report: string; readonly differences: Differences } | null;
  readonly changes: ChangeList;
  readonly refused: readonly {
    readonly entry: number;
    readonly time: string;
    readonly environment: string;
    readonly actor: string;
    readonly what: string;
    readonly reason: string;
  }[];
};

/** The model in the form of `report.json`. */
export type ReportDocument = Omit<ReportModel, 'changes'> & { readonly changes: readonly ChangeRecord[] };

/** The changes of a report, in ledger order. */
export interface ChangeList extends Iterable<ChangeRecord> {
  readonly length: number;
  /** Ids, in ledger order. */
  readonly ids: readonly string[];
  /** Ids of the changes that were refused for a reason. */
  readonly refused: readonly string[];
  /** Yields the canonical JSON of each change (RFC 8785). */
  lines(): Generator<string>;
  /** Returns the changes that `ids` names, in that order. */
  of(ids: readonly string[]): ChangeRecord[];
  hasExceptions(id: string): boolean;
  /** Returns the changes that `isWanted` picks by id and position. Only they are read. */
  select(isWanted: (id: string, i: number) => boolean): ChangeRecord[];
}
