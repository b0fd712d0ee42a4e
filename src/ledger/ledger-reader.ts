import { existsSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import {
  CountersignError,
  type Entry,
  type EntryOf,
  type EntryType,
  type EvidenceRef,
  messageOf,
  type Recorded,
  sha256,
} from '../model/index.ts';

/** One stored entry, as bytes. */
export type StoredEntry = {
  readonly index: number;
  readonly leaf: Uint8Array;
  readonly body: string;
  readonly type: string;
  readonly environment: string;
};

/** Reads a ledger file without writing to it; a service may be appending at the same time. */
export class LedgerReader {
  readonly #db: DatabaseSync;
  readonly #file: string;

  constructor(file: string) {
    if (!existsSync(file))
      throw new CountersignError('ledger-unusable', `there is no ledger at \`${file}\``, {
        hint: 'name the service’s data directory with --data',
      });
    this.#file = file;
    this.#db = this.#try(() => new DatabaseSync(file, { readOnly: true }));
  }

  get size(): number {
    return this.#try(() => Number(this.#db.prepare('SELECT count(*) AS n FROM entry').get()?.['n'] ?? 0));
  }

  /** Every stored entry from an index on, oldest first, a page at a time. */
  *stored(from = 0): Generator<StoredEntry> {
    const page = this.#try(() =>
      this.#db.prepare('SELECT seq, leaf, body, type, environment FROM entry WHERE seq >= ? ORDER BY seq LIMIT 500'),
    );
    for (let at = from; ; ) {
      const rows = this.#try(() => page.all(at));
      for (const row of rows)
        yield {
          index: Number(row['seq']),
          leaf: row['leaf'] as Uint8Array,
          body: String(row['body']),
          type: String(row['type']),
          environment: String(row['environment']),
        };
      if (rows.length < 500) return;
      at = Number(rows.at(-1)?.['seq']) + 1;
    }
  }

  /** The newest entry of a type, of one environment where one is named, that is older than `before`. */
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before = Number.MAX_SAFE_INTEGER,
  ): Recorded<EntryOf<T>> | undefined {
    const marks = types.map(() => '?').join(', ');
    const row = this.#try(() =>
      this.#db
        .prepare(`SELECT seq, body FROM entry WHERE type IN (${marks}) AND environment = ? AND seq < ? ORDER BY seq DESC LIMIT 1`)
        .get(...types, environment, before),
    );
    return row === undefined ? undefined : { index: Number(row['seq']), entry: JSON.parse(String(row['body'])) as EntryOf<T> };
  }

  /** Every entry of one type in one environment, oldest first. */
  all<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[] {
    const rows = this.#try(() =>
      this.#db.prepare('SELECT seq, body FROM entry WHERE type = ? AND environment = ? ORDER BY seq').all(type, environment),
    );
    return rows.map((row) => ({ index: Number(row['seq']), entry: JSON.parse(String(row['body'])) as EntryOf<T> }));
  }

  /** The entry at an index, or undefined. */
  entry(index: number): Recorded | undefined {
    const row = this.#try(() => this.#db.prepare('SELECT body FROM entry WHERE seq = ?').get(index));
    return row === undefined ? undefined : { index, entry: JSON.parse(String(row['body'])) as Entry };
  }

  /** Evidence as it was recorded; throws `ledger-inconsistent` when it is gone or was altered. */
  evidence(ref: EvidenceRef): unknown {
    const bytes = this.evidenceBytes(ref.sha256);
    if (bytes === undefined || sha256(bytes) !== ref.sha256) {
      throw new CountersignError(
        'ledger-inconsistent',
        `the evidence ${ref.sha256.slice(0, 12)} in \`${this.#file}\` is ${bytes === undefined ? 'missing' : 'altered'}`,
        { recover: 'halt', hint: 'restore the ledger from a backup' },
      );
    }
    return JSON.parse(bytes);
  }

  evidenceBytes(digest: string): string | undefined {
    const row = this.#try(() => this.#db.prepare('SELECT bytes FROM evidence WHERE sha256 = ?').get(digest));
    return row === undefined ? undefined : String(row['bytes']);
  }

  /** Every signed checkpoint, smallest first. */
  checkpoints(): { readonly size: number; readonly note: string }[] {
    return this.#try(() => this.#db.prepare('SELECT size, note FROM checkpoint ORDER BY size').all()).map((row) => ({
      size: Number(row['size']),
      note: String(row['note']),
    }));
  }

  latestCheckpoint(): string | undefined {
    const row = this.#try(() => this.#db.prepare('SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1').get());
    return row === undefined ? undefined : String(row['note']);
  }

  /** From here on everything is read as it is now, whatever a service appends meanwhile. For readers that are closed soon. */
  freeze(): this {
    this.#try(() => {
      this.#db.exec('BEGIN');
      this.#db.prepare('SELECT count(*) FROM checkpoint').get();
    });
    return this;
  }

  close(): void {
    this.#db.close();
  }

  #try<T>(read: () => T): T {
    try {
      return read();
    } catch (cause) {
      throw new CountersignError('ledger-unusable', `the ledger \`${this.#file}\` cannot be read: ${messageOf(cause)}`, {
        cause,
        recover: 'halt',
        hint: 'restore the file from a backup; do not edit it',
      });
    }
  }
}
