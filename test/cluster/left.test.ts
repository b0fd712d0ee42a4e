import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Fields of a template that are left to others.
const stage = await openStage(scratch());
const PATCH = 'application/json-patch+json';

test('one path of a template is left to others, and the rest of it must still be as approved', async () => {
  const ns = 'left-fields';
  const { service, configuration } = await stage.running(
    ns,
    { drift: { ignore: [{ kind: 'Deployment', name: 'web', fields: ['/spec/template/spec/containers/0/image'] }] } },
    { files: { 'clusters/production/web.yaml': deployment(ns, 'web', { replicas: 1 }) } },
  );
  const web = `/apis/apps/v1/namespaces/${ns}/deployments/web`;
  const images = async () =>
    ((await stage.get(`/api/v1/namespaces/${ns}/pods?labelSelector=app%3Dweb`)).body['items'] as KubernetesObject[])
      .filter((p) => p.metadata['deletionTimestamp'] === undefined)
      .map((p) => (p['spec'] as { containers: { image: string }[] }).containers.map((c) => c.image).join(' '));
  await stage.waitFor(async () => (await images()).length === 1, 'the pod of Git');
  const dev = await stage.as('dev');
  const image = [{ op: 'replace', path: '/spec/template/spec/containers/0/image', value: 'registry.example.test/x:2' }];
  const set = await dev.request('PATCH', web, image, PATCH);
  assert.equal(set.status, 200, JSON.stringify(set.body));
  const all = async () => (await images()).join();
  await stage.waitFor(async () => (await all()) === 'registry.example.test/x:2', 'the pod with the other image');
  assert.deepEqual(
    service.entries('admission.denied', 'production').map((r) => r.entry.reason),
    [],
  );
  const command = [{ op: 'add', path: '/spec/template/spec/containers/0/command', value: ['mine'] }];
  assert.equal((await dev.request('PATCH', web, command, PATCH)).status, 403);
  await service.stop();

  const webhook = `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${stage.webhook}`;
  await (await stage.as('oncall')).request('DELETE', webhook);
  assert.equal((await stage.admin.request('PATCH', web, command, PATCH)).status, 200);
  const sets = async () =>
    (await stage.get(`/apis/apps/v1/namespaces/${ns}/replicasets`)).body['items'] as KubernetesObject[];
  await stage.waitFor(async () => (await sets()).length === 3, 'the ReplicaSet with the command');
  const again = await stage.serve(configuration, ns);
  const { entry } = await again.entry('content.unproven', 'production', () => true);
  assert.match(entry.reason, /template/);
  const found = (await sets()).find((s) => s.metadata['uid'] === entry.uid);
  assert.match(JSON.stringify(found?.['spec'] ?? entry.object), /"command":\["mine"\]/);
});
