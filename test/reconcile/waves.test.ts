import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Environment, ObjectRef, Verdict } from '../../src/model/index.ts';
import { wavesOf } from '../../src/reconcile/waves.ts';
import { unreachable } from '../kit/fake-cluster.ts';
import { Crash, Loop, signedHistory } from '../kit/loop.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const history = await signedHistory(scratch());
const HEALTH = { wait: true, timeout: '60s' } as Environment['spec']['health'];
const progressing = { state: 'progressing', message: 'rolling out' } as const;
const failing = { state: 'failed', message: 'it crashed' } as const;
const healthy = { state: 'current', message: '' } as const;

const ordered = (name: string, order: number, colour: string) =>
  configMap('shop', name, { colour }).replace(
    'metadata:\n',
    `metadata:\n  annotations: {countersign.dev/order: "${order}"}\n`,
  );
const shop = (colour: string) => ({
  'ns.yaml': namespace('shop'),
  'app.yaml': ordered('app', 5, colour),
  'settings.yaml': configMap('shop', 'settings', { colour }),
  'database.yaml': ordered('database', -5, colour),
  'zone.yaml': ordered('zone', 9, colour),
});
const one = history.commit('one', shop('blue'));
const two = history.commit('two', shop('red'));
const without = history.commit('without', {
  'database.yaml': undefined,
  'app.yaml': undefined,
  'zone.yaml': undefined,
});
const backwards = history.commit('backwards', {
  ...shop('green'),
  'ns.yaml': namespace('late').replace('metadata:\n', 'metadata:\n  annotations: {countersign.dev/order: "9"}\n'),
  'late.yaml': configMap('late', 'early', {}),
});
const unread = history.commit('unread', { 'late.yaml': undefined, 'app.yaml': ordered('app', 1.5, 'blue') });
history.push();

const target = { namespaces: ['shop', 'late'], clusterScoped: ['Namespace'] };
const open = (spec: Partial<Environment['spec']> = {}) =>
  Loop.open(history, { spec: { health: HEALTH, target, ...spec } });
const isNamed = (name: string) => (ref: ObjectRef) => ref.name === name;

test('lower orders are written first, and Namespaces that state none before all others', async () => {
  const loop = open();
  await loop.at(one);
  assert.deepEqual(loop.cluster.writes, [
    'apply Namespace shop',
    'apply ConfigMap shop/database',
    'apply ConfigMap shop/settings',
    'apply ConfigMap shop/app',
    'apply ConfigMap shop/zone',
  ]);
});

test('nothing of the next order is written until the one before is healthy, even if the change is not waited for', async () => {
  for (const wait of [true, false]) {
    const loop = open({ health: { ...HEALTH, wait } });
    await loop.at(one);
    const before = loop.cluster.writes.length;
    const isLookedAt = waitsFor(loop, 'settings');
    const second = loop.at(two);
    await eventually(isLookedAt);
    assert.deepEqual(loop.cluster.writes.slice(before), [
      'apply ConfigMap shop/database',
      'apply ConfigMap shop/settings',
    ]);
    loop.cluster.health = () => healthy;
    await second;
    assert.deepEqual(loop.cluster.writes.slice(before + 2), ['apply ConfigMap shop/app', 'apply ConfigMap shop/zone']);
    assert.equal(loop.entries('apply.result').at(-1)?.revision, two);
  }
});

test('an order that does not become healthy fails the change, and nothing of a later one is written', async () => {
  const loop = open();
  await loop.at(one);
  const before = loop.cluster.writes.length;
  loop.cluster.health = (ref) => (isNamed('database')(ref) ? failing : healthy);
  await loop.at(two);
  assert.match(loop.entries('apply.result')[1]?.error ?? '', /ConfigMap shop\/database: it crashed/);
  // The restore writes what the change may have written, in the same order, and waits for nothing.
  assert.deepEqual(loop.cluster.writes.slice(before), [
    'apply ConfigMap shop/database',
    'replace ConfigMap shop/database',
    'apply ConfigMap shop/settings',
    'apply ConfigMap shop/app',
    'apply ConfigMap shop/zone',
  ]);
  assert.equal(loop.entries('apply.result').at(-1)?.revision, one);
});

