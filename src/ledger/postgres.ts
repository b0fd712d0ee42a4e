import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { CountersignError, messageOf } from '../model/index.ts';
import { anotherWrote, type Batch, CommitUnknown, cannotWrite, type PreparedEntry, type StoredEntry, type Subject } from './store.ts';

const CONNECT_MS = 5_000;
const STATEMENT_MS = 30_000;
const LOCK = 0x636f_756e; // "coun": the advisory lock of whoever sequences
/** What one replica hands over to the one that sequences. */
export type Handed = Pick<Batch, 'evidence' | 'subjects'> & { readonly entries: readonly Omit<PreparedEntry, 'leaf'>[] };

/** The tables of a ledger in PostgreSQL, over one connection. Whoever holds its advisory lock sequences; the lock goes with the connection. */
export class PostgresTables {
  readonly #url: string;
  readonly #onNotice: () => void;
  #client: pg.Client | undefined;
  #isLost = false;
  #holdsLock = false;
  #backend: { readonly pid: number; readonly since: string } | undefined;

  constructor(url: string, onNotice: () => void) {
    this.#url = url;
    this.#onNotice = onNotice;
  }

  /** Connects, or connects again. Throws `ledger-unusable` (retry) while the server is not there, and for a role that may do too much. */
  async connect(): Promise<void> {
    await this.close();
    const client = new pg.Client({
      connectionString: this.#url,
      connectionTimeoutMillis: CONNECT_MS,
      statement_timeout: STATEMENT_MS,
      keepAlive: true,
      application_name: 'countersign',
    });
    client.on('error', () => this.#lose(client));
    client.on('end', () => this.#lose(client));
    client.on('notification', this.#onNotice);
    try {
      await client.connect();
      this.#client = client;
      this.#isLost = false;
      await client.query(
        "SET search_path = countersign; SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '60s'; LISTEN countersign",
      );
    } catch (cause) {
      await client.end().catch(() => {});
      throw new CountersignError('ledger-unusable', `the ledger’s database cannot be reached: ${messageOf(cause)}`, {
        cause,
        recover: 'retry',
        hint: 'is PostgreSQL running, and are address, user and password right?',
      });
    }
    await this.#endOldBackend();
    await this.#checkRole();
  }

  // A commit of the lost connection may still be going on behind it: only once that backend is gone is its end known.
  async #endOldBackend(): Promise<void> {
    const old = this.#backend;
    const mine = 'SELECT pid, backend_start::text AS since FROM pg_stat_activity WHERE pid = pg_backend_pid()';
    const [now] = await this.#query(mine);
    if (old !== undefined) {
      const there = 'FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2 AND pid <> pg_backend_pid()';
      await this.#query(`SELECT pg_terminate_backend(pid) ${there}`, [old.pid, old.since]);
      for (const end = Date.now() + CONNECT_MS; (await this.#query(`SELECT pid ${there}`, [old.pid, old.since])).length > 0; ) {
        if (Date.now() > end)
          throw new CountersignError('ledger-unusable', 'an earlier connection to the ledger’s database does not end', {
            recover: 'retry',
          });
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    this.#backend = { pid: Number(now?.['pid']), since: String(now?.['since']) };
  }

  get isConnected(): boolean {
    return this.#client !== undefined && !this.#isLost;
  }

  /** Whether this connection is the one that sequences; it tries to be. */
  async lead(): Promise<boolean> {
    if (!this.#holdsLock) this.#holdsLock = (await this.#query('SELECT pg_try_advisory_lock($1) AS held', [LOCK]))[0]?.['held'] === true;
    return this.#holdsLock && this.isConnected;
  }

  async size(): Promise<number> {
    return Number((await this.#query('SELECT coalesce(max(seq) + 1, 0) AS n FROM entry'))[0]?.['n']);
  }

  /** Entries from an index on, with the checkpoint over all that there are, as of one moment. */
  async since(
    from: number,
    limit: number,
  ): Promise<{ readonly entries: StoredEntry[]; readonly checkpoint: { size: number; note: string } | undefined }> {
    await this.#query('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY');
    try {
      const rows = await this.#query('SELECT seq, leaf, body, type, environment FROM entry WHERE seq >= $1 ORDER BY seq LIMIT $2', [
        from,
        limit,
      ]);
      const [last] = await this.#query('SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1');
      return {
        entries: rows.map(asStored),
        checkpoint: last === undefined ? undefined : { size: Number(last['size']), note: String(last['note']) },
      };
    } finally {
      await this.#query('COMMIT');
    }
  }

  async evidence(digests: readonly string[]): Promise<Batch['evidence']> {
    if (digests.length === 0) return [];
    const rows = await this.#query('SELECT sha256, bytes FROM evidence WHERE sha256 = ANY($1)', [digests]);
    return rows.map((row) => ({ sha256: String(row['sha256']), bytes: String(row['bytes']) }));
  }

  async subjects(commitments: readonly string[]): Promise<Subject[]> {
    if (commitments.length === 0) return [];
    const rows = await this.#query('SELECT commitment, salt, text FROM subject WHERE commitment = ANY($1)', [commitments]);
    return rows.map((row) => ({ commitment: String(row['commitment']), salt: row['salt'] as Buffer, text: String(row['text']) }));
  }

  /** Every commitment that can still be opened. */
  async commitments(): Promise<Set<string>> {
    return new Set((await this.#query('SELECT commitment FROM subject')).map((row) => String(row['commitment'])));
  }

  async erase(text: string): Promise<number> {
    return (await this.#query('DELETE FROM subject WHERE text = $1 RETURNING commitment', [text])).length;
  }

  /** Makes a batch durable under its ids, once: ids that are taken already are an error of the database. */
  async commit(batch: Batch, ids: readonly { readonly id: string; readonly first: number }[]): Promise<void> {
    try {
      await this.#query('BEGIN');
      const stored = await this.size();
      if (stored !== batch.first) throw anotherWrote(stored, batch.first);
      await this.#insert(batch, ids);
    } catch (thrown) {
      if (!this.isConnected) throw new CommitUnknown(thrown);
      await this.#query('ROLLBACK').catch(() => {});
      throw thrown;
    }
    try {
      await this.#query('COMMIT');
    } catch (thrown) {
      throw new CommitUnknown(thrown);
    }
  }

  /** Where the batch of an id begins, if it was taken. */
  async takenAt(id: string): Promise<number | undefined> {
    const [row] = await this.#query('SELECT first FROM taken WHERE id = $1', [id]);
    return row === undefined ? undefined : Number(row['first']);
  }

  /** Hands a batch over to whoever sequences. */
  async hand(id: string, batch: Handed): Promise<void> {
    const subjects = batch.subjects.map((s) => ({ ...s, salt: Buffer.from(s.salt).toString('hex') }));
    await this.#query('INSERT INTO outbox (id, batch) VALUES ($1, $2) ON CONFLICT DO NOTHING', [
      id,
      JSON.stringify({ ...batch, subjects }),
    ]);
    await this.#query("SELECT pg_notify('countersign', 'handed')");
  }

  /** Takes a batch back that nobody took. False when it is too late. */
  async takeBack(id: string): Promise<boolean> {
    return (await this.#query('DELETE FROM outbox WHERE id = $1 RETURNING id', [id])).length === 1;
  }

  /** What was handed over and is not taken yet, oldest first. */
  async handed(): Promise<{ readonly id: string; readonly batch: Handed }[]> {
    const rows = await this.#query(
      'SELECT id, batch FROM outbox o WHERE NOT EXISTS (SELECT FROM taken t WHERE t.id = o.id) ORDER BY at, id LIMIT 500',
    );
    return rows.map((row) => {
      const batch = row['batch'] as Omit<Handed, 'subjects'> & { subjects: { commitment: string; salt: string; text: string }[] };
      return {
        id: String(row['id']),
        batch: { ...batch, subjects: batch.subjects.map((s) => ({ ...s, salt: Buffer.from(s.salt, 'hex') })) },
      };
    });
  }

  /** Forgets ids that nobody asks for any more. */
  async sweep(): Promise<void> {
    await this.#query("DELETE FROM outbox o USING taken t WHERE o.id = t.id; DELETE FROM taken WHERE at < now() - interval '1 hour'");
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#holdsLock = false;
    if (client !== undefined)
      await Promise.race([client.end().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
  }

  async #insert(batch: Batch, ids: readonly { readonly id: string; readonly first: number }[]): Promise<void> {
    const { entries, evidence, subjects, tiles, checkpoint } = batch;
    await this.#copy(batch.first, entries);
    if (evidence.length > 0)
      await this.#query('INSERT INTO evidence SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING', [
        evidence.map((e) => e.sha256),
        evidence.map((e) => e.bytes),
      ]);
    for (const { commitment, salt, text } of subjects)
      await this.#query('INSERT INTO subject VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [commitment, Buffer.from(salt), text]);
    for (const { level, n, nodes } of tiles) await this.#query('INSERT INTO tile VALUES ($1, $2, $3)', [level, n, Buffer.from(nodes)]);
    if (checkpoint.replaces !== undefined) await this.#query('DELETE FROM checkpoint WHERE size = $1', [checkpoint.replaces]);
    await this.#query('INSERT INTO checkpoint VALUES ($1, $2)', [checkpoint.size, checkpoint.note]);
    if (ids.length === 0) return;
    await this.#query('INSERT INTO taken (id, first) SELECT * FROM unnest($1::uuid[], $2::bigint[])', [
      ids.map((i) => i.id),
      ids.map((i) => i.first),
    ]);
    await this.#query("SELECT pg_notify('countersign', 'taken')");
  }

  // COPY takes rows as they are, without spelling them as text first: half the time of an INSERT.
  async #copy(first: number, entries: readonly PreparedEntry[]): Promise<void> {
    const client = this.#connected();
    const stream = client.query(copyFrom('COPY entry FROM STDIN (FORMAT binary)'));
    await pipeline(Readable.from([copyRows(first, entries)]), stream).catch((cause: unknown) => this.#failed(client, cause));
  }

  async #checkRole(): Promise<void> {
    const [tables] = await this.#query("SELECT to_regclass('countersign.entry') IS NOT NULL AS there");
    if (tables?.['there'] !== true)
      throw new CountersignError('ledger-unusable', 'the database has no tables for a ledger', {
        hint: 'have its owner run what `countersign ledger schema --role ROLE` prints',
      });
    const [may] = await this.#query(
      "SELECT bool_or(has_table_privilege(t, 'UPDATE') OR has_table_privilege(t, 'DELETE') OR has_table_privilege(t, 'TRUNCATE')) AS change FROM unnest(ARRAY['entry', 'tile', 'evidence']) t",
    );
    if (may?.['change'] !== false)
      throw new CountersignError('ledger-unusable', 'the role that the service uses may change or delete entries', {
        hint: 'use a role that owns nothing, with what `countersign ledger schema --role ROLE` grants and no more',
      });
  }

  async #query(sql: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]> {
    const client = this.#connected();
    const result = await client.query(sql, values as unknown[] | undefined).catch((cause: unknown) => this.#failed(client, cause));
    return (Array.isArray(result) ? [] : result.rows) as Record<string, unknown>[];
  }

  #connected(): pg.Client {
    if (this.#client !== undefined && !this.#isLost) return this.#client;
    throw new CountersignError('ledger-unusable', 'the connection to the ledger’s database is lost', { recover: 'retry' });
  }

  #failed(client: pg.Client, cause: unknown): never {
    // Class 08 and 57P are the server's end; without a code it is the connection's (PostgreSQL, appendix A).
    const { code } = cause as { code?: string };
    if (code === undefined || !/^[0-9A-Z]{5}$/.test(code) || /^(?:08|57P)/.test(code)) this.#lose(client);
    throw cannotWrite(cause);
  }

  #lose(client: pg.Client): void {
    if (client !== this.#client) return;
    this.#isLost = true;
    this.#holdsLock = false;
    this.#onNotice();
  }
}

function asStored(row: Record<string, unknown>): StoredEntry {
  return {
    index: Number(row['seq']),
    leaf: row['leaf'] as Buffer,
    body: String(row['body']),
    type: String(row['type']),
    environment: String(row['environment']),
  };
}

const COPY_HEAD = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex'); // signature, no flags, no extension
const COPY_TAIL = Buffer.from('ffff', 'hex');

/** Rows of `entry` in the binary format of COPY (PostgreSQL documentation, COPY, "Binary Format"). */
function copyRows(first: number, entries: readonly PreparedEntry[]): Buffer {
  const size = entries.reduce((sum, e) => sum + 200 + 3 * (e.body.length + e.type.length + e.environment.length), 0);
  const rows = Buffer.allocUnsafe(COPY_HEAD.length + COPY_TAIL.length + size);
  let at = COPY_HEAD.copy(rows);
  const text = (value: string) => {
    const length = rows.write(value, at + 4, 'utf8');
    rows.writeInt32BE(length, at);
    at += 4 + length;
  };
  for (const [i, { leaf, body, type, environment }] of entries.entries()) {
    at = rows.writeInt16BE(5, at);
    at = rows.writeInt32BE(8, at);
    at = rows.writeBigInt64BE(BigInt(first + i), at);
    at = rows.writeInt32BE(leaf.length, at);
    rows.set(leaf, at);
    at += leaf.length;
    for (const value of [body, type, environment]) text(value);
  }
  return rows.subarray(0, at + COPY_TAIL.copy(rows, at));
}
