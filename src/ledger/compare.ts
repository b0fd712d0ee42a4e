import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { type Instance, openCheckpoint, parseCheckpoint } from './checkpoint.ts';
import { LedgerReader } from './ledger-reader.ts';
import { rootOf } from './merkle.ts';
import { splitNote, type Verifier } from './note.ts';

/**
 * Result of comparing a ledger with another copy. `size` is the other copy's; `at` is the first entry that differs, as
 * far as that can be determined.
 */
export type Comparison = {
  readonly kind: 'same' | 'goes-on' | 'behind' | 'fork' | 'unknown';
  readonly size: number;
  readonly at?: number;
  readonly instance?: Instance;
};

/**
 * Compares a ledger with another copy: a data directory, a store, or a checkpoint kept elsewhere. Throws
 * `checkpoint-untrusted` if the checkpoint is not signed by these keys.
 */
export function compareWith(reader: LedgerReader, keys: readonly Verifier[], place: string): Comparison {
  const store = storeAt(place);
  if (store === undefined) return compareNote(reader, keys, checkpointAt(place));
  const other = new LedgerReader(store).freeze();
  try {
    return compareStores(reader, other, keys);
  } finally {
    other.close();
  }
}

function storeAt(place: string): string | undefined {
  if (!existsSync(place)) return undefined;
  const store = statSync(place).isDirectory() ? join(place, 'ledger.db') : place;
  return store.endsWith('.db') && existsSync(store) ? store : undefined;
}

const COPIES =
  'name a data directory, a ledger file, an export or a file with a checkpoint; ' +
  'copy an anchor’s checkpoint into a file first';

function noteAt(place: string): string {
  const file = existsSync(place) && statSync(place).isDirectory() ? join(place, 'checkpoint') : place;
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('usage', `\`${place}\` is not a copy of a ledger`, {
      cause,
      hint: COPIES,
    });
  }
}

function checkpointAt(place: string): string {
  const note = noteAt(place);
  if (parseCheckpoint(splitNote(note)?.text ?? '') !== undefined) return note;
  throw new CountersignError('usage', `\`${place}\` is not a checkpoint, ledger or export`, { hint: COPIES });
}

function opened(note: string, keys: readonly Verifier[]) {
  const checkpoint = openCheckpoint(note, keys);
  if (checkpoint !== undefined) return checkpoint;
  throw new CountersignError(
    'checkpoint-untrusted',
    'the checkpoint of the other copy is not signed by this ledger’s key',
    {
      hint: 'check that the copy is of this ledger, and that --key is this ledger’s key',
    },
  );
}

function compareNote(reader: LedgerReader, keys: readonly Verifier[], note: string): Comparison {
  const { size, root, instance } = opened(note, keys);
  const by = instance === undefined ? {} : { instance };
  if (size > reader.size) return { kind: 'unknown', size, ...by };
  if (rootAt(reader, size).equals(root)) return { kind: size === reader.size ? 'same' : 'behind', size, ...by };
  return { kind: 'fork', size, ...by };
}

function compareStores(mine: LedgerReader, other: LedgerReader, keys: readonly Verifier[]): Comparison {
  const { size, root, instance } = opened(other.latestCheckpoint() ?? '', keys);
  const by = instance === undefined ? {} : { instance };
  if (!rootAt(other, size).equals(root))
    throw new CountersignError('ledger-inconsistent', 'the other copy is not the ledger that was signed');
  const common = Math.min(mine.size, size);
  const isEqual = (at: number) => rootAt(mine, at).equals(rootAt(other, at));
  if (isEqual(common))
    return { kind: size === mine.size ? 'same' : size > mine.size ? 'goes-on' : 'behind', size, ...by };
  let [equal, differs] = [0, common];
  while (differs - equal > 1) {
    const middle = Math.floor((equal + differs) / 2);
    if (isEqual(middle)) equal = middle;
    else differs = middle;
  }
  return { kind: 'fork', size, at: equal, ...by };
}

function rootAt(reader: LedgerReader, size: number): Buffer {
  return rootOf(size, reader.nodes(reader.size));
}
