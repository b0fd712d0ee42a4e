import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ANNOTATION,
  CountersignError,
  type Environment,
  type InventoryRecord,
  type ObjectRef,
  type Plan,
} from '../../src/model/index.ts';
import { FakeCluster, refused, unreachable } from '../kit/fake-cluster.ts';
import { Crash, Loop, signedHistory } from '../kit/loop.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const HEALTH = { wait: true, timeout: '60s' } as Environment['spec']['health'];
const running = { state: 'progressing', message: 'it is running' } as const;
const failing = { state: 'failed', message: 'its deadline has passed' } as const;
const healthy = { state: 'current', message: '' } as const;
let n = 0;

const annotated = (text: string, ...annotations: readonly string[]) =>
  text.replace('metadata:\n', `metadata:\n  annotations:\n${annotations.map((a) => `    ${a}\n`).join('')}`);
const job = (name: string, annotations: readonly string[], version = '1', spec = '') =>
  annotated(
    `apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: ${name}\n  namespace: shop\nspec:\n${spec}  template: {spec: {containers: [{name: main, image: "registry.example.test/x:${version}.0.0", resources: {limits: {cpu: 100m, memory: 64Mi}}}]}}\n`,
    ...annotations,
  );
const argo = (hook: string, ...more: readonly string[]) => [`argocd.argoproj.io/hook: ${hook}`, ...more];
const helm = (hook: string, ...more: readonly string[]) => [`helm.sh/hook: "${hook}"`, ...more];
const shop = (colour: string) => ({ 'ns.yaml': namespace('shop'), 'cm.yaml': configMap('shop', 'cm', { colour }) });
type Files = Readonly<Record<string, string | undefined>>;

/** A loop over commits with these files, one after the other. */
async function started(...commits: readonly Files[]) {
  const history = await signedHistory(directory, `h${++n}`);
  const ids = commits.map((files, i) => history.commit(`commit ${i}`, files));
  history.push();
  const open = () => {
    const loop = Loop.open(history, { spec: { health: HEALTH } });
    const at = async (i: number) => {
      const before = loop.cluster.writes.length;
      await loop.at(ids[i] as string);
      return loop.cluster.writes.slice(before);
    };
    return { loop, at };
  };
  return { ...open(), twin: open, ids };
}

const isNamed = (name: string) => (ref: ObjectRef) => ref.name === name;
const failingAt = (name: string) => (ref: ObjectRef) => (isNamed(name)(ref) ? failing : healthy);
const ends = (loop: Loop) => loop.entries('hook.ended').map((e) => `${e.phase} ${e.object.name} ${e.outcome}`);
const outcomes = (loop: Loop) => loop.entries('apply.result').map((r) => r.outcome);

const HOOKS = {
  'a-fail.yaml': job('cleanup', argo('SyncFail')),
  'b-post.yaml': job('smoke', argo('PostSync')),
  'c-sync.yaml': job('rotate', argo('Sync')),
  'd-late.yaml': job('seed', argo('PreSync', 'argocd.argoproj.io/sync-wave: "2"')),
  'e-early.yaml': job('migrate', argo('PreSync', 'countersign.dev/order: "-1"')),
};
const ALL = [
  'apply Job shop/migrate',
  'apply Job shop/seed',
  'apply ConfigMap shop/cm',
  'apply Job shop/rotate',
  'apply Job shop/smoke',
];

