import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { LetThrough } from '../../src/gate/let-through.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { templateDigest } from '../../src/machinery/index.ts';
import { type AdmittedRequest, admissionDigest, type KubernetesObject } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { scratch } from '../kit/scratch.ts';

const PRODUCTION = 'production';
const START = Date.parse('2030-01-01T00:00:00Z');
const MINUTE = 60_000;

const config = (a: string, more: object = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'made', namespace: 'shop', uid: 'u1', creationTimestamp: time(0), ...more },
  data: { a },
});

function time(minutes: number): string {
  return new Date(START + minutes * MINUTE).toISOString();
}

async function open() {
  let minute = 0;
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test', { clock: () => new Date(time(minute)) });
  const recorder = recorderOf(ledger);
  let read = 0;
  const counting = {
    ...recorder,
    evidence: (ref: Parameters<typeof recorder.evidence>[0]) => {
      read++;
      return recorder.evidence(ref);
    },
  };
  const start = () => new LetThrough(PRODUCTION, counting, () => new Date(time(minute)));
  return {
    recorder,
    start,
    reads: () => read,
    at: (minutes: number) => {
      minute = minutes;
    },
    let: async (object: KubernetesObject, operation: string, as = 'operator', more: Partial<AdmittedRequest> = {}) => {
      const { apiVersion, kind, metadata } = object;
      const template = templateDigest(object);
      const row: AdmittedRequest = {
        ...{ uid: 'r', at: time(minute), user: 'x', groups: [], operation, subresource: '', as },
        object: { apiVersion, kind, namespace: 'shop', name: metadata.name },
        ...(operation === 'DELETE' ? {} : { digest: admissionDigest(object, operation) }),
        ...(template === undefined ? {} : { template }),
        ...more,
      };
      const evidence = recorder.asEvidence([row]);
      const [from, to] = [row.at, row.at];
      const body = { type: 'admission.allowed', environment: PRODUCTION, from, to, count: 1 } as const;
      await recorder.record({ ...body, evidence: evidence.ref }, [evidence]);
    },
    last: () => recorder.latest(['admission.allowed'], PRODUCTION)?.index ?? -1,
    standing: () => recorder.all('admission.standing', PRODUCTION).map((r) => r.entry),
  };
}

const scan = async (by: LetThrough, ...objects: readonly KubernetesObject[]) => {
  by.begin();
  const found = objects.map((o) => by.compare(o));
  await by.end();
  return found.join(' ');
};

test('an object is as it was let through only with the content of the last write of it', async () => {
  const t = await open();
  const first = t.start();
  assert.equal(first.compare(config('1')), 'none');
  await t.let(config('1'), 'CREATE');
  assert.equal(first.compare(config('1')), 'same');
  assert.equal(first.compare(config('2')), 'other');
  t.at(1);
  await t.let(config('2'), 'UPDATE');
  assert.equal(t.start().compare(config('1')), 'other', 'a start believes the last write');
  assert.equal(t.start().compare(config('2')), 'same');
});

test('what was replaced and is put back past the gate is not as it was let through, whatever times it has', async () => {
  const t = await open();
  const one = t.start();
  await t.let(config('1'), 'CREATE');
  assert.equal(one.compare(config('1')), 'same');
  t.at(5);
  await t.let(config('2'), 'UPDATE');
  assert.equal(one.compare(config('1')), 'same', 'the write was not stored yet');
  assert.equal(one.compare(config('2')), 'same');
  const forged = config('1', { managedFields: [{ manager: 'operator', time: time(0) }] });
  assert.equal(one.compare(forged), 'other');
  assert.equal(t.start().compare(forged), 'other');
  t.at(6);
  await t.let(config('1'), 'UPDATE');
  assert.equal(one.compare(config('1')), 'same', 'it was let through again');
});

test('content that was replaced before it was read does not count either, once the write has settled', async () => {
  const t = await open();
  const one = t.start();
  await t.let(config('0'), 'CREATE');
  assert.equal(one.compare(config('0')), 'same');
  await t.let(config('1'), 'UPDATE');
  await t.let(config('2'), 'UPDATE');
  t.at(2);
  assert.equal(one.compare(config('1')), 'other');
  assert.equal(one.compare(config('2')), 'same');
});

