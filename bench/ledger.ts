import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { createKey, type Ledger, LedgerReader, openLedger } from '../src/ledger/index.ts';
import { inclusionProof } from '../src/ledger/merkle.ts';
import { postgresPrograms } from '../test/kit/machine.ts';
import { Postgres } from '../test/kit/postgres.ts';
import { median, print, range, round0 } from './kit/figures.ts';

// Appends of 1 kB entries against a bare batched insert of the same rows into the same store, turn by turn in one run;
// what a single decision waits; checking and proving a large ledger; its size.
const ENTRIES = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 100_000);
const LARGE = Number(process.argv.filter((a) => /^\d+$/.test(a))[1] ?? 1_000_000);
const ROUNDS = 5;
const BATCH = 2048; // as many as the ledger puts into one commit
const WAITING = 8192; // entries that are waited for at any time
const VERIFY = fileURLToPath(new URL('kit/verify.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const key = join(directory, 'key.pem');
writeFileSync(key, createKey());
let n = 0;

type Checked = {
  readonly seconds: number;
  readonly checked: number;
  readonly finding?: string;
  readonly memory: readonly number[];
};
type Row = {
  readonly index: number;
  readonly leaf: Uint8Array;
  readonly body: string;
  readonly type: string;
  readonly environment: string;
};

const entry = (i: number) =>
  ({
    type: 'admission.denied',
    environment: 'production',
    user: `user-${i}`,
    operation: 'CREATE',
    object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: `settings-${i}` },
    mode: 'enforce',
    reason: 'x'.repeat(760),
  }) as const;

async function append(ledger: Ledger, count: number): Promise<number> {
  let next = 0;
  const started = performance.now();
  await Promise.all(
    Array.from({ length: WAITING }, async () => {
      while (next < count) await ledger.record(entry(next++));
    }),
  );
  return count / ((performance.now() - started) / 1000);
}

function rowsOf(data: string): Row[] {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  const rows = [...reader.stored(1)];
  reader.close();
  return rows;
}

const SETTINGS =
  'PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;';

function bareSqlite(rows: readonly Row[]): number {
  const file = join(directory, `bare-${n++}.db`);
  const db = new DatabaseSync(file);
  db.exec(
    `${SETTINGS} CREATE TABLE entry (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, body TEXT NOT NULL, type TEXT NOT NULL, environment TEXT NOT NULL) STRICT; CREATE INDEX entry_by_type ON entry (environment, type, seq)`,
  );
  const insert = db.prepare('INSERT INTO entry VALUES (?, ?, ?, ?, ?)');
  const started = performance.now();
  for (let at = 0; at < rows.length; at += BATCH) {
    db.exec('BEGIN IMMEDIATE');
    for (const { index, leaf, body, type, environment } of rows.slice(at, at + BATCH))
      insert.run(index, leaf, body, type, environment);
    db.exec('COMMIT');
  }
  const rate = rows.length / ((performance.now() - started) / 1000);
  db.close();
  return rate;
}

async function barePostgres(url: string, rows: readonly Row[]): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const started = performance.now();
  for (let at = 0; at < rows.length; at += BATCH) {
    const part = rows.slice(at, at + BATCH);
    await client.query(
      'INSERT INTO countersign.entry SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[])',
      [
        part.map((r) => r.index),
        part.map((r) => `\\x${Buffer.from(r.leaf).toString('hex')}`),
        part.map((r) => r.body),
        part.map((r) => r.type),
        part.map((r) => r.environment),
      ],
    );
  }
  const rate = rows.length / ((performance.now() - started) / 1000);
  await client.end();
  return rate;
}

function tell(what: string, ours: readonly number[], bare: readonly number[]): void {
  const ratio = median(ours.map((rate, i) => rate / (bare[i] as number)));
  print(
    `${what}: ${round0(median(ours))}/s (${range(ours)}), bare ${round0(median(bare))}/s (${range(bare)}), ratio ${ratio.toFixed(2)}`,
  );
}

async function sqliteAppends(): Promise<void> {
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const data = join(directory, `sqlite-${n++}`);
    const ledger = await openLedger(data, 'bench.test/l');
    ours.push(await append(ledger, ENTRIES));
    await ledger.close();
    bare.push(bareSqlite(rowsOf(data)));
    if (round === 0) tellSize(data);
    rmSync(data, { recursive: true });
  }
  tell('append, SQLite', ours, bare);
}

