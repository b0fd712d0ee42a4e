import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CountersignError, type Environment } from '../../src/model/index.ts';
import type { ReconcilerStatus, Step } from '../../src/reconcile/index.ts';
import { approveAs } from '../kit/approve.ts';
import { refused, unreachable } from '../kit/fake-cluster.ts';
import { Crash, Loop, signedHistory } from '../kit/loop.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const history = await signedHistory(directory);
const shop = (colour: string) => ({ 'ns.yaml': namespace('shop'), 'cm.yaml': configMap('shop', 'cm', { colour }) });
const one = history.commit('one', shop('blue'));
const two = history.commit('two', { ...shop('red'), 'more.yaml': configMap('shop', 'more', {}) });
const three = history.commit('three', shop('green'));
const four = history.commit('four', { 'more.yaml': undefined });
history.push();
const ids = [one, two, three, four];
const nameOf = (id: string) => ids.indexOf(id) + 1;

const open = (spec: Partial<Environment['spec']> = {}, peers?: Parameters<typeof Loop.open>[1]) =>
  Loop.open(history, { ...peers, spec });
const purposes = (loop: Loop) => loop.entries('apply.intent').map((i) => `${i.purpose} ${nameOf(i.revision)}`);
const progressing = { state: 'progressing', message: 'rolling out' } as const;
const HEALTH = { wait: true, timeout: '60s' } as Environment['spec']['health'];
const FREEZE: Environment['spec']['windows'] = [
  { name: 'christmas', kind: 'freeze', schedule: '0 12 * * *', duration: '1h', timeZone: 'UTC' },
];
const inFreeze = new Date('2030-01-01T12:10:00Z');

test('an allowed commit is recorded, intended, written and recorded as applied', async () => {
  const loop = open();
  await loop.at(one);
  assert.deepEqual(purposes(loop), ['apply 1']);
  assert.equal(loop.entries('apply.result')[0]?.outcome, 'applied');
  assert.deepEqual(loop.cluster.names(), ['cm', 'shop']);
  assert.equal(loop.status.state, 'applied');
});

test('nothing is written while nothing changed, and nothing is recorded', async () => {
  const loop = open();
  await loop.at(one);
  const writes = loop.cluster.writes.length;
  await loop.at(one);
  assert.equal(loop.cluster.writes.length, writes);
  assert.equal(loop.entries('change.judged').length, 1);
});

test('a freeze holds a new commit back at rest', async () => {
  const loop = open({ windows: FREEZE });
  await loop.at(one);
  loop.now = inFreeze;
  await loop.at(two);
  assert.deepEqual(purposes(loop), ['apply 1']);
  assert.deepEqual(
    loop.entries('window.closed').map((e) => [e.window, nameOf(e.revision)]),
    [['christmas', 2]],
  );
  assert.equal(loop.status.state, 'blocked');
  loop.now = new Date('2030-01-01T13:00:00Z');
  await loop.at(two);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2']);
});

test('a freeze holds a newer commit back while an earlier one waits for health', async () => {
  const loop = open({ windows: FREEZE, health: HEALTH });
  await loop.at(one);
  loop.cluster.health = () => progressing;
  const second = loop.at(two);
  await written(loop, 'apply 2');
  loop.now = inFreeze;
  loop.tip = three;
  loop.reconciler.poke();
  await recorded(loop, 'window.closed');
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2'], 'the freeze holds, and the change that was begun goes on');
  loop.cluster.health = () => ({ state: 'current', message: '' });
  await second;
  await loop.at(three);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2']);
  assert.equal(loop.entries('window.closed').length, 1, 'it is recorded once');
});

test('a freeze holds a newer commit back after a restart in the middle of an earlier one', async () => {
  const loop = open({ windows: FREEZE });
  await loop.at(one);
  loop.crashAt = 'first-write';
  await assert.rejects(loop.at(two), Crash);
  loop.restart();
  loop.now = inFreeze;
  await loop.at(three);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'apply 2'], 'what was begun is finished, nothing newer');
});

