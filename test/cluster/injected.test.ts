import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { type Injected, startInjector } from '../kit/injector.ts';
import { deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const directory = scratch();
const stage = await openStage(directory);
const PATH = 'clusters/production';
const MESH = `registry.example.test/mesh/proxy@sha256:${'a'.repeat(64)}`;

const added = (image: string): Injected => ({
  container: {
    name: 'mesh-proxy',
    image,
    args: ['proxy'],
    volumeMounts: [{ name: 'mesh-certs', mountPath: '/certs' }],
    securityContext: { runAsUser: 1337, capabilities: { drop: ['ALL'] } },
  },
  volume: { name: 'mesh-certs', emptyDir: { medium: 'Memory' } },
  annotations: { 'mesh.example.test/status': 'injected' },
});

const DECLARED = {
  name: 'mesh',
  containers: [{ name: 'mesh-proxy', image: MESH.replace(/[0-9a-f]{64}/, '*') }],
  volumes: [{ name: 'mesh-certs', emptyDir: {} }],
  annotations: ['mesh.example.test/status'],
};

test('pods run with the sidecar that is declared, and not with another image of that name', async (t) => {
  const ns = 'meshed';
  let image = MESH;
  const injector = await startInjector(stage.admin, join(directory, 'injector'), ns, () => added(image));
  t.after(() => injector.stop());
  const { fleet, service } = await stage.running(
    ns,
    {},
    { environment: { admission: { injected: [DECLARED] } }, files: { [`${PATH}/web.yaml`]: deployment(ns, 'web') } },
  );
  const pods = async () => (await stage.get(`/api/v1/namespaces/${ns}/pods`)).body['items'] as KubernetesObject[];
  const sidecarOf = (pod: KubernetesObject) =>
    (pod['spec'] as { containers: { name: string; volumeMounts: { name: string }[] }[] }).containers.find(
      (c) => c.name === 'mesh-proxy',
    );
  await stage.waitFor(async () => (await pods()).length === 2, 'two pods');
  // The API server runs its own plugins after the injector.
  for (const pod of await pods())
    assert.ok(sidecarOf(pod)?.volumeMounts.some((m) => m.name.startsWith('kube-api-access-')));
  const learned = await countersign([
    'admission',
    'learn',
    '--namespace',
    ns,
    '--name',
    'mesh',
    '--kubeconfig',
    stage.controlPlane.kubeconfig('admin'),
  ]);
  assert.deepEqual([learned.code, learned.stderr], [0, '']);
  assert.match(
    learned.stdout,
    /^# 2 pods in meshed; for spec.admission of an Environment\ninjected:\n {2}- name: mesh\n/,
  );
  const found = () => service.entries('content.unproven', 'production').map(({ entry: e }) => e.reason);
  assert.deepEqual(found(), []);
  assert.deepEqual(service.entries('admission.denied', 'production'), []);
  image = 'registry.example.test/mesh/evil:1.0.0';
  await stage.change(fleet, 'scale', { [`${PATH}/web.yaml`]: deployment(ns, 'web', { replicas: 3 }) });
  const { entry: denied } = await service.entry('admission.denied', 'production', (e) => e.object.kind === 'Pod');
  assert.match(
    denied.reason,
    /`mesh` declares the container `mesh-proxy` without its image `registry.example.test\/mesh\/evil:1.0.0`/,
  );
  assert.match(denied.reason, /declare it under `spec.admission.injected`/);
  assert.equal((await pods()).length, 2);
});
