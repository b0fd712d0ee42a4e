import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError, count } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { readData } from './data-access.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { LogHistory } from './log-history.ts';
import { rootOf } from './merkle.ts';
import { parseVerifiers } from './note.ts';
import { replaceFile } from './replace-file.ts';
import { halt, unusableNote } from './sequencer.ts';
import type { Subject } from './store.ts';

/** Reason for a new epoch, and the newest checkpoints of the ledger that were kept elsewhere. */
export type NewEpoch = {
  readonly reason: string;
  readonly checkpoints?: readonly string[];
  /** About how many entries are lost over which no one kept a checkpoint, according to who asks. */
  readonly withoutCheckpoint?: number | undefined;
  /** Who asks. */
  readonly by?: Subject | undefined;
};

/** The checkpoint over lost entries that the next epoch must name, and how many more names have lost entries. */
export type EpochPlan = { readonly previous: string; readonly more: number };

/**
 * Decides which lost entries a new epoch must name so that every known checkpoint fits afterwards. Known are those that
 * were given, the one an anchor left in the data directory, and the ones beside and in the store. Throws `usage` if
 * nothing is lost, and `ledger-inconsistent` if a checkpoint is of a different history: no epoch explains that.
 */
export function planEpoch(directory: string, asked: NewEpoch): EpochPlan {
  const reader = new LedgerReader(join(directory, LEDGER_FILES.store));
  try {
    const named = new Map<string, string>();
    for (const { note, size, origin } of lostIn(directory, reader, asked.checkpoints ?? [])) {
      const known = named.get(origin);
      if (known === undefined || size > sizeOf(known)) named.set(origin, note);
    }
    const [first, ...others] = named.values();
    if (first !== undefined) return { previous: first, more: others.length };
    const latest = reader.latestCheckpoint();
    if (asked.withoutCheckpoint !== undefined && latest !== undefined) return { previous: latest, more: 0 };
    throw new CountersignError(
      'usage',
      `nothing is lost: the store holds all ${count(reader.size, 'entry', 'entries')} that a known checkpoint covers`,
      {
        hint:
          'give the newest checkpoint that someone kept with --checkpoint; if entries are lost and no one kept one, ' +
          'say about how many with --without-checkpoint COUNT',
      },
    );
  } finally {
    reader.close();
  }
}

type Lost = { readonly note: string; readonly size: number; readonly origin: string };

// The oldest name first: each epoch names the loss of one.
function lostIn(directory: string, reader: LedgerReader, given: readonly string[]): readonly Lost[] {
  const history = historyOf(reader);
  const keys = [...parseVerifiers(readData(join(directory, LEDGER_FILES.verifier))), ...history.named];
  const lost: Lost[] = [];
  for (const { note, place, file } of notesIn(directory, reader, given)) {
    const checkpoint = openCheckpoint(note, keys);
    if (checkpoint === undefined) throw file === undefined ? untrusted(place) : unusableNote(file, note);
    if (history.judge(checkpoint, keys).lost === true) continue;
    const { size, origin, root } = checkpoint;
    const end = history.endOf(origin, reader.size);
    if (end === undefined) throw different(place, size);
    if (size > end) lost.push({ note, size, origin });
    else if (!rootOf(size, reader.nodes(reader.size)).equals(root)) throw different(place, size);
  }
  return lost.sort((a, b) => history.numberOf(a.origin) - history.numberOf(b.origin));
}

function notesIn(directory: string, reader: LedgerReader, given: readonly string[]): readonly PlacedNote[] {
  const latest = reader.latestCheckpoint();
  return [
    ...given.map((note) => ({ note, place: 'the file given with --checkpoint' })),
    ...keptNotes(directory),
    ...(latest === undefined ? [] : [{ note: latest, place: 'the store' }]),
  ];
}

/** A checkpoint as a signed note, where it is, and the file in which it is kept beside a store. */
export type PlacedNote = { readonly note: string; readonly place: string; readonly file?: string };

/** Returns the checkpoints beside a store: the last one that was signed, and those that an anchor or a command left. */
export function keptNotes(directory: string): readonly PlacedNote[] {
  const names = [...newerNames(directory), LEDGER_FILES.anchor];
  return names.flatMap((name) => {
    const file = join(directory, name);
    const note = existsSync(file) ? readData(file) : ''; // empty after a power cut: the same as missing
    return note.trim() === '' ? [] : [{ note, place: `\`${file}\``, file }];
  });
}

/** Keeps a checkpoint of entries that may be lost, unless it is kept already. */
export function keepNewer(directory: string, note: string): void {
  const names = newerNames(directory);
  if (names.some((name) => readData(join(directory, name)) === note)) return;
  let name: string = LEDGER_FILES.newer;
  for (let n = 2; names.includes(name); n++) name = `${LEDGER_FILES.newer}-${n}`;
  replaceFile(join(directory, name), note);
}

/** Removes checkpoints whose entries an epoch names by now. */
export function dropNewer(directory: string): void {
  for (const name of newerNames(directory)) rmSync(join(directory, name), { force: true });
}

function newerNames(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).filter((name) => NEWER.test(name)) : [];
}

const NEWER = new RegExp(`^${LEDGER_FILES.newer}(?:-\\d+)?$`);

/** Returns what a ledger's own entries say about its names and keys. */
export function historyOf(reader: LedgerReader): LogHistory {
  const history = new LogHistory();
  const indexes = (['log.opened', 'epoch.opened', 'key.rotated', 'key.retired'] as const).flatMap((type) =>
    reader.all(type, '').map(({ index }) => index),
  );
  for (const index of indexes.sort((a, b) => a - b))
    for (const { body } of reader.stored(index, index + 1)) history.add(index, body);
  return history;
}

function sizeOf(note: string): number {
  return Number(note.split('\n')[1]);
}

function untrusted(place: string): CountersignError {
  return new CountersignError('checkpoint-untrusted', `the checkpoint in ${place} is not signed by this ledger’s key`, {
    hint: 'give the note exactly as it was kept elsewhere',
  });
}

export function different(place: string, size: number): CountersignError {
  return halt(
    `the checkpoint of ${count(size, 'entry', 'entries')} in ${place} is of a different history, ` +
      'and no new epoch makes it fit',
    'find the copy that it belongs to with `countersign ledger verify --against OTHER`, and continue with that one',
  );
}