test('a rollback waits for the window too, and says how to override it', async () => {
  const loop = open({ windows: FREEZE });
  await loop.at(one);
  await loop.at(two);
  loop.now = inFreeze;
  const applied = await loop.reconciler.rollBack(one, { user: 'dana', reason: 'INC-1' });
  assert.equal(applied.outcome, 'refused');
  assert.match(applied.error ?? '', /christmas.*`spec\.windowOverride`.*--override/);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2']);
  assert.deepEqual(
    loop.entries('window.closed').map((e) => nameOf(e.revision)),
    [1],
  );
});

test('outside of a window a rollback is applied, and the branch stays held until a new commit', async () => {
  const loop = open({ windows: FREEZE });
  await loop.at(one);
  await loop.at(two);
  assert.equal((await loop.reconciler.rollBack(one, { user: 'dana', reason: 'INC-1' })).outcome, 'applied');
  await loop.at(two);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'rollback 1']);
  assert.equal(loop.status.state, 'held');
  await loop.at(three);
  assert.deepEqual(purposes(loop).at(-1), 'apply 3');
});

test('an override counts for the commit it was given for, by someone who may, and is recorded', async () => {
  for (const mayOverride of [true, false]) {
    const own = await signedHistory(directory, `override-${mayOverride}`);
    const [, lee] = own.people;
    const [first, second] = [own.commit('first', shop('blue')), own.commit('second', shop('red'))];
    own.push();
    const loop = Loop.open(own, {
      spec: { windows: FREEZE, windowOverride: mayOverride ? ['developers'] : [] },
    });
    await approveAs(lee, own.fleet, first, second, { windowOverride: true, reason: 'INC-2' });
    await loop.at(first);
    loop.now = inFreeze;
    loop.approvals = 'an id';
    await loop.at(second);
    assert.equal(loop.status.revision, mayOverride ? second : first);
    assert.deepEqual(
      loop.entries('window.overridden').map((e) => [e.window, e.revision, e.principal, e.reason]),
      mayOverride ? [['christmas', second, lee.name, 'INC-2']] : [],
    );
  }
});

for (const since of ['drift that was reverted', 'a restore', 'another rollback that was refused'] as const)
  test(`a rollback holds the branch back also after ${since}`, async () => {
    const loop = open({ windows: FREEZE });
    for (const id of [one, two, three]) await loop.at(id);
    assert.equal((await loop.reconciler.rollBack(two, { user: 'dana', reason: 'INC-1' })).outcome, 'applied');
    if (since === 'drift that was reverted') {
      loop.cluster.drift('cm');
      await loop.reconciler.defend();
    } else if (since === 'a restore') await loop.reconciler.restoreAll();
    else {
      loop.now = inFreeze;
      assert.equal((await loop.reconciler.rollBack(one, { user: 'dana', reason: 'INC-2' })).outcome, 'refused');
      loop.now = new Date('2030-01-01T13:10:00Z');
    }
    await loop.at(three);
    await loop.at(three);
    assert.ok(!purposes(loop).slice(4).includes('apply 3'), purposes(loop).join());
    assert.equal(loop.status.state, 'held');
    await loop.at(four);
    assert.equal(purposes(loop).at(-1), 'apply 4');
  });

test('an override for one commit lets no other through: each step of a change needs one', async () => {
  const own = await signedHistory(directory, 'steps');
  const [, lee] = own.people;
  const ids = ['first', 'second', 'third'].map((name) => own.commit(name, shop(name)));
  own.push();
  const [first = '', second = '', third = ''] = ids;
  const loop = Loop.open(own, { spec: { windows: FREEZE, windowOverride: ['developers'] } });
  await approveAs(lee, own.fleet, first, second, { windowOverride: true, reason: 'INC-2' });
  await loop.at(first);
  loop.now = inFreeze;
  loop.approvals = 'one';
  await loop.at(third);
  assert.equal(loop.status.revision, first, 'the override was for the second');
  await approveAs(lee, own.fleet, second, third, { windowOverride: true, reason: 'INC-3' });
  loop.approvals = 'both';
  await loop.at(third);
  assert.equal(loop.status.revision, third);
});