test('hooks run in their phases and orders, a namespace comes before all, and the plan has them', async () => {
  const { loop, at } = await started({ ...shop('blue'), ...HOOKS });
  assert.deepEqual(await at(0), ['apply Namespace shop', ...ALL]);
  assert.deepEqual(ends(loop), [
    'before migrate succeeded',
    'before seed succeeded',
    'main rotate succeeded',
    'after smoke succeeded',
  ]);
  assert.equal(loop.status.state, 'applied', loop.status.message);
  const plan = loop.evidence(loop.entries('apply.intent')[0]?.evidence) as Plan;
  assert.deepEqual(
    plan.hooks?.map((h) => `${h.phase} ${h.order} ${h.object.name}`),
    ['before -1 migrate', 'before 2 seed', 'main 0 rotate', 'after 0 smoke', 'failure 0 cleanup'],
  );
  assert.equal(plan.occasion, 'install');
  assert.ok(plan.irreversible?.some((i) => i.action === 'run' && i.object?.name === 'migrate'));
});

test('each change makes the hooks anew; a commit that changes nothing, drift and a lost hook do not', async () => {
  const { loop, at } = await started({ ...shop('blue'), ...HOOKS }, { 'readme.md': 'x' }, shop('red'));
  await at(0);
  assert.deepEqual(await at(1), []);
  loop.cluster.lose('migrate');
  loop.cluster.drift('seed');
  loop.cluster.drift('cm');
  assert.deepEqual(await at(1), ['replace ConfigMap shop/cm']);
  assert.deepEqual(
    loop.entries('drift.found').map((d) => d.objects.map((o) => o.name)),
    [['cm']],
  );
  assert.deepEqual(await at(2), [
    'apply Job shop/migrate',
    ...['remove Job shop/seed', 'apply Job shop/seed', 'apply ConfigMap shop/cm'],
    ...['remove Job shop/rotate', 'apply Job shop/rotate', 'remove Job shop/smoke', 'apply Job shop/smoke'],
  ]);
  assert.equal(loop.entries('hook.started').length, 8);
});

test('the plan admits the hooks that run, and no others', async () => {
  const { loop, at } = await started(
    { ...shop('blue'), 'a.yaml': job('wipe', helm('pre-install')), 'b.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
  );
  const dryRun = loop.cluster.dryRun.bind(loop.cluster);
  loop.cluster.dryRun = async (...of) => ({ ...(await dryRun(...of)), admitted: `digest of ${of[0].ref.name}` });
  await at(0);
  await at(1);
  const plan = loop.evidence(loop.entries('apply.intent').at(-1)?.evidence) as Plan;
  assert.deepEqual(
    plan.objects.map((o) => [o.ref.name, o.admitted]),
    [
      ['cm', 'digest of cm'],
      ['wipe', undefined],
      ['migrate', 'digest of migrate'],
    ],
  );
});

test('the inventory says which object was the one that ran', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  const ran = () => {
    const record = loop.evidence(loop.entries('apply.result').at(-1)?.evidence) as InventoryRecord;
    return record.objects.find((o) => o.ref.name === 'migrate')?.uid;
  };
  for (const i of [0, 1]) {
    await at(i);
    assert.equal(ran(), loop.cluster.objects.get('batch/Job/shop/migrate')?.uid);
  }
});

test('an object that becomes a hook that does not run is removed, as if Git no longer had it', async () => {
  const account = configMap('shop', 'account', {});
  for (const hook of [argo('SyncFail'), helm('pre-rollback')]) {
    const { loop, at } = await started(
      { ...shop('blue'), 'account.yaml': account },
      { 'account.yaml': annotated(account, ...hook) },
    );
    await at(0);
    assert.deepEqual(await at(1), ['remove ConfigMap shop/account']);
    assert.equal(loop.status.state, 'applied', loop.status.message);
  }
});

test('a changed hook alone is a change, and one that Git no longer has is removed', async () => {
  const { at } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    { 'job.yaml': job('migrate', argo('PreSync'), '2') },
    { 'job.yaml': undefined },
  );
  await at(0);
  assert.deepEqual(await at(1), ['remove Job shop/migrate', 'apply Job shop/migrate']);
  assert.deepEqual(await at(2), ['remove Job shop/migrate']);
});

