import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { CountersignError, type EntryType } from '../model/index.ts';
import { type DatabaseAddress, databaseAddress, tlsOptions } from './postgres-address.ts';
import { CutOff, sqlStateOf, whatFailed } from './postgres-errors.ts';
import { chooseServer, describeServer, type Host, type Server } from './postgres-hosts.ts';
import { type Holder, PostgresTerm } from './postgres-term.ts';
import { type Batch, CommitUnknown, cannotWrite, type PreparedEntry, type StoredEntry, type Subject } from './store.ts';

const STATEMENT_MS = 30_000;
const OLD_BACKEND_MS = 5_000;
const FIRST_ANSWER_MS = 10_000; // of a transaction
const HOST_MS = 5000; // for a host that may be gone, if there are others
// After a promotion: time for all replicas to notice it (at most `FIRST_ANSWER_MS`), and to publish the newest
// checkpoint that they know.
const PROMOTED_MS = 12_000;
const MAX_NOTE = 20_000; // bytes; a checkpoint with two keys has 600
const MAX_NOTES = 1000; // rows above the last signed checkpoint that are searched before an operator has to clean up
const MAX_ROW = 32 * 1024 * 1024; // bytes of a handed-over row: inventories of 10,000 objects take 5 MiB
const MAX_TAKEN = 64 * 1024 * 1024; // bytes of all rows taken at once
const MAX_ROWS = 200;

/** A row of `outbox`: a batch with its replica's signature, or an enrolment statement. Nothing in it is trusted yet. */
export type OutboxRow = { readonly id: string; readonly content: unknown };

/** State of a row: where its first entry is, whether it still waits, and the leader whose term rows are signed for. */
export type OutboxState = {
  readonly first: number | undefined;
  readonly waits: boolean;
  readonly leader: Holder | undefined;
};

/** Thrown if rows to be recorded are no longer in `outbox`: their replica took them back. */
export class TakenBack extends Error {}

/** Limits on the time to connect, the time for one answer, and its bytes. */
export type PostgresLimits = { readonly connectMs: number; readonly answerMs: number; readonly bytes: number };

const LIMITS: PostgresLimits = {
  connectMs: 10_000, // with TLS, authentication and the first statement
  answerMs: 45_000, // longer than STATEMENT_MS: a server that keeps its own limits answers earlier
  bytes: 256 * 1024 * 1024, // a page of the largest entries with their evidence is far smaller
};

type Dialled = { readonly client: pg.Client; readonly server: Server };
type Note = { readonly size: number; readonly note: string };

/** Tables of a ledger in PostgreSQL, over one connection. */
export class PostgresTables {
  readonly #address: DatabaseAddress;
  readonly #limits: PostgresLimits;
  readonly #onNotice: (what: string) => void;
  readonly #term = new PostgresTerm((sql, values) => this.#query(sql, values));
  #client: pg.Client | undefined;
  #isLost = false;
  #server: Server | undefined;
  #newestTimeline = 0;
  #mayLeadAt = 0;
  #isDoubtful = false;
  /** Receives what an operator should know of the database. */
  warn: (message: string) => void = () => {};
  readonly #answer = { received: 0 }; // bytes since the last query
  #backend: { readonly pid: number; readonly since: string } | undefined;

  /** Throws `config-invalid` if the address is invalid. */
  constructor(address: string, onNotice: (what: string) => void, limits: PostgresLimits = LIMITS) {
    this.#address = databaseAddress(address);
    this.#onNotice = onNotice;
    this.#limits = limits;
  }

  /**
   * Connects or reconnects. Throws `ledger-unusable` (retry) while the server is unreachable, and for a role with too
   * many privileges.
   */
  async connect(): Promise<void> {
    await this.close();
    const { client, server } = await this.#dialBest();
    this.#client = client;
    this.#isLost = false;
    this.#meet(server);
    await this.#endOldBackend();
    await this.#checkRole();
  }