test('an override counts once: a later rollback to the same commit needs one of its own, and is recorded', async () => {
  const own = await signedHistory(directory, 'once');
  const [, lee] = own.people;
  const [first, second, third] = [own.commit('a', shop('a')), own.commit('b', shop('b')), own.commit('c', shop('c'))];
  own.push();
  const loop = Loop.open(own, { spec: { windows: FREEZE, windowOverride: ['developers'] } });
  const issuedAt = (time: string) => ({ windowOverride: true, reason: time, issuedAt: time });
  loop.now = new Date('2031-01-01T11:00:00Z');
  await loop.at(first);
  await approveAs(lee, own.fleet, first, second, issuedAt('2031-01-01T12:05:00Z'));
  loop.now = new Date('2031-01-01T12:10:00Z');
  loop.approvals = 'one';
  await loop.at(second);
  assert.equal(loop.status.revision, second);
  loop.now = new Date('2031-01-02T11:00:00Z');
  await loop.at(third);
  loop.now = new Date('2031-06-01T12:10:00Z');
  const refused = await loop.reconciler.rollBack(second, { user: 'dana', reason: 'INC-4' });
  assert.equal(refused.outcome, 'refused', 'the override of January was used in January');
  assert.ok(refused.error?.includes(`approve ${second.slice(0, 12)} --base ${first.slice(0, 12)} --override`));
  await approveAs(lee, own.fleet, first, second, issuedAt('2031-06-01T12:11:00Z'));
  assert.equal((await loop.reconciler.rollBack(second, { user: 'dana', reason: 'INC-4' })).outcome, 'applied');
  assert.equal(loop.entries('window.overridden').length, 2);
});

test('a newer commit overtakes one that waits for health', async () => {
  const loop = open({ health: HEALTH });
  await loop.at(one);
  loop.cluster.health = () => progressing;
  const second = loop.at(two);
  await written(loop, 'apply 2');
  loop.tip = three;
  loop.reconciler.poke();
  await second;
  loop.cluster.health = () => ({ state: 'current', message: '' });
  await loop.at(three);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'apply 3']);
  assert.equal(loop.status.state, 'applied');
});

test('a commit that failed is not applied again, also not by overtaking', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.fail({ verb: 'apply', when: (ref) => ref.name === 'more', error: refused() });
  await loop.at(two);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'restore 1']);
  assert.deepEqual(loop.cluster.names(), ['cm', 'shop'], 'what it added is gone');
  await loop.at(two);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'restore 1']);
  assert.equal(loop.status.state, 'held');
  loop.crashAt = 'first-write';
  await assert.rejects(loop.at(three), Crash);
  loop.restart();
  await loop.at(two);
  assert.deepEqual(purposes(loop).slice(3), ['apply 3', 'apply 3'], 'the branch went back to it: it is still held');
});

test('a dry run that refuses leaves the cluster as it was', async () => {
  const loop = open();
  await loop.at(one);
  const before = [...loop.cluster.writes];
  loop.cluster.fail({ verb: 'dryRun', when: (ref) => ref.name === 'more', error: refused() });
  await loop.at(two);
  assert.deepEqual(loop.cluster.writes, before);
  assert.equal(loop.entries('apply.refused')[0]?.revision, two);
  assert.equal(loop.status.state, 'refused');
});

test('a commit that is refused again is recorded once, also when drift was put right in between', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.fail({ verb: 'dryRun', when: (ref) => ref.name === 'more', error: refused(), times: 100 });
  for (let i = 0; i < 3; i++) {
    await loop.at(two);
    loop.cluster.drift('cm');
    await loop.reconciler.defend();
  }
  assert.equal(loop.entries('drift.corrected').length, 3);
  assert.equal(loop.entries('apply.refused').length, 1);
  loop.cluster.fail({ verb: 'dryRun', when: (ref) => ref.name === 'cm', error: refused(), times: 2 });
  loop.cluster.drift('cm');
  await loop.reconciler.defend();
  await loop.at(two);
  assert.equal(loop.entries('apply.refused').length, 2, 'a correction that is refused is another one');
});

