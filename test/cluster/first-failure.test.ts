import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// A first revision that fails: what is kept of it, what is said about it, and what is left in the cluster.
const PATH = 'clusters/production';
// A plane of its own: a kind that cannot be listed, as other tests have, keeps every namespace.
const stage = await openStage(scratch(), { own: true });
const HEALTH = { wait: true, timeout: '8s' };
const broken = (ns: string) => deployment(ns, 'web').replace(/image: .*/, 'image: registry.example/broken:1');

async function starting(name: string, files: Readonly<Record<string, string>>, spec: object) {
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], spec: { ...spec } }]);
  const first = await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace(name), ...files });
  return { fleet, first, service: await stage.serve(configuration, name) };
}

const there = async (path: string) => (await stage.get(path)).status === 200;

test('a first revision whose pods do not start says why, and leaves nothing behind, not even its namespace', async () => {
  const name = 'removed';
  const files = { [`${PATH}/web.yaml`]: broken(name), [`${PATH}/cm.yaml`]: configMap(name, 'settings', {}) };
  const { fleet, first, service } = await starting(name, files, { health: HEALTH });
  const { entry } = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed', 60_000);
  assert.match(entry.error ?? '', /Deployment removed\/web: .*container `\w+` of web-\S+: ErrImagePull/);
  await stage.waitFor(async () => !(await there(`/api/v1/namespaces/${name}`)), 'the end of the namespace');
  await service.looksAgain();
  assert.equal(service.entries('apply.intent', 'production').filter((e) => e.entry.revision === first).length, 2);
  const good = await stage.change(fleet, 'good', { [`${PATH}/web.yaml`]: undefined });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied', 60_000);
});

test('a first revision that is refused once its namespace exists leaves no namespace', async () => {
  const name = 'refused-first';
  const files = { [`${PATH}/web.yaml`]: deployment(name, 'web').replace('replicas:', 'replcias:') };
  const { service } = await starting(name, files, {});
  await stage.waitFor(
    async () =>
      service.entries('apply.result', 'production').some(({ entry }) => /\.spec\.replcias/.test(entry.error ?? '')) ||
      service.entries('apply.refused', 'production').some(({ entry }) => /\.spec\.replcias/.test(entry.error)),
    'the refusal',
  );
  await stage.waitFor(async () => !(await there(`/api/v1/namespaces/${name}`)), 'the end of the namespace');
});

test('a namespace that others use by then is kept', async () => {
  const name = 'used';
  const files = { [`${PATH}/web.yaml`]: broken(name) };
  const { service } = await starting(name, files, { health: HEALTH });
  const controller = await stage.as('controller');
  await stage.waitFor(async () => there(`/api/v1/namespaces/${name}`), 'the namespace');
  // It looks like one of ours, and like what a controller made, and is neither.
  const role = await stage.get('/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin');
  const owner = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', name: 'cluster-admin' };
  const { uid } = role.body['metadata'] as { uid: string };
  const made = await controller.request('POST', `/api/v1/namespaces/${name}/configmaps`, {
    ...{ apiVersion: 'v1', kind: 'ConfigMap' },
    metadata: {
      name: 'of-others',
      labels: { 'countersign.dev/environment': 'production' },
      ownerReferences: [{ ...owner, uid, controller: true }],
    },
  });
  assert.equal(made.status, 201);
  await service.says('is kept: it holds objects of others');
  await stage.waitFor(async () => !(await there(`/apis/apps/v1/namespaces/${name}/deployments/web`)), 'the removal');
  assert.ok(await there(`/api/v1/namespaces/${name}/configmaps/of-others`));
});

test('with `onFirstFailure: keep`, what was written stays to be looked at, and a later revision takes it over', async () => {
  const name = 'kept';
  const files = { [`${PATH}/web.yaml`]: broken(name) };
  const { fleet, service } = await starting(name, files, { health: HEALTH, apply: { onFirstFailure: 'keep' } });
  await service.entry('apply.result', 'production', (e) => e.outcome === 'failed', 60_000);
  await service.looksAgain();
  assert.ok(await there(`/apis/apps/v1/namespaces/${name}/deployments/web`));
  const pods = await stage.get(`/api/v1/namespaces/${name}/pods`);
  assert.equal((pods.body['items'] as unknown[]).length > 0, true);
  const good = await stage.change(fleet, 'good', { [`${PATH}/web.yaml`]: deployment(name, 'web') });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied', 60_000);
});
