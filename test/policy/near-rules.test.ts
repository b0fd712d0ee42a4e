import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { ask, rulesOf, said } from '../kit/rules.ts';

const pod = (name: string, more = '') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: shop}\nspec: {${more}}\n`;
const RULES = {
  'rule.rego': `package countersign.object
deny contains "bad" if input.object.metadata.name == "bad"
deny contains "slower" if { input.object.metadata.name == "slower"; count([1 | some a in numbers.range(1, 1500); some b in numbers.range(1, 1500); a + b == -1]) == 0 }
deny contains "slow" if { startswith(input.object.metadata.name, "slow"); input.object.metadata.name != "slower"; count([1 | some a in numbers.range(1, 500); some b in numbers.range(1, 500); a + b == -1]) == 0 }
`,
};

async function proven(deadline = 20_000, idle = 30_000) {
  let isWatched = true;
  const watch = { begun: 0, ended: 0, begin: () => void watch.begun++, end: () => void watch.ended++ };
  const pool = await rulesOf(RULES, { deadline, idle, near: () => (isWatched ? watch : undefined) });
  const askMany = async (name: string, count = 60) => {
    for (let i = 0; i < count; i++) await ask(pool, pod(name));
  };
  const isNear = async (yaml: string) => {
    const before = watch.begun;
    await ask(pool, yaml);
    return watch.begun > before;
  };
  // On a busy machine even quick rules take longer now and then, and have to prove themselves once more.
  const untilNear = async () => {
    for (const end = Date.now() + 120_000; Date.now() < end; ) {
      await askMany('good');
      if (await isNear(pod('good'))) return;
      await wait(50);
    }
    assert.fail('the rules never came near');
  };
  return { pool, watch, askMany, isNear, untilNear, endWatch: () => (isWatched = false) };
}

test('rules that proved to be quick are asked on the thread that asks, and say the same there', async () => {
  const { pool, watch, askMany, untilNear } = await proven();
  const aside = [said(await ask(pool, pod('bad'))), said(await ask(pool, pod('good')))];
  await askMany('good', 40);
  assert.equal(watch.begun, 0, 'a few answers prove nothing');
  await untilNear();
  assert.deepEqual([said(await ask(pool, pod('bad'))), said(await ask(pool, pod('good')))], aside);
  assert.equal(watch.begun, watch.ended);
});

test('large objects, several at a time, and what nobody watches go elsewhere', async () => {
  const { pool, watch, isNear, untilNear, endWatch } = await proven();
  await untilNear();
  assert.equal(await isNear(pod('good', `nodeName: ${'x'.repeat(70_000)}`)), false);
  const before = watch.begun;
  assert.equal((await ask(pool, [pod('bad'), pod('good')].join('---\n'))).violations.length, 1);
  assert.equal(watch.begun, before);
  endWatch();
  assert.equal(await isNear(pod('good')), false);
  assert.deepEqual(said(await ask(pool, pod('bad'))), ['unnamed: Pod shop/bad: bad']);
});

test('rules that are slow never run there; such as turn out to be slow have to prove themselves again', async () => {
  const slow = await proven();
  for (let i = 0; i < 3; i++) {
    await slow.askMany('good', 40);
    await ask(slow.pool, pod('slow'));
  }
  assert.equal(slow.watch.begun, 0);
  const turned = await proven();
  await turned.untilNear();
  assert.equal(await turned.isNear(pod('slow')), true);
  assert.equal(await turned.isNear(pod('good')), false);
  await turned.untilNear();
});

test('what took longer there than rules may is asked elsewhere, which denies it', async () => {
  const { pool, watch, untilNear } = await proven(100);
  await untilNear();
  const before = watch.begun;
  const found = await ask(pool, pod('slower'));
  assert.equal(watch.begun, before + 1);
  assert.deepEqual(
    found.violations.map((v) => v.code),
    ['policy-timeout'],
  );
});

test('rules that were quick in one pool are trusted by another pool of them, if they were quick often enough', async () => {
  const { pool: other, askMany, untilNear } = await proven();
  await untilNear();
  await askMany('good', 1);
  assert.ok(other.quick >= 50);
  let quick = 10;
  const watch = { begun: 0, begin: () => void watch.begun++, end: () => {} };
  const elsewhere = () => Promise.resolve(quick);
  const pool = await rulesOf(RULES, { deadline: 20_000, near: () => watch, elsewhere, idle: 50 });
  assert.equal(said(await ask(pool, pod('bad'))).length, 1);
  await wait(1000);
  assert.ok(pool.memory > 0, 'ten prove nothing: a thread waits');
  quick = other.quick;
  for (const end = Date.now() + 60_000; pool.memory > 0 && Date.now() < end; ) await wait(20);
  assert.equal(watch.begun, 0);
  assert.deepEqual(said(await ask(pool, pod('bad'))), ['unnamed: Pod shop/bad: bad']);
  assert.equal(watch.begun, 1);
});

test('threads that were idle end, and new ones answer the same', async () => {
  const pool = await rulesOf(RULES, { threads: 2, idle: 100 });
  const ended = async () => {
    for (const end = Date.now() + 60_000; pool.memory > 0 && Date.now() < end; ) await wait(20);
    assert.equal(pool.memory, 0);
  };
  const first = said(await ask(pool, [pod('bad'), pod('good'), pod('bad')].join('---\n')));
  assert.equal(first.length, 2);
  assert.ok(pool.memory > 0);
  await ended();
  assert.deepEqual(said(await ask(pool, [pod('bad'), pod('good'), pod('bad')].join('---\n'))), first);
  await ended();
});

test('until rules are near, one thread waits for requests', async () => {
  const { untilNear, pool, watch } = await proven(20_000, 100);
  await ask(pool, pod('good'));
  await wait(1000);
  assert.ok(pool.memory > 0);
  await untilNear();
  for (const end = Date.now() + 60_000; pool.memory > 0 && Date.now() < end; ) await wait(20);
  assert.equal(pool.memory, 0);
  const before = watch.begun;
  await ask(pool, pod('good'));
  assert.equal(watch.begun, before + 1);
});
