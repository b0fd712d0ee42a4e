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
import { readStub } from './archived-entries.ts';
import { type ArchivedRow, Archives, type Unread } from './archives.ts';
import { conditionOf, type EntryFilter } from './entry-filter.ts';
import type { ReadNode } from './merkle.ts';
import { COPY } from './sqlite-store.ts';
import { isNamedIn, isOpened, type StoredEntry, type Subject } from './store.ts';
import { damageIn, lostStore, storeTrouble } from './store-trouble.ts';
import { nodeReader } from './tiles.ts';

const PAGE = 500;
const CACHE_KIB = 16 * 1024; // evidence is stored in hash order, but read in a different order
const BUSY_MS = 5000; // a service that opens or closes the ledger has exclusive access for a moment

/**
 * Reads a ledger file without writing to it. A service may append at the same time. The content of archived entries
 * comes from their archive: in the given directory, or where the ledger says it was put. If it is at neither, reading
 * it throws `entry-archived`.
 */
export class LedgerReader {
  readonly #db: DatabaseSync;
  readonly #file: string;
  readonly #statements = new Map<string, StatementSync>();
  readonly #evidence: StatementSync;
  readonly #archive: string | undefined;
  #archives: Archives | undefined;
  #nodes: { readonly size: number; readonly read: ReadNode } | undefined;

  constructor(file: string, archive?: string) {
    const lost = lostStore(file);
    if (lost !== undefined) throw lost;
    if (!existsSync(file))
      throw new CountersignError('ledger-unusable', `there is no ledger at \`${file}\``, {
        hint: 'name the service’s data directory with --data',
      });
    this.#file = file;
    this.#archive = archive;
    this.#db = this.#try(() => new DatabaseSync(file, { readOnly: true, timeout: BUSY_MS }));
    this.#evidence = this.#try(() => this.#sql('SELECT bytes FROM evidence WHERE sha256 = ?'));
    this.#evidence.setReturnArrays(true);
  }

  get size(): number {
    return this.#try(() => Number(this.#sql('SELECT coalesce(max(seq) + 1, 0) AS n FROM entry').get()?.['n'] ?? 0));
  }

  /** Yields the entries from one index to before another, oldest first, a page at a time. */
  *stored(from = 0, to = Number.MAX_SAFE_INTEGER): Generator<StoredEntry> {
    for (const row of this.rows(from, to)) {
      const stub = readStub(row.body);
      yield stub === undefined ? row : { ...row, body: this.archives().content(row.index, stub) };
    }
  }

