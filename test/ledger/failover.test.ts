import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
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
import { type Batch, CommitUnknown } from '../../src/ledger/store.ts';
import type { Entry } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

// A database with a standby: what was acknowledged is there after a promotion, or nothing is signed.
const skip = inQuickRun() || without('PostgreSQL');
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const key = join(directory, 'shared.key');
writeFileSync(key, createKey(), { mode: 0o600 });
let serial = 0;
const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: 'x' }) as const;

/** Two servers, the second a standby of the first, and the address of both. */
async function pair(isCopied: boolean) {
  const primary = await Postgres.start();
  open.push(() => primary.stop().catch(() => {}));
  const { url, owner } = await primary.ledger();
  const standby = await primary.standby();
  open.push(() => standby.stop());
  if (isCopied) await primary.set('synchronous_standby_names', 'standby');
  const name = new URL(url).pathname;
  const hosts = `127.0.0.1:${primary.port},127.0.0.1:${standby.port}`;
  return { primary, standby, owner, name, url: `postgres://gate@${hosts}${name}?target_session_attrs=read-write` };
}

async function replica(url: string, data = join(directory, `replica-${serial++}`), newEpoch?: { reason: string }) {
  const said: string[] = [];
  const ledger = await openLedger(data, ORIGIN, {
    postgres: url,
    key: { files: [key] },
    warn: (m) => said.push(m),
    ...(newEpoch === undefined ? {} : { newEpoch }),
  });
  let closed: Promise<void> | undefined;
  const end = () => (closed ??= ledger.close());
  open.push(end);
  return Object.assign(ledger, { data, said, end });
}

