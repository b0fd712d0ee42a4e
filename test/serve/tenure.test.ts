import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ApiServer, Lease } from '../../src/cluster/index.ts';
import type { ClusterPort, ReconcilePorts } from '../../src/reconcile/index.ts';
import { Hold, whileHeld } from '../../src/serve/hold.ts';
import { runWhileHeld } from '../../src/serve/tenure.ts';
import { FakeLeases } from '../kit/fake-leases.ts';
import { until } from '../kit/service.ts';

const quiet = { info: () => {}, warn: () => {} };
const AWAY = 'the ledger takes no records';
const LOST = { recover: 'halt', message: /lost the Lease of `production`: another replica may hold it/ } as const;

/** A replica that holds its Lease, with a loop that never ends by itself, as one that waits for the ledger. */
async function held(durationMs = 300) {
  const server = new FakeLeases();
  const lease = new Lease(server as unknown as ApiServer, 'default', 'countersign-production', 'a', durationMs);
  const hold = new Hold('production');
  const stopping = new AbortController();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  const { promise: running, resolve: end } = Promise.withResolvers<void>();
  const loop = {
    name: 'production',
    run: () => {
      begin();
      return running;
    },
    stop: () => {},
    standBy: () => {},
  };
  const ended = runWhileHeld(loop, lease, hold, stopping.signal, quiet);
  ended.catch(() => {});
  await begun;
  hold.check();
  return { server, hold, ended, end };
}

test('a Lease that was deleted is lost at the next renewal, and the loop is not waited for', async () => {
  const { server, hold, ended, end } = await held();
  server.leases.clear();
  await assert.rejects(ended, LOST);
  assert.throws(() => hold.check(), LOST);
  assert.equal(server.leases.size, 0, 'it is not taken again');
  end();
});

test('a Lease that another replica has is lost at the next renewal', async () => {
  const { server, hold, ended, end } = await held();
  const [[name, lease] = ['', undefined]] = server.leases;
  assert.ok(lease);
  server.leases.set(name, { ...lease, spec: { ...lease.spec, holderIdentity: 'b' } });
  await assert.rejects(ended, LOST);
  assert.throws(() => hold.check(), LOST);
  end();
});

test('a Lease that someone labels meanwhile is kept', async () => {
  const { server, hold, ended, end } = await held();
  const { request } = server;
  let puts = 0;
  server.request = async (method, path, given) => {
    const [[name, lease] = ['', undefined]] = server.leases;
    if (method === 'PUT' && puts++ === 0 && lease !== undefined)
      server.leases.set(name, { ...lease, metadata: { name, resourceVersion: 'labelled' } });
    return request.call(server, method, path, given);
  };
  while (puts < 3) await new Promise((resolve) => setTimeout(resolve, 10));
  hold.check();
  end();
  await ended;
});

test('a replica that cannot record gives its Lease up, and takes it again once it can', async () => {
  const server = new FakeLeases();
  const lease = new Lease(server as unknown as ApiServer, 'default', 'countersign-production', 'a', 2000);
  const hold = new Hold('production');
  const stopping = new AbortController();
  const told: string[] = [];
  let isAvailable = true;
  let end = () => {};
  const loop = {
    name: 'production',
    run: () => {
      told.push('runs');
      return new Promise<void>((done) => {
        end = done;
      });
    },
    stop: () => end(),
    pause: () => {
      told.push('pauses');
      end();
    },
    standBy: (why: string) => void (told.at(-1) === why || told.push(why)),
  };
  const over = runWhileHeld(loop, lease, hold, stopping.signal, quiet, () => (isAvailable ? undefined : AWAY));
  const holder = () =>
    ([...server.leases.values()][0]?.spec as { holderIdentity?: string } | undefined)?.holderIdentity;
  await until(
    () => told.includes('runs'),
    5000,
    () => 'it does not run',
  );
  hold.check();
  isAvailable = false;
  await until(
    () => holder() === '',
    10_000,
    () => 'the Lease is not given up',
  );
  assert.throws(() => hold.check(), { code: 'ledger-unusable', recover: 'retry' });
  await new Promise((done) => setTimeout(done, 1500));
  assert.equal(holder(), '', 'it is not taken while this replica cannot record');
  isAvailable = true;
  await until(
    () => told.filter((t) => t === 'runs').length === 2,
    10_000,
    () => told.join(),
  );
  hold.check();
  assert.equal(holder(), 'a');
  assert.deepEqual(told, ['runs', 'pauses', AWAY, `cannot run here: ${AWAY}`, 'runs']);
  stopping.abort();
  end();
  await over;
});

