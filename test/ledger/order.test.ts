import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';

// What is recorded first when more arrives than the ledger takes.
const directory = scratch();
const denied = (i: number, reason = 'not in Git') =>
  ({
    type: 'admission.denied',
    environment: 'production',
    user: 'dev',
    operation: 'CREATE',
    object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: `c-${i}` },
    mode: 'enforce',
    reason,
  }) as const;
const urgent = { type: 'apply.refused', environment: 'production', revision: 'r', verdict: 0, error: 'x' } as const;
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

test('refusals that arrived earlier are overtaken, and time does not go back', async () => {
  const ledger = await openLedger(join(directory, 'overtaken'), 'test');
  const refusals = range(8000).map((i) => ledger.record(denied(i)));
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve)); // some are on their way
  const { index } = await ledger.record(urgent);
  assert.ok(index < 3000, `it is entry ${index}`);
  assert.equal(new Set((await Promise.all(refusals)).map((r) => r.index)).size, 8000, 'each refusal is recorded once');
  assert.equal(ledger.backlog, 0);
  const times = range(ledger.size).map((i) => ledger.read.entry(i)?.entry.time ?? '');
  assert.deepEqual(times, times.toSorted());
  await ledger.close();
});

test('what is given back is told the time that is on the ledger', async () => {
  const ledger = await openLedger(join(directory, 'told'), 'test');
  const refusals = range(3000).map((i) => ledger.record(denied(i)));
  await new Promise((resolve) => setTimeout(resolve, 5));
  await ledger.record(urgent);
  for (const { index, entry } of await Promise.all(refusals)) assert.deepEqual(ledger.read.entry(index)?.entry, entry);
  await ledger.close();
});

test('memory is bounded in entries and in bytes: what does not fit is refused, and the rest is recorded', async () => {
  const ledger = await openLedger(join(directory, 'bounded'), 'test');
  const outcome = async (all: readonly Promise<unknown>[]) => {
    const settled = await Promise.allSettled(all);
    const failed = settled.flatMap((s) => (s.status === 'rejected' ? [s.reason as Error] : []));
    for (const { message } of failed) assert.match(message, /too many entries wait/);
    return { recorded: settled.length - failed.length, refused: failed.length };
  };
  const many = outcome(range(20_500).map((i) => ledger.record(denied(i))));
  const others = outcome(range(500).map(() => ledger.record(urgent)));
  assert.deepEqual(await others, { recorded: 500, refused: 0 }, 'a flood of refusals takes no room from others');
  assert.deepEqual(await many, { recorded: 20_000, refused: 500 });
  const large = await outcome(range(1500).map((i) => ledger.record(denied(i, 'x'.repeat(60_000)))));
  assert.ok(large.refused > 300 && large.recorded > 1000, JSON.stringify(large));
  assert.equal(ledger.size, 1 + 20_000 + 500 + large.recorded);
  await ledger.close();
});
