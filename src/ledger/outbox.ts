import { CountersignError, canonicalJson, type Entry, entryProblem, MAX_ENTRY, sha256 } from '../model/index.ts';
import type { Verifier } from './note.ts';
import type { OutboxRow } from './postgres.ts';
import { type Bounds, type Known, referenceProblem } from './references.ts';
import { type HandedClaim, isSignedBy, openEnrolment, type ReplicaKey, signHanded } from './replica-key.ts';
import { type Batch, isOpened, type PreparedEntry, type Subject } from './store.ts';

/** A batch that one replica hands over to the leader. */
export type Handed = Pick<Batch, 'evidence' | 'subjects'> & {
  readonly entries: readonly Omit<PreparedEntry, 'leaf'>[];
};

/** Term of the leader. A row counts once, and only if it was signed for this term. */
export type Term = {
  readonly nonce: string;
  readonly since: number;
  /**
   * The newest counter taken, by replica and run. It is only in memory, so no one who can write to the database can
   * reset it.
   */
  readonly taken: Map<string, number>;
};

/** Result of examining a row. */
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
// A replica takes back a row signed for the previous term. Until then the row is not an error.
const EARLIER_TERM_MS = 10_000;
// These entries say under which name and key the ledger continues. Only the signing service may record them.
const OWN_WORDS = /^(?:log|epoch|key|replica|segment)\./;

export type JudgeParts = {
  readonly origin: string;
  readonly term: Term;
  readonly keys: readonly Verifier[];
  /** Returns the public key of an enrolled replica. */
  readonly enrolled: (replica: string) => string | undefined;
  readonly known: Known;
  readonly bounds: Bounds;
};

/**
 * Returns the content of a row: the batch as bytes, and the replica's signature over the batch, its place and its term.
 */
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

/** Classifies a row. Nothing in it is used before its signature is known to be an enrolled replica's. */
export function judgeRow({ id, content }: OutboxRow, parts: JudgeParts): Judged {
  const digest = sha256(JSON.stringify(content ?? null));
  const refused = (replica: string, reason: string): Judged => ({ kind: 'refused', id, replica, reason, digest });
  const row = (content ?? {}) as Record<string, unknown>;
  if (typeof row['enrolment'] === 'string') {
    const enrolment = openEnrolment(row['enrolment'], parts.origin, parts.keys);
    if (enrolment === undefined)
      return refused(UNAUTHENTICATED, 'its enrolment statement is not signed by this ledger’s key');
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
  if (key === undefined) return refused(UNAUTHENTICATED, 'the replica that signed it is not enrolled');
  if (!isSignedBy(key, claim, signature as string))
    return refused(UNAUTHENTICATED, 'its signature is not by the replica it names');
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
  if (claim.counter <= (term.taken.get(who) ?? 0)) return refused(replica, 'it was already handed over');
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
  if (!evidence.every(isEvidence)) return 'evidence in it does not match its digest';
  if (!subjects.every(isOpened)) return 'a commitment in it does not match its text';
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
    if (v !== 1 || typeof time !== 'string') return 'it lacks a version or time';
    if (fields.type !== type || ((fields as { environment?: string }).environment ?? '') !== environment)
      return 'its type or environment differs from the one it is filed under';
    return entryProblem(fields) ?? referenceProblem(entry, known, bounds);
  } catch (thrown) {
    if (thrown instanceof CountersignError) throw thrown;
    return 'it is not JSON';
  }
}
