import { existsSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import {
  CountersignError,
  type Entry,
  type EntryOf,
  type EntryType,
  type EvidenceRef,
  type Recorded,
  sha256,
} from '../model/index.ts';
import type { ReadNode } from './merkle.ts';
import { COPY } from './sqlite-store.ts';
import { isNamedIn, isOpened, type StoredEntry, type Subject } from './store.ts';
import { damageIn, lostStore, storeTrouble } from './store-trouble.ts';
import { nodeReader } from './tiles.ts';

/** Filter for entries. All given conditions must hold. */
export type EntryFilter = {
  readonly types?: readonly string[];
  readonly environment?: string;
  /** Start (inclusive) and end (exclusive) of the period; ISO 8601. */
  readonly since?: string;
  readonly until?: string;
  /** Texts the entry must contain: as a whole value, as the beginning of one, or as the field `name`. */
  readonly holds?: readonly { readonly text: string; readonly as: 'value' | 'prefix' | 'name' }[];
  readonly from?: number;
  readonly to?: number;
};

const PAGE = 500;
const CACHE_KIB = 16 * 1024; // evidence is stored in hash order, but read in a different order
const BUSY_MS = 5000; // a service that opens or closes the ledger has exclusive access for a moment

// Returns the text as it appears in canonical JSON.
function pattern(text: string, as: 'value' | 'prefix' | 'name'): string {
  const quoted = JSON.stringify(text);
  if (as === 'prefix') return quoted.slice(0, -1);
  return as === 'name' ? `"name":${quoted}` : quoted;
}

/** Reads a ledger file without writing to it. A service may append at the same time. */
export class LedgerReader {
  readonly #db: DatabaseSync;
  readonly #file: string;
  readonly #statements = new Map<string, StatementSync>();
  readonly #evidence: StatementSync;
  #nodes: { readonly size: number; readonly read: ReadNode } | undefined;

  constructor(file: string) {
    const lost = lostStore(file);
    if (lost !== undefined) throw lost;
    if (!existsSync(file))
      throw new CountersignError('ledger-unusable', `there is no ledger at \`${file}\``, {
        hint: 'name the service’s data directory with --data',
      });
    this.#file = file;
    this.#db = this.#try(() => new DatabaseSync(file, { readOnly: true, timeout: BUSY_MS }));
    this.#evidence = this.#try(() => this.#sql('SELECT bytes FROM evidence WHERE sha256 = ?'));
    this.#evidence.setReturnArrays(true);
  }

  get size(): number {
    return this.#try(() => Number(this.#sql('SELECT coalesce(max(seq) + 1, 0) AS n FROM entry').get()?.['n'] ?? 0));
  }

  /** Yields the stored entries from one index to before another, oldest first, a page at a time. */
  *stored(from = 0, to = Number.MAX_SAFE_INTEGER): Generator<StoredEntry> {
    const page = this.#try(() =>
      this.#sql(
        'SELECT seq, leaf, body, type, environment FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT 500',
      ),
    );
    page.setReturnArrays(true); // arrays take half the time of rows with names
    for (let at = from; at < to; ) {
      const rows = this.#try(() => page.all(at, to)) as unknown as [number, Uint8Array, string, string, string][];
      for (const [index, leaf, body, type, environment] of rows) yield { index, leaf, body, type, environment };
      if (rows.length < PAGE) return;
      at = (rows.at(-1)?.[0] ?? at) + 1;
    }
  }

  /** Yields the entries that match a filter, oldest first. Names replace the commitments to them. */
  *search(filter: EntryFilter): Generator<Recorded> {
    const { types = [], environment, holds = [], since, until } = filter;
    const named = holds.map(({ text, as }) => [pattern(text, as), ...this.#commitmentsTo(text)]);
    const wanted = [
      'seq >= ? AND seq < ?',
      ...(types.length === 0 ? [] : [`type IN (${types.map(() => '?').join(', ')})`]),
      ...(environment === undefined ? [] : ['environment = ?']),
      ...named.map((any) => `(${any.map(() => 'instr(body, ?)').join(' OR ')})`),
    ];
    const values = [...types, ...(environment === undefined ? [] : [environment]), ...named.flat()];
    const sql = `SELECT seq, body FROM entry WHERE ${wanted.join(' AND ')} ORDER BY seq LIMIT ${PAGE}`;
    const end =
      until === undefined
        ? (filter.to ?? Number.MAX_SAFE_INTEGER)
        : Math.min(this.firstAt(until), filter.to ?? Number.MAX_SAFE_INTEGER);
    for (let at = Math.max(filter.from ?? 0, since === undefined ? 0 : this.firstAt(since)); ; ) {
      const rows = this.#try(() => this.#sql(sql).all(at, end, ...values));
      for (const row of rows) yield this.#recorded(row);
      if (rows.length < PAGE) return;
      at = Number(rows.at(-1)?.['seq']) + 1;
    }
  }

  /**
   * Returns the index of the first entry at or after a time, or the size if there is none. Time on a ledger never goes
   * back.
   */
  firstAt(time: string): number {
    let [low, high] = [0, this.size];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.entry(middle)?.entry.time ?? '') < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Returns the newest entry of a type (and of one environment, if given) that is older than `before`. */
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before = Number.MAX_SAFE_INTEGER,
  ): Recorded<EntryOf<T>> | undefined {
    const marks = types.map(() => '?').join(', ');
    const sql =
      `SELECT seq, body FROM entry WHERE type IN (${marks}) ` +
      'AND environment = ? AND seq < ? ORDER BY seq DESC LIMIT 1';
    const row = this.#try(() => this.#sql(sql).get(...types, environment, before));
    return row === undefined ? undefined : (this.#recorded(row) as Recorded<EntryOf<T>>);
  }

  /** Returns every entry of one type in one environment, oldest first. */
  all<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[] {
    const sql = 'SELECT seq, body FROM entry WHERE type = ? AND environment = ? ORDER BY seq';
    return this.#try(() => this.#sql(sql).all(type, environment)).map(
      (row) => this.#recorded(row) as Recorded<EntryOf<T>>,
    );
  }

  /** Returns the entry at an index, or undefined. */
  entry(index: number): Recorded | undefined {
    const row = this.#try(() => this.#sql('SELECT seq, body FROM entry WHERE seq = ?').get(index));
    return row === undefined ? undefined : this.#recorded(row);
  }

  /** Returns evidence as it was recorded. Throws `ledger-inconsistent` if it is missing or altered. */
  evidence(ref: EvidenceRef): unknown {
    const bytes = this.evidenceBytes(ref.sha256);
    if (bytes === undefined || sha256(bytes) !== ref.sha256) {
      throw new CountersignError(
        'ledger-inconsistent',
        `the evidence ${ref.sha256.slice(0, 12)} in \`${this.#file}\` ` +
          `is ${bytes === undefined ? 'missing' : 'altered'}`,
        { recover: 'halt', hint: 'restore the ledger from a backup' },
      );
    }
    return JSON.parse(this.#named(bytes));
  }

  evidenceBytes(digest: string): string | undefined {
    const row = this.#try(() => this.#evidence.get(digest)) as unknown as [string] | undefined;
    return row?.[0];
  }

  /** Returns every signed checkpoint, smallest first. */
  checkpoints(): { readonly size: number; readonly note: string }[] {
    return this.#try(() => this.#sql('SELECT size, note FROM checkpoint ORDER BY size').all()).map((row) => ({
      size: Number(row['size']),
      note: String(row['note']),
    }));
  }

  latestCheckpoint(): string | undefined {
    const row = this.#try(() => this.#sql('SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1').get());
    return row === undefined ? undefined : String(row['note']);
  }

  /** Returns a reader of the nodes in the tree of the first `size` leaves. */
  nodes(size: number): ReadNode {
    if (this.#nodes?.size === size) return this.#nodes.read;
    const source = {
      tile: (level: number, n: number) => this.tile(level, n),
      leaves: (from: number, to: number) =>
        this.#try(() => this.#sql('SELECT leaf FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq').all(from, to)).map(
          (row) => row['leaf'] as Uint8Array,
        ),
    };
    this.#nodes = { size, read: nodeReader(source, size) };
    return this.#nodes.read;
  }

  /** Returns all nodes of a full tile, or undefined. */
  tile(level: number, n: number): Uint8Array | undefined {
    return this.#try(() => this.#sql('SELECT nodes FROM tile WHERE level = ? AND n = ?').get(level, n))?.['nodes'] as
      | Uint8Array
      | undefined;
  }

  /** Returns the commitment to a personal text, if there is one. */
  commitmentTo(text: string): string | undefined {
    return this.#commitmentsTo(text)[0];
  }

  /**
   * Returns every stored text that contains a name, with its commitments. A text has one commitment more each time it
   * is recorded again after being erased.
   */
  naming(name: string): { readonly texts: readonly string[]; readonly commitments: readonly string[] } {
    const found = [...this.subjects()].filter(({ text }) => isNamedIn(text, name));
    return { texts: [...new Set(found.map((s) => s.text))].sort(), commitments: found.map((s) => s.commitment).sort() };
  }

  /** Yields every personal text that is not erased. */
  *subjects(): Generator<Subject> {
    for (const row of this.#try(() =>
      this.#sql('SELECT commitment, salt, text FROM subject ORDER BY commitment').all(),
    ))
      yield asSubject(row);
  }

  /** Makes all later reads see the current state, even while a service appends. For readers that are closed soon. */
  freeze(): this {
    this.#try(() => {
      this.#db.exec(`PRAGMA cache_size = -${CACHE_KIB}; BEGIN`);
      this.#db.prepare('SELECT count(*) FROM checkpoint').get();
    });
    return this;
  }

  /** Tests whether the file is a replica's copy of a ledger in PostgreSQL. */
  get isCopy(): boolean {
    return this.#try(() => this.#sql('PRAGMA user_version').get()?.['user_version']) === COPY;
  }

  /** Returns the problems that SQLite finds in the file itself. */
  damage(): readonly string[] {
    return damageIn(this.#db, 'whole');
  }

  close(): void {
    this.#db.close();
  }

  #commitmentsTo(text: string): string[] {
    return this.#try(() =>
      this.#sql('SELECT commitment FROM subject WHERE text = ? ORDER BY commitment').all(text),
    ).map((row) => String(row['commitment']));
  }

  #recorded(row: Record<string, unknown>): Recorded {
    return { index: Number(row['seq']), entry: JSON.parse(this.#named(String(row['body']))) as Entry };
  }

  // Puts names in place of their commitments. Erased or altered names stay commitments.
  #named(json: string): string {
    if (!json.includes('subject:')) return json;
    return json.replace(/subject:[0-9a-f]{64}/g, (commitment) => {
      const row = this.#try(() =>
        this.#sql('SELECT commitment, salt, text FROM subject WHERE commitment = ?').get(commitment),
      );
      const subject = row === undefined ? undefined : asSubject(row);
      return subject === undefined || !isOpened(subject) ? commitment : JSON.stringify(subject.text).slice(1, -1);
    });
  }

  #sql(sql: string): StatementSync {
    const known = this.#statements.get(sql) ?? this.#db.prepare(sql);
    this.#statements.set(sql, known);
    return known;
  }

  #try<T>(read: () => T): T {
    try {
      return read();
    } catch (cause) {
      throw storeTrouble(this.#file, cause, 'read');
    }
  }
}

function asSubject(row: Record<string, unknown>): Subject {
  return { commitment: String(row['commitment']), salt: row['salt'] as Uint8Array, text: String(row['text']) };
}