test('an object of another owner is refused by name, and taken over only where the environment says so', async () => {
  const loop = open();
  loop.cluster.owner = (ref) => (ref.name === 'cm' ? 'Flux' : undefined);
  await loop.at(one);
  assert.match(loop.entries('apply.refused')[0]?.error ?? '', /cm belongs to Flux/);
  assert.deepEqual(loop.cluster.writes, []);
  const taking = open({ apply: { conflicts: 'takeOver' } as Environment['spec']['apply'] });
  taking.cluster.owner = () => 'Flux';
  await taking.at(one);
  assert.equal(taking.status.state, 'applied');
});

for (const at of ['before', 'after'] as const)
  for (const verb of ['apply', 'remove'] as const)
    test(`an API server that goes away ${at} ${verb === 'apply' ? 'a write' : 'a removal'} costs a retry, nothing more`, async () => {
      const loop = open();
      await loop.at(two);
      loop.cluster.fail({ verb, at, error: unreachable() });
      const next = verb === 'apply' ? three : four;
      await assert.rejects(loop.at(next), { code: 'cluster-unreachable' });
      await loop.at(next);
      assert.equal(loop.status.state, 'applied');
      assert.equal(loop.status.revision, next);
      assert.deepEqual(loop.cluster.names(), verb === 'apply' ? ['cm', 'more', 'shop'] : ['cm', 'shop']);
      const results = loop.entries('apply.result').filter((r) => r.revision === next);
      assert.deepEqual(
        results.map((r) => r.outcome),
        ['applied'],
      );
    });

const STEPS: readonly Step[] = [
  'fetched',
  'judged',
  'dry-run',
  'intended',
  'first-write',
  'written',
  'healthy',
  'pruned',
];
for (const step of STEPS)
  test(`a crash at \`${step}\` is finished by the next start, with each step on the ledger before it is taken`, async () => {
    const loop = open();
    await loop.at(two);
    loop.crashAt = step;
    await assert.rejects(loop.at(four), Crash);
    const intended = loop.entries('apply.intent').some((i) => i.revision === four);
    if (!intended) assert.ok(!loop.cluster.writes.some((w) => w.startsWith('remove')), 'nothing without an intent');
    loop.restart();
    await loop.at(four);
    assert.equal(loop.status.state, 'applied');
    assert.equal(loop.status.revision, four);
    assert.deepEqual(loop.cluster.names(), ['cm', 'shop']);
    assert.equal(loop.entries('apply.result').filter((r) => r.revision === four && r.outcome === 'applied').length, 1);
  });

test('a change by someone else is recorded with its writer and reverted', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.drift('cm');
  await loop.reconciler.defend();
  assert.deepEqual(
    loop.entries('drift.found').map((d) => d.details?.[0]?.manager),
    ['kubectl-edit'],
  );
  assert.deepEqual(purposes(loop), ['apply 1', 'correct 1']);
  assert.equal(loop.entries('drift.corrected').length, 1);
  loop.cluster.lose('cm');
  await loop.reconciler.defend();
  assert.deepEqual(loop.cluster.names(), ['cm', 'shop']);
});

test('drift is only reported where the environment says so', async () => {
  const loop = open({ drift: { mode: 'report', ignore: [] } as Environment['spec']['drift'] });
  await loop.at(one);
  loop.cluster.drift('cm');
  await loop.reconciler.defend();
  await loop.reconciler.defend();
  assert.equal(loop.entries('drift.found').length, 1, 'recorded once');
  assert.deepEqual(purposes(loop), ['apply 1']);
  assert.equal(loop.status.state, 'drifted');
});