test('a hook that fails fails the change: nothing after it is written, hooks for a failure run, and the rest is restored', async () => {
  const { loop, at, ids } = await started({ ...shop('blue'), ...HOOKS }, shop('red'), { 'readme.md': 'y' });
  await at(0);
  loop.cluster.health = failingAt('migrate');
  assert.deepEqual(await at(1), [
    'remove Job shop/migrate',
    'apply Job shop/migrate',
    'apply Job shop/cleanup',
    'apply ConfigMap shop/cm', // the restore
  ]);
  const [, failed, restored] = loop.entries('apply.result');
  assert.match(
    failed?.error ?? '',
    /e-early\.yaml:1: the hook Job shop\/migrate that runs before the objects failed: Job shop\/migrate: its deadline/,
  );
  assert.deepEqual([failed?.outcome, restored?.outcome, restored?.revision], ['failed', 'applied', ids[0]]);
  assert.deepEqual(ends(loop).slice(-2), ['before migrate failed', 'failure cleanup succeeded']);
  assert.match(loop.status.message, /restored .*, but what Job shop\/migrate, Job shop\/cleanup did is not undone/);
  const restore = loop.entries('apply.intent').find((i) => i.purpose === 'restore');
  assert.deepEqual(
    (loop.evidence(restore?.evidence) as Plan).remains?.map((r) => `${r.action} ${r.object?.name}`),
    ['run migrate', 'run cleanup'],
  );
  assert.deepEqual(await at(2), [], 'a commit that changes nothing does not bring it back');
  assert.match(loop.status.message, /renders the same objects .*, but what Job shop\/migrate, .* is not undone; held/);
});

test('an unhealthy object runs the hooks for a failure too, and their own failure is told beside it', async () => {
  const { loop, at } = await started({ ...shop('blue'), ...HOOKS }, shop('red'));
  await at(0);
  loop.cluster.health = (ref) => (isNamed('cm')(ref) || isNamed('cleanup')(ref) ? failing : healthy);
  await at(1);
  const error = loop.entries('apply.result')[1]?.error ?? '';
  assert.match(
    error,
    /^ConfigMap shop\/cm: its deadline has passed; .*the hook Job shop\/cleanup .* after a failure failed/,
  );
  assert.ok(
    !ends(loop)
      .slice(4)
      .some((e) => e.startsWith('after')),
    'no hook for a success runs',
  );
});

for (const step of ['hook-made', 'hook'] as const)
  for (const end of ['it goes on running', 'it ends', 'it fails'] as const)
    test(`a hook of a change that was interrupted at \`${step}\` is not made again: ${end}`, async () => {
      const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
      await at(0);
      loop.cluster.health = (ref) => (isNamed('migrate')(ref) ? running : healthy);
      loop.crashAt = step;
      await assert.rejects(at(1), Crash);
      loop.restart();
      const before = loop.cluster.writes.length;
      if (end !== 'it goes on running') loop.cluster.health = end === 'it ends' ? () => healthy : failingAt('migrate');
      const second = at(1);
      if (end === 'it goes on running') {
        await eventually(() => loop.entries('hook.started').length === 2);
        loop.cluster.health = () => healthy;
      }
      await second;
      const made = loop.cluster.writes.slice(before).filter((w) => w.endsWith('Job shop/migrate'));
      assert.deepEqual(made, []);
      assert.equal(outcomes(loop)[1], end === 'it fails' ? 'failed' : 'applied');
      assert.equal(loop.entries('hook.started').length, 2);
    });

test('a hook that ended is not run again by what finishes the change, also if its object is gone by then', async () => {
  const policy = 'argocd.argoproj.io/hook-delete-policy: HookSucceeded';
  const { loop, at } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync', policy)) },
    shop('red'),
  );
  await at(0);
  loop.crashAt = 'first-write';
  await assert.rejects(at(1), Crash);
  loop.crashAt = 'written';
  loop.restart();
  await assert.rejects(at(1), Crash);
  loop.restart();
  const before = loop.cluster.writes.length;
  await at(1);
  assert.ok(!loop.cluster.writes.slice(before).includes('apply Job shop/migrate'));
  assert.equal(loop.entries('hook.started').length, 2);
  assert.deepEqual(outcomes(loop), ['applied', 'applied']);
});

