import { z } from 'zod';
import { canonicalJson } from './digest.ts';

// Fields in the order in which canonical JSON has them: what was checked is then already in order, and need not be put
// there.
function object<S extends z.core.$ZodLooseShape>(shape: S) {
  const fields = Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1));
  return z.strictObject(Object.fromEntries(fields) as S);
}

const text = z.string();
const count = z.int().nonnegative();
const index = z.int().nonnegative();
const objectRef = object({ apiVersion: text, kind: text, namespace: text, name: text });
/** Evidence too large for an entry, kept by its digest: canonical JSON whose SHA-256 is `sha256`. */
const evidence = object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size: count });
const environment = text;
/** What else is known of a request: a repeated one is recorded once and counted. */
const aboutRequest = {
  groups: z.array(text).optional(),
  subresource: text.optional(),
  /** `admissionDigest` of the object as it would have been. */
  digest: text.optional(),
  /** How many more times the same was asked and answered since the entry before. */
  repeated: count.optional(),
  /** The AdmissionReview’s. */
  uid: text.optional(),
  /** When it was decided, where the ledger could not be written at that moment. */
  at: text.optional(),
};

/** Every type of entry and its fields. `v` of an entry is the version of its type's schema; all are at 1. */
const SCHEMAS = {
  /** The first entry of a ledger. */
  'log.opened': object({ origin: text }),
  /** The ledger goes on under a new name after its store was put back to an older state. */
  'epoch.opened': object({
    origin: text,
    epoch: z.int().min(2),
    reason: text,
    /**
     * The newest checkpoint that is known of the epoch before, as a signed note; entries from this one's index up to
     * its size are lost.
     */
    previous: text,
  }),
  /** From here on checkpoints carry the new key's signature too. Both as verifier keys. */
  'key.rotated': object({ before: text, after: text }),
  /** From here on checkpoints without another key's signature do not count. */
  'key.retired': object({ key: text }),
  /**
   * A replica may hand entries over from here on: it holds the ledger's key, or may ask for its signatures, as its
   * statement shows.
   */
  'replica.enrolled': object({
    /** What it is named by: of the SHA-256 of its key. */
    replica: text,
    /** Its Ed25519 public key, in base64. */
    key: text,
    /** The statement, a note signed by the ledger's key. */
    statement: text,
  }),
  /**
   * What came to be recorded and was not: it was not authenticated, or cannot be true. At most once a minute for each
   * source.
   */
  'record.refused': object({
    source: z.enum(['outbox', 'write-ahead']),
    /** The replica that it was handed over by, or `unauthenticated`. */
    replica: text,
    reason: text,
    /** SHA-256 of the first of them, as it was found. */
    digest: text,
    /** How many there were since the entry before. */
    count: z.int().positive(),
  }),
  /**
   * Records that were kept beside the ledger are on it, or refused: those with these numbers. The next one follows on
   * `mac`.
   */
  'ahead.merged': object({ replica: text, first: index, last: index, mac: text }),
  /**
   * A personal text was erased from the table beside the entries. Neither it nor anything that it could be found by
   * stands here.
   */
  'subject.forgotten': object({
    /** Who asked, as the operating system says: a claim. */
    claimedBy: text,
    reason: text,
    /** How many commitments were to it, and the SHA-256 of all of them: their salts are gone with the text. */
    commitments: count,
    digest: text,
    /** Exceptions that were open and name them; only with another person's approval. */
    exceptions: z.array(text).optional(),
    /** The principal who approved it, and their signature over the statement of `docs/ledger-format.md`. */
    approvedBy: text.optional(),
    approval: text.optional(),
  }),
  'service.started': object({
    version: text,
    environments: z.array(text),
    configuration: text,
    /**
     * What the start found: entries on the ledger, and how many of them are newer than the anchor, so that their writer
     * may not have heard.
     */
    found: object({ entries: count, unanchored: count }).optional(),
  }),
  'service.stopped': object({ reason: text }),
  /** The service is alive. Where none stands for longer than twice `everySeconds`, it was away. */
  heartbeat: object({
    everySeconds: count,
    environments: z.array(object({ name: text, revision: text, state: text })),
  }),
  'config.changed': object({ before: text, after: text }),
  /**
   * Who governs what by the configuration that runs, and what is otherwise than at the statement before; at starts and
   * once a day.
   */
  'config.stated': object({ configuration: text, evidence }),
  /** The rules in force are others than at the last verdict. Digests of bundles. */
  'policy.changed': object({ environment, before: text, after: text }),
  /**
   * From here on the data key of a SOPS file, told apart by its fingerprint, opens for this object of the environment.
   */
  'secret.bound': object({ environment, key: text, object: text, file: text, revision: text }),
  /** The TrustPolicy in the repository that is in force once `revision` is applied. */
  'trust.changed': object({
    environment,
    revision: text,
    before: text,
    after: text,
    /** Index of the `change.judged` entry that allows it. */
    verdict: index,
    /** The whole TrustPolicy. */
    evidence,
  }),
  /** The branch is at another commit than at the last look. */
  'ref.advanced': object({ environment, ref: text, before: text, after: text }),
  /** The branch went back, or aside: the new commit does not descend from the one before. */
  'ref.rewound': object({ environment, ref: text, before: text, after: text }),
  /** Commits that were met for the first time; the time of this entry is when they were first seen. */
  'commits.seen': object({
    environment,
    ref: text,
    tip: text,
    count,
    /** Their ids. */
    evidence,
  }),
  /** History up to this commit is taken as it is, by `spec.source.baseline`. */
  'history.sealed': object({ environment, ref: text, commit: text, tree: text }),
  /**
   * The branch has not moved for longer than `spec.source.staleAfter`. `since` is when the tip was first seen; ISO
   * 8601.
   */
  'source.stale': object({ environment, tip: text, since: text }),
  /** A commit's signature counts, or why it does not; once for each outcome. */
  'commit.verified': object({ environment, commit: text, principal: text, key: text, format: text, payload: text }),
  'commit.refused': object({ environment, commit: text, code: text, payload: text }),
  'approval.recorded': object({
    environment,
    commit: text,
    tree: text,
    principal: text,
    key: text,
    class: text,
    /** SHA-256 of the envelope as stored. */
    envelope: text,
  }),
  'change.judged': object({
    environment,
    from: text,
    to: text,
    tree: text,
    outcome: z.enum(['allowed', 'denied']),
    violations: count,
    /** The whole `Verdict`. */
    evidence,
  }),
  /** A waiver let pass what would be a violation; once for each waiver and change. */
  'waiver.used': object({ environment, verdict: index, rule: text, waiver: text, approver: text, until: text }),
  /** An approved change goes back to an earlier commit. */
  'rollback.allowed': object({ environment, from: text, to: text, verdict: index }),
  'apply.intent': object({
    environment,
    revision: text,
    previous: text,
    /** Index of the `change.judged` entry that allows this. */
    verdict: z.int(),
    /**
     * `apply` a new revision, `restore` the last good one after a failure or an interruption, `correct` drift,
     * `rollback` as someone asked.
     */
    purpose: z.enum(['apply', 'restore', 'correct', 'rollback']),
    /**
     * Index of the earlier intent of the same run, when a change needs its namespaces or kinds to exist before the rest
     * can be dry-run.
     */
    continues: index.optional(),
    /** Index of the intent that an earlier run left without a good result, and that this one carries on or undoes. */
    takesOver: index.optional(),
    /** The `Plan`: what will be written and removed, and what of it cannot be undone. */
    evidence,
  }),
  'apply.result': object({
    environment,
    intent: index,
    /** The revision the environment is at now. */
    revision: text,
    outcome: z.enum(['applied', 'failed']),
    applied: count,
    pruned: count,
    error: text.optional(),
    /** Every object that was written became healthy before this was recorded. */
    healthy: z.literal(true).optional(),
    /** An `InventoryRecord`: what is owned now, whole or as the difference from the result that it names. */
    evidence,
  }),
  /** The cluster would not take an allowed revision; nothing was written. */
  'apply.refused': object({ environment, revision: text, verdict: z.int(), error: text }),
  'drift.found': object({
    environment,
    revision: text,
    objects: z.array(objectRef),
    /**
     * Of the first few: JSON pointers of the fields that differ (none where the object is missing), and which field
     * manager wrote last.
     */
    details: z
      .array(
        object({
          object: objectRef,
          fields: z.array(text),
          manager: text,
          at: text,
          /** The entry by which admission let somebody change it: who it was, and why, stands there. */
          admission: z.int().optional(),
        }),
      )
      .optional(),
  }),
  /** These keep coming back different: they are put right more and more seldom, until somebody finds out who it is. */
  'drift.contested': object({ environment, revision: text, objects: z.array(objectRef), managers: z.array(text) }),
  /** What `drift.found` named is as the revision has it again. `result` is the index of the `apply.result`. */
  'drift.corrected': object({ environment, revision: text, result: index, objects: z.array(objectRef) }),
  /** Requests that were let through, several at a time: how many, from when to when. */
  'admission.allowed': object({
    environment,
    from: text,
    to: text,
    count,
    /** The `AdmittedRequest`s. */
    evidence,
  }),
  /** A request that `enforce` would refuse, let through with a warning. */
  'admission.warned': object({
    environment,
    user: text,
    operation: text,
    object: objectRef,
    reason: text,
    ...aboutRequest,
  }),
  'admission.denied': object({
    environment,
    user: text,
    operation: text,
    object: objectRef,
    mode: z.enum(['enforce', 'audit']),
    reason: text,
    ...aboutRequest,
  }),
  /** Members of the break-glass groups may write in these namespaces until then. */
  'breakglass.opened': object({
    environment,
    user: text,
    reason: text,
    ticket: text,
    until: text,
    namespaces: z.array(text).optional(),
    uid: text.optional(),
    at: text.optional(),
  }),
  /** A grant was given back before its time. */
  'breakglass.closed': object({
    environment,
    user: text,
    namespaces: z.array(text),
    uid: text.optional(),
    at: text.optional(),
  }),
  'breakglass.used': object({
    environment,
    user: text,
    operation: text,
    object: objectRef,
    reason: text,
    /** Until when the object is left as it was made; ISO 8601. */
    until: text,
    ...aboutRequest,
  }),
  'breakglass.settled': object({
    environment,
    uses: z.array(index),
    user: text,
    reason: text,
    commit: text.optional(),
  }),
  /** Someone asks for an earlier revision; `tip` is not applied again, a newer commit is. */
  'rollback.requested': object({ environment, from: text, to: text, tip: text, user: text, reason: text }),
  'reconcile.requested': object({ environment, user: text, reason: text }),
  /** A change waits for a window, or passes a closed one by an approval that says so. */
  'window.closed': object({ environment, revision: text, window: text, until: text }),
  'window.overridden': object({ environment, revision: text, window: text, principal: text, reason: text }),
  'environment.suspended': object({ environment, user: text, reason: text }),
  'environment.resumed': object({ environment, user: text, reason: text }),
  /**
   * Everything in an environment's namespaces was judged by the rules in force; recorded when the result is another,
   * and once a day.
   */
  'cluster.scanned': object({
    environment,
    revision: text,
    /** Digest of the bundles. */
    bundle: text,
    objects: count,
    unmanaged: count,
    violations: count,
    waived: count,
    /** The `Scan`: what no commit has, and what the rules deny. */
    evidence,
  }),
  /** Somebody changed or removed what keeps the gate in the API server’s path, and it was put back. */
  'protection.changed': object({ object: objectRef, change: z.enum(['changed', 'removed']), manager: text }),
  /** The API server refused an attempt on the gate’s own configuration; by its audit log. */
  'protection.refused': object({ auditId: text, user: text, verb: text, resource: text, name: text, at: text }),
  /** Somebody says what became of an exception of a report; the newest one counts. */
  'exception.settled': object({
    environment,
    /** Its id in the register: `E` and the index of its entry, with a number where an entry has several. */
    exception: z.string().regex(/^E\d+(\.\d+)?$/),
    disposition: z.enum(['accepted', 'remediated', 'false-positive']),
    user: text,
    reason: text,
    ticket: text.optional(),
    /** Where evidence of it is. */
    link: text.optional(),
  }),
  /** Somebody is to see to an exception; the newest one counts. */
  'exception.assigned': object({
    environment,
    exception: z.string().regex(/^E\d+(\.\d+)?$/),
    owner: text,
    user: text,
    reason: text,
  }),
  /** A report of a period was made: its id, the SHA-256 of its manifest, and the size of its checkpoint. */
  'report.issued': object({
    report: text,
    from: text,
    to: text,
    manifest: text,
    checkpoint: count,
    /** The auditor's draw, so that nobody draws again unnoticed. */
    sample: object({ seed: text, size: count }).optional(),
    /** The newest report of the same period before it. */
    supersedes: index.optional(),
    /** The ReportSchedule that it was made for, its version, and the names of the places it goes to. */
    schedule: text.optional(),
    version: count.optional(),
    deliver: z.array(text).optional(),
  }),
  /** Somebody answers for a report: who, as what, and what they say of it. */
  'report.reviewed': object({ report: text, name: text, role: text, remarks: text, user: text }),
  /**
   * What became of bringing a report to a place that its schedule names. `failed` is tried further, and may be followed
   * by `delivered`.
   */
  'report.delivered': object({
    issued: index,
    to: text,
    kind: z.enum(['directory', 's3', 'email', 'webhook', 'cluster']),
    outcome: z.enum(['delivered', 'failed']),
    attempts: count,
    error: text.optional(),
  }),
  /** A report of a period that was due could not be made. Once for each reason. */
  'report.failed': object({ schedule: text, from: text, to: text, error: text }),
  /** A checkpoint was kept outside of the store. */
  'checkpoint.anchored': object({ anchor: text, size: count, root: text }),
  /**
   * What the API server's own audit log shows of an interval, by the times in it: how many writes there were, and what
   * accounts for each: an intent, break-glass, another entry about that request, or the configured list of controllers.
   */
  'audit.covered': object({
    environment,
    from: text,
    to: text,
    events: count,
    intents: count,
    breakglass: count,
    recorded: count,
    controllers: count,
    unmatched: count,
  }),
  /** A write that the API server's audit log shows and that nothing on the ledger accounts for. */
  'audit.unmatched': object({
    environment,
    auditId: text,
    user: text,
    verb: text,
    resource: text,
    object: object({ namespace: text, name: text, subresource: text }),
    at: text,
  }),
} as const;

