import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CountersignError, diskFull, messageOf } from '../model/index.ts';
import { accessTrouble } from './data-access.ts';
import { hasNoSpace, SQLITE, sqliteCode } from './store-trouble.ts';

/**
 * Takes the lock of a data directory, and proves that it holds. Uses SQLite's file lock on a second file: the system
 * releases it however the process ends, and it does not block readers. Throws `ledger-held` while another process has
 * it, and `ledger-unusable` with the cause if there is no lock to be had.
 */
export function takeLock(file: string): DatabaseSync {
  const refused = accessTrouble(file, 'write');
  if (refused !== undefined) throw refused;
  let lock: DatabaseSync | undefined;
  try {
    lock = new DatabaseSync(file);
    // No journal: the lock of a full disk can be taken too.
    lock.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
  } catch (cause) {
    if (lock?.isOpen === true) lock.close();
    throw lockTrouble(file, cause);
  }
  if (isHeld(file)) return lock;
  lock.close();
  throw new CountersignError('ledger-unusable', `\`${file}\` cannot be locked: a second process could take it too`, {
    recover: 'halt',
    hint: 'use a disk of this machine that supports POSIX locks, and check that this account may write the file',
  });
}

// INVARIANT: SQLite closes the file of this second connection only with the first: POSIX drops all locks of a process
// on a file as soon as it closes that file once.
function isHeld(file: string): boolean {
  const second = new DatabaseSync(file);
  try {
    second.exec('PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE');
    return false;
  } catch (thrown) {
    return isBusy(thrown);
  } finally {
    second.close();
  }
}

function isBusy(thrown: unknown): boolean {
  const code = sqliteCode(thrown);
  return code === SQLITE.busy || code === SQLITE.locked;
}

function lockTrouble(file: string, cause: unknown): CountersignError {
  if (isBusy(cause))
    return new CountersignError('ledger-held', `another process holds the ledger (\`${file}\`)`, {
      cause,
      hint: 'stop the other `countersign serve`, or give this one its own --data',
    });
  if (hasNoSpace(dirname(file), cause)) return diskFull(dirname(file), cause);
  const code = sqliteCode(cause);
  const isDamaged = code === SQLITE.corrupt || code === SQLITE.notADatabase;
  return new CountersignError('ledger-unusable', `the lock file \`${file}\` cannot be used: ${messageOf(cause)}`, {
    cause,
    recover: 'halt',
    hint: isDamaged
      ? 'remove it, while no service runs: it holds no data'
      : 'check the disk of the data directory, and that this account may write there',
  });
}