test('what others added is replaced, and not called corrected while it stays', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.drift('cm');
  loop.cluster.clings = ({ name }) => name === 'cm';
  await loop.reconciler.defend();
  assert.deepEqual(loop.cluster.writes.at(-1), 'replace ConfigMap shop/cm');
  assert.deepEqual(loop.entries('drift.corrected'), []);
  assert.deepEqual(
    loop.entries('drift.remains').map((r) => r.details),
    [[{ object: loop.entries('drift.found')[0]?.objects[0], fields: ['/data/colour'] }]],
  );
  assert.equal(loop.status.state, 'drifted');
  loop.cluster.clings = () => false;
  await loop.reconciler.defend();
  assert.equal(loop.entries('drift.corrected').length, 1);
  assert.notEqual(loop.status.state, 'drifted');
  loop.cluster.drift('cm');
  await loop.at(two);
  await loop.reconciler.defend();
  assert.equal(loop.cluster.writes.filter((w) => w === 'replace ConfigMap shop/cm').length, 3);
  assert.ok([...loop.cluster.objects.values()].every((o) => !o.digest.endsWith('+')));
});

test('one object that cannot be put right does not keep the others as they are', async () => {
  const loop = open();
  await loop.at(one);
  for (const name of loop.cluster.names()) loop.cluster.drift(name);
  loop.cluster.fail({ verb: 'dryRun', when: (ref) => ref.name === 'cm', error: refused(), times: 100 });
  await loop.reconciler.defend();
  const drifted = () => [...loop.cluster.objects].filter(([, o]) => o.digest.endsWith('+')).map(([key]) => key);
  assert.equal(drifted().length, 1);
  assert.match(drifted()[0] ?? '', /cm$/);
  assert.equal(loop.status.state, 'drifted');
});

test('an object that admission alters is not written without its replacement, and one that cannot be replaced is', async () => {
  const loop = open();
  await loop.at(one);
  const fail = (code: CountersignError['code']) =>
    loop.cluster.fail({ verb: 'dryRun', isExact: true, error: new CountersignError(code, `${code}: no`) });
  loop.cluster.drift('cm');
  const before = loop.cluster.writes.length;
  fail('cluster-altered');
  await loop.reconciler.defend();
  assert.equal(loop.cluster.writes.length, before);
  assert.deepEqual(
    loop.entries('apply.refused').map((r) => r.error),
    ['clusters/production/cm.yaml:1: cluster-altered: no'],
  );
  assert.deepEqual(loop.entries('drift.corrected'), []);
  assert.equal(loop.status.state, 'drifted');
  fail('cluster-refused');
  await loop.reconciler.defend();
  assert.equal(loop.cluster.writes.at(-1), 'apply ConfigMap shop/cm');
});

test('an object of ours whose apply looks altered is replaced, a new one is not', async () => {
  const loop = open();
  await loop.at(one);
  const altered = new CountersignError('cluster-altered', 'no');
  loop.cluster.fail({ verb: 'dryRun', when: ({ name }) => name === 'cm', error: altered });
  await loop.at(two);
  assert.ok(loop.cluster.writes.includes('replace ConfigMap shop/cm'));
  const fresh = open();
  fresh.cluster.fail({ verb: 'dryRun', when: ({ name }) => name === 'cm', error: altered });
  await fresh.at(one);
  assert.deepEqual(fresh.cluster.writes, []);
});

test('drift that arrives while an object is compared is found by the next check', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.drift('cm');
  const compare = loop.cluster.compare.bind(loop.cluster);
  loop.cluster.compare = async () => ({ kind: 'same', digest: 'of the object before the drift' });
  await loop.reconciler.defend();
  assert.deepEqual(loop.entries('drift.found'), []);
  loop.cluster.compare = compare;
  await loop.reconciler.defend();
  assert.equal(loop.entries('drift.corrected').length, 1);
});

test('a freeze does not stop drift from being reverted', async () => {
  const loop = open({ windows: FREEZE });
  await loop.at(one);
  loop.now = inFreeze;
  loop.cluster.drift('cm');
  await loop.reconciler.defend();
  assert.deepEqual(purposes(loop), ['apply 1', 'correct 1']);
});