  async #dialBest(): Promise<Dialled> {
    const { hosts } = this.#address;
    const dialled = await Promise.allSettled(hosts.map((host) => this.#dial(host)));
    const reached = dialled.flatMap((d) => (d.status === 'fulfilled' ? [d.value] : []));
    let best: Dialled | undefined;
    try {
      if (reached.length === 0) throw (dialled[0] as PromiseRejectedResult).reason;
      best = chooseServer(reached, this.#newestTimeline, this.warn);
      return best;
    } finally {
      for (const { client } of reached) if (client !== best?.client) streamOf(client)?.destroy();
    }
  }

  async #dial(host: Host): Promise<Dialled> {
    const { hosts } = this.#address;
    const ms = hosts.length === 1 ? this.#limits.connectMs : Math.min(HOST_MS, this.#limits.connectMs);
    const client = this.#newClient(host);
    client.on('error', () => this.#lose(client));
    client.on('end', () => this.#lose(client));
    client.on('notification', ({ payload = '' }) => this.#onNotice(payload));
    client.on('notice', ({ severity, code }) => {
      if (severity === 'WARNING' && code === '01000') this.#isDoubtful = true;
    });
    try {
      await this.#within(
        client,
        client.connect().then(() => client.query(SESSION)),
        ms,
      );
      const query = async (sql: string) => (await this.#bounded(client, sql, ms)).rows as Record<string, unknown>[];
      return { client, server: await describeServer(host, query) };
    } catch (thrown) {
      streamOf(client)?.destroy();
      throw new CountersignError('ledger-unusable', `cannot reach the ledger’s database: ${whatFailed(thrown)}`, {
        recover: 'retry',
        hint: 'check that PostgreSQL is running, and that address, user and password are right',
      });
    }
  }

  #meet(server: Server): void {
    const before = this.#server;
    this.#server = server;
    this.#newestTimeline = Math.max(this.#newestTimeline, server.timeline);
    const hasOthers = this.#address.hosts.length > 1;
    const isOther = before === undefined ? hasOthers : before.at !== server.at || before.timeline !== server.timeline;
    if (isOther) this.#mayLeadAt = performance.now() + PROMOTED_MS;
    if (hasOthers && isOther && !server.isCopied)
      this.warn(
        `the ledger’s database at \`${server.at}\` acknowledges entries before a standby has them: if it fails, they ` +
          'may be lost, and the ledger stops; set `synchronous_standby_names` there',
      );
  }

  // Set field by field, so that the library cannot read anything else from an address.
  #newClient({ host, port }: Host): pg.Client {
    const { user, password, database, tls } = this.#address;
    const ssl = tlsOptions(tls);
    const client = new pg.Client({
      user,
      ...(password === undefined ? {} : { password }),
      host: host.replace(/^\[(.*)\]$/, '$1'),
      port,
      database,
      ...(ssl === undefined ? {} : { ssl }),
      connectionTimeoutMillis: this.#limits.connectMs,
      statement_timeout: STATEMENT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: 5000,
      application_name: 'countersign',
    });
    guard(client, this.#answer, this.#limits.bytes);
    return client;
  }

  // A commit from the lost connection may still be running. Its outcome is only known once that backend is gone.
  async #endOldBackend(): Promise<void> {
    const old = this.#backend;
    const mine = 'SELECT pid, backend_start::text AS since FROM pg_stat_activity WHERE pid = pg_backend_pid()';
    const [now] = await this.#query(mine);
    if (old !== undefined) {
      const there = 'FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2 AND pid <> pg_backend_pid()';
      await this.#query(`SELECT pg_terminate_backend(pid) ${there}`, [old.pid, old.since]);
      for (
        const end = Date.now() + OLD_BACKEND_MS;
        (await this.#query(`SELECT pid ${there}`, [old.pid, old.since])).length > 0;
      ) {
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

  /** Whether this connection is the leader, as far as it knows. */
  get leads(): boolean {
    return this.#term.isHeld && this.isConnected;
  }

  /** Begins a term with this number, if no live replica leads. Returns whether it did. */
  async lead(nonce: string, replica: string): Promise<boolean> {
    if (performance.now() < this.#mayLeadAt) return false;
    return this.#term.take(nonce, replica);
  }

  /**
   * Resolves once everything that can be read is where the database promises to keep it. A wait for a standby that was
   * cancelled shows entries that no standby has.
   */
  async settle(): Promise<void> {
    this.#isDoubtful = false;
    await this.#query('INSERT INTO taken (id, first) VALUES (gen_random_uuid(), -1)');
    if (this.#isDoubtful) throw unprotected();
  }

  /** Shows that the leader is alive. Returns false if another replica ended its term. */
  beat(): Promise<boolean> {
    return this.#term.beat();
  }

  /** The leader when last asked for. */
  get lastLeader(): Holder | undefined {
    return this.#term.lastSeen;
  }

  /** Returns the leader as the tables name it. */
  leader(): Promise<Holder | undefined> {
    return this.#term.holder();
  }

  /**
   * Returns the entries from an index up to the newest signed checkpoint, and that checkpoint, in one snapshot. Rows
   * beyond it, and checkpoints unknown to `isSigned`, come from someone else and are ignored.
   */
  async since(
    from: number,
    limit: number,
    isSigned: (stored: Note) => boolean,
    covers: 'all' | 'what is there' = 'all',
  ): Promise<{ readonly entries: StoredEntry[]; readonly checkpoint: Note | undefined }> {
    await this.#begin('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY');
    try {
      const checkpoint = (await this.#newest(isSigned, 5, covers)) ?? (await this.#newest(isSigned, MAX_NOTES, covers));
      if (checkpoint === undefined || checkpoint.size <= from) return { entries: [], checkpoint };
      const rows = await this.#query(
        'SELECT seq, leaf, body, type, environment FROM entry WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3',
        [from, checkpoint.size, limit],
      );
      return { entries: rows.map(asStored), checkpoint };
    } finally {
      await this.#query('COMMIT');
    }
  }

  async #newest(
    isSigned: (stored: Note) => boolean,
    limit: number,
    covers: 'all' | 'what is there',
  ): Promise<Note | undefined> {
    const most = covers === 'all' ? Number.MAX_SAFE_INTEGER : await this.#count();
    const rows = await this.#query(
      'SELECT size, note FROM checkpoint WHERE octet_length(note) ' +
        '<= $1 AND size BETWEEN 0 AND $2 ORDER BY size DESC LIMIT $3',
      [MAX_NOTE, most, limit],
    );
    const found = rows.map((row) => ({ size: Number(row['size']), note: String(row['note']) })).find(isSigned);
    if (found === undefined && rows.length === MAX_NOTES)
      throw new CountersignError(
        'ledger-unusable',
        `the newest ${MAX_NOTES} rows of \`checkpoint\` are not signed by this ledger’s key`,
        {
          recover: 'retry',
          hint:
            'someone else writes there: find out who, then run `DELETE FROM ' +
            `countersign.checkpoint WHERE size >= ${Number(rows.at(-1)?.['size'])}\``,
        },
      );
    return found;
  }

  /** Returns the hash of the entry at an index, no matter who wrote it. */
  async leafAt(index: number): Promise<Uint8Array | undefined> {
    return (await this.#query('SELECT leaf FROM entry WHERE seq = $1', [index]))[0]?.['leaf'] as Buffer | undefined;
  }

  /** Returns the index of the newest entry of a type. */
  async lastOf(type: EntryType): Promise<number | undefined> {
    const [row] = await this.#query('SELECT seq FROM entry WHERE type = $1 ORDER BY seq DESC LIMIT 1', [type]);
    return row === undefined ? undefined : Number(row['seq']);
  }

  async #count(): Promise<number> {
    return Number((await this.#query('SELECT coalesce(max(seq) + 1, 0) AS n FROM entry'))[0]?.['n']);
  }

  /** Tests whether there is any entry. */
  async hasEntries(): Promise<boolean> {
    return (await this.#query('SELECT 1 AS n FROM entry LIMIT 1')).length > 0;
  }

  /** Restores a signed checkpoint that someone deleted. */
  async restore({ size, note }: Note): Promise<void> {
    await this.#query('DELETE FROM checkpoint WHERE size = $1', [size]);
    await this.#query('INSERT INTO checkpoint VALUES ($1, $2) ON CONFLICT DO NOTHING', [size, note]);
  }

  /** Removes rows above the newest signed checkpoint. Only the caller signs checkpoints, and it did not sign these. */
  async dropCheckpointsAbove(size: number): Promise<number> {
    return (await this.#query('DELETE FROM checkpoint WHERE size > $1 OR size < 0 RETURNING size', [size])).length;
  }

  async evidence(digests: readonly string[]): Promise<Batch['evidence']> {
    if (digests.length === 0) return [];
    const rows = await this.#query('SELECT sha256, bytes FROM evidence WHERE sha256 = ANY($1)', [digests]);
    return rows.map((row) => ({ sha256: String(row['sha256']), bytes: String(row['bytes']) }));
  }

  async subjects(commitments: readonly string[]): Promise<Subject[]> {
    if (commitments.length === 0) return [];
    const rows = await this.#query('SELECT commitment, salt, text FROM subject WHERE commitment = ANY($1)', [
      commitments,
    ]);
    return rows.map((row) => ({
      commitment: String(row['commitment']),
      salt: row['salt'] as Buffer,
      text: String(row['text']),
    }));
  }

  /** Returns every commitment that can still be opened. */
  async commitments(): Promise<Set<string>> {
    return new Set((await this.#query('SELECT commitment FROM subject')).map((row) => String(row['commitment'])));
  }

  async erase(texts: readonly string[]): Promise<number> {
    return (await this.#query('DELETE FROM subject WHERE text = ANY($1) RETURNING commitment', [texts])).length;
  }

  /**
   * Makes a batch durable and removes the rows it came from from `outbox`. Throws `TakenBack` if one of them is gone,
   * and `Fenced` if another replica ended this one's term.
   */
  async commit(batch: Batch, ids: readonly { readonly id: string; readonly first: number }[]): Promise<void> {
    try {
      await this.#begin('BEGIN');
      await this.#term.guard(); // INVARIANT: a replica that ends a term waits for this row
      if (ids.length > 0) {
        const taken = await this.#query('DELETE FROM outbox WHERE id = ANY($1::uuid[]) RETURNING id', [
          ids.map((i) => i.id),
        ]);
        if (taken.length !== ids.length) throw new TakenBack();
      }
      await this.#insert(batch, ids);
    } catch (thrown) {
      if (!this.isConnected) throw new CommitUnknown(thrown);
      await this.#query('ROLLBACK').catch(() => {});
      throw thrown;
    }
    this.#isDoubtful = false;
    try {
      await this.#query('COMMIT');
    } catch (thrown) {
      throw new CommitUnknown(thrown);
    }
    if (this.#isDoubtful) throw new CommitUnknown(unprotected());
  }

  /** Returns the state of a row, and the leader. */
  async stateOf(id: string): Promise<OutboxState> {
    const [row] = await this.#query(
      'SELECT (SELECT first FROM taken WHERE id = $1) AS first, EXISTS (SELECT FROM outbox WHERE id = $1) AS waits',
      [id],
    );
    const first = row?.['first'];
    return {
      first: first === null || first === undefined ? undefined : Number(first),
      waits: row?.['waits'] === true,
      leader: await this.leader(),
    };
  }

  /** Hands a batch over to the leader, and wakes it. */
  async hand(id: string, content: object): Promise<void> {
    await this.#query(
      `WITH handed AS (INSERT INTO outbox (id, batch) VALUES ($1, $2) ON CONFLICT DO NOTHING)
        SELECT pg_notify('countersign', 'handed')`,
      [id, JSON.stringify(content)],
    );
  }

  /** Takes a row back. Returns false if it is gone: it was recorded, or someone deleted it. */
  async takeBack(id: string): Promise<boolean> {
    return (await this.drop([id])) === 1;
  }

  /** Deletes rows of `outbox` and returns their number. */
  async drop(ids: readonly string[]): Promise<number> {
    if (ids.length === 0) return 0;
    return (await this.#query('DELETE FROM outbox WHERE id = ANY($1::uuid[]) RETURNING id', [ids])).length;
  }

  /** Removes a row of `taken` that someone else wrote. */
  async dropTaken(id: string): Promise<void> {
    await this.#query('DELETE FROM taken WHERE id = $1', [id]);
  }

  /** Returns the rows handed over, oldest first, up to the limit, and the ids of rows that are too large to read. */
  async handed(): Promise<{ readonly rows: readonly OutboxRow[]; readonly tooLarge: readonly string[] }> {
    // `pg_column_size` reads no data. Only rows that are small as stored are measured as they would be sent.
    const sizes = await this.#query(
      `SELECT id, CASE WHEN pg_column_size(batch) > $1 THEN -1 ELSE octet_length(batch::text) END AS size
        FROM (SELECT id, batch, at FROM outbox ORDER BY at, id LIMIT $2) o ORDER BY at, id`,
      [MAX_ROW / 4, MAX_ROWS],
    );
    const isTooLarge = (row: Record<string, unknown>) => Number(row['size']) < 0 || Number(row['size']) > MAX_ROW;
    const tooLarge = sizes.filter(isTooLarge).map((row) => String(row['id']));
    const ids: string[] = [];
    let sum = 0;
    for (const row of sizes.filter((r) => !isTooLarge(r))) {
      sum += Number(row['size']);
      if (sum > MAX_TAKEN) break;
      ids.push(String(row['id']));
    }
    if (ids.length === 0) return { rows: [], tooLarge };
    const rows = await this.#query('SELECT id, batch FROM outbox WHERE id = ANY($1::uuid[]) ORDER BY at, id', [ids]);
    return { rows: rows.map((row) => ({ id: String(row['id']), content: row['batch'] })), tooLarge };
  }

  /** Deletes rows that are no longer needed. */
  async sweep(): Promise<void> {
    await this.#query("DELETE FROM taken WHERE at < now() - interval '1 hour'");
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#term.lose();
    if (client === undefined) return;
    await Promise.race([client.end().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
    streamOf(client)?.destroy();
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
      await this.#query('INSERT INTO subject VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
        commitment,
        Buffer.from(salt),
        text,
      ]);
    for (const { level, n, nodes } of tiles)
      await this.#query('INSERT INTO tile VALUES ($1, $2, $3)', [level, n, Buffer.from(nodes)]);
    const replaced = [checkpoint.size, ...(checkpoint.replaces === undefined ? [] : [checkpoint.replaces])];
    await this.#query('DELETE FROM checkpoint WHERE size = ANY($1::bigint[])', [replaced]);
    await this.#query('INSERT INTO checkpoint VALUES ($1, $2)', [checkpoint.size, checkpoint.note]);
    if (ids.length > 0) {
      // Rows that someone else wrote under these ids must not block this.
      await this.#query('DELETE FROM taken WHERE id = ANY($1::uuid[])', [ids.map((i) => i.id)]);
      await this.#query('INSERT INTO taken (id, first) SELECT * FROM unnest($1::uuid[], $2::bigint[])', [
        ids.map((i) => i.id),
        ids.map((i) => i.first),
      ]);
    }
    await this.#query("SELECT pg_notify('countersign', 'taken')");
  }

  // COPY takes binary rows, without converting them to text first: half the time of an INSERT.
  async #copy(first: number, entries: readonly PreparedEntry[]): Promise<void> {
    const client = this.#connected();
    const stream = client.query(copyFrom('COPY entry FROM STDIN (FORMAT binary)'));
    const copied = pipeline(Readable.from([copyRows(first, entries)]), stream);
    await this.#within(client, copied, this.#limits.answerMs).catch((cause: unknown) => this.#failed(client, cause));
  }

  async #checkRole(): Promise<void> {
    const [tables] = await this.#query("SELECT to_regclass('countersign.entry') IS NOT NULL AS there");
    if (tables?.['there'] !== true)
      throw new CountersignError('ledger-unusable', 'the database has no tables for a ledger', {
        hint: 'have its owner run the output of `countersign ledger schema --role ROLE`',
      });
    const [term] = await this.#query(
      "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('countersign.term') " +
        "AND attname = 'beat') AS there",
    );
    if (term?.['there'] !== true)
      throw new CountersignError('ledger-unusable', 'the database’s ledger tables are from an older version', {
        hint:
          'have its owner run the output of `countersign ledger ' +
          'schema --role ROLE` again; recorded data does not change',
      });
    const [may] = await this.#query(
      "SELECT bool_or(has_table_privilege(t, 'UPDATE') OR has_table_privilege(t, 'DELETE') OR " +
        "has_table_privilege(t, 'TRUNCATE')) AS change FROM unnest(ARRAY['entry', 'tile', 'evidence']) t",
    );
    if (may?.['change'] !== false)
      throw new CountersignError('ledger-unusable', 'the service’s database role may change or delete entries', {
        hint: 'use a role that owns nothing and has only the grants of `countersign ledger schema --role ROLE`',
      });
  }

  // Nothing has to be done for this answer: a server that does not give it soon is not there.
  async #begin(sql: string): Promise<void> {
    await this.#query(sql, undefined, Math.min(this.#limits.answerMs, FIRST_ANSWER_MS));
  }

  async #query(
    sql: string,
    values?: readonly unknown[],
    answerMs = this.#limits.answerMs,
  ): Promise<Record<string, unknown>[]> {
    const client = this.#connected();
    const answer = this.#bounded(client, sql, answerMs, values);
    const result = await answer.catch((cause: unknown) => this.#failed(client, cause));
    return (Array.isArray(result) ? [] : result.rows) as Record<string, unknown>[];
  }

  #bounded(client: pg.Client, sql: string, answerMs: number, values?: readonly unknown[]): Promise<pg.QueryResult> {
    // The library's own timeout is slightly later, in case we fail to cut the connection.
    const query = {
      text: sql,
      ...(values === undefined ? {} : { values: values as unknown[] }),
      query_timeout: answerMs + 1000,
    };
    return this.#within(client, client.query(query), answerMs);
  }

