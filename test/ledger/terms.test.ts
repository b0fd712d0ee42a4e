import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  createKey,
  type Ledger,
  LedgerReader,
  openLedger,
  parseVerifiers,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { PostgresTables } from '../../src/ledger/postgres.ts';
import { prepare } from '../../src/ledger/sequencer.ts';
import type { Batch } from '../../src/ledger/store.ts';
import type { Entry } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { PostgresProxy } from '../kit/postgres-proxy.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

// Who may sequence: never two, and never no one for longer than 30 s.
const skip = inQuickRun() || without('PostgreSQL');
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const key = join(directory, 'shared.key');
writeFileSync(key, createKey(), { mode: 0o600 });
const WRITER = fileURLToPath(new URL('../kit/replica-writer.ts', import.meta.url));
let postgres: Postgres;
let serial = 0;
const open: (() => unknown)[] = [];
before(async () => {
  if (skip === false) postgres = await Postgres.start();
});
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});
after(() => postgres?.stop());

const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: 'x' }) as const;

function batchAt(first: number): Batch {
  const entry = prepare({ v: 1, time: new Date().toISOString(), ...body(first) } as Entry);
  return { first, entries: [entry], evidence: [], subjects: [], tiles: [], checkpoint: { size: first + 1, note: 'n' } };
}

async function session(url: string): Promise<PostgresTables> {
  const tables = new PostgresTables(url, () => {});
  open.push(() => tables.close());
  await tables.connect();
  return tables;
}

async function place() {
  const { url, owner } = await postgres.ledger();
  return {
    url,
    owner,
    age: () => postgres.ask(owner, "UPDATE countersign.term SET beat = now() - interval '11 s'"),
    entries: async () => (await postgres.ask(owner, 'SELECT seq FROM countersign.entry ORDER BY seq')).length,
    mayEnd: (may: boolean) =>
      postgres.ask(
        owner,
        `${may ? 'GRANT' : 'REVOKE'} EXECUTE ON FUNCTION pg_terminate_backend ${may ? 'TO' : 'FROM'} PUBLIC`,
      ),
  };
}

/** The leader's heartbeat is old, and others may not end its session. */
async function agesUnended(at: Awaited<ReturnType<typeof place>>): Promise<void> {
  await at.mayEnd(false);
  open.push(() => at.mayEnd(true));
  await at.age();
}

const nonce = () => randomBytes(32).toString('hex');
const FENCED = { code: 'ledger-unusable', recover: 'retry', message: /another replica sequences/ };

async function replica(url: string, said: string[] = []): Promise<Ledger & { data: string }> {
  const data = join(directory, `replica-${serial++}`);
  const ledger = await openLedger(data, ORIGIN, { postgres: url, key: { files: [key] }, warn: (m) => said.push(m) });
  open.push(() => ledger.close());
  return Object.assign(ledger, { data });
}

function findingIn(data: string): string | undefined {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  try {
    return verifyLedger(reader, parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8')))?.finding?.message;
  } finally {
    reader.close();
  }
}

/** Every number once, and the copies of all replicas the same. */
async function assertOnce(replicas: readonly (Ledger & { data: string })[], numbers: readonly number[]): Promise<void> {
  const size = Math.max(...replicas.map((r) => r.read.size));
  for (const one of replicas) {
    await until(
      () => Promise.resolve(one.read.size >= size),
      20_000,
      () => 'a copy stays behind',
    );
    const verdicts = one.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict);
    assert.deepEqual(
      verdicts.toSorted((a, b) => a - b),
      numbers,
    );
    assert.equal(findingIn(one.data), undefined);
  }
  assert.equal(new Set(replicas.map((r) => r.read.entry(size - 1)?.entry.time)).size, 1);
}

