import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CountersignError, canonicalJson, type Entry, type EntryBody, messageOf, type Recorded } from '../model/index.ts';
import { openCheckpoint, signCheckpoint } from './checkpoint.ts';
import type { Evidence } from './evidence.ts';
import { LedgerReader } from './ledger-reader.ts';
import { CompactRange, leafHash } from './merkle.ts';
import { createKey, readSigner, type Signer, type Verifier, verifierText } from './note.ts';

/** Files of a ledger in its data directory. */
export const LEDGER_FILES = {
  store: 'ledger.db',
  lock: 'ledger.lock',
  key: 'ledger.key',
  verifier: 'ledger.pub',
  anchor: 'checkpoint',
} as const;
const FILES = LEDGER_FILES;

/** The store of a ledger, given its data directory or the store itself. */
export function ledgerFile(path: string): string {
  return path.endsWith('.db') ? path : join(path, FILES.store);
}

const MAX_ENTRY = 65_535; // C2SP tlog-tiles writes the length of an entry in 16 bits

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, body TEXT NOT NULL, type TEXT NOT NULL, environment TEXT NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS entry_by_type ON entry (environment, type, seq);
  CREATE TABLE IF NOT EXISTS evidence (sha256 TEXT PRIMARY KEY, bytes TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
  CREATE TRIGGER IF NOT EXISTS entry_is_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS entry_is_fixed BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS evidence_is_kept BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS evidence_is_fixed BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
`;

type Waiting = {
  readonly body: EntryBody;
  readonly evidence: readonly Evidence[];
  readonly resolve: (recorded: Recorded) => void;
  readonly reject: (reason: unknown) => void;
};

/** The append side of a ledger. One process holds it; entries waiting at the same time share one durable commit. */
export class Ledger {
  readonly read: LedgerReader;
  readonly verifier: Verifier;
  readonly #db: DatabaseSync;
  readonly #lock: DatabaseSync;
  readonly #signer: Signer;
  readonly #anchor: string;
  readonly #clock: () => Date;
  readonly #warn: (message: string) => void;
  #range: CompactRange;
  #waiting: Waiting[] = [];
  #broken: CountersignError | undefined;

  constructor(parts: {
    directory: string;
    db: DatabaseSync;
    lock: DatabaseSync;
    signer: Signer;
    range: CompactRange;
    clock: () => Date;
    warn: (message: string) => void;
  }) {
    this.read = new LedgerReader(join(parts.directory, FILES.store));
    this.verifier = parts.signer;
    this.#db = parts.db;
    this.#lock = parts.lock;
    this.#signer = parts.signer;
    this.#range = parts.range;
    this.#anchor = join(parts.directory, FILES.anchor);
    this.#clock = parts.clock;
    this.#warn = parts.warn;
  }

  get size(): number {
    return this.#range.size;
  }

  /** Resolves once the entry and its evidence are durable and under a signed checkpoint. Throws `ledger-unusable` or `ledger-inconsistent`. */
  record(body: EntryBody, evidence: readonly Evidence[] = []): Promise<Recorded> {
    return new Promise((resolve, reject) => {
      const size = Buffer.byteLength(canonicalJson({ v: 1, time: this.#clock().toISOString(), ...body }));
      if (size > MAX_ENTRY)
        return reject(new CountersignError('ledger-unusable', `an entry of type \`${body.type}\` is larger than ${MAX_ENTRY} bytes`));
      if (this.#broken !== undefined) return reject(this.#broken);
      if (this.#waiting.push({ body, evidence, resolve, reject }) === 1) setImmediate(() => this.#flush());
    });
  }

  close(): void {
    this.#flush();
    this.read.close();
    this.#db.close();
    this.#lock.close();
  }

  #flush(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    if (batch.length === 0) return;
    try {
      const recorded = this.#commit(batch);
      for (const [i, waiting] of batch.entries()) waiting.resolve(recorded[i] as Recorded);
    } catch (thrown) {
      const error =
        thrown instanceof CountersignError
          ? thrown
          : new CountersignError('ledger-unusable', `the ledger cannot be written: ${messageOf(thrown)}`, {
              cause: thrown,
              recover: 'retry',
              hint: 'is the disk full, or the data directory gone?',
            });
      if (error.recover === 'halt') this.#broken = error;
      for (const waiting of batch) waiting.reject(error);
    }
  }

  #commit(batch: readonly Waiting[]): Recorded[] {
    const range = this.#range.copy();
    const time = this.#clock().toISOString();
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const stored = Number(this.#db.prepare('SELECT coalesce(max(seq) + 1, 0) AS n FROM entry').get()?.['n']);
      if (stored !== range.size)
        throw new CountersignError('ledger-inconsistent', `the ledger holds ${stored} entries, but ${range.size} were written here`, {
          recover: 'halt',
          hint: 'another process wrote to it; find out which before starting again',
        });
      const recorded = batch.map(({ body, evidence }) => this.#insert(range, { v: 1, time, ...body } as Entry, evidence));
      this.#db.prepare('INSERT INTO checkpoint VALUES (?, ?)').run(range.size, signCheckpoint(range.size, range.root(), this.#signer));
      this.#db.exec('COMMIT');
      this.#range = range;
      this.#writeAnchor();
      return recorded;
    } catch (thrown) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw thrown;
    }
  }

  #insert(range: CompactRange, entry: Entry, evidence: readonly Evidence[]): Recorded {
    const body = canonicalJson(entry);
    for (const { ref, bytes } of evidence) this.#db.prepare('INSERT OR IGNORE INTO evidence VALUES (?, ?)').run(ref.sha256, bytes);
    const leaf = leafHash(Buffer.from(body));
    const index = range.size;
    this.#db
      .prepare('INSERT INTO entry VALUES (?, ?, ?, ?, ?)')
      .run(index, leaf, body, entry.type, 'environment' in entry ? entry.environment : '');
    range.append(leaf);
    return { index, entry };
  }

  // Outside the store on purpose: a store that was put back to an older state no longer fits it. An old anchor still holds.
  #writeAnchor(): void {
    const note = this.read.latestCheckpoint();
    if (note === undefined) return;
    try {
      writeFileSync(`${this.#anchor}.new`, note);
      renameSync(`${this.#anchor}.new`, this.#anchor);
    } catch (thrown) {
      // What was committed is recorded all the same: to say otherwise would be the greater harm.
      this.#warn(`the ledger’s anchor \`${this.#anchor}\` cannot be written: ${messageOf(thrown)}`);
    }
  }
}