test('a hook whose object is gone before its end was seen fails the change: no one knows whether it ran', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  loop.crashAt = 'hook';
  await assert.rejects(at(1), Crash);
  loop.cluster.lose('migrate');
  loop.restart();
  assert.deepEqual(await at(1), ['apply ConfigMap shop/cm'], 'the restore');
  assert.match(loop.entries('apply.result')[1]?.error ?? '', /it is not known whether it ran/);
  // Asking to try again is on record, and runs it again.
  await loop.record({ type: 'environment.resumed', environment: loop.name, user: 'dana', reason: 'it had not' });
  assert.deepEqual(await at(1), ['apply Job shop/migrate', 'apply ConfigMap shop/cm']);
});

test('another object that takes the name of a hook while it runs does not end it', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  loop.cluster.health = (ref) => (isNamed('migrate')(ref) ? running : healthy);
  const second = at(1);
  await eventually(() => loop.entries('hook.started').length === 2);
  const key = 'batch/Job/shop/migrate';
  loop.cluster.objects.set(key, { ...(loop.cluster.objects.get(key) as Stored), uid: 'another' });
  loop.cluster.health = () => healthy;
  await second;
  assert.equal(outcomes(loop)[1], 'failed');
  assert.equal(loop.entries('hook.ended').at(-1)?.outcome, 'failed');
});

test('a Job that Kubernetes may have removed by itself since it was planned is not made again', async () => {
  const ttl = job('migrate', argo('PreSync'), '1', '  ttlSecondsAfterFinished: 60\n');
  for (const [seconds, outcome] of [
    [59, 'applied'],
    [61, 'failed'],
  ] as const) {
    const { loop, at } = await started({ ...shop('blue'), 'job.yaml': ttl }, shop('red'));
    await at(0);
    loop.crashAt = 'intended';
    await assert.rejects(at(1), Crash);
    loop.cluster.lose('migrate');
    loop.now = new Date(loop.now.getTime() + seconds * 1000);
    loop.restart();
    await at(1);
    assert.equal(outcomes(loop)[1], outcome, `${seconds} s`);
  }
});

test('a hook that is deleted while it runs fails the change', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  loop.cluster.health = (ref) => (isNamed('migrate')(ref) ? running : healthy);
  const second = at(1);
  await eventually(() => loop.entries('hook.started').length === 2);
  loop.cluster.lose('migrate');
  await second;
  assert.match(loop.entries('apply.result')[1]?.error ?? '', /Job shop\/migrate: it is gone$/, 'at once');
});

test('a hook that was healthy when it went has ended: it removed itself, or someone did afterwards', async () => {
  for (const [uid, outcome] of [
    ['its', 'applied'],
    ['another', 'failed'],
  ] as const) {
    const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
    await at(0);
    loop.cluster.health = (ref) => (isNamed('migrate')(ref) ? running : healthy);
    const second = at(1);
    await eventually(() => loop.entries('hook.started').length === 2);
    const own = loop.entries('hook.started')[1]?.uid ?? '';
    loop.cluster.ended.set('migrate', uid === 'its' ? own : uid);
    loop.cluster.lose('migrate');
    await second;
    assert.equal(outcomes(loop)[1], outcome);
    assert.equal(loop.entries('hook.ended').at(-1)?.outcome, outcome === 'applied' ? 'succeeded' : 'failed');
  }
});

