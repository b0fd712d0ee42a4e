import assert from 'node:assert/strict';
import { test } from 'node:test';
import { API_SERVER_PLUGINS, type KubernetesObject } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// An API server with the admission plugins that are off by default.
const stage = await openStage(scratch(), { flags: [`--enable-admission-plugins=${API_SERVER_PLUGINS.join(',')}`] });
const PATH = 'clusters/production';

const place = (ns: string) => `apiVersion: v1
kind: Namespace
metadata:
  name: ${ns}
  annotations:
    scheduler.alpha.kubernetes.io/node-selector: team=shop
    scheduler.alpha.kubernetes.io/defaultTolerations: '[{"key":"shop","operator":"Exists","effect":"NoSchedule"}]'
`;
const web = (ns: string, image = 'registry.example.test/shop/web:1.0.0') => `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ${ns}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {disk: ssd}
      containers:
        - {name: web, image: "${image}", resources: {limits: {cpu: 100m, memory: 64Mi, example.com/gpu: "1"}}}
`;

test('pods that these plugins change are proven where they are named, and say which to name where not', async () => {
  const ns = 'plugins';
  const files = { [`${PATH}/ns.yaml`]: place(ns), [`${PATH}/web.yaml`]: web(ns) };
  const environment = { admission: { apiServer: [...API_SERVER_PLUGINS] } };
  const { service, fleet } = await stage.running(ns, {}, { files, environment });
  const second = await stage.change(fleet, 'roll out', {
    [`${PATH}/web.yaml`]: web(ns, 'registry.example.test/shop/web:1.1.0'),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const { body } = await stage.get(`/api/v1/namespaces/${ns}/pods?labelSelector=app%3Dweb`);
  const [pod] = body['items'] as KubernetesObject[];
  const spec = pod?.['spec'] as {
    nodeSelector: object;
    tolerations: { key: string }[];
    containers: { imagePullPolicy: string }[];
  };
  assert.deepEqual(spec.nodeSelector, { disk: 'ssd', team: 'shop' });
  assert.equal(spec.containers[0]?.imagePullPolicy, 'Always');
  assert.deepEqual(spec.tolerations.map((t) => t.key).sort(), [
    ...['example.com/gpu', 'node.kubernetes.io/memory-pressure', 'node.kubernetes.io/not-ready'],
    ...['node.kubernetes.io/unreachable', 'shop'],
  ]);
  await service.entry('cluster.scanned', 'production', (e) => e.revision === second);
  const reasons = () =>
    [...service.entries('admission.denied', 'production'), ...service.entries('content.unproven', 'production')].map(
      ({ entry }) => entry.reason,
    );
  assert.deepEqual(reasons(), []);
  await service.stop();

  const without = 'plugins-not-named';
  const at = stage.fleet(without);
  const configuration = stage.configuration(without, [{ url: at.url, namespaces: [without] }]);
  await stage.change(at, 'first', { [`${PATH}/ns.yaml`]: place(without), [`${PATH}/web.yaml`]: web(without) });
  const other = await stage.serve(configuration, without);
  const { entry } = await other.entry('admission.denied', 'production', (e) => e.object.kind === 'Pod');
  assert.match(entry.reason, /`AlwaysPullImages` and .* of the API server do exactly this/);
  for (const name of API_SERVER_PLUGINS) assert.ok(entry.reason.includes(`\`${name}\``), name);
  assert.doesNotMatch(entry.reason, /sidecar injector/);
});
