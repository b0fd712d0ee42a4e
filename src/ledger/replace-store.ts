import { existsSync, linkSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError, count } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { readData } from './data-access.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { rootOf } from './merkle.ts';
import { readSigner, type Verifier } from './note.ts';
import { different, historyOf, keptNotes, type PlacedNote } from './plan-epoch.ts';
import { halt, unusableNote } from './sequencer.ts';
import { verifyLedger } from './verify-ledger.ts';

/** Why a service would still refuse a data directory, and the line to type. */
export type LeftToDo = { readonly why: string; readonly line: string };

/**
 * Checks by content that a new store contains what it replaces: every checkpoint in the data directory and in the old
 * store must fit it, and the old entries must be its first ones. Returns what is left to do afterwards. Throws
 * `ledger-inconsistent` for a different history, and `usage` if entries are missing, unless they may be.
 */
export function checkReplacement(
  making: string,
  directory: string,
  { keys, behind }: { readonly keys: readonly Verifier[]; readonly behind: boolean },
): LeftToDo | undefined {
  const made = new LedgerReader(join(making, LEDGER_FILES.store));
  try {
    const { beyond, unread } = fitted(made, keys, [...notesOfOld(directory), ...keptNotes(directory)]);
    if (beyond !== undefined && !behind) throw tooShort(made.size, beyond, directory);
    if (isForked(made, directory, keys))
      throw halt(
        `the store in \`${directory}\` is of a different history than the export`,
        'find where they part with `countersign ledger verify --against OTHER`, and continue with one of them',
      );
    if (unread !== undefined) {
      const { message } = unusableNote(unread, readData(unread));
      return { why: `${message}; the store has one of its own`, line: `rm ${unread}` };
    }
    if (beyond !== undefined)
      return {
        why: `${count(beyond - made.size, 'entry is', 'entries are')} missing, which a checkpoint covers`,
        line: `countersign ledger new-epoch --data ${directory} --reason "…"`,
      };
    return isSignedByKeyIn(directory, made.latestCheckpoint() ?? '')
      ? undefined
      : { why: 'the key there did not sign this ledger', line: `cp KEY ${join(directory, LEDGER_FILES.key)}` };
  } finally {
    made.close();
  }
}

type Fitted = { readonly beyond: number | undefined; readonly unread: string | undefined };

function fitted(made: LedgerReader, keys: readonly Verifier[], notes: readonly PlacedNote[]): Fitted {
  const history = historyOf(made);
  const known = [...keys, ...history.named];
  let beyond: number | undefined;
  let unread: string | undefined;
  for (const { note, place, file } of notes) {
    const checkpoint = openCheckpoint(note, known);
    if (checkpoint === undefined) unread ??= file;
    else if (history.judge(checkpoint, known).lost === true) continue;
    else if (checkpoint.size > made.size) beyond = Math.max(beyond ?? 0, checkpoint.size);
    else if (!rootOf(checkpoint.size, made.nodes(made.size)).equals(checkpoint.root))
      throw different(place, checkpoint.size);
  }
  return { beyond, unread };
}

// As far as the old store can be read. What is signed does not change by damage.
function notesOfOld(directory: string): readonly PlacedNote[] {
  const place = 'the store that is replaced';
  return readOld(directory, (old) => old.checkpoints().map(({ note }) => ({ note, place }))) ?? [];
}

// Roots can also differ because the old store is damaged: then its entries prove nothing.
function isForked(made: LedgerReader, directory: string, keys: readonly Verifier[]): boolean {
  const isOther = readOld(directory, (old) => {
    const common = Math.min(made.size, old.size);
    const rootIn = (reader: LedgerReader) => rootOf(common, reader.nodes(reader.size));
    if (common === 0 || rootIn(made).equals(rootIn(old))) return false;
    const { finding, damage } = verifyLedger(old, keys);
    return finding === undefined && damage.length === 0;
  });
  return isOther === true;
}

function readOld<T>(directory: string, read: (old: LedgerReader) => T): T | undefined {
  let old: LedgerReader | undefined;
  try {
    old = new LedgerReader(join(directory, LEDGER_FILES.store));
    return read(old);
  } catch {
    return undefined; // it is missing or damaged, which is why it is replaced
  } finally {
    old?.close();
  }
}

function isSignedByKeyIn(directory: string, note: string): boolean {
  const files = [LEDGER_FILES.key, LEDGER_FILES.oldKey].map((name) => join(directory, name)).filter(existsSync);
  const name = note.slice(0, note.indexOf('\n'));
  return (
    files.length === 0 || files.some((file) => openCheckpoint(note, readSigner(name, readData(file))) !== undefined)
  );
}

function tooShort(size: number, known: number, directory: string): CountersignError {
  return new CountersignError(
    'usage',
    `the export has ${count(size, 'entry', 'entries')}, but a checkpoint in \`${directory}\` covers ${known}`,
    {
      hint:
        'give a newer export; if this is the newest there is, add --behind, and record the loss with ' +
        '`countersign ledger new-epoch --reason "…"`',
    },
  );
}

/**
 * Puts a new store in place of the old one, which is kept under a name that nothing has yet. The old write-ahead log of
 * SQLite is put aside first: it must never meet the new file. A process that ends before the last step leaves a store
 * that is refused or whole, and the old one beside it.
 */
export function replaceStore(directory: string, making: string): void {
  const store = join(directory, LEDGER_FILES.store);
  const aside = unusedName(`${store}.replaced`);
  if (existsSync(store)) linkSync(store, aside);
  for (const end of ['-wal', '-shm']) if (existsSync(`${store}${end}`)) renameSync(`${store}${end}`, `${aside}${end}`);
  renameSync(join(making, LEDGER_FILES.store), store);
}

function unusedName(wanted: string): string {
  const isUsed = (name: string) => ['', '-wal', '-shm'].some((end) => existsSync(`${name}${end}`));
  let name = wanted;
  for (let n = 2; isUsed(name); n++) name = `${wanted}-${n}`;
  return name;
}
