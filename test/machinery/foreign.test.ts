import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Approved, type MachineryFacts, proveForeign } from '../../src/machinery/index.ts';
import { CountersignError, type KubernetesObject } from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;

const object = (apiVersion: string, kind: string, name: string, metadata: Json = {}, rest: Json = {}) =>
  ({
    ...{ apiVersion, kind },
    metadata: { name, namespace: 'shop', uid: `uid of ${name}`, ...metadata },
    ...rest,
  }) as KubernetesObject;
const owned = (by: KubernetesObject, uid = by.metadata['uid']) => ({
  ownerReferences: [{ apiVersion: by.apiVersion, kind: by.kind, name: by.metadata.name, uid, controller: true }],
});
const root = (namespace: string, certificate: string) =>
  object('v1', 'ConfigMap', 'kube-root-ca.crt', { namespace }, { data: { 'ca.crt': certificate } });

const settings = object('v1', 'ConfigMap', 'settings');
const widget = object('example.test/v1', 'Widget', 'widget');
const db = object(
  'apps/v1',
  'StatefulSet',
  'db',
  {},
  {
    spec: {
      selector: { matchLabels: { app: 'db' } },
      template: { spec: { containers: [{ name: 'db', image: 'db' }] } },
      volumeClaimTemplates: [{ metadata: { name: 'data' }, spec: { resources: { requests: { storage: '1Gi' } } } }],
    },
  },
);
const standard = object('storage.k8s.io/v1', 'StorageClass', 'standard', {
  annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' },
});
const ofGit = [settings, widget, db];

async function proofOf(o: KubernetesObject, { hasOperators = false, away = false } = {}): Promise<string> {
  const isOwned = ({ kind, name }: { kind: string; name: string }) =>
    ofGit.some((g) => g.kind === kind && g.metadata.name === name);
  const approved: Approved = {
    injected: [],
    hasOperators,
    isOwned,
    templates: ({ kind, metadata }) => (isOwned({ kind, name: metadata.name }) ? ['a template'] : undefined),
  };
  const all = [...ofGit, standard, root('kube-system', 'the certificate')];
  const ask = () => {
    if (away) throw new CountersignError('cluster-unreachable', 'it does not answer', { recover: 'retry' });
  };
  const facts: MachineryFacts = {
    get: async ({ kind, name, namespace }) => {
      ask();
      return all.find(
        (f) =>
          f.kind === kind && f.metadata.name === name && (f.metadata.namespace === namespace || kind !== 'ConfigMap'),
      );
    },
    list: async (_, kind) => {
      ask();
      return all.filter((f) => f.kind === kind);
    },
  };
  const proof = await proveForeign(o, approved, facts);
  return proof.kind === 'unproven' ? proof.reason : proof.kind;
}

test('an object that no commit has is unproven, whatever its kind and its names', async () => {
  for (const o of [
    object('v1', 'ConfigMap', 'mine'),
    object('v1', 'Secret', 'mine', {}, { type: 'kubernetes.io/service-account-token' }),
    object('rbac.authorization.k8s.io/v1', 'Role', 'mine'),
    object('v1', 'ServiceAccount', 'builder'),
    object('v1', 'Service', 'kubernetes', {}, { spec: { type: 'ClusterIP' } }),
    object('example.test/v1', 'Widget', 'other'),
    object('apps.example.test/v1', 'ConfigMap', 'kube-root-ca.crt', {}, { data: { 'ca.crt': 'the certificate' } }),
  ])
    assert.match(await proofOf(o), /^no commit has it/, `${o.kind} ${o.metadata.name}`);
});

test('what the control plane puts into every namespace is proven by its content', async () => {
  assert.equal(await proofOf(root('shop', 'the certificate')), 'proven');
  assert.match(await proofOf(root('shop', 'mine')), /not the one of kube-system: `data.ca.crt` differs/);
  assert.equal(await proofOf(object('v1', 'ServiceAccount', 'default')), 'proven');
  assert.match(
    await proofOf(object('v1', 'ServiceAccount', 'default', {}, { imagePullSecrets: [{ name: 'mine' }] })),
    /it has content/,
  );
  const labels = { component: 'apiserver', provider: 'kubernetes' };
  const service = (spec: Json, more: Json = {}) =>
    object('v1', 'Service', 'kubernetes', { namespace: 'default', labels, ...more }, { spec });
  assert.equal(await proofOf(service({ type: 'ClusterIP' })), 'proven');
  assert.match(
    await proofOf(service({ type: 'ClusterIP', selector: { app: 'mine' } })),
    /not the one of the API server/,
  );
  assert.match(await proofOf(service({ type: 'ExternalName' })), /not the one of the API server/);
  assert.match(await proofOf(service({ type: 'ClusterIP' }, { labels: {} })), /not the one of the API server/);
});

test('a claim is proven by the StatefulSet that makes it, also once it has its volume', async () => {
  const claim = (name: string, spec: Json = {}) =>
    object(
      'v1',
      'PersistentVolumeClaim',
      name,
      { labels: { app: 'db' } },
      {
        spec: {
          ...{ resources: { requests: { storage: '1Gi' } }, volumeMode: 'Filesystem', storageClassName: 'standard' },
          ...spec,
        },
      },
    );
  assert.equal(await proofOf(claim('data-db-0')), 'proven');
  assert.equal(await proofOf(claim('data-db-0', { volumeName: 'pv-1' })), 'proven');
  assert.match(await proofOf(claim('mine')), /no commit has it, and no StatefulSet in Git makes it/);
  assert.match(await proofOf(claim('data-db-0', { storageClassName: 'other' })), /storageClassName` is added/);
  assert.match(await proofOf(claim('data-db-0', { dataSource: { kind: 'x' } })), /dataSource` is added/);
});

test('an owner in Git proves nothing about an object, also where operators are declared', async () => {
  for (const owner of [widget, settings])
    assert.match(
      await proofOf(object('v1', 'Secret', 'made', owned(owner)), { hasOperators: true }),
      /no commit has it/,
      owner.kind,
    );
});

test('a cluster that does not answer leaves it open', async () => {
  assert.equal(await proofOf(root('shop', 'the certificate'), { away: true }), 'unknown');
});
