import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContentAccount } from '../../src/gate/index.ts';
import { openLedger } from '../../src/ledger/index.ts';
import type { Proof } from '../../src/machinery/index.ts';
import { admissionDigest, contentDigest, type KubernetesObject } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { scratch } from '../kit/scratch.ts';

const PRODUCTION = 'production';
const pod = (name: string, more: object = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'shop', uid: `uid of ${name}`, resourceVersion: '1', ...more },
  spec: { containers: [{ name: 'web', image: 'evil' }] },
});
const ownedBy = (uid: string) => ({
  ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid, controller: true }],
});
const set = (replicas: number, running = replicas): KubernetesObject => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: {
    ...{ name: 'web', namespace: 'shop', uid: 'the set', resourceVersion: String(replicas) },
    ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', uid: 'the web', controller: true }],
  },
  spec: { replicas },
  status: { replicas: running },
});
const UNPROVEN: Proof = { kind: 'unproven', reason: 'its image differs' };

async function open() {
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test');
  const recorder = recorderOf(ledger);
  const at = {
    proof: (_: KubernetesObject): Proof | undefined => UNPROVEN,
    basis: 'one',
    proofs: 0,
    now: '2030-01-01',
  };
  const account = (isEnforced?: boolean) =>
    new ContentAccount(
      PRODUCTION,
      recorder,
      async (o) => {
        at.proofs++;
        return at.proof(o);
      },
      () => at.basis,
      () => new Date(at.now),
      isEnforced,
    );
  const one = account();
  const scan = async (objects: readonly KubernetesObject[], by = one) => {
    by.begin();
    await by.see(objects);
    return (await by.settle()).map((o) => o.ref.name);
  };
  const told = () => [
    ...recorder.all('content.unproven', PRODUCTION).map((r) => r.entry.object.name),
    ...recorder.all('content.resolved', PRODUCTION).map((r) => `${r.entry.object.name} ${r.entry.how}`),
  ];
  return { at, account, scan, told, recorder };
}

test('an object that is not proven is recorded once, and once more when it is gone', async () => {
  const { scan, told, account } = await open();
  assert.deepEqual(await scan([pod('a'), pod('b')]), ['a', 'b']);
  assert.deepEqual(await scan([pod('a'), pod('b')]), []);
  assert.deepEqual(await scan([pod('a'), pod('b')], account()), [], 'nor by the next start');
  await scan([pod('b')]);
  assert.deepEqual(told(), ['a', 'b', 'a proven or gone']);
});

test('an object of the same name with a different uid is a new one; a different reason is told', async () => {
  const { at, scan, told } = await open();
  await scan([pod('a')]);
  assert.deepEqual(await scan([pod('a', { uid: 'another' })]), ['a']);
  at.proof = () => ({ kind: 'unproven', reason: 'its volumes differ' });
  assert.deepEqual(await scan([pod('a', { uid: 'another', resourceVersion: '2' })]), ['a']);
  assert.deepEqual(told(), ['a', 'a', 'a', 'a proven or gone', 'a changed']);
});

test('what an unproven object makes is told with it, and a ReplicaSet that runs nothing any more is idle', async () => {
  const { at, scan, told } = await open();
  assert.deepEqual(await scan([set(2), pod('a', ownedBy('the set')), pod('b')]), ['web', 'b']);
  at.proof = (o) => (o.kind === 'Pod' ? { kind: 'proven' } : UNPROVEN);
  await scan([set(0, 1)]);
  assert.deepEqual(told(), ['web', 'b', 'b proven or gone'], 'one pod still runs');
  await scan([set(0)]);
  assert.deepEqual(told().at(-1), 'web idle');
  assert.deepEqual(await scan([set(0)]), [], 'idle objects stay');
  assert.deepEqual(await scan([set(1)]), ['web'], 'until they run something');
});

test('no reference hides an object: to itself, around, or to a set that runs nothing', async () => {
  const { scan } = await open();
  const owned = (name: string, uid: string) => pod(name, { uid: name, ...ownedBy(uid) });
  assert.deepEqual(await scan([owned('own', 'own')]), ['own']);
  assert.deepEqual(await scan([owned('one', 'other'), owned('other', 'one')]), ['one', 'other']);
  assert.deepEqual(await scan([set(0), owned('left', 'the set')]), ['web', 'left']);
  assert.deepEqual(await scan([set(1), owned('made', 'the set')]), ['web']);
});

test('what cannot be determined neither begins nor ends anything', async () => {
  const { at, scan, told } = await open();
  await scan([pod('a')]);
  at.proof = () => ({ kind: 'unknown', reason: 'the API server does not answer' });
  assert.deepEqual(await scan([pod('a', { resourceVersion: '2' }), pod('b')]), []);
  assert.deepEqual(told(), ['a']);
});