test('an object that is being removed, and a Secret that gets its token, are as they were let through', async () => {
  const t = await open();
  await t.let(config('1'), 'CREATE');
  await t.let(config('1'), 'DELETE');
  const leaving = { deletionTimestamp: time(1), deletionGracePeriodSeconds: 0 };
  assert.equal(t.start().compare(config('1', leaving)), 'same');
  assert.equal(t.start().compare(config('2', leaving)), 'other');
  const secret = (data: object | undefined, annotations: object): KubernetesObject =>
    ({
      ...{ apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/service-account-token' },
      metadata: { name: 'token', namespace: 'shop', uid: 'u3', creationTimestamp: time(0), annotations },
      ...(data === undefined ? {} : { data }),
    }) as KubernetesObject;
  const name = { 'kubernetes.io/service-account.name': 'web' };
  await t.let(secret(undefined, name), 'CREATE');
  const filled = { ...name, 'kubernetes.io/service-account.uid': 'u' };
  assert.equal(t.start().compare(secret({ token: 'a', 'ca.crt': 'b', namespace: 'c' }, filled)), 'same');
  assert.equal(t.start().compare(secret({ token: 'a', more: 'x' }, filled)), 'other');
});

test('other writes count for nothing: refused for others, of a subresource, of another object, of a past life', async () => {
  const t = await open();
  await t.let(config('1'), 'CREATE', 'machinery');
  await t.let(config('1'), 'CREATE', 'left to others');
  await t.let(config('1'), 'CREATE', 'operator', { subresource: 'status' });
  await t.let(config('1', { name: 'other' }), 'CREATE');
  assert.equal(t.start().compare(config('1')), 'none');
  await t.let(config('1'), 'CREATE');
  await t.let(config('1'), 'DELETE');
  assert.equal(t.start().compare(config('1')), 'other', 'it was removed');
  await t.let(config('1'), 'CREATE');
  const later = config('1', { uid: 'u2', creationTimestamp: time(60) });
  assert.equal(t.start().compare(later), 'none', 'it was made later than any write');
  assert.equal(t.start().compare(config('1', { creationTimestamp: undefined })), 'none');
});

test('a creation that found its object there changes nothing', async () => {
  const t = await open();
  await t.let(config('1'), 'CREATE');
  t.at(10);
  await t.let(config('2'), 'UPDATE');
  t.at(20);
  await t.let(config('1'), 'CREATE');
  assert.equal(t.start().compare(config('2')), 'same');
  assert.equal(t.start().compare(config('1')), 'other');
});

test('what makes pods is compared by its template, which neither scaling nor a rollout changes', async () => {
  const t = await open();
  const set = (image: string, replicas: number, annotations = {}): KubernetesObject => ({
    ...{ apiVersion: 'apps/v1', kind: 'Deployment' },
    metadata: { name: 'web', namespace: 'shop', uid: 'u1', creationTimestamp: time(0), annotations },
    spec: { replicas, template: { metadata: {}, spec: { containers: [{ name: 'web', image }] } } },
  });
  await t.let(set('a', 1), 'CREATE');
  const revised = { 'deployment.kubernetes.io/revision': '3' };
  assert.equal(t.start().compare(set('a', 7, revised)), 'same');
  assert.equal(t.start().compare(set('b', 1)), 'other');
});

test('what stands is recorded once a day, and a start reads no older writes', async () => {
  const t = await open();
  for (let i = 0; i < 20; i++) await t.let(config(`${i}`), i === 0 ? 'CREATE' : 'UPDATE');
  t.at(10);
  const one = t.start();
  assert.equal(await scan(one, config('19')), 'same');
  assert.deepEqual([t.standing().length, t.standing()[0]?.count, t.standing()[0]?.covers], [1, 1, t.last()]);
  assert.equal(await scan(one, config('19')), 'same');
  assert.equal(t.standing().length, 1, 'nothing is due');
  t.at(11);
  await t.let(config('20'), 'UPDATE');
  t.at(30);
  const before = t.reads();
  assert.equal(await scan(t.start(), config('20')), 'same');
  assert.equal(t.reads() - before, 2, 'what stood, and one write');
  assert.equal(t.start().compare(config('19')), 'other', 'it stood, and was replaced since');
  t.at(25 * 60);
  assert.equal(await scan(one, config('20')), 'same');
  assert.equal(t.standing().length, 2);
  assert.equal(await scan(t.start(), config('20')), 'same');
  assert.equal(t.start().compare(config('19')), 'other');
});

test('a write just before a reading is not covered by what it found', async () => {
  const t = await open();
  await t.let(config('1', { name: 'one' }), 'CREATE');
  t.at(10);
  await t.let(config('1', { name: 'two', creationTimestamp: time(10) }), 'CREATE');
  const one = config('1', { name: 'one' });
  assert.equal(await scan(t.start(), one), 'same', 'the list is older than the second object');
  assert.equal(t.standing()[0]?.covers, t.last() - 1);
  t.at(30);
  const two = config('1', { name: 'two', uid: 'u2', creationTimestamp: time(10) });
  assert.equal(await scan(t.start(), one, two), 'same same');
});

test('an object that is gone is dropped, and one that is kept stays known without being asked about', async () => {
  const t = await open();
  await t.let(config('1'), 'CREATE');
  t.at(10);
  const one = t.start();
  assert.equal(await scan(one, config('1')), 'same');
  one.begin();
  one.keep('u1');
  t.at(25 * 60);
  await one.end();
  assert.deepEqual(
    t.standing().map((e) => e.count),
    [1, 1],
  );
  t.at(50 * 60);
  await scan(one);
  assert.equal(t.standing().at(-1)?.count, 0);
  t.at(51 * 60);
  assert.equal(t.start().compare(config('1')), 'none', 'what came back was not let through again');
});

test('a replica that takes over again reads what others recorded meanwhile', async () => {
  const t = await open();
  await t.let(config('1'), 'CREATE');
  const one = t.start();
  assert.equal(one.compare(config('1')), 'same');
  one.forget();
  t.at(1);
  await t.let(config('2'), 'UPDATE');
  assert.equal(one.compare(config('1')), 'other');
  assert.equal(one.compare(config('2')), 'same');
});
