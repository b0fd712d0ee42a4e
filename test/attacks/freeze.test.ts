import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rememberedState } from '../../src/gate/index.ts';
import { untraced } from '../../src/model/index.ts';
import { type ReconcilePorts, Reconciler } from '../../src/reconcile/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { namespace } from '../kit/manifests.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';

// A mirror that holds commits back shows a branch that never moves; one that lost approvals may have lost a rejection.
const directory = scratch();

test('a branch that has not moved for too long is told once, on the ledger too', async () => {
  const dana = sshPerson(directory, 'dana');
  const fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  const tip = fleet.commit(dana, 'first', { 'clusters/production/ns.yaml': namespace('shop') });
  fleet.push();
  let now = new Date();
  const { ledger, recorder } = await recorderAt(`${directory}/data`, () => now);
  const base = await gateOf(fleet, [dana], { trust: trustDocument([dana], { required: 1 }) });
  const spec = { ...base.environment.spec, source: { ...base.environment.spec.source, staleAfter: '7d' } };
  const gate = { ...base, recorder, clock: () => now, environment: { ...base.environment, spec } };
  const told: string[] = [];
  const log = { info: () => {}, error: () => {}, warn: (_: object, message: string) => void told.push(message) };
  const ports = {
    cluster: { watch: async () => {}, live: () => undefined, knows: () => true, connected: true },
    state: rememberedState(recorder, 'production'),
    ledger: recorder,
    log,
    clock: () => now,
    look: async () => ({ tip, approvals: '' }),
    trace: untraced,
  };
  const look = async () => new Reconciler(gate, ports as unknown as ReconcilePorts).pass();
  await look();
  now = new Date(now.getTime() + 6 * 86_400_000);
  await look();
  assert.equal(recorder.all('source.stale', 'production').length, 0);
  now = new Date(now.getTime() + 2 * 86_400_000);
  await look();
  await look();
  assert.deepEqual(
    recorder.all('source.stale', 'production').map((r) => r.entry.tip),
    [tip],
  );
  assert.ok(told.some((m) => /has not moved for 7d: is the remote holding commits back/.test(m)));
  await ledger.close();
});