/**
 * Opens (or begins) the ledger in a data directory, and checks that what is stored is what was signed:
 * every leaf, the last checkpoint and the anchor. Throws `ledger-inconsistent` (halt) otherwise, and
 * `ledger-unusable` while another process holds it.
 */
export function openLedger(
  directory: string,
  origin: string,
  clock: () => Date = () => new Date(),
  warn: (message: string) => void = () => {},
): Ledger {
  mkdirSync(directory, { recursive: true });
  const lock = takeLock(join(directory, FILES.lock));
  try {
    const file = join(directory, FILES.store);
    const signer = openSigner(directory, origin, !existsSync(file));
    const db = openStore(file);
    const range = rebuild(file, join(directory, FILES.anchor), signer);
    if (range.size > 0 && !existsSync(join(directory, FILES.anchor)))
      warn('the ledger’s anchor is missing: whether the store was put back to an older state cannot be told');
    const ledger = new Ledger({ directory, db, lock, signer, range, clock, warn });
    if (range.size === 0) void ledger.record({ type: 'log.opened', origin: signer.name }).catch(() => {}); // a failure shows at the next record
    return ledger;
  } catch (thrown) {
    lock.close();
    throw thrown;
  }
}

function openStore(file: string): DatabaseSync {
  try {
    const db = new DatabaseSync(file);
    db.exec(SCHEMA);
    return db;
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `the ledger \`${file}\` cannot be opened: ${messageOf(cause)}`, {
      cause,
      recover: 'halt',
      hint: 'is it a ledger, and may this user write it?',
    });
  }
}

// SQLite's own file lock on a second file: released by the system however the process ends, and readers are not in its way.
function takeLock(file: string): DatabaseSync {
  const lock = new DatabaseSync(file);
  try {
    lock.exec('PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE');
    return lock;
  } catch (cause) {
    lock.close();
    throw new CountersignError('ledger-unusable', `another process holds the ledger (\`${file}\`)`, {
      cause,
      hint: 'stop the other `countersign serve`, or give this one its own --data',
    });
  }
}

/** The name of the ledger that was begun in a directory, or undefined; a ledger keeps its name. */
export function ledgerName(directory: string): string | undefined {
  const file = join(directory, FILES.verifier);
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('+')[0] : undefined;
}

function openSigner(directory: string, origin: string, isNew: boolean): Signer {
  const file = join(directory, FILES.key);
  if (!existsSync(file)) {
    if (!isNew)
      throw new CountersignError('key-missing', `the ledger’s key \`${file}\` is missing`, {
        recover: 'halt',
        hint: 'restore it from your backup; a new key cannot continue this ledger',
      });
    writeFileSync(file, createKey(), { mode: 0o600, flag: 'wx' });
  }
  const signer = readSigner(ledgerName(directory) ?? origin, readFileSync(file, 'utf8'));
  writeFileSync(join(directory, FILES.verifier), `${verifierText(signer)}\n`);
  return signer;
}

function rebuild(file: string, anchorFile: string, verifier: Verifier): CompactRange {
  const halt = (message: string) =>
    new CountersignError('ledger-inconsistent', message, {
      recover: 'halt',
      hint: 'run `countersign ledger verify`; nothing more is signed until it is settled',
    });
  const reader = new LedgerReader(file);
  try {
    const note = reader.latestCheckpoint();
    const last = note === undefined ? undefined : openCheckpoint(note, verifier);
    if (note !== undefined && last === undefined) throw halt(`the last checkpoint of \`${file}\` is not signed by this ledger’s key`);
    const anchor = existsSync(anchorFile) ? openCheckpoint(readFileSync(anchorFile, 'utf8'), verifier) : undefined;
    if (existsSync(anchorFile) && anchor === undefined)
      throw halt(`the checkpoint in \`${anchorFile}\` is not signed by this ledger’s key`);
    const range = new CompactRange();
    const matches = (checkpoint: { size: number; root: Buffer } | undefined) =>
      checkpoint?.size !== range.size || checkpoint.root.equals(range.root());
    for (const stored of reader.stored()) {
      if (stored.index !== range.size) throw halt(`entry ${range.size} is missing from \`${file}\``);
      if (!leafHash(Buffer.from(stored.body)).equals(stored.leaf))
        throw halt(`entry ${stored.index} (${stored.type}) of \`${file}\` was altered`);
      range.append(stored.leaf);
      if (!matches(anchor) || !matches(last))
        throw halt(`\`${file}\` is not the ledger that was signed: its root differs at ${range.size} entries`);
    }
    if (last !== undefined && last.size !== range.size)
      throw halt(`\`${file}\` holds ${range.size} entries, but its last checkpoint was signed over ${last.size}`);
    if (anchor !== undefined && anchor.size > range.size)
      throw halt(`\`${file}\` holds ${range.size} entries, but ${anchor.size} were signed: it was put back to an older state`);
    return range;
  } finally {
    reader.close();
  }
}
