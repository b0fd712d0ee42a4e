import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Approved,
  type MachineryFacts,
  proveChild,
  proveWrite,
  templateDigest,
} from '../../src/machinery/index.ts';
import type { KubernetesObject, ObjectRef } from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;

const ACCOUNT = 'system:serviceaccount:kube-system:';
const SPEC = { containers: [{ name: 'web', image: 'registry.example.test/shop/web:1.0.0' }] };
const owner = (apiVersion: string, kind: string, name: string, uid = `uid of ${name}`) => ({
  ...{ apiVersion, kind, name, uid },
  controller: true,
  blockOwnerDeletion: true,
});
const object = (apiVersion: string, kind: string, name: string, metadata: Json, rest: Json = {}): KubernetesObject => ({
  apiVersion,
  kind,
  metadata: { name, namespace: 'shop', uid: `uid of ${name}`, ...metadata },
  ...rest,
});

const web = object('apps/v1', 'Deployment', 'web', {}, { spec: { replicas: 1, template: { spec: SPEC } } });
const db = object(
  'apps/v1',
  'StatefulSet',
  'db',
  {},
  {
    spec: {
      volumeClaimTemplates: [{ metadata: { name: 'data' }, spec: {} }],
      persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Delete', whenScaled: 'Retain' },
      template: { spec: SPEC },
    },
  },
);
const kept = object(
  'apps/v1',
  'StatefulSet',
  'kept',
  {},
  { spec: { ...(db['spec'] as Json), persistentVolumeClaimRetentionPolicy: {} } },
);
const settings = object('v1', 'ConfigMap', 'settings', {});
const widget = object('example.test/v1', 'Widget', 'widget', {});
const nightly = object(
  'batch/v1',
  'CronJob',
  'nightly',
  {},
  { spec: { jobTemplate: { spec: { template: { spec: SPEC } } } } },
);
const SIGNER = 'example.test/workload';
const certified = object(
  'v1',
  'Pod',
  'certified',
  {},
  {
    spec: {
      ...SPEC,
      ...{ nodeName: 'node-a', serviceAccountName: 'shop' },
      volumes: [
        { name: 'id', projected: { sources: [{ podCertificate: { signerName: SIGNER, keyType: 'ED25519' } }] } },
      ],
    },
  },
);
const ofGit = [web, db, kept, settings, widget, nightly, certified];

type Around = { readonly more?: readonly KubernetesObject[]; readonly hasOperators?: boolean };

function approvedIn({ hasOperators = false }: Around): Approved {
  const isOwned = ({ kind, name }: Pick<ObjectRef, 'kind' | 'name'>) =>
    ofGit.some((o) => o.kind === kind && o.metadata.name === name);
  return {
    isOwned,
    templates: (o) => (isOwned({ kind: o.kind, name: o.metadata.name }) ? [templateDigest(o) ?? ''] : undefined),
    injected: [],
    hasOperators,
  };
}

function factsOf({ more = [] }: Around): MachineryFacts {
  const all = [...ofGit, ...more];
  return {
    get: async ({ kind, name }) => all.find((o) => o.kind === kind && o.metadata.name === name),
    list: async (_, kind) => all.filter((o) => o.kind === kind),
  };
}

type Write = {
  readonly user?: string;
  readonly operation?: string;
  readonly groups?: readonly string[];
  readonly object?: KubernetesObject | undefined;
  readonly oldObject?: KubernetesObject | undefined;
};

/** Returns `proven`, the reason why not, or undefined where no proof is needed. */
async function proofOf(
  controller: string,
  { operation = 'UPDATE', groups = [], ...given }: Write,
  around: Around = {},
) {
  const { apiVersion, kind, metadata } = (given.object ?? given.oldObject) as KubernetesObject;
  const write = {
    operation,
    user: controller.startsWith('user:') ? controller.slice(5) : `${ACCOUNT}${controller}`,
    groups,
    ref: { apiVersion, kind, namespace: 'shop', name: metadata.name },
    subresource: '',
    object: given.object,
    oldObject: given.oldObject,
  };
  const proof = await proveWrite(write, approvedIn(around), factsOf(around));
  return proof?.kind === 'unproven' ? proof.reason : proof?.kind;
}

const changed = (from: KubernetesObject, metadata: Json, rest: Json = {}): KubernetesObject => ({
  ...from,
  metadata: { ...from.metadata, ...metadata } as KubernetesObject['metadata'],
  ...rest,
});

