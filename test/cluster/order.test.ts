import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configMap, deployment, FAILING, HELD, job, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { podsReady } from '../kit/status.ts';
import { openStage } from '../kit/test-stage.ts';

// Orders and hooks on a living cluster, as the service's own ServiceAccount, under `enforce`.
const PATH = 'clusters/production';
const stage = await openStage(scratch());
const HEALTH = { wait: true, timeout: '60s' };

const annotated = (text: string, ...annotations: readonly string[]) =>
  text.replace('metadata:\n', `metadata:\n  annotations:\n${annotations.map((a) => `    ${a}\n`).join('')}`);

async function ready(ns: string, app: string): Promise<void> {
  const node = await stage.as('node');
  await podsReady(node, ns, app, 1);
  node.close();
}

test('a database is healthy before the application that needs it is written, also when the service is killed in between', async () => {
  const ns = 'ordered';
  const { fleet, service, configuration } = await stage.running(ns, { health: HEALTH });
  await service.stop();
  const { service: killed, killAt } = await stage.killable(configuration, ns);
  await killed.says('countersign is running');
  killAt('wave');
  const commit = await stage.change(fleet, 'shop', {
    [`${PATH}/database.yaml`]: annotated(
      deployment(ns, 'database', { image: HELD, replicas: 1 }),
      'argocd.argoproj.io/sync-wave: "-1"',
    ),
    [`${PATH}/app.yaml`]: annotated(configMap(ns, 'app', {}), 'countersign.dev/order: "1"'),
    [`${PATH}/route.yaml`]: configMap(ns, 'route', {}),
  });
  await stage.waitFor(
    async () => (await stage.get(`/apis/apps/v1/namespaces/${ns}/deployments/database`)).status === 200,
    'the database',
  );
  await ready(ns, 'database');
  await killed.killed('wave');
  assert.equal(await stage.dataOf(ns, 'route'), undefined);
  const again = await stage.serve(configuration, ns);
  await again.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  const times = [];
  for (const [group, name] of [
    ['apis/apps/v1', 'deployments/database'],
    ['api/v1', 'configmaps/route'],
    ['api/v1', 'configmaps/app'],
  ]) {
    const { body } = await stage.get(`/${group}/namespaces/${ns}/${name}`);
    times.push(Number((body['metadata'] as { resourceVersion: string }).resourceVersion));
  }
  assert.ok((times[1] as number) < (times[2] as number), 'route was written before app');
  assert.equal(again.entries('apply.result', 'production').filter((e) => e.entry.outcome === 'failed').length, 0);
});

const HOOKS = (ns: string, version: string) => ({
  [`${PATH}/migrate.yaml`]: annotated(job(ns, 'migrate', version), 'argocd.argoproj.io/hook: PreSync'),
  [`${PATH}/smoke.yaml`]: annotated(
    job(ns, 'smoke', version),
    'argocd.argoproj.io/hook: PostSync',
    'argocd.argoproj.io/hook-delete-policy: HookSucceeded',
  ),
  [`${PATH}/cleanup.yaml`]: annotated(job(ns, 'cleanup', version), 'argocd.argoproj.io/hook: SyncFail'),
});
const image = (version: string) => `registry.example.test/shop/migrate:${version}`;

async function jobIn(ns: string, name: string): Promise<{ uid: string; image: string } | undefined> {
  const { status, body } = await stage.get(`/apis/batch/v1/namespaces/${ns}/jobs/${name}`);
  if (status !== 200) return undefined;
  const { template } = body['spec'] as { template: { spec: { containers: { image: string }[] } } };
  return { uid: (body['metadata'] as { uid: string }).uid, image: template.spec.containers[0]?.image ?? '' };
}