test('a proof holds for one version of an object and one state of what is approved', async () => {
  const { at, scan } = await open();
  at.proof = () => ({ kind: 'proven' });
  await scan([pod('a')]);
  await scan([pod('a')]);
  assert.equal(at.proofs, 1);
  await scan([pod('a', { resourceVersion: '2' })]);
  assert.equal(at.proofs, 2, 'it was written');
  at.basis = 'two';
  await scan([pod('a', { resourceVersion: '2' })]);
  assert.equal(at.proofs, 3, 'something else is approved');
});

test('break-glass excuses what it made by its content, not by its name', async () => {
  const { at, scan, recorder } = await open();
  const use = (object: KubernetesObject, more: object = {}) =>
    recorder.record(
      {
        type: 'breakglass.used',
        ...{
          environment: PRODUCTION,
          user: 'ola',
          operation: 'CREATE',
          reason: 'INC-1',
          until: '2030-01-01T01:00:00Z',
        },
        object: { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: object.metadata.name },
        content: contentDigest(object),
        made: `uid of ${object.metadata.name}`,
        ...more,
      },
      [],
    );
  const { spec } = pod('a');
  const now = { creationTimestamp: new Date().toISOString() };
  const bound = { ...pod('a', now), spec: { ...(spec as object), nodeName: 'node-a' } };
  await use(pod('a', now));
  assert.deepEqual(await scan([bound]), [], 'the scheduler chose a node');
  assert.deepEqual(await scan([{ ...bound, metadata: { ...bound.metadata, uid: 'another' } }]), ['a'], 'made past it');
  const earlier = pod('e', { creationTimestamp: '2020-01-01T00:00:00Z' });
  await use(earlier);
  assert.deepEqual(await scan([earlier]), ['e'], 'it was there before anything was said of it');
  const other = { ...pod('a', now), spec: { containers: [{ name: 'web', image: 'worse' }] } };
  assert.deepEqual(await scan([other]), ['a'], 'the name is the same');
  await use(pod('b'), { operation: 'UPDATE' });
  assert.deepEqual(await scan([pod('b')]), []);
  await use(pod('c'), { operation: 'DELETE', content: undefined });
  assert.deepEqual(await scan([pod('c')]), ['c'], 'a removal makes nothing');
  await use(pod('d'), { operation: 'UPDATE', subresource: 'ephemeralcontainers', content: undefined });
  assert.deepEqual(await scan([pod('d')]), []);
  at.now = '2030-01-02';
  assert.deepEqual(await scan([bound, pod('b'), pod('d')]), ['b', 'd'], 'its time is over');
});

const stray = (data: object, more: object = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'stray', namespace: 'shop', uid: 'the stray', resourceVersion: '1', ...more },
  data,
});

test('what the gate let through is no exception; what runs needs a proof, unless it is an operator’s', async () => {
  const { at, scan, recorder, account } = await open();
  const now = new Date().toISOString();
  at.now = now;
  for (const object of [stray({ a: '1' }), pod('p')]) {
    const { kind, apiVersion, metadata } = object;
    const evidence = recorder.asEvidence([
      {
        ...{ uid: 'u', at: now, user: 'x', groups: [], operation: 'CREATE', subresource: '', as: 'operator' },
        object: { apiVersion, kind, namespace: 'shop', name: metadata.name },
        digest: admissionDigest(object, 'CREATE'),
      },
    ]);
    const body = { type: 'admission.allowed', environment: PRODUCTION, from: now, to: now, count: 1 } as const;
    await recorder.record({ ...body, evidence: evidence.ref }, [evidence]);
  }
  const made = { creationTimestamp: now };
  assert.deepEqual(await scan([stray({ a: '1' }, made), pod('p', made)], account()), ['p'], 'a pod needs a proof');
  at.proof = () => ({ ...UNPROVEN, isOfOperator: true });
  assert.deepEqual(await scan([stray({ a: '1' }, made), pod('p', { ...made, uid: 'other' })], account()), []);
});

test('an object that is not as it was last let through may be read late: it counts after five seconds', async () => {
  const { at, scan, recorder } = await open();
  const now = new Date().toISOString();
  at.now = now;
  const digest = admissionDigest(stray({ a: '1' }), 'CREATE');
  const object = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'stray' };
  const evidence = recorder.asEvidence([
    { uid: 'u', at: now, user: 'x', groups: [], operation: 'CREATE', subresource: '', as: 'operator', object, digest },
  ]);
  const body = { type: 'admission.allowed', environment: PRODUCTION, from: now, to: now, count: 1 } as const;
  await recorder.record({ ...body, evidence: evidence.ref }, [evidence]);
  const other = stray({ a: '2' }, { creationTimestamp: now });
  assert.deepEqual(await scan([other]), []);
  at.now = new Date(Date.parse(now) + 5000).toISOString();
  assert.deepEqual(await scan([other]), ['stray']);
});

