import { closeSync, openSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { CountersignError } from '../model/index.ts';
import {
  anotherWrote,
  type Batch,
  CommitUnknown,
  cannotWrite,
  type PreparedEntry,
  type Store,
  type StoredEntry,
} from './store.ts';
import { refuseDamaged, storeTrouble } from './store-trouble.ts';

/** Refuse changes of what is there. Only the move of proven content to an archive lifts them, for its transaction. */
export const KEPT_TRIGGERS = `
  CREATE TRIGGER IF NOT EXISTS entry_is_kept BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS entry_is_fixed BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS evidence_is_kept BEFORE DELETE ON evidence
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS evidence_is_fixed BEFORE UPDATE ON evidence
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS tile_is_kept BEFORE DELETE ON tile
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
  CREATE TRIGGER IF NOT EXISTS tile_is_fixed BEFORE UPDATE ON tile
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
`;

const SCHEMA = `
  PRAGMA page_size = 8192;
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  PRAGMA wal_autocheckpoint = 4000;
  CREATE TABLE IF NOT EXISTS entry (
    seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, body TEXT NOT NULL, type TEXT NOT NULL, environment TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS entry_by_type ON entry (environment, type, seq);
  CREATE TABLE IF NOT EXISTS tile (
    level INTEGER NOT NULL, n INTEGER NOT NULL, nodes BLOB NOT NULL, PRIMARY KEY (level, n)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS evidence (sha256 TEXT PRIMARY KEY, bytes TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS subject (
    commitment TEXT PRIMARY KEY, salt BLOB NOT NULL, text TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS subject_by_text ON subject (text);
  CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
`;

/**
 * A ledger in one SQLite file; a replica's copy of a database, not synced to disk; or a ledger being built from an
 * export.
 */
type Kind = 'ledger' | 'copy' | 'import';

export class SqliteStore implements Store {
  readonly #file: string;
  readonly #kind: Kind;
  #db: DatabaseSync;
  #statements: Statements;

  constructor(file: string, kind: Kind = 'ledger') {
    this.#file = file;
    this.#kind = kind;
    this.#db = openDatabase(file, kind, kind === 'ledger');
    this.#statements = prepare(this.#db);
  }

  async reopen(): Promise<void> {
    this.#db.close();
    this.#db = openDatabase(this.#file, this.#kind);
    this.#statements = prepare(this.#db);
  }

  async size(): Promise<number> {
    return this.#size();
  }

  async entries(from: number, limit: number): Promise<StoredEntry[]> {
    return this.#statements.entries.all(from, limit).map(asStored);
  }

  /** Returns the bytes of one entry. */
  body(index: number): string | undefined {
    const row = this.#statements.entries.get(index, 1);
    return row === undefined || Number(row['seq']) !== index ? undefined : String(row['body']);
  }

  hasEvidence(digest: string): boolean {
    return this.#statements.hasEvidence.get(digest) !== undefined;
  }

  async tile(level: number, n: number): Promise<Uint8Array | undefined> {
    return this.#statements.tile.get(level, n)?.['nodes'] as Uint8Array | undefined;
  }

  async addTiles(tiles: Batch['tiles']): Promise<void> {
    this.#transaction(() => {
      for (const { level, n, nodes } of tiles) this.#statements.addTile.run(level, n, nodes);
    });
  }

  async latestCheckpoint(): Promise<{ size: number; note: string } | undefined> {
    const row = this.#statements.latestCheckpoint.get();
    return row === undefined ? undefined : { size: Number(row['size']), note: String(row['note']) };
  }

  async commit(batch: Batch): Promise<void> {
    this.#transaction(() => {
      const stored = this.#size();
      if (stored !== batch.first) throw anotherWrote(stored, batch.first);
      this.#insert(batch);
    });
  }

  /** Adds entries that are already signed: a copy of a ledger from elsewhere. */
  async add(
    batch: Omit<Batch, 'checkpoint'>,
    notes: readonly { readonly size: number; readonly note: string }[],
    replaces?: number,
  ): Promise<void> {
    this.#transaction(() => {
      const stored = this.#size();
      if (stored !== batch.first) throw anotherWrote(stored, batch.first);
      this.#insertAll(batch);
      if (replaces !== undefined) this.#statements.dropCheckpoint.run(replaces);
      for (const { size, note } of notes) this.#statements.addCheckpoint.run(size, note);
    });
  }

  /** Erases all personal texts except these: they were erased at the source of this copy. */
  keepSubjects(commitments: ReadonlySet<string>): void {
    const all = this.#db.prepare('SELECT commitment FROM subject').all();
    const drop = this.#db.prepare('DELETE FROM subject WHERE commitment = ?');
    for (const { commitment } of all) if (!commitments.has(String(commitment))) drop.run(String(commitment));
  }

  async close(): Promise<void> {
    this.#db.close();
  }

  #insert(batch: Batch): void {
    this.#insertAll(batch);
    if (batch.checkpoint.replaces !== undefined) this.#statements.dropCheckpoint.run(batch.checkpoint.replaces);
    this.#statements.addCheckpoint.run(batch.checkpoint.size, batch.checkpoint.note);
  }

  #insertAll(batch: Omit<Batch, 'checkpoint'>): void {
    const { addEvidence, addSubject, addTile } = this.#statements;
    this.#insertEntries(batch);
    for (const { sha256, bytes } of batch.evidence) addEvidence.run(sha256, bytes);
    for (const { commitment, salt, text } of batch.subjects) addSubject.run(commitment, salt, text);
    for (const { level, n, nodes } of batch.tiles) addTile.run(level, n, nodes);
  }

  // Several rows per statement save a seventh of the time.
  #insertEntries({ first, entries }: Pick<Batch, 'first' | 'entries'>): void {
    const { addEntries, addEntry } = this.#statements;
    const values = (i: number) => {
      const { leaf, body, type, environment } = entries[i] as PreparedEntry;
      return [first + i, leaf, body, type, environment];
    };
    let at = 0;
    for (; at + ROWS <= entries.length; at += ROWS) {
      const rows: (number | string | Uint8Array)[] = [];
      for (let i = at; i < at + ROWS; i++) rows.push(...values(i));
      addEntries.run(...rows);
    }
    for (; at < entries.length; at++) addEntry.run(...values(at));
  }

  #size(): number {
    return Number(this.#statements.size.get()?.['n']);
  }

  #transaction(work: () => void): void {
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      work();
    } catch (thrown) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      if (thrown instanceof CountersignError) throw thrown;
      throw cannotWrite(thrown);
    }
    try {
      this.#db.exec('COMMIT');
    } catch (thrown) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw new CommitUnknown(thrown);
    }
  }
}

