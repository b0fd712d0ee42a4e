import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configMap, deployment, HELD } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
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