test('a replica whose checks cannot reach the repository lets another one try, once, and goes on if none does', async () => {
  const server = new FakeLeases();
  const lease = new Lease(server as unknown as ApiServer, 'default', 'countersign-production', 'a', 1500);
  const stopping = new AbortController();
  const told: string[] = [];
  let end = () => {};
  const loop = {
    name: 'production',
    failing: { code: 'render-failed', since: performance.now() - 60_000 },
    run: () => {
      told.push('runs');
      return new Promise<void>((done) => {
        end = done;
      });
    },
    stop: () => end(),
    pause: () => end(),
    standBy: (why: string) => void told.push(why),
  };
  const over = runWhileHeld(loop, lease, new Hold('production'), stopping.signal, quiet, () => undefined);
  const runs = () => told.filter((t) => t === 'runs').length;
  await new Promise((done) => setTimeout(done, 2500));
  assert.deepEqual(told, ['runs'], 'what fails everywhere is no reason');
  loop.failing = { code: 'git-unreachable', since: performance.now() };
  await until(
    () => told.includes('its checks fail here (git-unreachable)'),
    10_000,
    () => told.join(),
  );
  const [{ spec } = { spec: {} }] = server.leases.values();
  assert.equal((spec as { holderIdentity?: string }).holderIdentity, '');
  await until(
    () => runs() === 2,
    10_000,
    () => told.join(),
  );
  await new Promise((done) => setTimeout(done, 3000));
  assert.equal(runs(), 2, 'it does not go round and round');
  stopping.abort();
  end();
  await over;
});

test('a ledger that is away for a moment costs no Lease, and reports do not wait for it', async () => {
  const server = new FakeLeases();
  const stopping = new AbortController();
  const { promise: running, resolve: end } = Promise.withResolvers<void>();
  let paused = 0;
  const loop = { name: 'production', run: () => running, stop: end, pause: () => paused++, standBy: () => {} };
  let reported = 0;
  const report = () => {
    reported++;
    return running;
  };
  const reports = { name: 'reports', run: report, stop: end, standBy: () => {} };
  let isAvailable = true;
  const held = [loop, reports].map((l) => {
    const lease = new Lease(server as unknown as ApiServer, 'default', `countersign-${l.name}`, 'a', 3000);
    return runWhileHeld(l, lease, new Hold(l.name), stopping.signal, quiet, () =>
      l === loop && isAvailable ? undefined : AWAY,
    );
  });
  isAvailable = false;
  await new Promise((done) => setTimeout(done, 800));
  isAvailable = true;
  await new Promise((done) => setTimeout(done, 2500));
  assert.deepEqual([paused, reported], [0, 1]);
  stopping.abort();
  end();
  await Promise.all(held);
});

test('a hold ends by itself, before others may take the Lease, without any step of this process', async () => {
  const hold = new Hold('production');
  hold.check(); // without Leases it never ends
  hold.lasts(performance.now(), 60_000);
  hold.check();
  hold.lasts(performance.now() - 13_000, 12_000); // as after it was stopped for 13 s
  assert.throws(() => hold.check(), LOST);
  hold.lose();
  hold.lasts(performance.now(), 60_000);
  assert.throws(() => hold.check(), LOST, 'what was lost does not come back');
});

test('nothing is written to the cluster or the ledger after it was lost; what only reads still works', async () => {
  const done: string[] = [];
  const says =
    (name: string) =>
    async (...args: unknown[]) =>
      void done.push(`${name} ${args.length}`);
  const cluster = Object.fromEntries(
    ['apply', 'remove', 'takeOver', 'dryRun', 'read'].map((name) => [name, says(name)]),
  ) as unknown as ClusterPort;
  const ledger = { record: says('record'), latest: () => undefined } as unknown as ReconcilePorts['ledger'];
  const hold = new Hold('production');
  const ports = whileHeld({ cluster, ledger }, hold);
  const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'a' };
  const write = () => [
    () => ports.cluster.apply({} as never, {} as never, {} as never),
    () => ports.cluster.remove(ref, 'production'),
    () => ports.cluster.takeOver(ref),
    () => ports.ledger.record({ type: 'service.stopped', reason: 'x' }, []),
  ];
  for (const task of write()) await task();
  assert.deepEqual(done.splice(0), ['apply 3', 'remove 2', 'takeOver 1', 'record 2']);
  hold.lose();
  for (const task of write()) await assert.rejects(task(), LOST);
  assert.deepEqual(done, []);
  await ports.cluster.read(ref);
  await ports.cluster.dryRun({} as never, {} as never, {} as never);
  assert.deepEqual(done, ['read 1', 'dryRun 3']);
});

test('a replica that may not run anything yet knows how long the holder was silent', async () => {
  const server = new FakeLeases();
  const lease = (who: string) =>
    new Lease(server as unknown as ApiServer, 'default', 'countersign-production', who, 1000);
  assert.equal(await lease('gone').take(), true);
  const waiting = lease('b');
  await waiting.look();
  assert.equal(waiting.holder, 'gone');
  await new Promise((done) => setTimeout(done, 1100));
  assert.equal(await lease('c').take(), false, 'who looks for the first time waits');
  assert.equal(await waiting.take(), true);
});
