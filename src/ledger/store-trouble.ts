import { rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { CountersignError, isDiskFull, messageOf } from '../model/index.ts';

// SQLite's primary result codes.
const CORRUPT = 11;
const FULL = 13;
const NOT_A_DATABASE = 26;

const VERIFY = '`countersign ledger verify` on this data directory says what still stands, and how to mend it';

/**
 * Returns problems of a store that SQLite itself finds, in its words; none for a sound one. `quick` reads each page
 * once; `whole` also compares indexes with their tables.
 */
export function damageIn(db: DatabaseSync, depth: 'quick' | 'whole'): readonly string[] {
  const pragma = depth === 'quick' ? 'quick_check' : 'integrity_check';
  try {
    const lines = db
      .prepare(`PRAGMA ${pragma}(20)`)
      .all()
      .flatMap((row) => String(Object.values(row)[0]).split('\n'));
    return lines.filter((line) => line !== 'ok' && line !== '' && !line.startsWith('*** in database'));
  } catch (thrown) {
    if (isDamage(thrown)) return [messageOf(thrown)];
    throw thrown;
  }
}

/** Tests whether an error of SQLite says that the file is damaged. */
function isDamage(thrown: unknown): boolean {
  const code = codeOf(thrown);
  return code === CORRUPT || code === NOT_A_DATABASE;
}

/** Refuses a store in which SQLite finds errors: it would answer some questions, and fail at others. */
export function refuseDamaged(db: DatabaseSync, file: string): void {
  const [first, ...others] = damageIn(db, 'quick');
  if (first !== undefined) throw damaged(file, `${first}${others.length === 0 ? '' : ` (and ${others.length} more)`}`);
}

/** Removes a replica's copy in which SQLite finds errors: the database is authoritative, so it is made again. */
export function dropDamagedCopy(file: string, warn: (message: string) => void): void {
  let damage: readonly string[];
  try {
    const db = new DatabaseSync(file);
    damage = damageIn(db, 'quick');
    db.close();
  } catch (thrown) {
    throw storeTrouble(file, thrown, 'open');
  }
  if (damage.length === 0) return;
  warn(`the copy of the ledger \`${file}\` is damaged and is made again: ${damage[0]}`);
  for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
}

/** Returns the error for a store that cannot be opened or read, with a hint for the cause that SQLite gives. */
export function storeTrouble(file: string, cause: unknown, verb: 'open' | 'read'): CountersignError {
  if (isDamage(cause)) return damaged(file, messageOf(cause), cause);
  const isFull = codeOf(cause) === FULL || isDiskFull(cause);
  return new CountersignError('ledger-unusable', `cannot ${verb} the ledger \`${file}\`: ${messageOf(cause)}`, {
    cause,
    recover: 'halt',
    hint: isFull
      ? 'free space on the disk of the data directory'
      : 'check that this user may read and write the file and its directory',
  });
}

function damaged(file: string, why: string, cause?: unknown): CountersignError {
  return new CountersignError('store-damaged', `the ledger \`${file}\` is damaged: ${why}`, {
    cause,
    recover: 'halt',
    hint: VERIFY,
  });
}

function codeOf(thrown: unknown): number | undefined {
  const code = (thrown as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === 'number' ? code & 0xff : undefined;
}