  /** Waits for an answer up to a deadline, then cuts the connection. */
  async #within<T>(client: pg.Client, answer: Promise<T>, deadline: number): Promise<T> {
    this.#answer.received = 0;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      streamOf(client)?.destroy();
      reject(new CutOff(`it does not answer within ${deadline / 1000} s`));
    }, deadline);
    answer.catch(() => {}); // it may still fail after the deadline
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  }

  #connected(): pg.Client {
    if (this.#client !== undefined && !this.#isLost) return this.#client;
    throw new CountersignError('ledger-unusable', 'lost the connection to the ledger’s database', {
      recover: 'retry',
    });
  }

  #failed(client: pg.Client, cause: unknown): never {
    // In classes 08 and 57P the server closed the connection; without a code the connection broke (PostgreSQL, appendix
    // A).
    const state = sqlStateOf(cause);
    const { table, detail } = cause as { table?: unknown; detail?: unknown };
    if (state === undefined || /^(?:08|57P)/.test(state)) this.#lose(client);
    if (state === '23505' && (table === 'entry' || table === 'tile')) throw inTheWay(table, String(detail ?? ''));
    throw cannotWrite(new CutOff(whatFailed(cause)));
  }

  #lose(client: pg.Client): void {
    if (client !== this.#client) return;
    this.#isLost = true;
    this.#term.lose();
    this.#onNotice('lost');
  }
}

