import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { readData } from './data-access.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { createKey, readSigner } from './note.ts';
import { historyOf } from './plan-epoch.ts';
import { moveFile, replaceFile } from './replace-file.ts';

/** A change of the key in a data directory: add a new one beside it, or drop the old one. */
export type Rotation = 'add' | 'drop';

/**
 * Decides what a change of the key has to do. A process may have ended between any two of its steps, so the files alone
 * do not tell: the ledger says which keys signed its newest checkpoint, and which of them it retired. Throws `usage` if
 * there is nothing to do, and `key-unusable`. Changes nothing.
 */
export function planRotation(directory: string, rotation: Rotation): 'begin' | 'finish' {
  const { key, old, dropped } = pathsIn(directory);
  const [current, older, ledger] = [keyIn(key), keyIn(old), factsOf(directory)];
  if (!Buffer.isBuffer(current)) throw unreadable(key, 'restore it from your backup');
  const isNewUnused = Buffer.isBuffer(older) && ledger.isNewestBy(older) && !ledger.isNewestBy(current);
  if (older === 'unreadable' && !ledger.isNewestBy(current)) throw unreadable(old, 'restore it from your backup');
  const isGone = older === 'missing' || (Buffer.isBuffer(older) && older.equals(current));
  if (rotation === 'add') {
    if (isNewUnused) return 'finish'; // the files were changed, and the ledger does not know it yet
    if (isGone || (Buffer.isBuffer(older) ? ledger.isRetired(older) : !ledger.overlaps)) return 'begin';
    throw new CountersignError('usage', 'an older key still signs beside the current one', {
      hint: 'drop that first, with --drop-old',
    });
  }
  if (isNewUnused)
    throw new CountersignError('usage', 'a rotation was interrupted, and the new key has signed nothing yet', {
      hint: 'finish it with `countersign ledger rotate-key`, then drop the old key',
    });
  if (!isGone) return 'begin';
  if (existsSync(dropped) || (older === 'missing' && ledger.overlaps)) return 'finish';
  throw new CountersignError('usage', 'there is no old key to drop');
}

/**
 * Changes the files of the key. Runs under the lock: a service that begins at that moment reads the same files. There
 * is a key after every step, and each step is synced. `undo` restores them unless the ledger already counts on the
 * change.
 */
export function turnKeys(directory: string, rotation: Rotation): { readonly undo: () => void } {
  const { key, old, dropped } = pathsIn(directory);
  if (planRotation(directory, rotation) === 'finish') return { undo: () => {} };
  if (rotation === 'drop') {
    const ending = keyIn(old);
    moveFile(old, dropped);
    const isRecorded = () => Buffer.isBuffer(ending) && factsOf(directory).isRetired(ending);
    return { undo: () => isRecorded() || moveFile(dropped, old) };
  }
  const fresh = createKey();
  replaceFile(old, readFileSync(key));
  replaceFile(key, fresh);
  const isRecorded = () => factsOf(directory).isNewestBy(publicKeyOf(fresh));
  return { undo: () => isRecorded() || moveFile(old, key) };
}

/**
 * Removes files of the key that an interrupted change left and that sign nothing any more. Runs under the lock, before
 * the keys are read.
 */
export function removeUnusedKeys(directory: string, warn: (message: string) => void): void {
  const { key, old } = pathsIn(directory);
  rmSync(`${key}.new`, { force: true });
  rmSync(`${old}.new`, { force: true });
  const [current, older] = [keyIn(key), keyIn(old)];
  if (!Buffer.isBuffer(current) || older === 'missing') return;
  const ledger = factsOf(directory);
  const isUnused = Buffer.isBuffer(older)
    ? older.equals(current) || ledger.isRetired(older)
    : ledger.isNewestBy(current) && !ledger.overlaps;
  if (!isUnused) return;
  rmSync(old);
  warn(`removed \`${old}\`, which an interrupted change of the key left: it signs nothing`);
}

/** Removes a key that was dropped. Runs once its end is recorded. */
export function removeDroppedKey(directory: string): void {
  rmSync(pathsIn(directory).dropped, { force: true });
}

function pathsIn(directory: string): Readonly<Record<'key' | 'old' | 'dropped', string>> {
  const old = join(directory, LEDGER_FILES.oldKey);
  return { key: join(directory, LEDGER_FILES.key), old, dropped: `${old}.dropped` };
}

/** Returns the public half of the key in a file. */
function keyIn(file: string): Buffer | 'missing' | 'unreadable' {
  if (!existsSync(file)) return 'missing';
  const pem = readData(file);
  try {
    return publicKeyOf(pem);
  } catch {
    return 'unreadable';
  }
}

function publicKeyOf(pem: string): Buffer {
  return readSigner('key', pem).publicKey;
}

/** Facts that a ledger records about keys, under any of its names. */
type KeyFacts = {
  readonly isNewestBy: (publicKey: Buffer) => boolean;
  readonly isRetired: (publicKey: Buffer) => boolean;
  /** A key was rotated away from and is not retired. */
  readonly overlaps: boolean;
};

function factsOf(directory: string): KeyFacts {
  const reader = new LedgerReader(join(directory, LEDGER_FILES.store));
  try {
    const note = reader.latestCheckpoint() ?? '';
    const name = note.slice(0, note.indexOf('\n'));
    const history = historyOf(reader);
    return {
      isNewestBy: (publicKey) => openCheckpoint(note, { name, publicKey }) !== undefined,
      isRetired: (publicKey) => history.isRetired({ name, publicKey }),
      overlaps: history.overlapping.length > 0,
    };
  } finally {
    reader.close();
  }
}

function unreadable(file: string, hint: string): CountersignError {
  return new CountersignError('key-unusable', `\`${file}\` holds no Ed25519 private key in PEM`, { hint });
}
