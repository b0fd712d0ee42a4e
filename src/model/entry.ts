import { z } from 'zod';
import { canonicalJson } from './digest.ts';
import { HOOK_PHASES } from './placement.ts';

// Fields in the order of canonical JSON: parsed data is then already sorted.
function object<S extends z.core.$ZodLooseShape>(shape: S) {
  const fields = Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1));
  return z.strictObject(Object.fromEntries(fields) as S);
}

const text = z.string();
const count = z.int().nonnegative();
const index = z.int().nonnegative();
const objectRef = object({ apiVersion: text, kind: text, namespace: text, name: text });
/** Evidence too large for an entry, stored by its digest: canonical JSON whose SHA-256 is `sha256`. */
const evidence = object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size: count });
const environment = text;
/** Further facts about a request; a repeated one is recorded once and counted. */
const aboutRequest = {
  groups: z.array(text).optional(),
  subresource: text.optional(),
  /** `admissionDigest` of the resulting object. */
  digest: text.optional(),
  /** How many more times the same request was answered since the previous entry. */
  repeated: count.optional(),
  /** The uid of the AdmissionReview. */
  uid: text.optional(),
  /** When it was decided, if the ledger could not be written at that moment. */
  at: text.optional(),
};

/** Every type of entry and its fields. `v` of an entry is the version of its type's schema; all are at 1. */
const SCHEMAS = {
  /** The first entry of a ledger. */
  'log.opened': object({ origin: text }),
  /** The ledger continues under a new name after its store was rolled back to an older state. */
  'epoch.opened': object({
    origin: text,
    epoch: z.int().min(2),
    reason: text,
    /**
     * The newest known checkpoint of the previous epoch, as a signed note. Entries from this one's index up to its size
     * are lost.
     */
    previous: text,
    /** Who asked for it; a claim. */
    claimedBy: text.optional(),
    /** About how many entries are lost that no checkpoint covers; a claim. */
    claimedLost: count.optional(),
  }),
  /** From here on checkpoints also carry the new key's signature. Both as verifier keys. */
  'key.rotated': object({ before: text, after: text }),
  /** From here on, checkpoints do not count without a signature by another key. */
  'key.retired': object({ key: text }),
  /**
   * A replica may hand over entries from here on: its statement shows that it has the ledger's key, or may request its
   * signatures.
   */
  'replica.enrolled': object({
    /** Its name: part of the SHA-256 of its key. */
    replica: text,
    /** Its Ed25519 public key, in base64. */
    key: text,
    /** The statement, a note signed by the ledger's key. */
    statement: text,
  }),
  /** Records that were refused: not authenticated, or impossible. At most once a minute per source. */
  'record.refused': object({
    source: z.enum(['outbox', 'write-ahead']),
    /** The replica that handed it over, or `unauthenticated`. */
    replica: text,
    reason: text,
    /** SHA-256 of the first of them, as it was found. */
    digest: text,
    /** Their number since the previous entry. */
    count: z.int().positive(),
  }),
  /** Records that could be written neither to the ledger nor beside it. Their requests were refused. */
  'records.missing': object({
    replica: text,
    count: z.int().positive(),
    /** Time of the first and of the last of them. */
    since: text,
    until: text,
    reason: text,
  }),
  /** The write-ahead records with these numbers are on the ledger or were refused. The next one follows `mac`. */
  'ahead.merged': object({ replica: text, first: index, last: index, mac: text }),
  /**
   * A personal text was erased from the table beside the entries. This entry contains neither the text nor anything it
   * could be found by.
   */
  'subject.forgotten': object({
    /** The requester according to the operating system: a claim. */
    claimedBy: text,
    reason: text,
    /** The number of commitments to it, and the SHA-256 of all of them: their salts were erased with the text. */
    commitments: count,
    digest: text,
    /** Open exceptions that name them; only with another person's approval. */
    exceptions: z.array(text).optional(),
    /** The approving principal, and their signature over the statement in `docs/ledger-format.md`. */
    approvedBy: text.optional(),
    approval: text.optional(),
  }),
  /**
   * Bulky content that is old was moved out of the store into a file. What stays in place of each entry is its leaf
   * hash, time, type and environment.
   */
  'segment.archived': object({
    /** Who asked, according to the operating system: a claim. */
    user: text,
    /** Everything moved is older than this; ISO 8601. */
    before: text,
    /** The first and the last entry moved, and their number. Entries in between that are still needed stay. */
    first: index,
    last: index,
    entries: z.int().positive(),
    /** The number of pieces of evidence in the file. */
    pieces: count,
    /** SHA-256 of what stays: a line `INDEX TIME TYPE ENVIRONMENT` for each entry moved. */
    stays: text,
    /** The file, the directory it was put into, its SHA-256 and its size in bytes. */
    file: z.string().regex(/^segment-[0-9a-f-]+\.db$/),
    place: text,
    sha256: text,
    bytes: count,
  }),
  'service.started': object({
    version: text,
    environments: z.array(text),
    configuration: text,
    /**
     * Ledger state at the start: the number of entries, and how many are newer than the anchor, so that their writer
     * may not have been notified.
     */
    found: object({ entries: count, unanchored: count }).optional(),
  }),
  'service.stopped': object({ reason: text }),
  /** The service is alive. A gap of more than twice `everySeconds` means that it was away. */
  heartbeat: object({
    everySeconds: count,
    environments: z.array(
      object({
        name: text,
        revision: text,
        state: text,
        /** For how long this replica and its predecessors observed the revision in health; only of loops that run. */
        healthySeconds: count.optional(),
      }),
    ),
  }),
  'config.changed': object({ before: text, after: text }),
  /**
   * Environments and their owners in the running configuration, and the changes since the previous statement; at starts
   * and once a day.
   */
  'config.stated': object({ configuration: text, evidence }),
  /** The rules in force changed since the last verdict. Digests of bundles. */
  'policy.changed': object({ environment, before: text, after: text }),
  /**
   * From here on, the data key of a SOPS file, identified by its fingerprint, decrypts for this object of the
   * environment.
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
  /** The branch moved to a different commit since the last check. */
  'ref.advanced': object({ environment, ref: text, before: text, after: text }),
  /** The branch went back or sideways: the new commit does not descend from the previous one. */
  'ref.rewound': object({ environment, ref: text, before: text, after: text }),
  /** Commits seen for the first time; the time of this entry is when they were first seen. */
  'commits.seen': object({
    environment,
    ref: text,
    tip: text,
    count,
    /** Their ids. */
    evidence,
  }),
  /** History up to this commit is accepted as it is, by `spec.source.baseline`. */
  'history.sealed': object({ environment, ref: text, commit: text, tree: text }),
  /**
   * The branch has not moved for longer than `spec.source.staleAfter`. `since` is when the tip was first seen; ISO
   * 8601.
   */
  'source.stale': object({ environment, tip: text, since: text }),
  /** Whether a commit's signature counts, and if not, why; once per outcome. */
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
  /** A waiver covered a violation; once per waiver and change. */
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
     * `rollback` on request.
     */
    purpose: z.enum(['apply', 'restore', 'correct', 'rollback']),
    /**
     * Index of the earlier intent of the same run, if a change needs its namespaces or kinds to exist before the rest
     * can be dry-run.
     */
    continues: index.optional(),
    /** Index of the intent that an earlier run left without a good result, and that this one continues or undoes. */
    takesOver: index.optional(),
    /** The `Plan`: the objects to write and remove, and the irreversible actions among them. */
    evidence,
  }),
  'apply.result': object({
    environment,
    intent: index,
    /** The current revision of the environment. */
    revision: text,
    outcome: z.enum(['applied', 'failed']),
    applied: count,
    pruned: count,
    error: text.optional(),
    /** Every written object became healthy before this was recorded. */
    healthy: z.literal(true).optional(),
    /** An `InventoryRecord`: the objects owned now, completely or as the difference from the result it names. */
    evidence,
  }),
  /** The cluster refused an allowed revision; nothing was written. */
  'apply.refused': object({ environment, revision: text, verdict: z.int(), error: text }),
  /** A hook was made: from here on, its effects cannot be undone. */
  'hook.started': object({
    environment,
    intent: index,
    revision: text,
    object: objectRef,
    phase: z.enum(HOOK_PHASES),
    /** The uid of the object; empty if it was gone at once. */
    uid: text,
  }),
  'hook.ended': object({
    environment,
    /** Index of the `hook.started` entry. */
    started: index,
    object: objectRef,
    phase: z.enum(HOOK_PHASES),
    outcome: z.enum(['succeeded', 'failed']),
    error: text.optional(),
  }),
  'drift.found': object({
    environment,
    revision: text,
    objects: z.array(objectRef),
    /**
     * For the first few: JSON pointers of the fields that differ (none if the object is missing), and the field manager
     * that wrote last.
     */
    details: z
      .array(
        object({
          object: objectRef,
          fields: z.array(text),
          manager: text,
          at: text,
          /** The entry by which admission allowed the change, with the user and the reason. */
          admission: z.int().optional(),
        }),
      )
      .optional(),
  }),
  /** These keep changing: they are reverted with increasing back-off, until someone finds the cause. */
  'drift.contested': object({ environment, revision: text, objects: z.array(objectRef), managers: z.array(text) }),
  /** Objects named by `drift.found` match the revision again. `result` is the index of the `apply.result`. */
  /** Objects that still differ from Git after they were reverted. */
  'drift.remains': object({
    environment,
    revision: text,
    /** Index of the `apply.result` after which they differ. */
    result: index,
    objects: z.array(objectRef),
    /** JSON pointers, for the first objects. */
    details: z.array(object({ object: objectRef, fields: z.array(text) })),
  }),
  'drift.corrected': object({ environment, revision: text, result: index, objects: z.array(objectRef) }),
  /** Allowed requests, several at a time: their number, and the first and last time. */
  'admission.allowed': object({
    environment,
    from: text,
    to: text,
    count,
    /** The `AdmittedRequest`s. */
    evidence,
  }),
  /**
   * Writes of the cluster's machinery that follow from what is approved by their content, of a minute or so: their
   * number, and the first and last time.
   */
  'admission.proven': object({
    environment,
    from: text,
    to: text,
    count,
    /** The `ProvenWrites`. */
    evidence,
  }),
  /**
   * Objects that are as the gate let a declared controller or operator write them, once a day. Writes up to the entry
   * `covers` (`admission.allowed`) are accounted for by it.
   */
  'admission.standing': object({
    environment,
    count,
    covers: index.optional(),
    /** The `StandingContent`s. */
    evidence,
  }),
  /** A request that `enforce` would refuse, allowed with a warning. */
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
    /** Number of approvals that it needs; none if it is missing. */
    approvals: z.int().min(0).optional(),
    uid: text.optional(),
    at: text.optional(),
  }),
  /** A second person approved what was opened in these namespaces for this reason. */
  'breakglass.approved': object({
    environment,
    user: text,
    reason: text,
    namespaces: z.array(text),
    uid: text.optional(),
    at: text.optional(),
  }),
  /**
   * The API server does not have what a request to the webhook announced: the request was forged, or the write failed
   * after it was answered. It has no effect.
   */
  'breakglass.unconfirmed': object({
    environment,
    /** Index of the `breakglass.opened`, `breakglass.approved` or `breakglass.closed` entry. */
    of: index,
    namespaces: z.array(text),
  }),
  /** A grant was returned early. */
  'breakglass.closed': object({
    environment,
    user: text,
    namespaces: z.array(text),
    uid: text.optional(),
    at: text.optional(),
  }),
  /** A request whose use of break-glass was recorded was refused all the same: its answer came too late. */
  'breakglass.refused': object({
    environment,
    uid: text,
    /** The `use` of the `breakglass.used` entry. */
    use: text,
    object: objectRef,
    at: text.optional(),
  }),
  'breakglass.used': object({
    environment,
    user: text,
    operation: text,
    object: objectRef,
    reason: text,
    /** Until when the object is left unchanged; ISO 8601. */
    until: text,
    /** Names this use alone. */
    use: text.optional(),
    /** Digest of the template in it: until then, controllers may make pods from it. */
    template: text.optional(),
    /** `contentDigest` of what it wrote: only this is left unchanged. */
    content: text.optional(),
    /** The uid of the object that it created. */
    made: text.optional(),
    ...aboutRequest,
  }),
  'breakglass.settled': object({
    environment,
    uses: z.array(index),
    user: text,
    reason: text,
    commit: text.optional(),
  }),
  /** Someone requests an earlier revision. `tip` is not applied again, but a newer commit is. */
  'rollback.requested': object({ environment, from: text, to: text, tip: text, user: text, reason: text }),
  'reconcile.requested': object({ environment, user: text, reason: text }),
  /** A change waits for a window, or passes a closed one through an approval that says so. */
  'window.closed': object({ environment, revision: text, window: text, until: text }),
  'window.overridden': object({ environment, revision: text, window: text, principal: text, reason: text }),
  'environment.suspended': object({ environment, user: text, reason: text }),
  'environment.resumed': object({ environment, user: text, reason: text }),
  /**
   * Everything in an environment's namespaces was judged by the rules in force; recorded when the result changes, and
   * once a day.
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
    /** The `Scan`: objects that are in no commit, and objects that the rules deny. */
    evidence,
  }),
  /**
   * An object in a governed namespace does not follow from what is approved: a pod, or what makes pods, is not what its
   * approved template gives; an object of another kind is in no commit. `since` is when it was made (ISO 8601).
   */
  'content.unproven': object({
    environment,
    object: objectRef,
    uid: text,
    /** Which fields differ, or why nothing explains it. */
    reason: text,
    /** The first field manager: the name that its writer gave itself. */
    manager: text,
    since: text,
  }),
  /** Such an object is gone or proven now, was scaled to zero, or is unproven for a different reason. */
  'content.resolved': object({
    environment,
    object: objectRef,
    /** Index of its `content.unproven` entry. */
    found: index,
    how: z.enum(['proven or gone', 'idle', 'changed']),
  }),
  /** Someone changed or removed an object that keeps the gate in the API server’s path, and it was restored. */
  'protection.changed': object({ object: objectRef, change: z.enum(['changed', 'removed']), manager: text }),
  /** The API server refused a write to the gate’s own configuration, according to its audit log. */
  'protection.refused': object({
    auditId: text,
    user: text,
    /** Who sent it under that name, if it was impersonated. */
    impersonator: text.optional(),
    verb: text,
    resource: text,
    name: text,
    at: text,
  }),
  /** Someone states the outcome of an exception of a report; the newest statement counts. */
  'exception.settled': object({
    environment,
    /** Its id in the register: `E` and the index of its entry, with a number if an entry has several. */
    exception: z.string().regex(/^E\d+(\.\d+)?$/),
    disposition: z.enum(['accepted', 'remediated', 'false-positive']),
    user: text,
    reason: text,
    ticket: text.optional(),
    /** Location of the evidence. */
    link: text.optional(),
  }),
  /** Someone is assigned to an exception; the newest assignment counts. */
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
    /** The auditor's sample, so that no one can draw again unnoticed. */
    sample: object({ seed: text, size: count }).optional(),
    /** The previous report of the same period. */
    supersedes: index.optional(),
    /** The ReportSchedule it was made for, its version, and the names of its destinations. */
    schedule: text.optional(),
    version: count.optional(),
    deliver: z.array(text).optional(),
  }),
  /** Someone signs off a report: name, role and remarks. */
  'report.reviewed': object({ report: text, name: text, role: text, remarks: text, user: text }),
  /**
   * Result of delivering a report to a destination of its schedule. `failed` is retried, and may be followed by
   * `delivered`.
   */
  'report.delivered': object({
    issued: index,
    to: text,
    kind: z.enum(['directory', 's3', 'email', 'webhook', 'cluster']),
    outcome: z.enum(['delivered', 'failed']),
    attempts: count,
    error: text.optional(),
  }),
  /** A due report could not be made. Once per reason. */
  'report.failed': object({ schedule: text, from: text, to: text, error: text }),
  /** A checkpoint was stored outside the store. */
  'checkpoint.anchored': object({ anchor: text, size: count, root: text }),
  /**
   * Content of the API server's own audit log for an interval, by the times in it. It counts the writes, and what
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
  /** A write in the API server's audit log that nothing on the ledger accounts for. */
  'audit.unmatched': object({
    environment,
    auditId: text,
    user: text,
    /** Who sent it under that name, if it was impersonated. */
    impersonator: text.optional(),
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

/** One record on the ledger as given by its writer; `v` and `time` are added when it is recorded. */
export type EntryBody = { [T in EntryType]: { readonly type: T } & DeepReadonly<z.infer<Schemas[T]>> }[EntryType];
export type Entry = EntryBody & { readonly v: 1; readonly time: string };
export type EntryOf<T extends EntryType> = Extract<Entry, { type: T }>;
export type EvidenceRef = DeepReadonly<z.infer<typeof evidence>>;

/** An entry and its position on the ledger. */
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
 * Checks an entry and writes it as canonical JSON (RFC 8785) in one step. Throws a TypeError if it does not fit its
 * type's schema, or if the type is unknown.
 */
export function spellEntry(entry: Entry): string {
  const schema = WHOLE.get(entry.type);
  if (schema === undefined) throw new TypeError(`unknown type \`${entry.type}\``);
  const { data, error } = schema.safeParse(entry);
  if (error !== undefined) throw new TypeError(problemOf(entry.type, error));
  const spelled = JSON.stringify(data);
  // This escape only begins half a surrogate pair, which canonical JSON does not allow: the library refuses it.
  return spelled.includes('\\ud') ? canonicalJson(data) : spelled;
}

/** Returns the problem with an entry by its type's schema, or undefined. An unknown type is a problem too. */
export function entryProblem({
  type,
  ...fields
}: {
  readonly type: string;
  readonly [field: string]: unknown;
}): string | undefined {
  const schema = Object.hasOwn(SCHEMAS, type) ? SCHEMAS[type as EntryType] : undefined;
  if (schema === undefined) return `unknown type \`${type}\``;
  const { error } = schema.safeParse(fields);
  return error === undefined ? undefined : problemOf(type, error);
}

function problemOf(type: string, { issues: [issue] }: z.ZodError): string {
  return `${issue?.path.join('.') || type}: ${issue?.message}`;
}

/** Maximum bytes of an entry: C2SP tlog-tiles writes its length in 16 bits. */
export const MAX_ENTRY = 65_535;