test('a kind that cannot be watched keeps no other from being defended', async () => {
  const loop = open();
  await loop.at(one);
  loop.restart();
  loop.cluster.fail({ verb: 'watch', when: (ref) => ref.kind === 'Namespace', error: unreachable(), times: 9 });
  loop.cluster.drift('cm');
  await loop.at(one);
  assert.deepEqual(purposes(loop), ['apply 1', 'correct 1']);
});

test('an API server that never answers a dry run of a new commit keeps no drift from being put right', async () => {
  const loop = open();
  await loop.at(one);
  loop.cluster.fail({ verb: 'dryRun', when: (ref) => ref.name === 'more', error: unreachable(), times: 1e6 });
  for (const corrected of [1, 2]) {
    loop.cluster.drift('cm');
    await assert.rejects(loop.at(three), { code: 'cluster-unreachable' });
    assert.equal(loop.entries('drift.corrected').length, corrected);
  }
});

test('an environment waits for those it depends on, also when it could overtake', async () => {
  let peer: Partial<ReconcilerStatus> = { state: 'applying', tip: one, revision: one };
  const health = { current: 1, progressing: 0, failed: 0, missing: 0, trouble: [] };
  const loop = open(
    { dependsOn: ['base'] },
    { peers: (name) => (name === 'base' ? ({ health, ...peer } as ReconcilerStatus) : undefined) },
  );
  await loop.at(one);
  assert.equal(loop.status.state, 'blocked');
  assert.match(loop.status.message, /depends on `base`, which is applying/);
  peer = { state: 'applied', tip: one, revision: one };
  await loop.at(one);
  assert.deepEqual(purposes(loop), ['apply 1']);
  loop.crashAt = 'first-write';
  peer = { state: 'applied', tip: two, revision: two };
  await assert.rejects(loop.at(two), Crash);
  loop.restart();
  peer = { state: 'applying', tip: three, revision: two };
  await loop.at(three);
  assert.deepEqual(purposes(loop), ['apply 1', 'apply 2', 'apply 2']);
});

test('a suspended environment applies and reverts nothing', async () => {
  const loop = open();
  await loop.at(one);
  await loop.record({ type: 'environment.suspended', environment: loop.name, user: 'dana', reason: 'INC-3' });
  loop.cluster.drift('cm');
  await loop.at(two);
  await loop.reconciler.defend();
  assert.deepEqual(purposes(loop), ['apply 1']);
  assert.equal(loop.status.state, 'suspended');
});

const KEPT = ['kube-system', 'kube-public', 'kube-node-lease', 'default', 'countersign'];

test('namespaces of the system are never removed, whatever a commit says; others only when it says so', async () => {
  const own = await signedHistory(directory, 'kept');
  const files = [...KEPT, 'free'].map((name) => [`${name}.yaml`, namespace(name)] as const);
  const first = own.commit('first', { ...shop('blue'), ...Object.fromEntries(files) });
  const allows = [...KEPT, 'free'].map((name) => `Countersign-Allow: delete Namespace ${name}`).join('\n');
  const second = own.commit(`second\n\n${allows}`, Object.fromEntries(files.map(([file]) => [file, undefined])));
  own.push();
  const loop = Loop.open(own, { spec: { target: targetOf([...KEPT, 'free', 'shop']) } });
  await loop.at(first);
  assert.equal(loop.status.state, 'applied', loop.status.message);
  await loop.at(second);
  assert.deepEqual(
    loop.cluster.writes.filter((w) => w.startsWith('remove')),
    ['remove Namespace free'],
  );
});

function targetOf(namespaces: readonly string[]): Environment['spec']['target'] {
  return { namespaces: [...namespaces], clusterScoped: ['Namespace'] };
}

async function written(loop: Loop, purpose: string): Promise<void> {
  await eventually(() => purposes(loop).includes(purpose) && loop.cluster.names().includes('more'));
}

async function recorded(loop: Loop, type: 'window.closed'): Promise<void> {
  await eventually(() => loop.entries(type).length > 0);
}

async function eventually(test: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !test(); ) {
    assert.ok(Date.now() < end, 'it did not happen within a minute');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
