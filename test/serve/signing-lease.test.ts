import assert from 'node:assert/strict';
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ApiServer } from '../../src/cluster/index.ts';
import { newInstance, openLedger } from '../../src/ledger/index.ts';
import { SigningLease } from '../../src/serve/signing-lease.ts';
import { whileAway } from '../../src/serve/while-away.ts';
import { FakeLeases } from '../kit/fake-leases.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

const directory = scratch();
let serial = 0;
const body = { type: 'service.stopped', reason: 'x' } as const;

async function copied(): Promise<[string, string]> {
  const [one, other] = [join(directory, `one-${serial}`), join(directory, `other-${serial++}`)];
  await (await openLedger(one, 'test')).close();
  cpSync(one, other, { recursive: true });
  return [one, other];
}

function leaseOf(
  server: FakeLeases,
  data: string,
  said: string[] = [],
  signal = new AbortController().signal,
): SigningLease {
  const log = { warn: (_: object, message: string) => said.push(message) } as never;
  const parts = {
    server: server as unknown as ApiServer,
    namespace: 'default',
    data,
    origin: 'test',
    key: undefined,
    log,
    signal,
  };
  return new SigningLease({ ...parts, instance: newInstance(new Date()), durationMs: 600 });
}

test('a second service with the same ledger and key stops, and says who signs', async () => {
  const server = new FakeLeases();
  const [one, other] = await copied();
  const first = leaseOf(server, one);
  await first.take();
  const ledger = await openLedger(one, 'test');
  const kept = first.keep(ledger);
  const running = kept.run();
  await assert.rejects(leaseOf(server, other).take(), {
    message: /another service signs this ledger: instance [0-9a-f]{32} since 2.*, on /,
    recover: 'halt',
    hint: /--against/,
  });
  await ledger.record(body);
  kept.stop();
  await running;
  await first.release();
  await leaseOf(server, other).take(); // once the first has ended
  await ledger.close();
});

test('one that was killed is waited for only by a copy; the next in the same directory goes on at once', async () => {
  const server = new FakeLeases();
  const [one, other] = await copied();
  await leaseOf(server, one).take();
  const began = performance.now();
  await leaseOf(server, one).take();
  const atOnce = performance.now() - began;
  await leaseOf(server, other).take();
  const waited = performance.now() - began - atOnce;
  assert.ok(waited > 300, 'it might have been alive');
  assert.ok(atOnce < waited, 'nothing was waited for');
});

test('one whose Lease another took signs nothing more, and ends', async () => {
  const server = new FakeLeases();
  const [one] = await copied();
  const first = leaseOf(server, one);
  await first.take();
  const ledger = await openLedger(one, 'test');
  server.isAway = true;
  const running = first.keep(ledger).run();
  running.catch(() => {});
  await until(
    () =>
      ledger.record(body).then(
        () => false,
        (e: { recover: string }) => e.recover === 'retry',
      ),
    5000,
    () => 'it goes on signing although nobody was heard',
  );
  // Meanwhile the copy, which reaches the API server, has taken it.
  for (const [name, lease] of server.leases)
    server.leases.set(name, {
      ...lease,
      metadata: { name, resourceVersion: 'x' },
      spec: { ...lease.spec, holderIdentity: `elsewhere_0_${'a'.repeat(32)}` },
    });
  server.isAway = false;
  await assert.rejects(running, /another service signs this ledger/);
  await assert.rejects(ledger.record(body), { recover: 'halt' });
  await ledger.close();
});

test('while the API server is away it waits, says so once, and goes on; after a pause it signs again', async () => {
  const server = new FakeLeases();
  const [one] = await copied();
  const said: string[] = [];
  server.isAway = true;
  const first = leaseOf(server, one, said);
  const taking = first.take();
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /nothing is signed until the Lease of this ledger is held: connect ECONNREFUSED/);
  server.isAway = false;
  await taking;
  const ledger = await openLedger(one, 'test');
  const kept = first.keep(ledger);
  const running = kept.run();
  server.isAway = true;
  const outcome = () =>
    ledger.record(body).then(
      () => 'recorded',
      (e: { recover: string }) => e.recover,
    );
  await until(
    async () => (await outcome()) === 'retry',
    5000,
    () => 'it is not held',
  );
  server.isAway = false;
  await until(
    async () => (await outcome()) === 'recorded',
    5000,
    () => 'it does not go on',
  );
  kept.stop();
  await running;
  await ledger.close();
});

test('told to stop while it waits, it does; without the right to a Lease it says what is missing', async () => {
  const server = new FakeLeases();
  const [one] = await copied();
  server.isAway = true;
  const stopping = new AbortController();
  const taking = leaseOf(server, one, [], stopping.signal).take();
  stopping.abort();
  await assert.rejects(taking, /told to stop/);
  server.isAway = false;
  server.isForbidden = true;
  const said: string[] = [];
  await leaseOf(server, one, said).take();
  assert.match(
    said.join(),
    /would not notice each other here: .*403; grant get, create and update on leases in `default`/,
  );
});

test('other ledgers, and a key that is not made yet, are nobody’s concern', async () => {
  const server = new FakeLeases();
  const [[one], [two]] = [await copied(), await copied()];
  await leaseOf(server, one).take();
  await leaseOf(server, two).take();
  assert.equal(server.leases.size, 2);
  const fresh = join(directory, 'fresh');
  mkdirSync(fresh);
  await leaseOf(server, fresh).take();
  assert.equal(server.leases.size, 2);
});

test('a service that is told to stop while it waits for the Lease, also after a pause, ends without an error', async () => {
  const [one] = await copied();
  const stopped = new AbortController();
  stopped.abort();
  const lease = leaseOf(new FakeLeases(), one, [], stopped.signal);
  const log = { warn: () => {}, info: () => {} };
  assert.equal(await whileAway(() => lease.take(), { signal: stopped.signal, log }), undefined);
});