test('a newer commit waits for the end of a hook, also after a restart', async () => {
  const { loop, at, ids } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
    shop('green'),
  );
  await at(0);
  loop.cluster.health = (ref) => (isNamed('migrate')(ref) ? running : healthy);
  loop.crashAt = 'hook';
  await assert.rejects(at(1), Crash);
  loop.restart();
  const before = loop.cluster.writes.length;
  const third = at(2);
  await eventually(() => loop.entries('apply.intent').length === 3);
  assert.equal(loop.entries('apply.intent')[2]?.revision, ids[1]);
  loop.cluster.health = () => healthy;
  await third;
  await at(2);
  assert.deepEqual(loop.cluster.writes.slice(before), [
    'apply ConfigMap shop/cm',
    ...['remove Job shop/migrate', 'apply Job shop/migrate', 'apply ConfigMap shop/cm'],
  ]);
});

test('delete policies: once it succeeded, once it failed, and neither for what holds data', async () => {
  const on = (policy: string) => `argocd.argoproj.io/hook-delete-policy: ${policy}`;
  const claim = annotated(
    'apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  namespace: shop\nspec: {}\n',
    ...argo('PreSync', on('HookSucceeded')),
  );
  const { loop, at } = await started(
    {
      ...shop('blue'),
      'a.yaml': job('once', argo('PreSync', on('HookSucceeded'))),
      'b.yaml': job('try', argo('PreSync', 'countersign.dev/order: "1"', on('HookFailed'))),
      'account.yaml': annotated(configMap('shop', 'account', {}), ...argo('PreSync', on('HookSucceeded'))),
      'claim.yaml': claim,
    },
    shop('red'),
  );
  assert.deepEqual(
    (await at(0)).filter((w) => w.startsWith('remove')),
    ['remove Job shop/once', 'remove ConfigMap shop/account'],
  );
  assert.deepEqual(await at(0), [], 'what a policy removed is not missing');
  loop.cluster.health = failingAt('try');
  const second = await at(1);
  assert.deepEqual(
    second.filter((w) => w.startsWith('remove')),
    ['remove Job shop/try', 'remove Job shop/try', 'remove Job shop/once', 'remove ConfigMap shop/account'],
  );
});

test('a delete policy that the cluster refuses keeps neither a failed nor a healthy change from its result', async () => {
  for (const [policy, health, outcome] of [
    ['HookFailed', failingAt('smoke'), 'failed'],
    ['HookSucceeded', () => healthy, 'applied'],
  ] as const) {
    const hook = argo('PostSync', `argocd.argoproj.io/hook-delete-policy: ${policy}`);
    const { loop, at } = await started(shop('blue'), { ...shop('red'), 'job.yaml': job('smoke', hook) });
    await at(0);
    loop.cluster.health = health;
    loop.cluster.fail({ verb: 'remove', when: isNamed('smoke'), error: refused() });
    await at(1);
    const result = loop.entries('apply.result').find((r) => r.intent > 1 && r.outcome === outcome);
    assert.ok(result !== undefined && loop.entries('apply.result').length > 1, outcome);
    if (outcome === 'failed')
      assert.match(result.error ?? '', /; Job shop\/smoke is not removed as its delete policy says: the field/);
  }
});

test('a hook that is written in place is replaced only if Git says so', async () => {
  const account = (colour: string) => annotated(configMap('shop', 'account', { colour }), ...argo('PreSync'));
  const { loop, at } = await started({ ...shop('blue'), 'a.yaml': account('1') }, { 'a.yaml': account('2') });
  await at(0);
  const error = new CountersignError('cluster-immutable', 'it is immutable');
  loop.cluster.fail({ verb: 'dryRun', when: isNamed('account'), error, times: 9 });
  assert.deepEqual(await at(1), []);
  assert.equal(loop.entries('apply.refused').length, 1);
});

test('a Namespace that is a hook is written in its phase', async () => {
  const { at } = await started({
    'ns.yaml': annotated(namespace('shop'), ...argo('Sync')),
    'cm.yaml': annotated(configMap('shop', 'cm', {}), 'countersign.dev/order: "-1"'),
  });
  assert.deepEqual(await at(0), ['apply ConfigMap shop/cm', 'apply Namespace shop']);
});

