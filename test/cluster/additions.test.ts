import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { deployment, service as serviceManifest } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// What somebody adds beside Git's fields is drift, whoever they say they are.

const PATH = 'clusters/production';
const MERGE = 'application/merge-patch+json';
const PATCH = 'application/json-patch+json';
const stage = await openStage(scratch());

const EVIL = { name: 'miner', image: 'registry.example.test/evil/miner:1' };
const containersOf = (object: KubernetesObject) =>
  (object['spec'] as { template: { spec: { containers: { name: string }[] } } }).template.spec.containers.map(
    (c) => c.name,
  );

test('what others add to objects of Git is removed: containers, env, ports, rules, labels, annotations, a scale', async () => {
  const ns = 'additions';
  const budget = `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: ${ns}}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
`;
  const web = deployment(ns, 'web');
  const one = deployment(ns, 'one').replace(/ {2}replicas: 2\n/, '');
  const { fleet, service } = await stage.running(
    ns,
    {},
    {
      environment: { mode: 'audit' },
      files: {
        [`${PATH}/web.yaml`]: web,
        [`${PATH}/one.yaml`]: one,
        [`${PATH}/svc.yaml`]: serviceManifest(ns, 'web'),
        [`${PATH}/pdb.yaml`]: budget,
      },
    },
  );
  const apps = `/apis/apps/v1/namespaces/${ns}/deployments`;
  const core = `/api/v1/namespaces/${ns}`;
  const find = async (path: string) => (await stage.get(path)).body as unknown as KubernetesObject;
  const dev = await stage.as('dev');
  const before = new Map<string, string>();
  const paths = [`${apps}/web`, `${apps}/one`, `${core}/services/web`, `${core}/configmaps/settings`, core];
  const plain = (o: KubernetesObject) => {
    const { managedFields: _, resourceVersion: __, generation: ___, ...metadata } = o.metadata;
    const { status: ____, ...rest } = o;
    // the number of the rollout goes on
    const { 'deployment.kubernetes.io/revision': _____, ...annotations } = metadata.annotations ?? {};
    return JSON.stringify({ ...rest, metadata: { ...metadata, annotations } });
  };
  await stage.waitFor(
    async () => (await find(`${apps}/web`)).metadata.annotations?.['deployment.kubernetes.io/revision'] === '1',
    'the first rollout',
  );
  for (const path of paths) before.set(path, plain(await find(path)));
  let count = 0;
  const undone = async (path: string, body: unknown, type: string, manager = 'kubectl') => {
    const at = `${path}${path.includes('?') ? '&' : '?'}fieldManager=${manager}`;
    const answer = await dev.request('PATCH', at, body, type);
    assert.equal(answer.status, 200, JSON.stringify(answer.body).slice(0, 300));
    const of = path.replace(/\/scale$/, '');
    assert.notEqual(plain(await find(of)), before.get(of), 'it was written');
    await stage.waitFor(async () => plain(await find(of)) === before.get(of), `undoing ${JSON.stringify(body)}`);
    count++;
    await stage.waitFor(async () => service.entries('drift.corrected', 'production').length >= count, 'its record');
  };
  await undone(`${apps}/web`, [{ op: 'add', path: '/spec/template/spec/containers/-', value: EVIL }], PATCH);
  await undone(
    `${apps}/web`,
    [{ op: 'add', path: '/spec/template/spec/containers/0/env', value: [{ name: 'LD_PRELOAD', value: '/x' }] }],
    PATCH,
    'kube-controller-manager',
  );
  await undone(`${apps}/one/scale`, { spec: { replicas: 3 } }, MERGE);
  await undone(
    `${core}/services/web`,
    [
      { op: 'add', path: '/spec/ports/-', value: { name: 'b', port: 81 } },
      { op: 'add', path: '/spec/ports/0/name', value: 'a' },
    ],
    PATCH,
  );
  await undone(`${core}/configmaps/settings`, { data: { extra: '1' } }, MERGE);
  await undone(
    core,
    { metadata: { labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } } },
    MERGE,
    'countersign',
  );
  assert.deepEqual(service.entries('drift.remains', 'production'), []);

  // While the gate is away, and managers are wiped out: the next change does not roll it out either.
  await service.stop();
  const oncall = await stage.as('oncall');
  const hooks = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';
  assert.equal((await oncall.request('DELETE', `${hooks}/${stage.webhook}`)).status, 200);
  const miner = [{ op: 'add', path: '/spec/template/spec/containers/-', value: EVIL }];
  // the API server needs a moment to notice
  await stage.waitFor(async () => (await dev.request('PATCH', `${apps}/web`, miner, PATCH)).status === 200, 'a write');
  await dev.request('PATCH', `${apps}/web`, [{ op: 'replace', path: '/metadata/managedFields', value: [{}] }], PATCH);
  const next = await stage.change(fleet, 'more', { [`${PATH}/web.yaml`]: web.replace('replicas: 2', 'replicas: 3') });
  const again = await stage.serve(stage.configuration(ns, [{ url: fleet.url, namespaces: [ns], mode: 'audit' }]), ns);
  await again.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.deepEqual(containersOf(await find(`${apps}/web`)), ['web']);
});