function unprotected(): CountersignError {
  return new CountersignError('ledger-unusable', 'the database did not get the entries to a standby in time', {
    recover: 'retry',
    hint: 'check the standbys in `synchronous_standby_names`; entries are only acknowledged once one has them',
  });
}

/**
 * An unsigned row occupies the place of the next one. Removing it is left to the database's owner, because the service
 * may delete nothing there.
 */
function inTheWay(table: 'entry' | 'tile', detail: string): CountersignError {
  const [value = '?'] = /(?<=\)=\()[\d, ]{1,40}(?=\))/.exec(detail) ?? [];
  const rows = table === 'entry' ? `seq >= ${value}` : `(level, n) = (${value})`;
  const at = `countersign.${table}`;
  const trigger = `TRIGGER ${table}_is_kept`;
  const remove =
    `ALTER TABLE ${at} DISABLE ${trigger}; ` + `DELETE FROM ${at} WHERE ${rows}; ALTER TABLE ${at} ENABLE ${trigger};`;
  const known = table === 'entry' ? ` If no replica or anchor has a checkpoint over more than ${value} entries,` : '';
  return new CountersignError(
    'ledger-unusable',
    `the next row of the table \`${table}\` belongs at ${value}, but a row that this ledger did not sign is there`,
    {
      recover: 'retry',
      hint:
        'if another replica has a copy with that entry, start that one first. Otherwise someone else uses the ' +
        `service’s role: change its password.${known} the database’s owner runs \`${remove}\``,
    },
  );
}

