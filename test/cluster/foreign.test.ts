import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Objects in a governed namespace that come from no commit.
const stage = await openStage(scratch());
const PATH = 'clusters/production';

const db = (ns: string) => `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: ${ns}}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: web
          image: registry.example.test/shop/web:1.0.0
          resources: {limits: {cpu: 100m, memory: 64Mi}}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`;

test('what someone made while the gate was away is an exception, one for each object, until it is gone', async () => {
  const ns = 'foreign';
  const files = { [`${PATH}/web.yaml`]: deployment(ns, 'web', { replicas: 1 }), [`${PATH}/db.yaml`]: db(ns) };
  const { service, configuration } = await stage.running(ns, {}, { files });
  const claims = `/api/v1/namespaces/${ns}/persistentvolumeclaims`;
  await stage.waitFor(async () => (await stage.get(`${claims}/data-db-0`)).status === 200, 'the claim of the set');
  await service.stop();
  const oncall = await stage.as('oncall');
  await oncall.request(
    'DELETE',
    `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${stage.webhook}`,
  );
  const rbac = 'rbac.authorization.k8s.io/v1';
  const made = [
    [`/api/v1/namespaces/${ns}/configmaps`, { apiVersion: 'v1', kind: 'ConfigMap', data: { a: '1' } }],
    [`/api/v1/namespaces/${ns}/secrets`, { apiVersion: 'v1', kind: 'Secret', stringData: { a: '1' } }],
    [`/apis/${rbac}/namespaces/${ns}/roles`, { apiVersion: rbac, kind: 'Role', rules: [] }],
    [
      claims,
      {
        ...{ apiVersion: 'v1', kind: 'PersistentVolumeClaim' },
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
      },
    ],
  ] as const;
  for (const [path, body] of made) {
    const answer = await stage.admin.request('POST', `${path}?fieldManager=by-hand`, {
      ...body,
      metadata: { name: 'stray' },
    });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
  }
  const again = await stage.serve(configuration, ns);
  const rows = async () => {
    const { stdout } = await countersign(['exception', 'list', '--data', again.data, '--output', 'json']);
    return (JSON.parse(stdout) as { type: string; object: string; actor: string; cause: string }[]).filter(
      (row) => row.type === 'out-of-band-change',
    );
  };
  const kinds = made.map(([, { kind }]) => `${kind} ${ns}/stray`).sort();
  await stage.waitFor(async () => (await rows()).length >= kinds.length, 'the exceptions');
  // It was read in the same scan as the others, or after it.
  await again.entry('cluster.scanned', 'production', (e) => e.unmanaged >= kinds.length);
  const found = await rows();
  assert.deepEqual(found.map((row) => row.object).sort(), kinds, JSON.stringify(found));
  assert.ok(found.every((row) => row.actor === 'by-hand' && row.cause.startsWith('no commit has it')));
  const reason = { metadata: { annotations: { 'countersign.dev/break-glass': 'to remove it' } } };
  const opened = await oncall.request('PATCH', `/api/v1/namespaces/${ns}`, reason, 'application/merge-patch+json');
  assert.equal(opened.status, 200, JSON.stringify(opened.body));
  assert.equal((await oncall.request('DELETE', `/api/v1/namespaces/${ns}/configmaps/stray`)).status, 200);
  const { entry } = await again.entry('content.resolved', 'production', (e) => e.object.kind === 'ConfigMap');
  assert.equal(entry.how, 'proven or gone');
  assert.equal(again.entries('content.unproven', 'production').length, kinds.length);
});

const group = 'operated.example.test';
const pump = `apiVersion: ${group}/v1
kind: Contraption
metadata: {name: pump, namespace: operated-by}
`;
const definition = {
  ...{
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `contraptions.${group}` },
  },
  spec: {
    ...{ group, scope: 'Namespaced', names: { plural: 'contraptions', kind: 'Contraption' } },
    versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
  },
};

test('what an operator made is proven by the record of it, never by its owner or its times', async () => {
  const ns = 'operated-by';
  const core = `/api/v1/namespaces/${ns}`;
  const deployments = `/apis/apps/v1/namespaces/${ns}/deployments`;
  await stage.admin.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', definition);
  const all = `/apis/${group}/v1/contraptions`;
  await stage.waitFor(async () => (await stage.get(all)).status === 200, 'the kind');
  const { service, configuration } = await stage.running(
    ns,
    {},
    {
      files: { [`${PATH}/pump.yaml`]: pump },
      arguments: ['--rescan', '3s'],
      environment: { admission: { mode: 'enforce', operators: ['user:operator'] } },
    },
  );
  const { body } = await stage.get(`/apis/${group}/v1/namespaces/${ns}/contraptions/pump`);
  const { uid } = body['metadata'] as { uid: string };
  const owner = { apiVersion: `${group}/v1`, kind: 'Contraption', name: 'pump', uid, controller: true };
  const metadata = (name: string) => ({ name, ownerReferences: [owner] });
  const config = (a: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: metadata('made'), data: { a } });
  const web = (name: string, image: string) => ({
    ...{ apiVersion: 'apps/v1', kind: 'Deployment', metadata: metadata(name) },
    spec: {
      ...{ replicas: 1, selector: { matchLabels: { app: name } } },
      template: {
        metadata: { labels: { app: name } },
        spec: { containers: [{ name: 'web', image, resources: { limits: { cpu: '100m', memory: '64Mi' } } }] },
      },
    },
  });
  const operator = await stage.as('operator');
  const write = async (method: string, path: string, object: object, by = operator) => {
    const answer = await by.request(method, path, object);
    assert.ok(answer.status < 300, JSON.stringify(answer.body));
  };
  await write('POST', `${core}/configmaps`, config('1'));
  await write('POST', deployments, web('made', 'registry.example.test/made:1'));
  await write('PUT', `${core}/configmaps/made`, config('2'));
  await stage.waitFor(async () => {
    const { body: pods } = await stage.get(`${core}/pods`);
    return (pods['items'] as unknown[]).length === 1;
  }, 'the pod of the operator’s Deployment');
  await service.entry('admission.standing', 'production', (e) => e.count > 0);
  await service.stop();
  assert.deepEqual(service.entries('content.unproven', 'production'), []);
  const hooks = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';
  await (await stage.as('oncall')).request('DELETE', `${hooks}/${stage.webhook}`);
  // All of it with the owner, and under the name of the operator’s field manager.
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata: metadata('forged') };
  await write('PUT', `${core}/configmaps/made?fieldManager=operator`, config('1'), stage.admin);
  await write('POST', `${core}/secrets?fieldManager=operator`, secret, stage.admin);
  await write('POST', `${deployments}?fieldManager=operator`, web('forged', 'evil'), stage.admin);
  const again = await stage.serve(configuration, ns);
  for (const kind of ['ConfigMap', 'Secret', 'Deployment'])
    await again.entry('content.unproven', 'production', (e) => e.object.kind === kind);
  const { entry: scanned } = await again.entry('cluster.scanned', 'production', (e) => e.objects > 5);
  assert.ok(scanned.objects > 5);
  const found = again.entries('content.unproven', 'production').map(({ entry }) => entry);
  assert.deepEqual(found.map(({ object }) => `${object.kind} ${object.name}`).sort(), [
    'ConfigMap made',
    'Deployment forged',
    'Secret forged',
  ]);
  const [forged] = found.filter(({ object }) => object.kind === 'Deployment');
  assert.match(forged?.reason ?? '', /the gate did not let an operator make it as it is/);
});