function tellSize(data: string): void {
  const bytes = rowsOf(data).reduce((sum, row) => sum + Buffer.byteLength(row.body), 0);
  print(`size: ${(statSync(join(data, 'ledger.db')).size / bytes).toFixed(2)} × the entries’ bytes`);
}

async function postgresAppends(): Promise<void> {
  if (postgresPrograms() === undefined) return print('append, PostgreSQL: not installed');
  const server = await Postgres.start();
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const data = join(directory, `postgres-${n++}`);
    const { url } = await server.ledger();
    const ledger = await openLedger(data, 'bench.test/l', { postgres: url, key: { files: [key] } });
    ours.push(await append(ledger, ENTRIES / 2));
    await ledger.close();
    const rows = rowsOf(data);
    bare.push(await barePostgres((await server.ledger()).url, rows));
    rmSync(data, { recursive: true });
  }
  tell('append, PostgreSQL', ours, bare);
  await server.stop();
}

// One entry at a time, as a single decision waits for it; a bare insert of one row, and its commit, beside it.
async function singles(): Promise<void> {
  const ledger = await openLedger(join(directory, 'single'), 'bench.test/l');
  const db = new DatabaseSync(join(directory, 'single.db'));
  db.exec(`${SETTINGS} CREATE TABLE entry (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT`);
  const insert = db.prepare('INSERT INTO entry (body) VALUES (?)');
  const body = JSON.stringify(entry(0));
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let i = 0; i < 3000; i++) {
    let at = performance.now();
    await ledger.record(entry(i));
    ours.push(performance.now() - at);
    at = performance.now();
    insert.run(body);
    bare.push(performance.now() - at);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const q = (values: number[], part: number) =>
    values.sort((a, b) => a - b)[Math.floor(values.length * part)] as number;
  const show = (values: number[]) => `p50 ${q(values, 0.5).toFixed(2)} ms, p99 ${q(values, 0.99).toFixed(2)} ms`;
  print(
    `one decision: ${show(ours)}; a bare commit: ${show(bare)}; added at p99 ${(q(ours, 0.99) - q(bare, 0.99)).toFixed(2)} ms`,
  );
  db.close();
  await ledger.close();
}

async function large(): Promise<void> {
  const data = join(directory, 'large');
  const ledger = await openLedger(data, 'bench.test/l');
  await append(ledger, LARGE);
  await ledger.close();
  const seconds: number[] = [];
  let memory: readonly number[] = [];
  for (let round = 0; round < 3; round++) {
    const told = JSON.parse(execFileSync(process.execPath, [VERIFY, data], { encoding: 'utf8' })) as Checked;
    if (told.finding !== undefined || told.checked !== LARGE + 1)
      throw new Error(told.finding ?? 'not everything was checked');
    seconds.push(told.seconds);
    memory = told.memory;
  }
  print(
    `verify ${round0(LARGE)}: ${median(seconds).toFixed(1)} s on one core (${seconds.map((s) => s.toFixed(1)).join(', ')}); ${round0(LARGE / median(seconds))}/s; memory ${memory[0]} MiB at the beginning, ${memory.at(-1)} at the end, ${Math.max(...memory)} at most`,
  );
  const reader = new LedgerReader(join(data, 'ledger.db'));
  const nodes = reader.nodes(reader.size);
  const random = Array.from(
    { length: 20_000 },
    (_, i) => createHash('sha256').update(String(i)).digest().readUInt32BE() % reader.size,
  );
  for (const [what, indexes] of [
    ['anywhere', random],
    ['of one period', Array.from({ length: 20_000 }, (_, i) => (400_000 % LARGE) + (i % (LARGE / 2)))],
  ] as const) {
    const started = performance.now();
    for (const index of indexes) inclusionProof(index, reader.size, nodes);
    print(`proofs ${what}: ${round0(indexes.length / ((performance.now() - started) / 1000))}/s`);
  }
  reader.close();
}

try {
  await sqliteAppends();
  await singles();
  await postgresAppends();
  await large();
} finally {
  rmSync(directory, { recursive: true, force: true });
}