test('trouble during the second try of a dry run is not a refusal', async () => {
  const { loop, at } = await started(shop('blue'), shop('red'));
  await at(0);
  loop.cluster.fail({ verb: 'dryRun', when: isNamed('cm'), error: refused() });
  loop.cluster.fail({ verb: 'dryRun', when: isNamed('cm'), isExact: true, error: unreachable() });
  await at(1).catch((thrown) => assert.match(String(thrown), /does not answer/));
  assert.deepEqual(loop.entries('apply.refused'), []);
});

test('an object with the stamps of an open change, and not what it approved, is not taken for its hook', async () => {
  const { loop, at, ids } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
  );
  const dryRun = loop.cluster.dryRun.bind(loop.cluster);
  loop.cluster.dryRun = async (...of) => ({ ...(await dryRun(...of)), admitted: 'what was approved' });
  await at(0);
  loop.cluster.lose('migrate');
  loop.crashAt = 'intended';
  await assert.rejects(at(1), Crash);
  const entry = String(loop.entries('apply.intent').at(-1)?.verdict);
  const annotations = { [ANNOTATION.revision]: ids[1] ?? '', [ANNOTATION.entry]: entry };
  const forged = { ...(await stored()), environment: loop.name, uid: 'forged', annotations };
  loop.cluster.objects.set('batch/Job/shop/migrate', forged);
  loop.restart();
  assert.deepEqual((await at(1)).slice(0, 2), ['remove Job shop/migrate', 'apply Job shop/migrate']);
});

test('an object of others under the name of a hook is refused before anything is written', async () => {
  const { loop, at } = await started(shop('blue'), { ...shop('red'), 'job.yaml': job('smoke', argo('PostSync')) });
  await at(0);
  loop.cluster.objects.set('batch/Job/shop/smoke', { ...(await stored()), environment: 'other' });
  assert.deepEqual(await at(1), []);
  assert.match(loop.status.message, /smoke is there, and this environment did not make it/);
});

test('a moment in which the watch lacks the object of a hook does not fail it', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  const live = loop.cluster.live.bind(loop.cluster);
  let looks = 0;
  const isLacking = (ref: ObjectRef) => isNamed('migrate')(ref) && loop.entries('hook.started').length > 1;
  loop.cluster.live = (ref) => (isLacking(ref) && ++looks < 6 ? undefined : live(ref));
  await at(1);
  assert.deepEqual(outcomes(loop), ['applied', 'applied']);
});

test('a hook that only is, and stays, is defended like any object', async () => {
  const { loop, at } = await started({
    ...shop('blue'),
    'job.yaml': job('migrate', argo('PreSync')),
    'account.yaml': annotated(configMap('shop', 'account', {}), ...argo('PreSync')),
  });
  await at(0);
  loop.cluster.lose('account');
  assert.deepEqual(await at(0), ['apply ConfigMap shop/account']);
});

test("Helm's hooks tell an installation from an upgrade and a rollback", async () => {
  const hooks = {
    'a.yaml': job('first', helm('pre-install')),
    'b.yaml': job('later', helm('pre-upgrade, post-rollback')),
    'c.yaml': job('checked', helm('post-install,post-upgrade')),
  };
  const { loop, at, ids } = await started({ ...shop('blue'), ...hooks }, shop('red'));
  const jobs = (writes: readonly string[]) => writes.filter((w) => w.startsWith('apply Job'));
  assert.deepEqual(jobs(await at(0)), ['apply Job shop/first', 'apply Job shop/checked']);
  assert.deepEqual(await at(1), [
    ...['apply Job shop/later', 'apply ConfigMap shop/cm', 'remove Job shop/checked', 'apply Job shop/checked'],
  ]);
  const before = loop.cluster.writes.length;
  const applied = await loop.reconciler.rollBack(ids[0] as string, { user: 'dana', reason: 'INC-1' });
  assert.equal(applied.outcome, 'applied', applied.error);
  assert.deepEqual(loop.cluster.writes.slice(before), [
    'apply ConfigMap shop/cm',
    ...['remove Job shop/later', 'apply Job shop/later'],
  ]);
});

