import pg from 'pg';
import { CountersignError } from '../model/index.ts';

/** Thrown for a connection that we closed, with our reason. */
export class CutOff extends Error {}

// PostgreSQL documentation, appendix A. The longest matching prefix wins.
const SENTENCES: readonly (readonly [string, string])[] = [
  ['0A', 'it does not support the request'],
  ['22', 'a value does not fit'],
  ['23', 'a row violates the tables’ constraints'],
  ['25006', 'it is read-only: a standby, or configured that way'],
  ['25', 'a transaction is in the wrong state'],
  ['28', 'it rejects this user or password'],
  ['3D', 'it has no database of this name'],
  ['40', 'it aborted a transaction'],
  ['42501', 'the role lacks a privilege: run the output of `countersign ledger schema`'],
  ['42', 'its tables do not match the output of `countersign ledger schema`'],
  ['53', 'it is out of connections, memory or disk space'],
  ['55', 'another session holds a lock'],
  ['57014', 'it took too long and was cancelled'],
  ['57P', 'it is starting or shutting down'],
  ['58', 'its operating system reports an error'],
  ['XX', 'it reports an internal error'],
];

/** Returns the SQLSTATE that a server answered with; undefined if it did not answer, or answered something else. */
export function sqlStateOf(thrown: unknown): string | undefined {
  const { code } = thrown as { code?: unknown };
  return thrown instanceof pg.DatabaseError && typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)
    ? code
    : undefined;
}

/** Describes the failure in our own words: text from a server never appears in logs, entries or messages. */
export function whatFailed(thrown: unknown): string {
  if (thrown instanceof CutOff || thrown instanceof CountersignError) return thrown.message;
  const state = sqlStateOf(thrown);
  if (state !== undefined) return `${sentenceOf(state)} (SQLSTATE ${state})`;
  if (thrown instanceof pg.DatabaseError) return 'its answer is not valid PostgreSQL';
  // Node's codes for sockets and TLS.
  const { code } = thrown as { code?: unknown };
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{0,63}$/.test(code) ? code : 'the connection broke off';
}

function sentenceOf(state: string): string {
  const [, sentence = 'it refuses'] = SENTENCES.find(([prefix]) => state.startsWith(prefix)) ?? [];
  return sentence;
}