test('hooks of Argo CD run for each change, once, under `enforce`, also when the service is killed while one runs', async () => {
  const ns = 'hooked-order';
  const { fleet, service, configuration } = await stage.running(
    ns,
    { health: HEALTH },
    { files: HOOKS(ns, image('1.0.0')) },
  );
  const first = await jobIn(ns, 'migrate');
  assert.equal(first?.image, image('1.0.0'));
  await stage.waitFor(async () => (await jobIn(ns, 'smoke')) === undefined, 'the removal of what succeeded');
  assert.equal(await jobIn(ns, 'cleanup'), undefined);
  // No one else makes it again, and no one but the gate removes it.
  const dev = await stage.as('dev');
  const jobs = `/apis/batch/v1/namespaces/${ns}/jobs`;
  const copy = (await stage.get(`${jobs}/migrate`)).body['metadata'] as { name: string; labels: object };
  assert.equal((await dev.request('DELETE', `${jobs}/${copy.name}`)).status, 403);
  dev.close();
  await service.stop();
  const { service: killed, killAt } = await stage.killable(configuration, ns);
  await killed.says('countersign is running');
  killAt('hook');
  const second = await stage.change(fleet, 'second', {
    ...HOOKS(ns, image('2.0.0')),
    [`${PATH}/cm.yaml`]: configMap(ns, 'settings', { colour: 'red' }),
  });
  await killed.killed('hook');
  const made = await jobIn(ns, 'migrate');
  assert.equal(made?.image, image('2.0.0'));
  assert.notEqual(made?.uid, first?.uid);
  assert.deepEqual(await stage.dataOf(ns, 'settings'), { colour: 'blue' });
  const again = await stage.serve(configuration, ns);
  await again.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  assert.equal((await jobIn(ns, 'migrate'))?.uid, made?.uid, 'it was not made again');
  assert.deepEqual(
    again.entries('hook.ended', 'production').map(({ entry: e }) => `${e.phase} ${e.object.name} ${e.outcome}`),
    [
      ...['before migrate succeeded', 'after smoke succeeded'],
      ...['before migrate succeeded', 'after smoke succeeded'],
    ],
  );
  await again.looksAgain();
  assert.equal(again.entries('hook.started', 'production').length, 4);
  const at = ['--repo', fleet.work, '--config', configuration];
  const diff = await countersign(['diff', ...at, '--kubeconfig', stage.controlPlane.kubeconfig('admin')]);
  assert.match(diff.stdout, /^hook Job hooked-order\/migrate: not compared, runs with the next change$/m);
  assert.match(diff.stdout, /no difference: all 2 objects match Git/);
  const checked = await countersign(['check', ...at, '--base', `${second}^`, '--no-fetch']);
  assert.match(checked.stdout, /hook: Job hooked-order\/migrate runs before the objects are written/);
  assert.match(checked.stdout, /hook: Job hooked-order\/cleanup runs if the change fails/);
  assert.deepEqual(
    again.entries('admission.denied', 'production').map(({ entry: e }) => `${e.user} ${e.operation} ${e.object.name}`),
    ['dev DELETE migrate'],
  );
  assert.deepEqual(again.entries('content.unproven', 'production'), []);
});