test('the first revision over objects that are there already is an upgrade, and what was begun as one stays one', async () => {
  const hooks = { 'a.yaml': job('first', helm('pre-install')), 'b.yaml': job('later', helm('pre-upgrade')) };
  const { loop, at } = await started({ ...shop('blue'), ...hooks });
  loop.cluster.objects.set('/ConfigMap/shop/cm', { ...(await stored()), environment: 'production' });
  assert.ok((await at(0)).includes('apply Job shop/later'));
  const fresh = await started({ ...shop('blue'), ...hooks });
  fresh.loop.crashAt = 'written';
  await assert.rejects(fresh.at(0), Crash);
  fresh.loop.restart();
  await fresh.at(0);
  assert.ok(!fresh.loop.cluster.writes.includes('apply Job shop/later'));
});

test('hooks of one order run one after the other, by kind and name', async () => {
  const { at } = await started({
    ...shop('blue'),
    'a.yaml': job('b', helm('pre-install')),
    'b.yaml': job('a', helm('pre-install')),
    'c.yaml': annotated(configMap('shop', 'z', {}), ...helm('pre-install')),
    'd.yaml': job('first', helm('pre-install', 'helm.sh/hook-weight: "-1"')),
  });
  assert.deepEqual((await at(0)).slice(1, 5), [
    'apply Job shop/first',
    'apply ConfigMap shop/z',
    'apply Job shop/a',
    'apply Job shop/b',
  ]);
});

test('a hook of two phases is made for each', async () => {
  const { at } = await started({ ...shop('blue'), 'a.yaml': job('both', argo('PreSync,PostSync')) });
  assert.deepEqual(await at(0), [
    'apply Namespace shop',
    ...['apply Job shop/both', 'apply ConfigMap shop/cm', 'remove Job shop/both', 'apply Job shop/both'],
  ]);
});

test('a hook that failed stays failed for its change, whatever its object says later', async () => {
  const { loop, at } = await started({ ...shop('blue'), ...HOOKS }, shop('red'));
  await at(0);
  loop.cluster.health = failingAt('migrate');
  loop.cluster.fail({ verb: 'apply', when: isNamed('cleanup'), error: unreachable() });
  await assert.rejects(at(1), /does not answer/);
  loop.cluster.health = () => healthy;
  loop.restart();
  const writes = await at(1);
  assert.ok(!writes.includes('apply Job shop/migrate'));
  assert.deepEqual(ends(loop).slice(-2), ['before migrate failed', 'failure cleanup succeeded']);
  assert.deepEqual(outcomes(loop), ['applied', 'failed', 'applied']);
});

test('a newer commit does not end the wait for a hook, and the end of the service does', async () => {
  const { loop, at, ids } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
    shop('green'),
  );
  await at(0);
  let looks = 0;
  loop.cluster.health = (ref) => {
    if (isNamed('migrate')(ref)) looks++;
    return isNamed('migrate')(ref) ? running : healthy;
  };
  const second = at(1);
  await eventually(() => loop.entries('hook.started').length === 2);
  loop.tip = ids[2] as string;
  loop.reconciler.poke();
  await eventually(() => loop.entries('change.judged').length === 3);
  const before = looks;
  await eventually(() => looks > before + 5);
  loop.reconciler.stop();
  await second;
  assert.deepEqual(ends(loop), ['before migrate succeeded'], 'the first change');
  loop.restart();
  loop.cluster.health = () => healthy;
  await at(1);
  assert.equal(loop.entries('hook.started').length, 2);
  assert.deepEqual(outcomes(loop), ['applied', 'applied']);
});

