import { canonicalJson, sha256 } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { LedgerReader, StoredEntry } from './ledger-reader.ts';
import { CompactRange, leafHash } from './merkle.ts';
import type { Verifier } from './note.ts';

/** What is wrong, and where: the index of the first bad entry, where one can be named. */
export type LedgerFinding = { readonly message: string; readonly index?: number };

/** The outcome of a check: how far it is sound, and the first thing that is not. */
export type LedgerCheck = {
  readonly size: number;
  readonly root: string;
  readonly checkpoints: number;
  readonly finding: LedgerFinding | undefined;
};

/**
 * Checks a whole ledger from its bytes: that entries are in order and canonical, hash to their leaves, bring the evidence
 * they name, and that every signed checkpoint fits. `trusted` are checkpoints kept elsewhere; the ledger must extend them.
 */
export function verifyLedger(
  reader: LedgerReader,
  verifier: Verifier,
  trusted: readonly string[] = [],
  onProgress: (done: number) => void = () => {},
): LedgerCheck {
  const range = new CompactRange();
  const checkpoints = reader.checkpoints();
  const done = (finding?: LedgerFinding): LedgerCheck => ({
    size: range.size,
    root: range.root().toString('base64'),
    checkpoints: checkpoints.length,
    finding,
  });
  const bySize = new Map<number, { root: Buffer; origin: 'stored' | 'given' }[]>();
  for (const { note, origin } of [
    ...checkpoints.map((c) => ({ note: c.note, origin: 'stored' as const })),
    ...trusted.map((note) => ({ note, origin: 'given' as const })),
  ]) {
    const checkpoint = openCheckpoint(note, verifier);
    if (checkpoint === undefined)
      return done({
        message: origin === 'stored' ? 'a stored checkpoint is not signed by this key' : 'the given checkpoint is not signed by this key',
      });
    bySize.set(checkpoint.size, [...(bySize.get(checkpoint.size) ?? []), { root: checkpoint.root, origin }]);
  }
  let sound = 0;
  for (const stored of reader.stored()) {
    const finding = checkEntry(stored, range.size, reader);
    if (finding !== undefined) return done(finding);
    range.append(stored.leaf);
    for (const { root, origin } of bySize.get(range.size) ?? []) {
      if (!root.equals(range.root())) {
        const where = sound === range.size - 1 ? `entry ${sound}` : `an entry from ${sound} to ${range.size - 1}`;
        return done({
          index: sound,
          message: `${where} is not what was signed: the root differs from the ${origin} checkpoint of ${range.size} entries`,
        });
      }
      sound = range.size;
    }
    if (range.size % 1000 === 0) onProgress(range.size);
  }
  const beyond = Math.max(...bySize.keys(), 0);
  if (beyond > range.size)
    return done({ index: range.size, message: `entry ${range.size} is missing: a checkpoint was signed over ${beyond} entries` });
  if (sound !== range.size) return done({ index: sound, message: `entries ${sound} to ${range.size - 1} are under no signed checkpoint` });
  return done();
}

function checkEntry(stored: StoredEntry, expected: number, reader: LedgerReader): LedgerFinding | undefined {
  const { index } = stored;
  if (index !== expected) return { index: expected, message: `entry ${expected} is missing` };
  if (!leafHash(Buffer.from(stored.body)).equals(stored.leaf))
    return { index, message: `entry ${index} was altered: it does not hash to its leaf` };
  const entry = parse(stored.body);
  if (entry === undefined || canonicalJson(entry) !== stored.body) return { index, message: `entry ${index} is not canonical JSON` };
  if (entry['type'] !== stored.type || (entry['environment'] ?? '') !== stored.environment)
    return { index, message: `entry ${index} is filed under a type or environment that is not its own` };
  const digest = (entry['evidence'] as { sha256?: string } | undefined)?.sha256;
  if (digest === undefined) return undefined;
  const bytes = reader.evidenceBytes(digest);
  if (bytes === undefined) return { index, message: `the evidence of entry ${index} is missing` };
  return sha256(bytes) === digest ? undefined : { index, message: `the evidence of entry ${index} was altered` };
}

function parse(body: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(body) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