test('a ReplicaSet whose template was never approved may shrink, and nothing else', async () => {
  const spec = (replicas: number) => ({
    spec: { replicas, template: { spec: { containers: [{ name: 'web', image: 'evil' }] } } },
  });
  const forged = (replicas: number, metadata: Json = {}) =>
    object(
      'apps/v1',
      'ReplicaSet',
      'web-1',
      { ownerReferences: [owner('apps/v1', 'Deployment', 'web')], ...metadata },
      spec(replicas),
    );
  const scaled = (now: KubernetesObject) => proofOf('deployment-controller', { object: now, oldObject: forged(2) });
  assert.equal(await scaled(forged(0)), 'proven');
  assert.equal(
    await scaled(forged(1, { annotations: { 'deployment.kubernetes.io/desired-replicas': '1' } })),
    'proven',
  );
  assert.match(String(await scaled(forged(2))), /its template was not approved/);
  assert.match(String(await scaled(forged(3))), /its template was not approved/);
  assert.match(String(await scaled(forged(1, { annotations: { a: 'b' } }))), /its template was not approved/);
  assert.match(String(await scaled(forged(1, { labels: { a: 'b' } }))), /more than its scale changes/);
});

test('a claim gets no owner but the set that makes it and deletes it, or its pod', async () => {
  const claim = object('v1', 'PersistentVolumeClaim', 'data-db-0', {}, { spec: {} });
  const pod = object('v1', 'Pod', 'db-0', { ownerReferences: [owner('apps/v1', 'StatefulSet', 'db')] });
  const alone = object('v1', 'Pod', 'alone', { ownerReferences: [owner('apps/v1', 'Deployment', 'web')] });
  const given = (reference: Json, from = claim) =>
    proofOf(
      'statefulset-controller',
      { object: changed(from, { ownerReferences: [reference] }), oldObject: from },
      { more: [pod, alone] },
    );
  assert.equal(await given(owner('apps/v1', 'StatefulSet', 'db')), 'proven');
  assert.equal(await given(owner('v1', 'Pod', 'db-0')), 'proven');
  for (const [reference, why] of [
    [owner('apps/v1', 'StatefulSet', 'ghost'), /does not exist/],
    [owner('apps/v1', 'StatefulSet', 'db', 'another'), /does not exist/],
    [owner('v1', 'Pod', 'alone'), /no StatefulSet and no pod of one/],
    [owner('v1', 'ConfigMap', 'settings'), /no StatefulSet and no pod of one/],
    [owner('apps/v1', 'StatefulSet', 'kept'), /does not make it/],
  ] as const)
    assert.match(String(await given(reference)), why);
  const other = object('v1', 'PersistentVolumeClaim', 'data-kept-0', {}, { spec: {} });
  assert.match(String(await given(owner('apps/v1', 'StatefulSet', 'kept'), other)), /keeps its claims/);
});

test('garbage collection removes no object of Git, and writes no status', async () => {
  const dangling = changed(settings, { ownerReferences: [owner('v1', 'Pod', 'gone')] });
  const removed = (oldObject: KubernetesObject) =>
    proofOf('generic-garbage-collector', { operation: 'DELETE', object: undefined, oldObject });
  assert.match(String(await removed(dangling)), /an object of Git/);
  assert.equal(await removed(changed(dangling, { name: 'other' })), 'proven');
  const before = changed(widget, { ownerReferences: [owner('v1', 'Pod', 'gone')] }, { status: { ready: true } });
  const after = (status: Json) =>
    proofOf('generic-garbage-collector', {
      object: changed(before, { ownerReferences: [] }, { status }),
      oldObject: before,
    });
  assert.equal(await after({ ready: true }), 'proven');
  assert.match(String(await after({ ready: false })), /`status.ready` differs/);
});

test('a run of a CronJob has the labels of its pods where the template gives it none', async () => {
  const labels = { 'controller-uid': 'x', 'job-name': 'nightly-1', team: 'shop' };
  const job = (own: Json) =>
    object(
      'batch/v1',
      'Job',
      'nightly-1',
      { labels: own, ownerReferences: [owner('batch/v1', 'CronJob', 'nightly')] },
      { spec: { template: { metadata: { labels }, spec: SPEC } } },
    );
  const proof = (own: Json) =>
    proveChild(job(own), { ...approvedIn({}), templates: () => [templateDigest(job({})) ?? ''] }, factsOf({}));
  assert.deepEqual(await proof({}), { kind: 'proven' });
  assert.deepEqual(await proof(labels), { kind: 'proven' });
  assert.equal((await proof({ ...labels, more: 'x' }))?.kind, 'unproven');
  assert.equal((await proof({ team: 'shop' }))?.kind, 'unproven');
});