test('the content of a foreign object may change as often as it likes: it stays one exception', async () => {
  const { scan, told } = await open();
  for (const version of ['1', '2', '3']) await scan([stray({ version }, { resourceVersion: version })]);
  const two = ['a', 'b'].map((name) => stray({}, { uid: '', resourceVersion: '1', name }));
  await scan([stray({}), ...two]);
  await scan([stray({}), ...two]);
  assert.deepEqual(told(), ['stray', 'a', 'b'], 'without uids, too');
});

test('endpoints may be behind for a moment: a proof that fails counts once it has failed for as long as that', async () => {
  const { at, scan, told } = await open();
  const reasons: Record<string, string | undefined> = {};
  at.proof = ({ metadata: { name } }) => {
    const reason = reasons[name];
    return reason === undefined ? { kind: 'proven' } : { kind: 'unproven', reason };
  };
  const slice = (name: string, version: string): KubernetesObject => ({
    ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' },
    metadata: { name, namespace: 'shop', uid: name, resourceVersion: version },
  });
  let second = 0;
  const after = async (seconds: number, ...all: readonly KubernetesObject[]) => {
    second += seconds;
    at.now = new Date(Date.parse('2030-01-01') + second * 1000).toISOString();
    return scan(all);
  };
  Object.assign(reasons, { late: 'its pod is gone', forged: 'its address is elsewhere' });
  assert.deepEqual(await after(0, slice('late', '1'), slice('forged', '1')), []);
  reasons['late'] = undefined;
  assert.deepEqual(await after(3, slice('late', '2'), slice('forged', '1')), []);
  assert.deepEqual(await after(3, slice('late', '2'), slice('forged', '1')), ['forged']);
  reasons['forged'] = 'its other address is elsewhere';
  assert.deepEqual(await after(9, slice('late', '2'), slice('forged', '2')), [], 'it is one exception');
  // No one wrote it since it was proven: its controller is away, and what is approved changed.
  at.basis = 'two';
  reasons['late'] = 'its pod is gone';
  assert.deepEqual(await after(0, slice('late', '2'), slice('forged', '2')), []);
  assert.deepEqual(await after(30, slice('late', '2'), slice('forged', '2')), []);
  assert.deepEqual(await after(31, slice('late', '2'), slice('forged', '2')), ['late']);
  for (let i = 0; i < 20; i++) {
    reasons['restless'] = `reason ${i}`;
    assert.deepEqual(await after(3, slice('restless', `${i}`)), [], `${i}`);
  }
  assert.deepEqual(await after(3, slice('restless', 'x')), ['restless'], 'one reason after the other hides nothing');
  assert.deepEqual(told().slice(0, 3), ['forged', 'late', 'restless']);
});

test('where writes are not refused, only what runs or leads traffic has an entry', async () => {
  const { scan, account } = await open();
  const config = { ...pod('config'), kind: 'ConfigMap' } as KubernetesObject;
  const slice = { ...pod('slice'), apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' } as KubernetesObject;
  const late = [pod('pod'), config, slice];
  assert.deepEqual(await scan(late, account(false)), ['pod'], 'endpoints may be late');
  assert.deepEqual(await scan([config], account()), ['config']);
});

test('a claim that was let through is still that once it has its volume, and no other claim is', async () => {
  const { at, scan, account, recorder } = await open();
  const now = new Date().toISOString();
  at.now = now;
  const claim = (spec: object, annotations: Record<string, string> = {}, uid = 'uid of data') =>
    ({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: {
        ...{ name: 'data', namespace: 'shop', uid, creationTimestamp: now },
        ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
      },
      spec,
    }) as KubernetesObject;
  const made = claim({ accessModes: ['ReadWriteOnce'] });
  const evidence = recorder.asEvidence([
    {
      ...{ object: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace: 'shop', name: 'data' } },
      ...{ operation: 'CREATE', subresource: '', user: 'operator', as: 'controller', at: now, dryRun: false },
      digest: admissionDigest(made, 'CREATE'),
    },
  ]);
  const body = { type: 'admission.allowed', environment: PRODUCTION, from: now, to: now, count: 1 } as const;
  await recorder.record({ ...body, evidence: evidence.ref }, [evidence]);
  const bound = { 'pv.kubernetes.io/bind-completed': 'yes', 'volume.kubernetes.io/selected-node': 'a' };
  const spec = { accessModes: ['ReadWriteOnce'], volumeName: 'pv-1' };
  assert.deepEqual(await scan([claim(spec, bound)], account()), []);
  const afterAWhile = async (object: KubernetesObject) => {
    const by = account();
    await scan([object], by);
    at.now = new Date(Date.parse(at.now) + 5000).toISOString();
    return scan([object], by);
  };
  assert.deepEqual(await afterAWhile(claim(spec, { ...bound, 'volume.kubernetes.io/other': 'x' })), ['data']);
  assert.deepEqual(await afterAWhile(claim({ ...spec, storageClassName: 'other' }, bound, 'another')), ['data']);
});
