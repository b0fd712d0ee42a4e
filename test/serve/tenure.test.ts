import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ApiServer, Lease } from '../../src/cluster/index.ts';
import type { ClusterPort, ReconcilePorts } from '../../src/reconcile/index.ts';
import { Hold, whileHeld } from '../../src/serve/hold.ts';
import { runWhileHeld } from '../../src/serve/tenure.ts';
import { FakeLeases } from '../kit/fake-leases.ts';

const quiet = { info: () => {}, warn: () => {} };
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