/** Records again and again until the ledger takes it. Throws what waiting does not change. */
async function recordSoon(ledger: Ledger, i: number): Promise<number> {
  for (const end = Date.now() + 30_000; ; ) {
    try {
      return (await ledger.record(body(i))).index;
    } catch (thrown) {
      if ((thrown as { recover?: string }).recover !== 'retry' || Date.now() > end) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function findingIn(data: string): string | undefined {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  try {
    return verifyLedger(reader, parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8'))).finding?.message;
  } finally {
    reader.close();
  }
}

const isUnprotected = (said: readonly string[]) => said.some((m) => /set `synchronous_standby_names` there/.test(m));

describe('a database with a standby', { skip }, () => {
  test('is followed when the standby is promoted, with everything that was acknowledged', async () => {
    const { primary, standby, url } = await pair(true);
    const [a, b] = [await replica(url), await replica(url)];
    assert.equal(isUnprotected([...a.said, ...b.said]), false);
    const acknowledged = new Map<number, number>();
    for (let i = 0; i < 20; i++) acknowledged.set((await (i % 2 ? a : b).record(body(i))).index, i);
    await primary.kill();
    standby.promote();
    for (const [i, one] of [a, b].entries()) acknowledged.set(await recordSoon(one, 100 + i), 100 + i);
    for (const one of [a, b]) {
      await until(
        () => Promise.resolve(one.read.size > Math.max(...acknowledged.keys())),
        20_000,
        () => 'a copy stays behind',
      );
      for (const [index, i] of acknowledged)
        assert.equal((one.read.entry(index)?.entry as { verdict?: number } | undefined)?.verdict, i);
      assert.equal(findingIn(one.data), undefined);
    }
    assert.ok(isUnprotected(a.said), 'the new primary has no standby yet');
  });

  test('that lost entries is not signed on by anyone: neither by who saw them, nor by who did not', async () => {
    const { primary, standby, name, url } = await pair(false);
    const a = await replica(url);
    assert.ok(isUnprotected(a.said), 'it was said before');
    const old = await replica(url);
    await a.record(body(1));
    await until(
      async () =>
        (await standby.ask(`postgres://owner@127.0.0.1:${standby.port}${name}`, 'SELECT seq FROM countersign.entry'))
          .length > 1,
      20_000,
      () => 'it does not follow',
    );
    await until(
      () => Promise.resolve(old.read.size === a.read.size),
      20_000,
      () => 'the copy stays behind',
    );
    await old.end(); // it does not see what comes now
    await standby.set('primary_conninfo', '');
    await until(
      async () => (await standby.ask('postgres', 'SELECT pid FROM pg_stat_wal_receiver')).length === 0,
      20_000,
      () => 'it still follows',
    );
    await a.record(body(2));
    const size = a.read.size;
    await primary.kill();
    standby.promote();
    const halted = {
      code: 'ledger-inconsistent',
      recover: 'halt',
      message: /rolled back to an older state/,
      hint: /new-epoch/,
    };
    const [ofA, ofOld] = await Promise.allSettled([
      recordSoon(a, 3),
      replica(url, old.data).then((o) => recordSoon(o, 4)),
    ]);
    for (const outcome of [ofA, ofOld])
      await assert.rejects(
        async () => (outcome.status === 'rejected' ? Promise.reject(outcome.reason) : undefined),
        halted,
      );
    await a.end();
    const next = await replica(url, a.data, { reason: 'the primary is lost' });
    const opened = next.read.latest(['epoch.opened'], '');
    assert.equal(opened?.entry.type === 'epoch.opened' && opened.entry.previous.split('\n')[1], String(size));
    await next.end();
    const after = await replica(url, a.data);
    await recordSoon(after, 5);
    await after.end();
    assert.equal(findingIn(a.data), undefined);
  });

  test('whose former primary comes back is written to at one place, and that is said', async () => {
    const { primary, standby, name, url } = await pair(false);
    const a = await replica(url);
    await a.record(body(1));
    await primary.kill();
    standby.promote();
    await recordSoon(a, 2);
    await primary.up(); // both accept writes now
    const later = await replica(url);
    assert.match(later.said.join('\n'), new RegExp(`127.0.0.1:${standby.port}\` is used; shut .*:${primary.port}`));
    await recordSoon(later, 3);
    const rows = async (server: Postgres) =>
      (await server.ask(`postgres://owner@127.0.0.1:${server.port}${name}`, 'SELECT seq FROM countersign.entry'))
        .length;
    assert.ok((await rows(standby)) > (await rows(primary)));
    const before = await rows(primary);
    await standby.kill(); // one that knows of the promotion does not go back
    const refused = await a.record(body(4)).catch((thrown: Error) => thrown);
    assert.match(
      String(refused),
      /timeline 1, but another was promoted since: timeline 2|ECONNREFUSED|lost the connection/,
    );
    await until(
      async () => /promoted since/.test(String(await a.record(body(5)).catch((thrown: Error) => thrown.message))),
      20_000,
      () => 'it goes back to the old one',
    );
    assert.equal(await rows(primary), before);
    await standby.up();
  });

  test('that cancelled its wait for the standby has not acknowledged', async () => {
    const server = await Postgres.start();
    open.push(() => server.stop());
    const { url, owner } = await server.ledger();
    const tables = new PostgresTables(url, () => {});
    open.push(() => tables.close());
    await tables.connect();
    await tables.lead('n'.repeat(64), 'r');
    await server.set('synchronous_standby_names', 'nobody');
    open.push(() => server.set('synchronous_standby_names', ''));
    const cancel = () =>
      until(
        async () =>
          (await server.ask(owner, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
            .length > 0,
        10_000,
        () => 'nothing waits',
      );
    const entry = prepare({ v: 1, time: new Date().toISOString(), ...body(1) } as Entry);
    const batch: Batch = {
      first: 0,
      entries: [entry],
      evidence: [],
      subjects: [],
      tiles: [],
      checkpoint: { size: 1, note: 'n' },
    };
    const committing = assert.rejects(tables.commit(batch, []), CommitUnknown);
    await cancel();
    await committing;
    const settling = assert.rejects(tables.settle(), /did not get the entries to a standby/);
    await cancel();
    await settling;
    await server.set('synchronous_standby_names', '');
    await tables.settle();
  });
});
