import { CountersignError, canonicalJson, type Entry, entryProblem, MAX_ENTRY, sha256 } from '../model/index.ts';
import type { Verifier } from './note.ts';
import type { OutboxRow } from './postgres.ts';
import { type Bounds, type Known, referenceProblem } from './references.ts';
import { type HandedClaim, isSignedBy, openEnrolment, type ReplicaKey, signHanded } from './replica-key.ts';
import { type Batch, isOpened, type PreparedEntry, type Subject } from './store.ts';

/** What one replica hands over to the one that sequences. */
export type Handed = Pick<Batch, 'evidence' | 'subjects'> & {
  readonly entries: readonly Omit<PreparedEntry, 'leaf'>[];
};

/** The term of the replica that sequences: rows count once, and only those that were signed for it. */
export type Term = {
  readonly nonce: string;
  readonly since: number;
  /**
   * The newest counter that was taken, by replica and run. It is in memory only: nobody who writes to the database can
   * set it back.
   */
  readonly taken: Map<string, number>;
};

/** What a row turned out to be. */
export type Judged =
  | {
      readonly kind: 'batch';
      readonly id: string;
      readonly batch: Handed;
      readonly who: string;
      readonly counter: number;
    }
  | {
      readonly kind: 'enrolment';
      readonly id: string;
      readonly replica: string;
      readonly key: string;
      readonly statement: string;
    }
  | { readonly kind: 'early'; readonly id: string }
  | {
      readonly kind: 'refused';
      readonly id: string;
      readonly replica: string;
      readonly reason: string;
      readonly digest: string;
    };

export const UNAUTHENTICATED = 'unauthenticated';
// A row that was signed for the term before is taken back by its replica; until then it is nobody's fault.
const EARLIER_TERM_MS = 10_000;
// These say under whose name and by whose key the ledger goes on. Only the one who signs it says so.
const OWN_WORDS = /^(?:log|epoch|key|replica)\./;

export type JudgeParts = {
  readonly origin: string;
  readonly term: Term;
  readonly keys: readonly Verifier[];
  /** The public key of a replica that is enrolled. */
  readonly enrolled: (replica: string) => string | undefined;
  readonly known: Known;
  readonly bounds: Bounds;
};

/** The content of a row: the batch as bytes, and the replica's signature over it, its place and its term. */
export function signedRow(
  id: string,
  handed: Handed,
  at: Pick<HandedClaim, 'origin' | 'term' | 'counter'>,
  key: ReplicaKey,
): object {
  const subjects = handed.subjects.map((s) => ({ ...s, salt: Buffer.from(s.salt).toString('hex') }));
  const { entries, evidence } = handed;
  const batch = canonicalJson({
    entries: entries.map(({ body, type, environment }) => ({ body, type, environment })),
    evidence,
    subjects,
  });
  const claim = { ...at, run: key.run, id, replica: key.id, batch };
  return {
    replica: key.id,
    run: key.run,
    counter: at.counter,
    term: at.term,
    batch,
    signature: signHanded(claim, key),
  };
}

/** Decides what a row is. Nothing in it is used before its signature is known to be that of an enrolled replica. */
export function judgeRow({ id, content }: OutboxRow, parts: JudgeParts): Judged {
  const digest = sha256(JSON.stringify(content ?? null));
  const refused = (replica: string, reason: string): Judged => ({ kind: 'refused', id, replica, reason, digest });
  const row = (content ?? {}) as Record<string, unknown>;
  if (typeof row['enrolment'] === 'string') {
    const enrolment = openEnrolment(row['enrolment'], parts.origin, parts.keys);
    if (enrolment === undefined)
      return refused(UNAUTHENTICATED, 'its statement of enrolment is not signed by this ledger’s key');
    return { kind: 'enrolment', id, ...enrolment, statement: row['enrolment'] };
  }
  const { replica, run, term, counter, batch, signature } = row;
  if (![replica, run, term, batch, signature].every((v) => typeof v === 'string') || !Number.isSafeInteger(counter))
    return refused(UNAUTHENTICATED, 'it is not signed');
  const claim = {
    origin: parts.origin,
    id,
    ...(row as Pick<HandedClaim, 'replica' | 'run' | 'term' | 'counter' | 'batch'>),
  };
  const key = parts.enrolled(claim.replica);
  if (key === undefined) return refused(UNAUTHENTICATED, 'it is signed by no replica that is enrolled');
  if (!isSignedBy(key, claim, signature as string))
    return refused(UNAUTHENTICATED, 'its signature is not that of the replica it names');
  return judgeSigned(claim, parts, refused);
}