test('rules judge hooks, and what failed as one is not what is unhealthy', async () => {
  const unlimited = job('migrate', argo('PreSync')).replace(/, resources: .*/, '}]}}\n');
  const denied = await started({ ...shop('blue'), 'job.yaml': unlimited });
  await denied.at(0);
  assert.match(denied.loop.status.message, /Job shop\/migrate: the container `main` has no limit/);
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  loop.cluster.health = failingAt('migrate');
  await at(1);
  assert.deepEqual(loop.status.health?.failed, 0, 'it is there, and failed');
  assert.ok(loop.cluster.names().includes('migrate'));
});

test('an object that only looks like that of this change is not taken for it', async () => {
  const { loop, at, twin } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
  );
  const key = 'batch/Job/shop/migrate';
  const other = twin();
  await other.at(0);
  await other.at(1);
  await at(0);
  loop.cluster.objects.set(key, { ...(other.loop.cluster.objects.get(key) as Stored), uid: 'forged' });
  assert.deepEqual(await at(1), ['remove Job shop/migrate', 'apply Job shop/migrate', 'apply ConfigMap shop/cm']);
});

test('what an earlier attempt at the same change made is made again by the next one, also if that is interrupted', async () => {
  const { loop, at } = await started({ ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) }, shop('red'));
  await at(0);
  loop.cluster.health = failingAt('migrate');
  await at(1);
  const again = () =>
    loop.record({ type: 'environment.resumed', environment: loop.name, user: 'dana', reason: 'the quota is higher' });
  await again();
  await at(1);
  assert.deepEqual(ends(loop), ['before migrate succeeded', 'before migrate failed', 'before migrate failed']);
  await again();
  loop.crashAt = 'intended';
  await assert.rejects(at(1), Crash);
  loop.restart();
  loop.cluster.health = () => healthy;
  assert.deepEqual((await at(1)).slice(0, 2), ['remove Job shop/migrate', 'apply Job shop/migrate']);
  assert.equal(outcomes(loop).at(-1), 'applied');
});

test('a failed change is held also if it brought a hook for another occasion', async () => {
  const { loop, at } = await started(
    shop('blue'),
    { ...shop('red'), 'job.yaml': job('back', helm('pre-rollback')) },
    { 'readme.md': 'x' },
  );
  await at(0);
  loop.cluster.health = failingAt('cm');
  await at(1);
  assert.deepEqual(await at(2), []);
  assert.match(loop.status.message, /renders the same objects/);
});

test('a newer commit that replaces one whose hooks ran runs them for itself', async () => {
  const { loop, at, ids } = await started(
    { ...shop('blue'), 'job.yaml': job('migrate', argo('PreSync')) },
    shop('red'),
    shop('green'),
  );
  await at(0);
  loop.cluster.health = (ref) => (isNamed('cm')(ref) ? running : healthy);
  const second = at(1);
  await eventually(() => loop.entries('hook.ended').length === 2);
  loop.tip = ids[2] as string;
  loop.reconciler.poke();
  await second;
  loop.cluster.health = () => healthy;
  await at(2);
  assert.equal(loop.entries('hook.started').length, 3);
  assert.equal(loop.status.revision, ids[2]);
});

type Stored = NonNullable<ReturnType<FakeCluster['objects']['get']>>;

async function stored(): Promise<Stored> {
  const cluster = new FakeCluster();
  const { objects } = cluster;
  objects.set('x', {
    ...{ digest: 'x', rendered: 'x', generation: 1, environment: 'production' },
    ...{ health: healthy, manager: 'helm', uid: 'uid', annotations: {} },
  });
  return objects.get('x') as Stored;
}

async function eventually(test: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !test(); ) {
    assert.ok(Date.now() < end, 'it did not happen within a minute');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
