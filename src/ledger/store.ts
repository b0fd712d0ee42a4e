import { randomBytes } from 'node:crypto';
import { CountersignError, messageOf, sha256 } from '../model/index.ts';

/**
 * An entry on its way into a store: its canonical bytes, their leaf hash, and the type and environment it is filed
 * under.
 */
export type PreparedEntry = {
  readonly body: string;
  readonly leaf: Uint8Array;
  readonly type: string;
  readonly environment: string;
};

/** Entries packed for transfer between threads: few large values cost less than many small ones. */
export type PackedEntries = {
  readonly bodies: readonly string[];
  readonly leaves: Uint8Array;
  /** The pairs of type and environment that occur, and the pair of each entry. */
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
 * A personal text that entries and evidence name only by its commitment: `subject:` and SHA-256(salt ‖ text). Erasable.
 */
export type Subject = { readonly commitment: string; readonly salt: Uint8Array; readonly text: string };

/** Computes the commitment to a text under a salt. */
export function commitmentOf(salt: Uint8Array, text: string): string {
  return `subject:${sha256(Buffer.concat([salt, Buffer.from(text)]))}`;
}

/** Returns a personal text with a new commitment to it. */
export function subjectOf(text: string): Subject {
  const salt = randomBytes(16);
  return { commitment: commitmentOf(salt, text), salt, text };
}

/** Tests whether a text matches its commitment. */
export function isOpened({ commitment, salt, text }: Subject): boolean {
  return commitmentOf(salt, text) === commitment;
}

// Characters that continue a name or address; `.` and `’` only if more of it follows.
const PART = String.raw`[\p{L}\p{M}\p{N}_@%+-]`;

/**
 * Tests whether a stored text is a name or address, or contains it as a whole. `dana@example.com` is in `Dana
 * <dana@example.com>`, but not in `jordana@example.com`.
 */
export function isNamedIn(text: string, name: string): boolean {
  const spelled = name.normalize('NFC').replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);
  const before = `(?<!${PART}|${PART}[.'’])`;
  const after = `(?!${PART}|[.'’]${PART})`;
  return text === name || new RegExp(`${before}${spelled}${after}`, 'iu').test(text.normalize('NFC'));
}

/** A unit of entries and data that becomes durable together, or not at all. `first` is the index of the first entry. */
export type Batch = {
  readonly first: number;
  readonly entries: readonly PreparedEntry[];
  readonly evidence: readonly { readonly sha256: string; readonly bytes: string }[];
  readonly subjects: readonly Subject[];
  readonly tiles: readonly { readonly level: number; readonly n: number; readonly nodes: Uint8Array }[];
  /** The checkpoint over all entries so far. `replaces` is the size of an earlier one that is no longer needed. */
  readonly checkpoint: { readonly size: number; readonly note: string; readonly replaces?: number };
};

/** Storage of a ledger. It has one writer at a time. */
export interface Store {
  /** Returns the number of entries. */
  size(): Promise<number>;
  /** Returns at most `limit` entries from an index on, in order. */
  entries(from: number, limit: number): Promise<StoredEntry[]>;
  tile(level: number, n: number): Promise<Uint8Array | undefined>;
  /** Adds tiles that an older version did not store. */
  addTiles(tiles: Batch['tiles']): Promise<void>;
  /** Returns the newest checkpoint. */
  latestCheckpoint(): Promise<{ readonly size: number; readonly note: string } | undefined>;
  /**
   * Makes a batch durable. Throws `ledger-unusable` (retry) if certainly nothing was stored, `ledger-inconsistent`
   * (halt) if another process wrote, and `CommitUnknown` if the batch may have been stored.
   */
  commit(batch: Batch): Promise<void>;
  /** Starts over after a commit with unknown outcome. Throws `ledger-unusable` while that is not possible. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

/** Thrown if it is unknown whether a batch was stored: the store must be read again before anything else is signed. */
export class CommitUnknown extends Error {
  constructor(cause: unknown) {
    super('the outcome of the commit is unknown', { cause });
  }
}

/** Another process wrote: nothing may be signed on top of that. */
export function anotherWrote(stored: number, expected: number): CountersignError {
  return new CountersignError(
    'ledger-inconsistent',
    `the ledger holds ${stored} entries, but this process wrote ${expected}`,
    {
      recover: 'halt',
      hint: 'another process wrote to it; find out which one before you restart',
    },
  );
}

/** The store refused a batch and stored nothing of it. */
export function cannotWrite(cause: unknown): CountersignError {
  if (cause instanceof CountersignError && cause.code === 'ledger-unusable') return cause;
  return new CountersignError('ledger-unusable', `cannot write the ledger: ${messageOf(cause)}`, {
    cause,
    recover: 'retry',
    hint: 'check that the disk is not full and the data directory exists',
  });
}
