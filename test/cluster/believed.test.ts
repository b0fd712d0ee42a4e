import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { ADMITS, type KubernetesObject } from '../../src/model/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { startMutator } from '../kit/injector.ts';
import { configMap, deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Things that look right by their name, or by who says so.
const directory = scratch();
const stage = await openStage(directory);
const PATH = 'clusters/production';
const controller = (name: string) => actingAs(stage.controlPlane.url, name);

const solo = (ns: string) => `apiVersion: v1
kind: Pod
metadata: {name: solo, namespace: ${ns}, labels: {app: solo}}
spec:
  containers:
    - {name: web, image: "registry.example.test/shop/web:1.0.0", resources: {limits: {cpu: 100m, memory: 64Mi}}}
`;

test('another pod under the name of a pod of Git is found, also if it was put there while the gate was away', async () => {
  const ns = 'by-name';
  const { service, configuration } = await stage.running(
    ns,
    {},
    { files: { [`${PATH}/solo.yaml`]: solo(ns), [`${PATH}/web.yaml`]: deployment(ns, 'web', { replicas: 1 }) } },
  );
  const pods = `/api/v1/namespaces/${ns}/pods`;
  const live = async () => (await stage.get(`${pods}/solo`)).body as unknown as KubernetesObject;
  await stage.waitFor(async () => (await live()).metadata?.['uid'] !== undefined, 'the pod');
  const { metadata, spec } = await live();
  await service.stop();
  // In the gap the cluster's controllers pass, and so does someone who has a token of theirs.
  assert.equal(
    (await controller('pod-garbage-collector').request('DELETE', `${pods}/solo?gracePeriodSeconds=0`)).status,
    200,
  );
  const { labels, annotations } = metadata;
  const evil = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'solo', labels, annotations },
    spec: {
      containers: containersOf(spec).map((c) => ({ ...c, securityContext: { privileged: true } })),
      hostPID: true,
    },
  };
  const created = await controller('replicaset-controller').request('POST', pods, evil);
  assert.equal(created.status, 201, JSON.stringify(created.body));
  const again = await stage.serve(configuration, ns);
  const { entry } = await again.entry('content.unproven', 'production', (e) => e.object.name === 'solo');
  assert.match(entry.reason, /it is not the pod that was approved under this name/);
});

test('a webhook that answers a dry run in the gate’s name stops the change, and names itself by that', async (t) => {
  const ns = 'two-answers';
  const { fleet, service } = await stage.running(ns);
  const mutator = await startMutator(stage.admin, join(directory, 'answers'), {
    name: 'answers',
    namespace: ns,
    rule: { apiGroups: [''], operations: ['CREATE', 'UPDATE'], resources: ['configmaps'] },
    patch: () => [],
    warnings: [`${ADMITS}${'a'.repeat(64)} ${'b'.repeat(64)}`],
  });
  t.after(() => mutator.stop());
  const red = configMap(ns, 'settings', { colour: 'red' });
  const second = await stage.change(fleet, 'red', { [`${PATH}/cm.yaml`]: red });
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === second);
  assert.match(entry.error, /ConfigMap two-answers\/settings: another webhook answers in the gate’s name/);
  await mutator.stop();
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  assert.deepEqual(await stage.dataOf(ns, 'settings'), { colour: 'red' });
});

function containersOf(spec: unknown): readonly Record<string, unknown>[] {
  return (spec as { containers: Record<string, unknown>[] }).containers.map(({ name, image, resources }) => ({
    name,
    image,
    resources,
  }));
}
