import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { deployment, service as serviceManifest } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Where Services of Git lead.
const stage = await openStage(scratch());
const PATH = 'clusters/production';
const IMAGE = 'registry.example.test/shop/web';

const outside = (ns: string) => `apiVersion: v1
kind: Service
metadata: {name: outside, namespace: ${ns}}
spec: {ports: [{port: 443}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside, namespace: ${ns}}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 443}]}]
`;

test('a Service of Git that is led elsewhere is an exception within seconds, and rollouts raise none', async () => {
  const ns = 'endpoints';
  const web = (tag: string, replicas: number) => deployment(ns, 'web', { image: `${IMAGE}:${tag}`, replicas });
  const { service, fleet } = await stage.running(
    ns,
    {},
    {
      arguments: ['--rescan', '5s'],
      files: {
        [`${PATH}/web.yaml`]: web('1.0.0', 4),
        [`${PATH}/svc.yaml`]: serviceManifest(ns, 'web'),
        [`${PATH}/outside.yaml`]: outside(ns),
      },
    },
  );
  const slices = `/apis/discovery.k8s.io/v1/namespaces/${ns}/endpointslices`;
  const all = async () => (await stage.get(slices)).body['items'] as KubernetesObject[];
  const of = (items: readonly KubernetesObject[], name: string) =>
    items.filter((s) => s.metadata.labels?.['kubernetes.io/service-name'] === name);
  const addresses = async (name: string) =>
    of(await all(), name).flatMap((s) => (s['endpoints'] ?? []) as readonly { readonly addresses: string[] }[]).length;
  await stage.waitFor(async () => (await addresses('web')) === 4, 'the endpoints of the pods');
  await stage.waitFor(async () => (await addresses('outside')) === 1, 'the mirrored slice');
  const unproven = () =>
    service.entries('content.unproven', 'production').map(({ entry: e }) => [e.object.kind, e.object.name, e.reason]);
  for (const [tag, replicas] of [
    ['1.1.0', 6],
    ['1.2.0', 2],
    ['1.0.0', 5],
  ] as const) {
    const revision = await stage.change(fleet, `roll out ${tag}`, { [`${PATH}/web.yaml`]: web(tag, replicas) });
    await service.entry('apply.result', 'production', (e) => e.revision === revision && e.outcome === 'applied');
    await stage.waitFor(async () => (await addresses('web')) === replicas, `the endpoints of ${tag}`);
  }
  // Longer than a doubt lasts, and with a full scan in it.
  await new Promise((done) => setTimeout(done, 8000));
  assert.deepEqual(unproven(), []);

  const controller = actingAs(stage.controlPlane.url, 'endpointslice-controller');
  const [own] = of(await all(), 'web');
  assert.ok(own !== undefined);
  const forged = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'web-forged', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['192.0.2.9'], conditions: { ready: true } }],
    ports: [{ name: '', port: 8080, protocol: 'TCP' }],
  };
  const made = await controller.request('POST', slices, forged);
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const begun = Date.now();
  const first = await service.entry('content.unproven', 'production', (e) => e.object.name === 'web-forged');
  assert.ok(Date.now() - begun < 30_000, 'within seconds');
  assert.match(first.entry.reason, /no controller owns it/);
  // With the owner and the labels of a real one, and another keeper, it is left alone by the controller.
  const { ownerReferences, labels } = own.metadata;
  const keeper = { ...labels, 'endpointslice.kubernetes.io/managed-by': 'me' };
  const like = { ...forged, metadata: { name: 'web-like', labels: keeper, ownerReferences } };
  assert.equal((await controller.request('POST', slices, like)).status, 201);
  await service.entry('content.unproven', 'production', (e) => e.object.name === 'web-like');
  const elsewhere = { subsets: [{ addresses: [{ ip: '192.0.2.8' }], ports: [{ port: 443 }] }] };
  const endpoints = actingAs(stage.controlPlane.url, 'endpoint-controller');
  const free = { apiVersion: 'v1', kind: 'Endpoints', metadata: { name: 'free' }, ...elsewhere };
  assert.equal((await endpoints.request('POST', `/api/v1/namespaces/${ns}/endpoints`, free)).status, 201);
  await service.entry(
    'content.unproven',
    'production',
    (e) => e.object.name === 'free' && e.object.kind === 'Endpoints',
  );
  const good = { ...forged, endpoints: [], metadata: { ...forged.metadata, ownerReferences, labels } };
  assert.equal((await controller.request('PUT', `${slices}/web-forged`, good)).status, 200);
  await service.entry('content.resolved', 'production', (e) => e.object.name === 'web-forged');
  assert.deepEqual([...new Set(unproven().map(([, name]) => name))].sort(), ['free', 'web-forged', 'web-like']);
});