function openDatabase(file: string, kind: Kind, isChecked = false): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    closeSync(openSync(file, 'a', 0o600)); // SQLite's other files get the same mode
    db = new DatabaseSync(file, { timeout: 2000 }); // from the first statement: a reader may be recovering its files
    if (isChecked) refuseDamaged(db, file);
    db.exec(SCHEMA);
    db.exec(KEPT_TRIGGERS);
    if (kind !== 'ledger') db.exec('PRAGMA synchronous = OFF');
    markAs(db, file, kind === 'copy' ? COPY : LEDGER);
    return db;
  } catch (cause) {
    if (db?.isOpen === true) db.close();
    if (cause instanceof CountersignError) throw cause;
    throw storeTrouble(file, cause, 'open');
  }
}

// Written in the file's own header, so that a ledger and a copy are never confused: appending to a copy would be a
// fork.
const LEDGER = 1;
export const COPY = 2;
export const ARCHIVE = 3;

function markAs(db: DatabaseSync, file: string, mark: number): void {
  const present = Number(db.prepare('PRAGMA user_version').get()?.['user_version']);
  if (present === mark) return;
  if (present === ARCHIVE)
    throw new CountersignError('ledger-unusable', `\`${file}\` is an archive of a ledger and must not be written to`);
  if (present !== 0) {
    throw mark === LEDGER
      ? new CountersignError(
          'ledger-unusable',
          `\`${file}\` is a replica’s copy of a ledger in PostgreSQL and must not be written to`,
          {
            hint: 'give the database with --ledger',
          },
        )
      : new CountersignError('ledger-unusable', `\`${file}\` is a ledger of its own, not a copy of one in PostgreSQL`, {
          hint: 'give the service a different --data',
        });
  }
  db.exec(`PRAGMA user_version = ${mark}`);
}

type Statements = Readonly<Record<keyof typeof SQL, StatementSync>>;

const ROWS = 8;

const SQL = {
  size: 'SELECT coalesce(max(seq) + 1, 0) AS n FROM entry',
  entries: 'SELECT seq, leaf, body, type, environment FROM entry WHERE seq >= ? ORDER BY seq LIMIT ?',
  tile: 'SELECT nodes FROM tile WHERE level = ? AND n = ?',
  addTile: 'INSERT INTO tile VALUES (?, ?, ?)',
  latestCheckpoint: 'SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1',
  addEntry: 'INSERT INTO entry VALUES (?, ?, ?, ?, ?)',
  addEntries: `INSERT INTO entry VALUES ${Array(ROWS).fill('(?, ?, ?, ?, ?)').join(', ')}`,
  hasEvidence: 'SELECT 1 AS n FROM evidence WHERE sha256 = ?',
  addEvidence: 'INSERT OR IGNORE INTO evidence VALUES (?, ?)',
  addSubject: 'INSERT OR IGNORE INTO subject VALUES (?, ?, ?)',
  addCheckpoint: 'INSERT INTO checkpoint VALUES (?, ?)',
  dropCheckpoint: 'DELETE FROM checkpoint WHERE size = ?',
} as const;

function prepare(db: DatabaseSync): Statements {
  return Object.fromEntries(Object.entries(SQL).map(([name, sql]) => [name, db.prepare(sql)])) as Statements;
}

function asStored(row: Record<string, unknown>): StoredEntry {
  return {
    index: Number(row['seq']),
    leaf: row['leaf'] as Uint8Array,
    body: String(row['body']),
    type: String(row['type']),
    environment: String(row['environment']),
  };
}
