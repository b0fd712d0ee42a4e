import assert from 'node:assert/strict';
import { test } from 'node:test';
import { atMost } from '../../src/serve/at-most.ts';

test('tasks run in order, a few at a time, and one that comes first is before all that wait', async () => {
  const turn = atMost(2);
  const begun: string[] = [];
  const gates = new Map<string, () => void>();
  const run = (name: string, first = false) =>
    turn(async () => {
      begun.push(name);
      await new Promise<void>((resolve) => gates.set(name, resolve));
    }, first);
  const end = async (name: string) => {
    gates.get(name)?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  const all = [run('a'), run('b'), run('c'), run('d'), run('changed', true)];
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(begun, ['a', 'b']);
  await end('a');
  assert.deepEqual(begun, ['a', 'b', 'changed']);
  for (const name of ['b', 'changed', 'c', 'd']) await end(name);
  await Promise.all(all);
  assert.deepEqual(begun, ['a', 'b', 'changed', 'c', 'd']);
});

test('a task that fails gives its turn on', async () => {
  const turn = atMost(1);
  const failing = turn(() => Promise.reject(new Error('x')), false);
  const next = turn(async () => 'ran', false);
  await assert.rejects(failing, /x/);
  assert.equal(await next, 'ran');
});
