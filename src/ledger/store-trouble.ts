import { rmSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CountersignError, isDiskFull, messageOf } from '../model/index.ts';
import { accessTrouble } from './data-access.ts';
import { LEDGER_FILES } from './ledger-files.ts';

/** Primary result codes of SQLite. */
export const SQLITE = { busy: 5, locked: 6, ioError: 10, corrupt: 11, full: 13, notADatabase: 26 } as const;
const LARGEST_BEGUN = 1024 * 1024; // bytes: tables without entries take some 100 kB
const LITTLE = 256 * 1024; // bytes: with less, an error of the disk means that it is full

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
  const code = sqliteCode(thrown);
  return code === SQLITE.corrupt || code === SQLITE.notADatabase;
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
    const db = new DatabaseSync(file, { timeout: 2000 });
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
  const refused = accessTrouble(file, verb === 'read' ? 'read' : 'write');
  if (refused !== undefined) return refused;
  return new CountersignError('ledger-unusable', `cannot ${verb} the ledger \`${file}\`: ${messageOf(cause)}`, {
    cause,
    recover: 'halt',
    hint: hasNoSpace(dirname(file), cause)
      ? 'free space on the disk of the data directory'
      : 'check that this user may read and write the file and its directory',
  });
}

/**
 * Returns the error for a store that is missing or empty although its data directory says that it had entries;
 * undefined if there is none. A new ledger has its store before its public key. Not for replicas, whose store is a
 * copy.
 */
export function lostStore(file: string): CountersignError | undefined {
  const state = stateOf(file);
  if (state === 'filled') return undefined;
  const beside = (name: string) => statSync(join(dirname(file), name), { throwIfNoEntry: false })?.size ?? 0;
  const { anchor, verifier } = LEDGER_FILES;
  const [clue] = [anchor, ...(state === 'begun' ? [] : [verifier])].filter((name) => beside(name) > 0);
  if (clue === undefined) return undefined;
  return new CountersignError(
    'store-damaged',
    `the ledger \`${file}\` is ${state === 'missing' ? 'missing' : 'empty'}, but ` +
      `\`${clue}\` beside it says that there was one`,
    {
      recover: 'halt',
      hint:
        `restore the newest backup of the data directory, or run \`${importLine(dirname(file))}\`. ` +
        'A replica that shares a database rebuilds its copy when it starts',
    },
  );
}

/** Returns the command that makes the store of a data directory again from an export. */
export function importLine(directory: string): string {
  const key = join(directory, LEDGER_FILES.verifier);
  return `countersign ledger import EXPORT --data ${directory} --key ${key} --replace`;
}

function stateOf(file: string): 'missing' | 'empty' | 'begun' | 'filled' {
  const stats = statSync(file, { throwIfNoEntry: false });
  if (stats === undefined) return 'missing';
  if (stats.size === 0) return 'empty';
  if (stats.size > LARGEST_BEGUN) return 'filled';
  try {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      return db.prepare('SELECT 1 FROM entry LIMIT 1').get() === undefined ? 'begun' : 'filled';
    } finally {
      db.close();
    }
  } catch {
    return 'filled'; // opening it tells why it cannot be read
  }
}

function damaged(file: string, why: string, cause?: unknown): CountersignError {
  return new CountersignError('store-damaged', `the ledger \`${file}\` is damaged: ${why}`, {
    cause,
    recover: 'halt',
    hint: VERIFY,
  });
}

/** Tests whether an error means that a directory's disk is full. SQLite reports some of them as errors of the disk. */
export function hasNoSpace(directory: string, thrown: unknown): boolean {
  const code = sqliteCode(thrown);
  if (code === SQLITE.full || isDiskFull(thrown)) return true;
  if (code === undefined) return false;
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize < LITTLE;
}

/** Returns the primary result code in an error of SQLite. */
export function sqliteCode(thrown: unknown): number | undefined {
  const code = (thrown as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === 'number' ? code & 0xff : undefined;
}