  /** Yields the rows of the store as they are: the body of an archived entry is what stands in its place. */
  *rows(from = 0, to = Number.MAX_SAFE_INTEGER): Generator<StoredEntry> {
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

  /**
   * Yields the entries that match a filter, oldest first. Names replace the commitments to them. `unread` is given
   * every archived entry that may match and is not at hand; without it, such an entry throws `entry-archived`.
   */
  *search(filter: EntryFilter, unread?: (entry: Unread) => void): Generator<Recorded> {
    const { since, until } = filter;
    const { sql, values, holdsIn } = conditionOf(filter, (text) => this.#commitmentsTo(text));
    const select = `SELECT seq, body FROM entry WHERE ${sql} ORDER BY seq LIMIT ${PAGE}`;
    const end =
      until === undefined
        ? (filter.to ?? Number.MAX_SAFE_INTEGER)
        : Math.min(this.firstAt(until), filter.to ?? Number.MAX_SAFE_INTEGER);
    for (let at = Math.max(filter.from ?? 0, since === undefined ? 0 : this.firstAt(since)); ; ) {
      const rows = this.#try(() => this.#sql(select).all(at, end, ...values));
      for (const row of rows) {
        const [index, stub] = [Number(row['seq']), readStub(String(row['body']))];
        if (stub === undefined) yield this.#recorded(row);
        else if (unread !== undefined && !this.archives().hasAtHand(stub)) unread(this.archives().unread(index, stub));
        else {
          const body = this.archives().content(index, stub);
          if (holdsIn(body)) yield this.#recorded({ seq: index, body });
        }
      }
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
      if (this.#timeOf(middle) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * Returns the newest entry of a type (and of one environment, if given) that is older than `before`, unless it is
   * older than the time `since`.
   */
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before = Number.MAX_SAFE_INTEGER,
    since = '',
  ): Recorded<EntryOf<T>> | undefined {
    const marks = types.map(() => '?').join(', ');
    const sql =
      `SELECT seq, body FROM entry WHERE type IN (${marks}) ` +
      'AND environment = ? AND seq < ? ORDER BY seq DESC LIMIT 1';
    const row = this.#try(() => this.#sql(sql).get(...types, environment, before));
    if (row === undefined || (since !== '' && timeIn(String(row['body'])) < since)) return undefined;
    return this.#recorded(row) as Recorded<EntryOf<T>>;
  }

  /** Returns every entry of one type in one environment, oldest first; with `since`, from that time on. */
  all<T extends EntryType>(type: T, environment: string, since?: string): Recorded<EntryOf<T>>[] {
    const sql = 'SELECT seq, body FROM entry WHERE type = ? AND environment = ? AND seq >= ? ORDER BY seq';
    const first = since === undefined ? 0 : this.firstAt(since);
    return this.#try(() => this.#sql(sql).all(type, environment, first)).map(
      (row) => this.#recorded(row) as Recorded<EntryOf<T>>,
    );
  }

  /** Returns the entry at an index, or undefined. */
  entry(index: number): Recorded | undefined {
    const row = this.#try(() => this.#sql('SELECT seq, body FROM entry WHERE seq = ?').get(index));
    return row === undefined ? undefined : this.#recorded(row);
  }

  /** Throws `entry-archived` unless the content of every archived entry is at hand. */
  requireArchives(): void {
    for (const { body } of this.segmentRows()) this.entry((JSON.parse(body) as EntryOf<'segment.archived'>).first);
  }

  /** Returns the rows that say what was archived, also from a store with a damaged index. */
  segmentRows(): readonly Pick<StoredEntry, 'index' | 'leaf' | 'body'>[] {
    const sql = "SELECT seq, leaf, body FROM entry WHERE environment = '' AND type = 'segment.archived' ORDER BY seq";
    try {
      return this.#try(() => this.#sql(sql).all()).map(({ seq, leaf, body }) => ({
        index: Number(seq),
        leaf: leaf as Uint8Array,
        body: String(body),
      }));
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.code !== 'store-damaged') throw thrown;
      return [...this.rows()].filter(({ type }) => type === 'segment.archived');
    }
  }

  /** Returns an entry; of an archived one only what the store has: its type, time and environment. */
  head(index: number): Entry | undefined {
    const [row] = this.rows(index, index + 1);
    const stub = row === undefined ? undefined : readStub(row.body);
    if (row === undefined || stub === undefined) return this.entry(index)?.entry;
    return { v: 1, time: stub.time, type: row.type, environment: row.environment } as Entry;
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
    return row?.[0] ?? this.archives().evidence(digest);
  }

  /** Returns the files with archived entries. */
  archives(): Archives {
    const rowOf = (index: number) =>
      this.#try(() => this.#sql('SELECT leaf, type FROM entry WHERE seq = ?').get(index)) as ArchivedRow;
    this.#archives ??= new Archives(
      this.segmentRows().map(({ index, body }) => ({ index, entry: JSON.parse(body) })),
      this.#archive,
      rowOf,
    );
    return this.#archives;
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
    this.#archives?.close();
    this.#db.close();
  }

  #commitmentsTo(text: string): string[] {
    return this.#try(() =>
      this.#sql('SELECT commitment FROM subject WHERE text = ? ORDER BY commitment').all(text),
    ).map((row) => String(row['commitment']));
  }

  #recorded(row: Record<string, unknown>): Recorded {
    const [index, body] = [Number(row['seq']), String(row['body'])];
    const stub = readStub(body);
    const whole = stub === undefined ? body : this.archives().content(index, stub);
    return { index, entry: JSON.parse(this.#named(whole)) as Entry };
  }

  #timeOf(index: number): string {
    return timeIn(
      String(this.#try(() => this.#sql('SELECT body FROM entry WHERE seq = ?').get(index))?.['body'] ?? ''),
    );
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

// The body of an archived entry is a stub with its time.
function timeIn(body: string): string {
  return readStub(body)?.time ?? (body === '' ? '' : (JSON.parse(body) as Entry).time);
}