type Schemas = typeof SCHEMAS;
export type EntryType = keyof Schemas;

type DeepReadonly<T> = T extends readonly (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** One record on the ledger as its writer gives it; `v` and `time` are added when it is recorded. */
export type EntryBody = { [T in EntryType]: { readonly type: T } & DeepReadonly<z.infer<Schemas[T]>> }[EntryType];
export type Entry = EntryBody & { readonly v: 1; readonly time: string };
export type EntryOf<T extends EntryType> = Extract<Entry, { type: T }>;
export type EvidenceRef = DeepReadonly<z.infer<typeof evidence>>;

/** An entry and its place on the ledger. */
export type Recorded<E extends Entry = Entry> = { readonly index: number; readonly entry: E };

/** The types of entries, in the order of `docs/ledger-format.md`. */
export const ENTRY_TYPES = Object.keys(SCHEMAS) as EntryType[];

const WHOLE = new Map(
  Object.entries(SCHEMAS).map(([type, { shape }]) => [
    type,
    object({ ...shape, time: text, type: z.literal(type), v: z.literal(1) }),
  ]),
);

/**
 * Checks an entry and spells it in canonical JSON (RFC 8785), both at once. A TypeError says what does not fit its
 * type's schema, or that the type is not known.
 */
export function spellEntry(entry: Entry): string {
  const schema = WHOLE.get(entry.type);
  if (schema === undefined) throw new TypeError(`there is no type \`${entry.type}\``);
  const { data, error } = schema.safeParse(entry);
  if (error !== undefined) throw new TypeError(problemOf(entry.type, error));
  const spelled = JSON.stringify(data);
  // The only escape that begins so is half a surrogate pair, which canonical JSON has not: that is the library's to
  // refuse.
  return spelled.includes('\\ud') ? canonicalJson(data) : spelled;
}

/** What is wrong with an entry as its type's schema has it, or undefined. A type that is not known is wrong too. */
export function entryProblem({
  type,
  ...fields
}: {
  readonly type: string;
  readonly [field: string]: unknown;
}): string | undefined {
  const schema = Object.hasOwn(SCHEMAS, type) ? SCHEMAS[type as EntryType] : undefined;
  if (schema === undefined) return `there is no type \`${type}\``;
  const { error } = schema.safeParse(fields);
  return error === undefined ? undefined : problemOf(type, error);
}

function problemOf(type: string, { issues: [issue] }: z.ZodError): string {
  return `${issue?.path.join('.') || type}: ${issue?.message}`;
}

/** Bytes of an entry at most: C2SP tlog-tiles writes its length in 16 bits. */
export const MAX_ENTRY = 65_535;
