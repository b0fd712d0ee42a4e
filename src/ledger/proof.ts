import { openCheckpoint, parseCheckpoint } from './checkpoint.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { consistencyProof, inclusionProof, isConsistent, leafHash, rootFromInclusion } from './merkle.ts';
import type { Verifier } from './note.ts';

const HEADER = 'c2sp.org/tlog-proof@v1';
const MAX_HASHES = 63;

/**
 * Returns the receipt of an entry (C2SP tlog-proof): its index, the hashes from it to the root, and the checkpoint over
 * that root. Together with the entry's bytes and the ledger's public key, it proves inclusion. Throws a RangeError for
 * an index the checkpoint does not cover, and for an invalid checkpoint.
 */
export function receipt(reader: LedgerReader, index: number, checkpoint: string): string {
  const size = sizeOf(checkpoint);
  const hashes = inclusionProof(index, size, reader.nodes(size));
  return `${HEADER}\nindex ${index}\n${hashes.map((h) => `${h.toString('base64')}\n`).join('')}\n${checkpoint}`;
}

/** Content of a receipt that has been verified. */
export type Proven = { readonly index: number; readonly origin: string; readonly size: number };

/** Checks a receipt against the entry's bytes. Returns the reason if it proves nothing. */
export function checkReceipt(text: string, entry: Uint8Array, keys: readonly Verifier[]): Proven | string {
  const match =
    /^c2sp\.org\/tlog-proof@v1\n(?:extra [A-Za-z0-9+/=]*\n)?index (0|[1-9][0-9]{0,15})\n((?:[A-Za-z0-9+/]{43}=\n)*)\n([\s\S]*)$/.exec(
      text,
    );
  if (match === null) return 'it is not a receipt of the form c2sp.org/tlog-proof@v1';
  const lines = (match[2] ?? '').split('\n').slice(0, -1);
  const hashes = lines.map((line) => Buffer.from(line, 'base64'));
  if (hashes.length > MAX_HASHES || hashes.some((h, i) => h.toString('base64') !== lines[i]))
    return 'its hashes are not spelled correctly';
  const checkpoint = openCheckpoint(match[3] ?? '', keys);
  if (checkpoint === undefined) return 'its checkpoint is not signed by this key';
  const index = Number(match[1]);
  const root = rootFromInclusion(leafHash(entry), index, checkpoint.size, hashes);
  if (root === undefined || !root.equals(checkpoint.root)) return 'it does not lead from this entry to the signed root';
  return { index, origin: checkpoint.origin, size: checkpoint.size };
}

/**
 * Returns the proof that the tree of one checkpoint begins with that of an older one: both notes and the hashes between
 * them.
 */
export function extension(
  reader: LedgerReader,
  older: string,
  newer: string,
): { readonly older: string; readonly newer: string; readonly hashes: readonly string[] } {
  const size = sizeOf(newer);
  return {
    older,
    newer,
    hashes: consistencyProof(sizeOf(older), size, reader.nodes(size)).map((h) => h.toString('base64')),
  };
}

/** Tests whether the proof holds and the keys signed both checkpoints. */
export function checkExtension(
  proof: { readonly older: string; readonly newer: string; readonly hashes: readonly string[] },
  keys: readonly Verifier[],
): boolean {
  const [older, newer] = [openCheckpoint(proof.older, keys), openCheckpoint(proof.newer, keys)];
  if (older === undefined || newer === undefined) return false;
  return isConsistent(
    [older.size, older.root],
    [newer.size, newer.root],
    proof.hashes.map((h) => Buffer.from(h, 'base64')),
  );
}

function sizeOf(note: string): number {
  const checkpoint = parseCheckpoint(note.slice(0, note.lastIndexOf('\n\n') + 1));
  if (checkpoint === undefined) throw new RangeError('this is not a checkpoint');
  return checkpoint.size;
}
