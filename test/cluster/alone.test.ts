import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { LedgerReader, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import type { Plan } from '../../src/model/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { configMap, deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Tests in whose control plane nobody else may be: it crashes, or something that all files write or use is taken over.
const PATH = 'clusters/production';
const stage = await openStage(scratch(), { own: true });

test('etcd that dies in the middle of a change and comes back: the change is carried through, and nothing is written that was not intended', async () => {
  const name = 'etcd';
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  try {
    const { fleet, service } = await stage.running(
      name,
      {},
      {
        environment: { mode: 'off' },
        kubeconfig: proxy.kubeconfig,
        files: { [`${PATH}/old.yaml`]: configMap(name, 'old', { k: '1' }) },
      },
    );
    const crashed = Promise.withResolvers<void>();
    let writes = 0;
    proxy.fault = (asked) => {
      const isWrite = !asked.watch && !asked.dryRun && ['PATCH', 'DELETE'].includes(asked.method);
      if (isWrite && ++writes === 2) crashed.resolve(stage.controlPlane.crashEtcd());
      return 'pass';
    };
    const commit = await stage.change(fleet, 'change', {
      [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'green' }),
      [`${PATH}/web.yaml`]: deployment(name, 'web', { replicas: 1 }),
      [`${PATH}/old.yaml`]: configMap(name, 'new', { k: '1' }),
    });
    await crashed.promise;
    await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
    assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'green' });
    assert.notEqual(await stage.dataOf(name, 'new'), undefined);
    assert.equal(await stage.dataOf(name, 'old'), undefined);
    const { body } = await stage.get(`/apis/apps/v1/namespaces/${name}/deployments/web`);
    assert.equal((body['spec'] as { replicas: number }).replicas, 1);
    const intents = service.entries('apply.intent', 'production').filter((r) => r.entry.revision === commit);
    const planned = new Set(
      intents.flatMap((i) => service.evidence<Plan>(i.entry.evidence).objects.map((o) => o.ref.name)),
    );
    assert.ok(['settings', 'web', 'new'].every((o) => planned.has(o)));
    // The watches found their place again, or read all anew.
    await (await stage.as('controller')).request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
    await stage.waitFor(
      async () => (await stage.dataOf(name, 'settings'))?.['colour'] === 'green',
      'what was deleted to come back',
    );
    await service.stop();
    const reader = new LedgerReader(join(service.data, 'ledger.db'));
    const { finding } = verifyLedger(reader, parseVerifiers(readFileSync(join(service.data, 'ledger.pub'), 'utf8')), {
      trusted: [readFileSync(join(service.data, 'checkpoint'), 'utf8')],
    });
    reader.close();
    assert.equal(finding, undefined);
  } finally {
    await proxy.stop();
  }
});

test('a CustomResourceDefinition and an object of its kind arrive in one change', async () => {
  const { fleet, service } = await stage.running('crd');
  const crd = `apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.test}\nspec:\n  group: example.test\n  scope: Namespaced\n  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}\n  versions:\n    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, default: 3}}}}}}}\n`;
  const denied = await stage.change(fleet, 'widget', {
    'clusters/production/crd.yaml': crd,
    'clusters/production/widget.yaml':
      'apiVersion: example.test/v1\nkind: Widget\nmetadata: {name: w, namespace: crd}\nspec: {}\n',
  });
  await service.entry('change.judged', 'production', (e) => e.to === denied && e.outcome === 'denied');
  await service.stop();
  const wider = stage.configuration('crd', [
    { url: fleet.url, namespaces: ['crd'], clusterScoped: ['Namespace', 'CustomResourceDefinition'] },
  ]);
  const again = await stage.serve(wider, 'crd');
  const result = await again.entry(
    'apply.result',
    'production',
    (e) => e.revision === denied && e.outcome === 'applied',
  );
  assert.equal(result.entry.applied, 2);
  const { body } = await stage.get('/apis/example.test/v1/namespaces/crd/widgets/w');
  assert.deepEqual(body['spec'], { size: 3 });
  assert.equal(
    (body['metadata'] as { annotations: Record<string, string> }).annotations['countersign.dev/revision'],
    denied,
  );
  const intents = again.entries('apply.intent', 'production').filter((e) => e.entry.revision === denied);
  assert.deepEqual(
    intents.map((e) => e.entry.continues),
    [undefined, intents[0]?.index],
    'the second stage names the first',
  );
});

test('the manifests are taken by the API server as they are, also where pods are restricted', async () => {
  const kubectl = await tool('kubectl');
  // whom a gate that is there already lets change its own objects
  const kubeconfig = stage.controlPlane.kubeconfig('oncall');
  const apply = (input: string) =>
    execFileSync(kubectl, ['--kubeconfig', kubeconfig, 'apply', '--server-side', '-f', '-'], {
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  const image = ['--image', 'registry.example.com/countersign:0.1.0'];
  for (const more of [
    ['--namespace', 'gate-one'],
    ['--namespace', 'gate-many', '--replicas', '3', '--ledger-secret', 'url', '--key-secret', 'key'],
  ]) {
    const { code, stdout, stderr } = await countersign(['manifests', ...image, ...more]);
    assert.equal(code, 0, stderr);
    assert.match(apply(stdout), /serviceaccount\/countersign serverside-applied/);
    // Its pods are as restricted as its namespace asks for: the API server would warn otherwise.
    const { items } = JSON.parse(stdout) as {
      items: { kind: string; spec: { template: { metadata: object; spec: object } } }[];
    };
    const { template } = items.find((i) => ['Deployment', 'StatefulSet'].includes(i.kind))?.spec ?? assert.fail();
    const spec = {
      ...template.spec,
      volumes: undefined,
      priorityClassName: undefined,
      containers: (template.spec as { containers: object[] }).containers.map((c) => ({ ...c, volumeMounts: [] })),
    };
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec };
    const made = await stage.admin.request('POST', `/api/v1/namespaces/${more[1]}/pods?dryRun=All`, pod);
    assert.equal(made.status, 201, JSON.stringify(made.body));
  }
  assert.deepEqual(
    (
      (await stage.get('/apis/policy/v1/namespaces/gate-many/poddisruptionbudgets/countersign')).body['spec'] as {
        minAvailable: number;
      }
    ).minAvailable,
    1,
  );
  const fenced = await countersign(['manifests', ...image, '--api-server-cidr', '10.0.0.0/24', 'fd00::/64']);
  const { items } = JSON.parse(fenced.stdout) as { items: { kind: string; spec: { ingress: object[] } }[] };
  assert.deepEqual(items.find((i) => i.kind === 'NetworkPolicy')?.spec.ingress[0], {
    from: [{ ipBlock: { cidr: '10.0.0.0/24' } }, { ipBlock: { cidr: 'fd00::/64' } }],
    ports: [{ protocol: 'TCP', port: 'webhook' }],
  });
  for (const cidr of ['10.0.0.0', '10.0.0.0/33', 'everywhere/1'])
    assert.equal((await countersign(['manifests', ...image, '--api-server-cidr', cidr])).code, 2, cidr);
  assert.equal((await countersign(['manifests', '--image', 'registry.example.com/countersign:latest'])).code, 2);
  assert.equal((await countersign(['manifests', ...image, '--ledger-secret', 'url'])).code, 2);
  assert.equal((await countersign(['manifests', ...image, '--replicas', '0'])).code, 2);
});