test('a Job that removes itself as soon as it is complete has run, as charts have it', async () => {
  const ns = 'short-lived';
  const migrate = job(ns, 'migrate').replace('spec:\n', 'spec:\n  ttlSecondsAfterFinished: 0\n');
  const { fleet, service } = await stage.running(
    ns,
    { health: HEALTH },
    { files: { [`${PATH}/migrate.yaml`]: annotated(migrate, 'helm.sh/hook: "pre-install,pre-upgrade"') } },
  );
  const next = await stage.change(fleet, 'again', {
    [`${PATH}/cm.yaml`]: configMap(ns, 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  const ended = service.entries('hook.ended', 'production').map((r) => r.entry.outcome);
  assert.deepEqual(ended, ['succeeded', 'succeeded']);
});

test('a hook that fails is explained, hooks for a failure run, and the last good revision is restored', async () => {
  const ns = 'unhooked';
  const { fleet, service, first } = await stage.running(
    ns,
    { health: HEALTH },
    { files: { [`${PATH}/migrate.yaml`]: annotated(job(ns, 'migrate'), 'argocd.argoproj.io/hook: PreSync') } },
  );
  await stage.change(fleet, 'bad', {
    ...HOOKS(ns, image('2.0.0')),
    [`${PATH}/migrate.yaml`]: annotated(job(ns, 'migrate', FAILING), 'argocd.argoproj.io/hook: PreSync'),
    [`${PATH}/cm.yaml`]: configMap(ns, 'settings', { colour: 'red' }),
  });
  const { entry } = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed', 60_000);
  assert.match(
    entry.error ?? '',
    /migrate\.yaml:1: the hook Job unhooked\/migrate that runs before the objects failed/,
  );
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.intent > entry.intent);
  assert.deepEqual(
    service.entries('hook.ended', 'production').map(({ entry: e }) => `${e.phase} ${e.object.name} ${e.outcome}`),
    ['before migrate succeeded', 'before migrate failed', 'failure cleanup succeeded'],
  );
  assert.deepEqual(await stage.dataOf(ns, 'settings'), { colour: 'blue' });
  assert.equal((await jobIn(ns, 'migrate'))?.image, FAILING, 'it stays to be looked at');
  await service.says('did is not undone');
  await service.looksAgain();
  assert.deepEqual(service.entries('content.unproven', 'production'), []);
  const good = await stage.change(fleet, 'good', HOOKS(ns, image('3.0.0')));
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied', 60_000);
});

test("a chart with hooks is installed and upgraded as its author meant it, with Helm's tests left alone", async () => {
  const ns = 'charted';
  const hook = (name: string, hooks: string, weight: number) =>
    annotated(
      job(ns, name).replace(/ {2}namespace: .*\n/, ''),
      `helm.sh/hook: ${hooks}`,
      `helm.sh/hook-weight: "${weight}"`,
    );
  const chart = {
    'Chart.yaml': 'apiVersion: v2\nname: shop\nversion: 1.0.0\n',
    'values.yaml': 'colour: blue\n',
    'templates/ns.yaml': namespace(ns),
    'templates/cm.yaml': configMap(ns, 'chart', { colour: '{{ .Values.colour }}' })
      .replace('"{{', '{{')
      .replace('}}"', '}}'),
    'templates/settings.yaml': annotated(
      configMap(ns, 'migration', {}),
      'helm.sh/hook: pre-install,pre-upgrade',
      'helm.sh/hook-weight: "-5"',
      'helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded',
    ),
    'templates/install.yaml': hook('install', 'pre-install', 1),
    'templates/upgrade.yaml': hook('upgrade', 'pre-upgrade', 1),
    'templates/test.yaml': hook('check', 'test', 0),
  };
  const fleet = stage.fleet(ns);
  const render = { with: 'helm', chart: 'chart', values: ['chart/values.yaml'], release: 'shop' };
  const configuration = stage.configuration(ns, [
    { url: fleet.url, namespaces: [ns], spec: { health: HEALTH, render } },
  ]);
  const files = Object.fromEntries(Object.entries(chart).map(([path, text]) => [`${PATH}/chart/${path}`, text]));
  const first = await stage.change(fleet, 'first', files);
  const service = await stage.serve(configuration, ns);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied', 60_000);
  const second = await stage.change(fleet, 'second', { [`${PATH}/chart/values.yaml`]: 'colour: red\n' });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied', 60_000);
  assert.deepEqual(
    service.entries('hook.ended', 'production').map(({ entry: e }) => `${e.object.name} ${e.outcome}`),
    ['install succeeded', 'upgrade succeeded'],
  );
  assert.deepEqual(await stage.dataOf(ns, 'chart'), { colour: 'red' });
  await stage.waitFor(async () => (await stage.dataOf(ns, 'migration')) === undefined, 'the removal of the ConfigMap');
  await service.looksAgain();
  assert.deepEqual(service.entries('drift.found', 'production'), []);
  assert.deepEqual(service.entries('admission.denied', 'production'), []);
});