test('a process that ends between two orders goes on with the first that is not known to be healthy', async () => {
  const loop = open();
  await loop.at(one);
  loop.crashAt = 'wave';
  await assert.rejects(loop.at(two), Crash);
  const before = loop.cluster.writes.length;
  assert.equal(loop.cluster.writes.at(-1), 'apply ConfigMap shop/database');
  loop.restart();
  const isLookedAt = waitsFor(loop, 'database');
  const again = loop.at(two);
  await eventually(isLookedAt);
  assert.deepEqual(loop.cluster.writes.slice(before), ['replace ConfigMap shop/database']);
  loop.cluster.health = () => healthy;
  await again;
  assert.deepEqual(loop.cluster.writes.slice(before + 1), [
    'apply ConfigMap shop/settings',
    'apply ConfigMap shop/app',
    'apply ConfigMap shop/zone',
  ]);
});

test('an outage between two orders is no failure', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.fail({ verb: 'apply', when: isNamed('app'), error: unreachable() });
  await assert.rejects(loop.at(two), /does not answer/);
  await loop.at(two);
  assert.deepEqual(
    loop.entries('apply.result').map((r) => [r.revision, r.outcome]),
    [
      [one, 'applied'],
      [two, 'applied'],
    ],
  );
});

test('an order that is no integer denies the change, with its place', async () => {
  const loop = open();
  await loop.at(unread);
  assert.equal(loop.entries('change.judged')[0]?.outcome, 'denied');
  const { violations } = loop.evidence(loop.entries('change.judged')[0]?.evidence) as Verdict;
  assert.deepEqual(
    violations.map((v) => [v.code, v.source]),
    [['order-unreadable', { file: 'clusters/production/app.yaml', line: 4 }]],
  );
});

test('higher orders are removed first', async () => {
  const loop = open();
  await loop.at(one);
  await loop.at(without);
  assert.deepEqual(
    loop.cluster.writes.filter((w) => w.startsWith('remove')),
    ['remove ConfigMap shop/zone', 'remove ConfigMap shop/app', 'remove ConfigMap shop/database'],
  );
});

test('an object whose namespace has a higher order is refused before anything is written', async () => {
  const loop = open();
  loop.cluster.missing = (ref) => ref.namespace === 'late';
  await loop.at(backwards);
  assert.match(
    loop.entries('apply.refused')[0]?.error ?? '',
    /late\.yaml:1: ConfigMap late\/early needs Namespace late, which has a higher order/,
  );
  assert.match(loop.status.message, /give Namespace late an order of at most 0, or none/);
  assert.deepEqual(loop.cluster.writes, []);
});

test('objects without any order are one wave, with any names, kinds and number', () => {
  const kinds = fc.constantFrom('Namespace', 'CustomResourceDefinition', 'Deployment', 'Job');
  const objects = fc.array(fc.tuple(kinds, fc.string()), { minLength: 1 });
  fc.assert(
    fc.property(objects, (all) => {
      const items = all.map(([kind, name]) => ({
        ref: { apiVersion: 'v1', kind, namespace: '', name },
        placement: { order: 0, isStated: false },
      }));
      assert.deepEqual(wavesOf(items), [items]);
    }),
  );
});

test('every object is in exactly one wave, and never before one of a lower order', () => {
  const object = fc.record({ order: fc.integer({ min: -3, max: 3 }), isStated: fc.boolean() });
  fc.assert(
    fc.property(fc.array(object), (all) => {
      const items = all.map(({ order, isStated }, i) => ({
        ref: { apiVersion: 'v1', kind: 'ConfigMap', namespace: '', name: `${i}` },
        placement: { order: isStated ? order : 0, isStated },
      }));
      const waves = wavesOf(items);
      assert.deepEqual(
        waves
          .flat()
          .map((i) => i.ref.name)
          .sort(),
        items.map((i) => i.ref.name).sort(),
      );
      if (!items.some((i) => i.placement.isStated)) return;
      const orders = waves.map((wave) => new Set(wave.map((i) => i.placement.order)));
      assert.ok(orders.every((o) => o.size === 1));
      const firsts = orders.map((o) => [...o][0] as number);
      assert.deepEqual(
        firsts,
        firsts.toSorted((a, b) => a - b),
      );
    }),
  );
});

// Keeps an object from becoming healthy. The returned function tests whether the loop waits for it.
function waitsFor(loop: Loop, name: string): () => boolean {
  const before = loop.cluster.writes.length;
  let looks = 0;
  loop.cluster.health = (ref) => {
    if (!isNamed(name)(ref)) return healthy;
    if (loop.cluster.writes.slice(before).some((w) => w.endsWith(`/${name}`))) looks++;
    return progressing;
  };
  return () => looks > 3;
}

async function eventually(test: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !test(); ) {
    assert.ok(Date.now() < end, 'it did not happen within a minute');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