describe('a term', { skip }, () => {
  test('is one session’s at a time, and is not ended while its heartbeat is recent', async () => {
    const { url } = await place();
    const [a, b] = [await session(url), await session(url)];
    assert.deepEqual([await a.lead(nonce(), 'a'), await b.lead(nonce(), 'b')], [true, false]);
    await a.commit(batchAt(0), []);
    assert.deepEqual([a.leads, b.leads, await b.lead(nonce(), 'b')], [true, false, false]);
    assert.equal((await b.leader())?.replica, 'a');
  });

  test('of a session that ended is taken at once', async () => {
    const { url } = await place();
    const [a, b] = [await session(url), await session(url)];
    await a.lead(nonce(), 'a');
    await a.close();
    await until(
      () => b.lead(nonce(), 'b'),
      5000,
      () => 'the term of an ended session is not taken',
    );
  });

  test('that was ended writes nothing, also where its session cannot be ended', async () => {
    const at = await place();
    const [a, b] = [await session(at.url), await session(at.url)];
    await a.lead(nonce(), 'a');
    await agesUnended(at);
    assert.equal(await b.lead(nonce(), 'b'), true);
    assert.equal(a.leads, true, 'it does not know yet');
    await assert.rejects(a.commit(batchAt(0), []), FENCED);
    assert.deepEqual([a.leads, a.isConnected, await at.entries()], [false, true, 0]);
    await b.commit(batchAt(0), []);
    assert.deepEqual([await a.lead(nonce(), 'a'), await at.entries()], [false, 1]);
  });

  test('that is free goes to one of those who take it at the same moment', async () => {
    const at = await place();
    const [a, ...others] = await Promise.all([1, 2, 3, 4].map(() => session(at.url)));
    await a?.lead(nonce(), 'a');
    await agesUnended(at);
    const taken = await Promise.all(others.map((one, i) => one.lead(nonce(), `${i}`).catch(() => false)));
    assert.deepEqual(taken.filter(Boolean), [true]);
    const [leader] = others.filter((one) => one.leads);
    await leader?.commit(batchAt(0), []);
    assert.equal(await at.entries(), 1);
  });

  test('is not taken by one who was slow, and saw only the leader before', async () => {
    const at = await place();
    const proxy = await PostgresProxy.open(at.url);
    open.push(() => proxy.close());
    const [a, b, slow] = [await session(at.url), await session(at.url), await session(proxy.url)];
    await a.lead(nonce(), 'a');
    await agesUnended(at);
    proxy.onSent = async (from, bytes) => {
      if (from !== 'client' || !bytes.includes('BEGIN')) return;
      proxy.onSent = () => {};
      await b.lead(nonce(), 'b');
    };
    assert.equal(await slow.lead(nonce(), 'slow'), false);
    assert.equal((await b.leader())?.replica, 'b');
    await b.commit(batchAt(0), []);
  });

  test('does not outlive its heartbeat by a beat of its own', async () => {
    const at = await place();
    const [a, b] = [await session(at.url), await session(at.url)];
    await a.lead(nonce(), 'a');
    await agesUnended(at);
    await b.lead(nonce(), 'b');
    await until(
      async () => !(await a.beat()),
      10_000,
      () => 'the old leader goes on',
    );
    assert.equal((await b.leader())?.replica, 'b');
  });

  test('is only taken between two commits of the old leader, never in the middle of one', async () => {
    const at = await place();
    const proxy = await PostgresProxy.open(at.url);
    open.push(() => proxy.close());
    const [a, b] = [await session(proxy.url), await session(at.url)];
    await a.lead(nonce(), 'a');
    await agesUnended(at);
    let isOpen = false;
    proxy.onSent = (from, bytes) => {
      if (from === 'client' && bytes.includes('COMMIT')) {
        isOpen = true;
        proxy.mode = 'mute';
      }
    };
    const committing = a.commit(batchAt(0), []).catch(() => 'unknown');
    await until(
      () => Promise.resolve(isOpen),
      5000,
      () => 'no commit',
    );
    // Its update is not committed yet, so its heartbeat is still old: the transaction has the row.
    await assert.rejects(b.lead(nonce(), 'b'), { code: 'ledger-unusable' });
    assert.equal(b.leads, false);
    proxy.mode = 'cut'; // the server rolls back
    await until(
      () => b.lead(nonce(), 'b').catch(() => false),
      10_000,
      () => 'not taken',
    );
    assert.equal(await committing, 'unknown');
    assert.equal(await at.entries(), 0);
  });

  test('of an older version’s leader, which has no heartbeat, lasts as long as its lock', async () => {
    const at = await place();
    const [before, later] = [await session(at.url), await session(at.url)];
    await before.lead(nonce(), 'before');
    await before.close();
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: at.url });
    await client.connect();
    await client.query('SELECT pg_advisory_lock(1668248942)');
    assert.equal(await later.lead(nonce(), 'new'), false, 'also while the row is that of another leader');
    await client.query("DELETE FROM countersign.term; INSERT INTO countersign.term (nonce) VALUES ('older')");
    assert.equal(await later.lead(nonce(), 'new'), false);
    await client.end();
    await until(
      () => later.lead(nonce(), 'new'),
      5000,
      () => 'not taken',
    );
  });
});