function judgeSigned(
  claim: HandedClaim,
  parts: JudgeParts,
  refused: (replica: string, reason: string) => Judged,
): Judged {
  const { id, replica } = claim;
  const { term, bounds } = parts;
  if (claim.term !== term.nonce)
    return bounds.now - term.since < EARLIER_TERM_MS
      ? { kind: 'early', id }
      : refused(replica, 'it was signed for an earlier term');
  const who = `${replica} ${claim.run}`;
  if (claim.counter <= (term.taken.get(who) ?? 0)) return refused(replica, 'it was handed over before');
  const read = readHanded(claim.batch);
  if (read === undefined) return refused(replica, 'it is not a batch of entries');
  const problem = batchProblem(read, parts.known, bounds);
  if (problem !== undefined) return refused(replica, problem);
  return { kind: 'batch', id, batch: read, who, counter: claim.counter };
}

function readHanded(text: string): Handed | undefined {
  try {
    const { entries, evidence, subjects } = JSON.parse(text) as Record<string, unknown>;
    const isText = (value: unknown, ...fields: readonly string[]) =>
      fields.every((f) => typeof (value as Record<string, unknown>)?.[f] === 'string');
    if (!Array.isArray(entries) || !Array.isArray(evidence) || !Array.isArray(subjects) || entries.length === 0)
      return undefined;
    if (!entries.every((e) => isText(e, 'body', 'type', 'environment'))) return undefined;
    if (!evidence.every((e) => isText(e, 'sha256', 'bytes'))) return undefined;
    if (!subjects.every((s) => isText(s, 'commitment', 'salt', 'text'))) return undefined;
    return { entries, evidence, subjects: subjects.map((s): Subject => ({ ...s, salt: Buffer.from(s.salt, 'hex') })) };
  } catch {
    return undefined;
  }
}

function batchProblem({ entries, evidence, subjects }: Handed, known: Known, bounds: Bounds): string | undefined {
  if (!evidence.every(isEvidence)) return 'evidence in it has another digest than it says';
  if (!subjects.every(isOpened)) return 'a commitment in it is not to the text that it comes with';
  const given = new Set(evidence.map((e) => e.sha256));
  const withGiven: Known = {
    size: known.size,
    entry: (index) => known.entry(index),
    hasEvidence: (digest) => given.has(digest) || known.hasEvidence(digest),
  };
  for (const entry of entries) {
    const problem = handedProblem(entry, withGiven, bounds);
    if (problem !== undefined) return `entry of type \`${entry.type.slice(0, 50)}\`: ${problem.slice(0, 300)}`;
  }
  return undefined;
}

function isEvidence({ sha256: digest, bytes }: { readonly sha256: string; readonly bytes: string }): boolean {
  try {
    return sha256(bytes) === digest && canonicalJson(JSON.parse(bytes)) === bytes;
  } catch {
    return false;
  }
}

function handedProblem(
  { body, type, environment }: Handed['entries'][number],
  known: Known,
  bounds: Bounds,
): string | undefined {
  if (Buffer.byteLength(body) > MAX_ENTRY) return `it is larger than ${MAX_ENTRY} bytes`;
  if (OWN_WORDS.test(type)) return 'only the service that signs the ledger records this type';
  try {
    const entry = JSON.parse(body) as Entry;
    const { v, time, ...fields } = entry as unknown as Record<string, unknown> & { type: string };
    if (v !== 1 || typeof time !== 'string') return 'it has no version or time';
    if (fields.type !== type || ((fields as { environment?: string }).environment ?? '') !== environment)
      return 'it is filed under a type or environment that is not its own';
    return entryProblem(fields) ?? referenceProblem(entry, known, bounds);
  } catch (thrown) {
    if (thrown instanceof CountersignError) throw thrown;
    return 'it is not JSON';
  }
}