type Connection = { readonly stream?: Socket; attachListeners?: (stream: Socket) => void };

function connectionOf(client: pg.Client): Connection {
  return (client as unknown as { connection?: Connection }).connection ?? {};
}

function streamOf(client: pg.Client): Socket | undefined {
  return connectionOf(client).stream;
}

// The server notices within 15 s that the machine at the other end, or the network between, is gone.
const SESSION =
  'SET search_path = countersign; SET synchronous_commit = on; ' +
  "SET idle_in_transaction_session_timeout = '15s'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; " +
  "SET tcp_keepalives_count = 4; SET tcp_user_timeout = '13s'; LISTEN countersign";

// The library parses data in a socket event, where an exception would end the process, and it buffers any length.
function guard(client: pg.Client, answer: { received: number }, limit: number): void {
  const connection = connectionOf(client);
  const attach = connection.attachListeners?.bind(connection);
  if (attach === undefined) throw new TypeError('the PostgreSQL client library has an unexpected structure');
  connection.attachListeners = (stream) => {
    attach(stream);
    const parsers = stream.listeners('data') as ((bytes: Buffer) => void)[];
    stream.removeAllListeners('data');
    stream.on('data', (bytes: Buffer) => {
      answer.received += bytes.length;
      if (answer.received > limit) return void stream.destroy(new CutOff(`its answer has more than ${limit} bytes`));
      try {
        for (const parse of parsers) parse(bytes);
      } catch {
        stream.destroy(new CutOff('its answer is not valid PostgreSQL'));
      }
    });
  };
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

/** Returns rows of `entry` in COPY's binary format (PostgreSQL documentation, COPY, "Binary Format"). */
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