test('what the cluster itself writes is no drift: claims, autoscaled replicas, addresses, tokens', async () => {
  const ns = 'written';
  const more = `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: ${ns}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 5
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: ${ns}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: ${ns}, annotations: {countersign.dev/allow: run}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: registry.example.test/shop/web:1.0.0, resources: {limits: {cpu: 1, memory: 64Mi}}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: ${ns}}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
`;
  const { fleet, service } = await stage.running(
    ns,
    {},
    { files: { [`${PATH}/web.yaml`]: deployment(ns, 'web'), [`${PATH}/svc.yaml`]: serviceManifest(ns, 'web') } },
  );
  const second = await stage.change(fleet, 'more', { [`${PATH}/more.yaml`]: more });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const scaler = await stage.as('controller');
  const scale = `/apis/apps/v1/namespaces/${ns}/deployments/web/scale`;
  assert.equal((await scaler.request('PATCH', scale, { spec: { replicas: 4 } }, MERGE)).status, 200);
  await service.looksAgain(3);
  assert.deepEqual(
    service.entries('drift.found', 'production').map(({ entry }) => entry.details),
    [],
  );
  assert.equal(((await stage.get(scale)).body['spec'] as { replicas: number }).replicas, 4);
  assert.equal((await scaler.request('PATCH', scale, { spec: { replicas: 50 } }, MERGE)).status, 200);
  await stage.waitFor(
    async () => ((await stage.get(scale)).body['spec'] as { replicas: number }).replicas === 2,
    'the scale of Git, because 50 is beyond the bounds of the autoscaler',
  );
});

test('a write between reading an object and its dry run is no drift', async () => {
  const ns = 'between';
  const ignore = [{ kind: 'Deployment', fields: ['/spec/replicas'] }];
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  try {
    const { service } = await stage.running(
      ns,
      { drift: { ignore } },
      { files: { [`${PATH}/web.yaml`]: deployment(ns, 'web') }, kubeconfig: proxy.kubeconfig },
    );
    const path = `/apis/apps/v1/namespaces/${ns}/deployments/web`;
    const scaler = await stage.as('controller');
    const scaleTo = async (replicas: number) =>
      assert.equal((await scaler.request('PATCH', `${path}/scale`, { spec: { replicas } }, MERGE)).status, 200);
    let isHeld = false;
    proxy.fault = ({ method, path: asked, dryRun }) => {
      if (isHeld || !dryRun || method !== 'PUT' || asked.split('?')[0] !== path) return 'pass';
      isHeld = true;
      return { delayMs: 3000 };
    };
    await scaleTo(4);
    await stage.waitFor(() => Promise.resolve(isHeld), 'the dry run of a comparison');
    await scaleTo(5);
    await service.looksAgain(3);
    assert.deepEqual(
      service.entries('drift.found', 'production').map(({ entry }) => entry.details),
      [],
    );
    assert.equal(((await stage.get(`${path}/scale`)).body['spec'] as { replicas: number }).replicas, 5);
  } finally {
    await proxy.stop();
  }
});

test('an object that cannot be read is not taken for one that is missing: what is left to others stays', async () => {
  const ns = 'unread';
  const ignore = [{ kind: 'Deployment', fields: ['/spec/replicas'] }];
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  try {
    const web = deployment(ns, 'web');
    const { fleet, service } = await stage.running(
      ns,
      { drift: { ignore } },
      { files: { [`${PATH}/web.yaml`]: web }, kubeconfig: proxy.kubeconfig },
    );
    const path = `/apis/apps/v1/namespaces/${ns}/deployments/web`;
    const scaler = await stage.as('controller');
    assert.equal((await scaler.request('PATCH', `${path}/scale`, { spec: { replicas: 7 } }, MERGE)).status, 200);
    const forbidden = { kind: 'Status', message: 'not you', reason: 'Forbidden', code: 403 };
    proxy.fault = ({ method, path: asked }) =>
      method === 'GET' && asked.split('?')[0] === path ? { status: 403, body: forbidden } : 'pass';
    const next = await stage.change(fleet, 'image', { [`${PATH}/web.yaml`]: web.replace('web:1.0.0', 'web:2.0.0') });
    const refused = await service.entry('apply.refused', 'production', (e) => e.revision === next);
    assert.match(refused.entry.error, /Deployment unread\/web/);
    const { replicas } = (await stage.get(path)).body['spec'] as { replicas: number };
    assert.equal(replicas, 7, 'nothing was written');
    proxy.fault = () => 'pass';
    await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  } finally {
    await proxy.stop();
  }
});