test('a reference to an object of Git proves nothing, unless an operator makes objects for that kind', async () => {
  const evil = { spec: { containers: [{ name: 'a', image: 'evil' }] } };
  const pod = (apiVersion: string, kind: string, name: string) =>
    object('v1', 'Pod', 'made', { ownerReferences: [owner(apiVersion, kind, name)] }, evil);
  const made = (kind: string, apiVersion: string) =>
    object(
      apiVersion,
      kind,
      'made',
      { ownerReferences: [owner('v1', 'ConfigMap', 'settings')] },
      { spec: { template: evil } },
    );
  for (const hasOperators of [true, false]) {
    const scan = async (o: KubernetesObject) => (await proveChild(o, approvedIn({ hasOperators }), factsOf({})))?.kind;
    const write = (o: KubernetesObject) =>
      proofOf('user:operator', { operation: 'CREATE', object: o }, { hasOperators });
    const operated = pod('example.test/v1', 'Widget', 'widget');
    assert.equal(await scan(operated), 'unproven', 'only the ledger knows what an operator made');
    assert.equal((await write(operated)) === 'proven', hasOperators);
    const ofSettings = pod('v1', 'ConfigMap', 'settings');
    assert.equal(await scan(ofSettings), 'unproven');
    assert.notEqual(await write(ofSettings), 'proven');
    for (const one of [made('Deployment', 'apps/v1'), made('ReplicaSet', 'apps/v1'), made('Job', 'batch/v1')])
      assert.equal(await scan(one), 'unproven', one.kind);
  }
});

test('a declared controller does not change a pod that runs, unless it made it', async () => {
  const pod = object(
    'v1',
    'Pod',
    'web-1',
    { ownerReferences: [owner('apps/v1', 'Deployment', 'web')] },
    { spec: SPEC },
  );
  const update = (from: KubernetesObject, metadata: Json, rest: Json = {}) =>
    proofOf('user:controller', { object: changed(from, metadata, rest), oldObject: from }, { hasOperators: true });
  const evil = { spec: { containers: [{ name: 'web', image: 'evil' }] } };
  assert.match(String(await update(pod, {}, evil)), /spec\.containers\[web\]\.image` differs/);
  assert.match(String(await update(pod, { labels: { app: 'other' } })), /metadata.labels/);
  assert.match(String(await update(pod, { ownerReferences: [owner('v1', 'Pod', 'x')] })), /a new owner/);
  assert.equal(await update(pod, { finalizers: [] }), 'proven');
  const operated = changed(pod, { ownerReferences: [owner('example.test/v1', 'Widget', 'widget')] });
  assert.equal(await update(operated, {}, evil), 'proven');
});

test('a node asks for certificates of pods that run on it, as their volumes ask for them, and of no others', async () => {
  const asked = {
    ...{ signerName: SIGNER, podName: 'certified', podUID: 'uid of certified' },
    ...{ nodeName: 'node-a', serviceAccountName: 'shop', stubPKCS10Request: 'MA==' },
  };
  const request = (spec: Json) => object('certificates.k8s.io/v1', 'PodCertificateRequest', 'req-1', {}, { spec });
  const made = (spec: Json, user = 'system:node:node-a', more: readonly KubernetesObject[] = []) =>
    proofOf(
      `user:${user}`,
      { operation: 'CREATE', groups: ['system:nodes'], object: request({ ...asked, ...spec }) },
      { more },
    );
  assert.equal(await made({}), 'proven');
  const forged = object('v1', 'Pod', 'forged', {}, { spec: certified['spec'] });
  for (const [spec, why, user] of [
    [{}, /not for a pod of this node/, 'system:node:node-b'],
    [{ nodeName: 'node-b' }, /does not run on this node/, 'system:node:node-b'],
    [{ podUID: 'another' }, /its pod with this uid does not exist/],
    [{ podName: 'ghost' }, /its pod with this uid does not exist/],
    [{ serviceAccountName: 'admin' }, /another service account/],
    [{ signerName: 'example.test/root' }, /no volume of its pod asks for this certificate/],
    [{ unverifiedUserAnnotations: { 'example.test/role': 'admin' } }, /no volume of its pod asks/],
    [{ podName: 'forged', podUID: 'uid of forged' }, /no controller owns it/],
  ] as const)
    assert.match(String(await made(spec, user, [forged])), why);
});

test('old requests for certificates are removed, unless they are of Git', async () => {
  const request = object('certificates.k8s.io/v1', 'PodCertificateRequest', 'req-1', {});
  const gone = (oldObject: KubernetesObject) =>
    proofOf('podcertificaterequestcleaner', { operation: 'DELETE', oldObject });
  assert.equal(await gone(request), 'proven');
  ofGit.push(request);
  assert.match(String(await gone(request)), /it is an object of Git/);
  ofGit.pop();
});
