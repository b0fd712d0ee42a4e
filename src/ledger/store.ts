import { CountersignError, messageOf, sha256 } from '../model/index.ts';

/** An entry on its way into a store: its canonical bytes, their hash as a leaf, and what it is filed under. */
export type PreparedEntry = {
  readonly body: string;
  readonly leaf: Uint8Array;
  readonly type: string;
  readonly environment: string;
};

/** Entries as they cross between threads: few large values cost less than many small ones. */
export type PackedEntries = {
  readonly bodies: readonly string[];
  readonly leaves: Uint8Array;
  /** Types and environments that occur, in pairs, and which of them each entry has. */
  readonly kinds: readonly (readonly [string, string])[];
  readonly kindOf: Uint32Array;
};

export function pack(entries: readonly PreparedEntry[]): PackedEntries {
  const numbers = new Map<string, number>();
  const kinds: [string, string][] = [];
  const kindOf = Uint32Array.from(entries, ({ type, environment }) => {
    const key = `${type} ${environment}`;
    const known = numbers.get(key);
    if (known !== undefined) return known;
    numbers.set(key, kinds.length);
    return kinds.push([type, environment]) - 1;
  });
  const leaves = new Uint8Array(32 * entries.length);
  for (const [i, { leaf }] of entries.entries()) leaves.set(leaf, 32 * i);
  return { bodies: entries.map((e) => e.body), leaves, kinds, kindOf };
}

export function unpack({ bodies, leaves, kinds, kindOf }: PackedEntries): PreparedEntry[] {
  return bodies.map((body, i) => {
    const [type, environment] = kinds[kindOf[i] as number] as readonly [string, string];
    return { body, leaf: leaves.subarray(32 * i, 32 * (i + 1)), type, environment };
  });
}

/** One stored entry, as bytes. */
export type StoredEntry = PreparedEntry & { readonly index: number };

/**
 * A personal text that entries and evidence name by its commitment only: `subject:` and SHA-256(salt ‖ text). Erasable.
 */
export type Subject = { readonly commitment: string; readonly salt: Uint8Array; readonly text: string };

/** The commitment to a text under a salt. */
export function commitmentOf(salt: Uint8Array, text: string): string {
  return `subject:${sha256(Buffer.concat([salt, Buffer.from(text)]))}`;
}

/** Whether a text is the one that its commitment was made to. */
export function isOpened({ commitment, salt, text }: Subject): boolean {
  return commitmentOf(salt, text) === commitment;
}

// A name or address goes on over these; `.` and `’` only where more of it follows.
const PART = String.raw`[\p{L}\p{M}\p{N}_@%+-]`;

/**
 * Whether a kept text is a name or address, or holds it whole: `dana@example.com` in `Dana <dana@example.com>`, but not
 * in `jordana@example.com`.
 */
export function isNamedIn(text: string, name: string): boolean {
  const spelled = name.normalize('NFC').replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);
  const before = `(?<!${PART}|${PART}[.'’])`;
  const after = `(?!${PART}|[.'’]${PART})`;
  return text === name || new RegExp(`${before}${spelled}${after}`, 'iu').test(text.normalize('NFC'));
}

/** Everything that becomes durable together, or not at all. `first` is the index of the first entry. */
export type Batch = {
  readonly first: number;
  readonly entries: readonly PreparedEntry[];
  readonly evidence: readonly { readonly sha256: string; readonly bytes: string }[];
  readonly subjects: readonly Subject[];
  readonly tiles: readonly { readonly level: number; readonly n: number; readonly nodes: Uint8Array }[];
  /**
   * The checkpoint over all entries so far. `replaces` is the size of an earlier one that need not be kept any longer.
   */
  readonly checkpoint: { readonly size: number; readonly note: string; readonly replaces?: number };
};

/** Where a ledger is kept. One at a time writes to it. */
export interface Store {
  /** How many entries there are. */
  size(): Promise<number>;
  /** Entries from an index on, in order, at most `limit`. */
  entries(from: number, limit: number): Promise<StoredEntry[]>;
  tile(level: number, n: number): Promise<Uint8Array | undefined>;
  /** Adds tiles that an older version did not keep. */
  addTiles(tiles: Batch['tiles']): Promise<void>;
  /** The newest checkpoint. */
  latestCheckpoint(): Promise<{ readonly size: number; readonly note: string } | undefined>;
  /**
   * Makes a batch durable. Throws when it is certain that nothing of it was kept (`ledger-unusable`, retried), when
   * another wrote (`ledger-inconsistent`, halt), and `CommitUnknown` when it may have been kept all the same.
   */
  commit(batch: Batch): Promise<void>;
  /** Begins anew after a commit whose end is not known. Throws `ledger-unusable` while that cannot be done. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

/** It is not known whether a batch was kept: the store must be read again before anything else is signed. */
export class CommitUnknown extends Error {
  constructor(cause: unknown) {
    super('it is not known whether the commit took place', { cause });
  }
}

/** Another process wrote: nobody signs on top of that. */
export function anotherWrote(stored: number, expected: number): CountersignError {
  return new CountersignError(
    'ledger-inconsistent',
    `the ledger holds ${stored} entries, but ${expected} were written here`,
    {
      recover: 'halt',
      hint: 'another process wrote to it; find out which before starting again',
    },
  );
}

/** The store did not take a batch, and kept nothing of it. */
export function cannotWrite(cause: unknown): CountersignError {
  if (cause instanceof CountersignError && cause.code === 'ledger-unusable') return cause;
  return new CountersignError('ledger-unusable', `the ledger cannot be written: ${messageOf(cause)}`, {
    cause,
    recover: 'retry',
    hint: 'is the disk full, or the data directory gone?',
  });
}