describe('the replica that sequences', { skip }, () => {
  for (const [when, says] of [
    ['while it is idle', undefined],
    ['in the middle of a transaction', ['client', 'COMMIT']],
    ['after its commit, before it hears of it', ['server', 'COMMIT']],
  ] as const)
    test(`loses its network ${when}: another goes on, and nothing is there twice`, async () => {
      const { url } = await place();
      const proxy = await PostgresProxy.open(url);
      open.push(() => proxy.close());
      const a = await replica(proxy.url);
      await a.record(body(0));
      const [b, c] = [await replica(url), await replica(url)];
      await Promise.all([b.record(body(1)), c.record(body(2))]);
      if (says === undefined) proxy.mode = 'mute';
      let isArmed = true;
      proxy.onSent = (from, bytes) => {
        if (!isArmed || from !== says?.[0] || !bytes.includes(says[1])) return;
        isArmed = false;
        proxy.mode = 'mute';
      };
      const late = a.record(body(3)).then(
        () => true,
        () => false,
      );
      const begun = performance.now();
      await b.record(body(4)).catch(() => b.record(body(4)));
      assert.ok(performance.now() - begun < 30_000, 'the ledger had no writer for too long');
      await c.record(body(5));
      proxy.mode = 'pass';
      const wasRecorded = await late;
      await a.record(body(6)).catch(() => a.record(body(6)));
      const numbers = b.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict);
      assert.ok(!wasRecorded || numbers.includes(3), 'what was acknowledged is there');
      await assertOnce([a, b, c], [0, 1, 2, ...(numbers.includes(3) ? [3] : []), 4, 5, 6]);
    });

  test('is known to all, and so is when there is none; when the database is back, each replica hears of it', async () => {
    const { url } = await place();
    const [a, b] = [await replica(url), await replica(url)];
    const idOf = (ledger: Ledger) => ledger.sharing?.replica ?? '';
    const sequencer = (ledger: Ledger, expected: string) =>
      until(
        () => Promise.resolve(ledger.sharing?.sequencer === expected),
        20_000,
        () => `${JSON.stringify(ledger.sharing)}, not ${expected}`,
      );
    assert.match(idOf(a), /^[0-9a-f]{32}$/);
    for (const one of [a, b]) await sequencer(one, idOf(a));
    let back = 0;
    b.onBack = () => back++;
    await postgres.kill();
    for (const one of [a, b]) await sequencer(one, '');
    assert.deepEqual([a.sharing?.isAvailable, b.sharing?.isAvailable, back], [false, false, 0]);
    const refused = b.record(body(1));
    assert.equal(b.backlog, 1);
    await assert.rejects(refused, { code: 'ledger-unusable', recover: 'retry' });
    assert.deepEqual([b.backlog, back], [0, 0]);
    await postgres.up();
    await until(
      () => Promise.resolve(back === 1 && b.sharing?.isAvailable === true && a.sharing?.isAvailable === true),
      20_000,
      () => 'nobody is told',
    );
  });

  test('is stopped for a while: another goes on, and when it wakes it writes nothing of its own', async () => {
    const { url, owner } = await place();
    const told = join(directory, 'told');
    writeFileSync(told, '');
    const child: ChildProcess = spawn(process.execPath, [WRITER, join(directory, 'stopped'), url, key, told], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    open.push(() => child.kill('SIGKILL'));
    const lines = () => readFileSync(told, 'utf8').split('\n').filter(Boolean);
    await until(
      () => Promise.resolve(lines().length > 5),
      20_000,
      () => 'it does not write',
    );
    child.kill('SIGSTOP');
    const b = await replica(url);
    await b.record(body(1_000_000)).catch(() => b.record(body(1_000_000)));
    const [row] = await postgres.ask(owner, 'SELECT replica FROM countersign.term');
    child.kill('SIGCONT');
    const heard = lines().length;
    await until(
      () => Promise.resolve(lines().length > heard + 5),
      30_000,
      () => 'it does not go on',
    );
    const [now] = await postgres.ask(owner, 'SELECT replica FROM countersign.term');
    assert.deepEqual(now, row, 'it hands over from then on');
    child.kill('SIGKILL');
    await b.record(body(1_000_001));
    const verdicts = b.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict);
    assert.equal(new Set(verdicts).size, verdicts.length, 'nothing is there twice');
    for (const line of lines()) {
      const [mine = -1, index = -1] = line.split(' ').map(Number);
      assert.equal(
        (b.read.entry(index)?.entry as { verdict?: number })?.verdict,
        mine,
        'what was acknowledged is there',
      );
    }
    assert.equal(findingIn(b.data), undefined);
  });
});
