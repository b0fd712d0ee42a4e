import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EntryBody } from '../../src/model/index.ts';
import { ObservedHealth } from '../../src/reconcile/observed-health.ts';
import { observedBefore, promotable } from '../../src/reconcile/promotion.ts';
import { memoryRecorder } from '../kit/memory-recorder.ts';

const [ONE, TWO] = ['1'.repeat(40), '2'.repeat(40)];
const HOUR = 3_600_000;

/** A ledger on which staging was applied and observed, hours apart. */
function ledger() {
  let now = new Date('2030-01-01T00:00:00Z');
  const recorder = memoryRecorder(() => now);
  const record = (body: EntryBody) => recorder.record(body, []);
  const beat = (revision: string, healthySeconds?: number) =>
    record({
      type: 'heartbeat',
      everySeconds: 60,
      environments: [
        {
          name: 'staging',
          revision,
          state: healthySeconds === undefined ? 'standby' : 'applied',
          ...(healthySeconds === undefined ? {} : { healthySeconds }),
        },
      ],
    });
  const result = (revision: string, outcome: 'applied' | 'failed' = 'applied') => {
    const evidence = recorder.asEvidence({ objects: [] });
    return recorder.record(
      {
        type: 'apply.result',
        environment: 'staging',
        revision,
        intent: 0,
        outcome,
        applied: 0,
        pruned: 0,
        evidence: evidence.ref,
      },
      [evidence],
    );
  };
  const pass = (hours: number) => {
    now = new Date(now.getTime() + hours * HOUR);
  };
  const promoted = (current?: Parameters<typeof promotable>[3]) => promotable(recorder, 'staging', HOUR, current);
  return { recorder, beat, result, pass, promoted };
}

test('time in which no one observed a revision does not promote it', async () => {
  const { beat, result, pass, promoted } = ledger();
  await result(ONE);
  pass(5);
  assert.deepEqual(promoted(), [], 'nothing says that it was healthy');
  await beat(ONE, 1800);
  pass(5);
  assert.deepEqual(promoted(), [], 'half an hour was observed');
  await beat(ONE, 3600);
  assert.deepEqual(promoted(), [ONE]);
});

test('the process that runs it knows best; heartbeats count for what runs elsewhere', async () => {
  const { beat, result, promoted } = ledger();
  await result(ONE);
  await beat(ONE, 3600);
  assert.deepEqual(promoted({ revision: ONE, healthyMs: 0 }), [], 'it has failed since');
  assert.deepEqual(promoted({ revision: ONE, healthyMs: HOUR - 1 }), []);
  assert.deepEqual(promoted({ revision: ONE, healthyMs: HOUR }), [ONE]);
  await beat(ONE); // a replica that stands by
  assert.deepEqual(promoted({ revision: ONE }), [ONE]);
});

test('a replaced revision keeps what was observed until then, and one that comes back begins anew', async () => {
  const { recorder, beat, result, promoted } = ledger();
  await result(ONE);
  await beat(ONE, 4000);
  await result(TWO);
  await beat(TWO, 10);
  assert.deepEqual(promoted({ revision: TWO, healthyMs: 10_000 }), [ONE]);
  await result(ONE);
  assert.equal(observedBefore(recorder, 'staging', ONE), 0);
  assert.deepEqual(promoted({ revision: ONE, healthyMs: 0 }), [ONE], 'by its first time there');
  await beat(ONE, 20);
  assert.equal(observedBefore(recorder, 'staging', ONE), 20_000, 'where the next process goes on');
  assert.equal(observedBefore(recorder, 'staging', TWO), 0);
});

test('an earlier life of a revision is not continued, even if nothing was observed in between', async () => {
  const { recorder, beat, result } = ledger();
  await result(ONE);
  await beat(ONE, 4000);
  await result(TWO);
  await result(ONE);
  assert.equal(observedBefore(recorder, 'staging', ONE), 0);
});

test('without `healthyFor`, being applied is enough', async () => {
  const { recorder, result } = ledger();
  await result(ONE);
  assert.deepEqual(promotable(recorder, 'staging', 0, undefined), [ONE]);
});

test('time in health is what lies between two observations of it', () => {
  const health = new ObservedHealth();
  const observe = (seen: Parameters<ObservedHealth['observe']>[1], seconds: number, revision = ONE) => {
    health.observe(revision, seen, seconds * 1000);
    return health.of(revision) / 1000;
  };
  assert.equal(observe('well', 10), 0);
  assert.equal(observe('well', 15), 5);
  assert.equal(observe('progressing', 20), 5, 'not counted');
  assert.equal(observe('well', 25), 5);
  assert.equal(observe('well', 26), 6, 'and not lost');
  assert.equal(observe('unseen', 27), 6);
  assert.equal(observe('well', 28), 6);
  assert.equal(observe('well', 100), 6, 'the process stood still');
  assert.equal(observe('well', 101), 7);
  assert.equal(observe('failed', 102), 0);
  assert.equal(observe('well', 103), 0);
  assert.equal(observe('well', 104), 1);
  assert.equal(observe('well', 105, TWO), 0, 'another revision');
  assert.equal(health.of(ONE), 0);
  health.carryOn(TWO, 60_000);
  assert.equal(observe('well', 200, TWO), 60);
  assert.equal(observe('well', 201, TWO), 61);
});
