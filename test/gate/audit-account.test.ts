import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { AuditAccount } from '../../src/gate/index.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { type EntryBody, environmentSchema } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { environmentDocument } from '../kit/documents.ts';
import { scratch } from '../kit/scratch.ts';

const environment = environmentSchema.parse(
  environmentDocument({ url: 'https://git.example.com/fleet', namespaces: ['shop'] }),
);
const object = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' };
const about = { environment: 'production', user: 'dev', operation: 'UPDATE', object, reason: 'x' };
const denied = (mode: 'enforce' | 'audit'): EntryBody => ({ type: 'admission.denied', ...about, mode });

let serial = 0;
const event = (verb: string, objectRef: object = {}) => {
  const time = new Date().toISOString();
  return {
    auditID: `a-${serial++}`,
    stage: 'ResponseComplete',
    verb,
    user: { username: 'dev', groups: [] },
    objectRef: { resource: 'configmaps', namespace: 'shop', name: 'settings', ...objectRef },
    responseStatus: { code: 200 },
    ...{ requestReceivedTimestamp: time, stageTimestamp: time },
  };
};

async function accountWith(...entries: readonly EntryBody[]) {
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test');
  const recorder = recorderOf(ledger);
  for (const entry of entries) await recorder.record(entry, []);
  const account = new AuditAccount([{ environment, applier: 'countersign' }], recorder);
  return async (...events: readonly object[]) => (await account.take(events)).map(({ write }) => write.verb);
}

test('a write that was refused is not explained by its refusal, and one entry explains one kind of write', async () => {
  const alone = await accountWith();
  assert.deepEqual(await alone(event('patch')), ['patch']);
  const refused = await accountWith(denied('enforce'));
  assert.deepEqual(await refused(event('patch'), event('create'), event('delete')), ['patch', 'create', 'delete']);
  for (const passed of [denied('audit'), { type: 'admission.warned', ...about } as const]) {
    const take = await accountWith(passed);
    assert.deepEqual(await take(event('patch'), event('update')), []);
    assert.deepEqual(await take(event('delete'), event('create')), ['delete', 'create']);
  }
});

test('an attempt under a borrowed name is recorded with who borrowed it', async () => {
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test');
  const account = new AuditAccount([{ environment, applier: 'countersign' }], recorderOf(ledger));
  const controller = 'system:serviceaccount:kube-system:replicaset-controller';
  const annotations = { 'validation.policy.admission.k8s.io/validation_failure': '[{"policy":"countersign-names"}]' };
  const borrowed = {
    ...event('create', { resource: 'pods' }),
    impersonatedUser: { username: controller },
    annotations,
  };
  await account.take([{ ...borrowed, responseStatus: { code: 403 } }]);
  const entry = ledger.read.latest(['protection.refused'], '')?.entry;
  assert.deepEqual([entry?.user, entry?.impersonator], [controller, 'dev']);
});

test('what admission is not asked about needs no entry', async () => {
  const take = await accountWith();
  assert.deepEqual(
    await take(
      event('create', { resource: 'events' }),
      event('create', { resource: 'events', apiGroup: 'events.k8s.io' }),
      event('update', { resource: 'leases', apiGroup: 'coordination.k8s.io' }),
      event('create', { resource: 'localsubjectaccessreviews', apiGroup: 'authorization.k8s.io' }),
      event('create', { resource: 'serviceaccounts', subresource: 'token' }),
    ),
    [],
  );
  assert.deepEqual(await take(event('create', { resource: 'events', apiGroup: 'example.test' })), ['create']);
});
