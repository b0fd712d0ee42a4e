import pg from 'pg';
import { CountersignError } from '../model/index.ts';

/** A connection that we ended, with our reason. */
export class CutOff extends Error {}

// PostgreSQL documentation, appendix A. The longest prefix that fits is taken.
const SENTENCES: readonly (readonly [string, string])[] = [
  ['0A', 'it does not support what was asked'],
  ['22', 'a value does not fit'],
  ['23', 'a row contradicts the tables’ constraints'],
  ['25006', 'it only takes reads: it is a standby, or set to read-only'],
  ['25', 'a transaction is not in the state that it should be'],
  ['28', 'it does not accept this user with this password'],
  ['3D', 'it has no database of this name'],
  ['40', 'it gave a transaction up'],
  ['42501', 'the role may not do that: run what `countersign ledger schema` prints'],
  ['42', 'its tables are not as `countersign ledger schema` makes them'],
  ['53', 'it has no room left: connections, memory or disk'],
  ['55', 'something else holds a lock'],
  ['57014', 'it took too long and was ended'],
  ['57P', 'it starts, or shuts down'],
  ['58', 'its operating system reports an error'],
  ['XX', 'it reports an error of its own'],
];

/** The SQLSTATE that a server answered with; undefined where it did not answer, or with something else. */
export function sqlStateOf(thrown: unknown): string | undefined {
  const { code } = thrown as { code?: unknown };
  return thrown instanceof pg.DatabaseError && typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)
    ? code
    : undefined;
}

/** Says in our own words what went wrong: what a server writes goes into no log, entry or message. */
export function whatFailed(thrown: unknown): string {
  if (thrown instanceof CutOff || thrown instanceof CountersignError) return thrown.message;
  const state = sqlStateOf(thrown);
  if (state !== undefined) return `${sentenceOf(state)} (SQLSTATE ${state})`;
  if (thrown instanceof pg.DatabaseError) return 'its answer is not one of PostgreSQL’s';
  // Node's own codes for sockets and TLS.
  const { code } = thrown as { code?: unknown };
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{0,63}$/.test(code) ? code : 'the connection broke off';
}

function sentenceOf(state: string): string {
  const [, sentence = 'it refuses'] = SENTENCES.find(([prefix]) => state.startsWith(prefix)) ?? [];
  return sentence;
}
