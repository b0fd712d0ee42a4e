import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { connect, Lease } from '../../src/cluster/index.ts';
import { createKey } from '../../src/ledger/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { Balancer } from '../kit/chaos/balancer.ts';
import { freePorts } from '../kit/control-plane.ts';
import type { EnvironmentOptions } from '../kit/documents.ts';
import type { Fleet } from '../kit/fleet.ts';
import { startGitServer } from '../kit/git-server.ts';
import { without } from '../kit/machine.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { Postgres } from '../kit/postgres.ts';
import { PostgresProxy } from '../kit/postgres-proxy.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, type Service, until } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Several replicas on one ledger: each environment is run by one of them at a time.
const PATH = 'clusters/production';
const directory = scratch();
const skip = without('PostgreSQL');
const stage = await openStage(directory);
const postgres = skip === false ? await Postgres.start() : undefined;
after(() => postgres?.stop());

const statusOf = async (service: Service): Promise<{ state: string; message: string }> => {
  const { stdout } = await countersign(['status', '--data', service.data, '--output', 'json']);
  return (JSON.parse(stdout) as { state: string; message: string }[])[0] ?? { state: '', message: '' };
};
const colour = (name: string, value: string) => ({
  [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: value }),
});

type Start = (
  replica: string,
  options?: { readonly address?: string; readonly more?: readonly string[] },
) => Promise<Service>;

async function replicas(
  name: string,
  environment: Partial<EnvironmentOptions> = {},
): Promise<{ fleet: Fleet; url: string; start: Start }> {
  const { url } = await (postgres as Postgres).ledger();
  const key = join(directory, `${name}.key`);
  writeFileSync(key, createKey(), { mode: 0o600 });
  const fleet = stage.fleet(name);
  if (environment.url !== undefined) fleet.remote(environment.url);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], ...environment }]);
  await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace(name), ...colour(name, 'blue') });
  const start: Start = (replica, { address = url, more = [] } = {}) =>
    stage.serve(configuration, `${name}-${replica}`, [
      '--ledger',
      address,
      '--ledger-key',
      key,
      '--lease',
      `leases-${name}`,
      ...more,
    ]);
  await leases(name);
  return { fleet, url, start };
}

const leases = (name: string) =>
  stage.admin.request('POST', '/api/v1/namespaces', {
    ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: `leases-${name}` } },
  });

/** Two replicas, of which the first has applied what there is and the second stands by. */
async function pair(start: (replica: string) => Promise<Service>): Promise<readonly [Service, Service]> {
  const a = await start('a');
  await a.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  const b = await start('b');
  await until(
    async () => (await statusOf(b)).state === 'standby',
    20_000,
    () => 'b does not stand by',
  );
  return [a, b];
}

test('one replica runs an environment, the other stands by; stopped, the first hands over at once', {
  skip,
}, async () => {
  const { fleet, start } = await replicas('handover');
  const [a, b] = await pair(start);
  assert.match((await statusOf(b)).message, /holds it$/);
  const refused = await countersign(['reconcile', 'production', '--reason', 'x', '--data', b.data]);
  assert.match(refused.stderr, /another replica runs `production`/);
  // The webhook that was registered last is b's: it admits what a intended, as it hears of it.
  const green = await stage.change(fleet, 'green', colour('handover', 'green'));
  await a.entry('apply.result', 'production', (e) => e.revision === green && e.outcome === 'applied');
  const stopped = performance.now();
  assert.equal(await a.stop(), 0);
  await b.says('this replica has `production` now');
  assert.ok(performance.now() - stopped < 12_000, 'before the Lease ran out by itself');
  const red = await stage.change(fleet, 'red', colour('handover', 'red'));
  await b.entry('apply.result', 'production', (e) => e.revision === red && e.outcome === 'applied');
  const results = b.entries('apply.result', 'production').map((r) => r.entry.intent);
  assert.equal(new Set(results).size, results.length, 'no intent was carried out twice');
});

test('a replica that stands by judges as the one that runs the environment does, and says when it cannot', {
  skip,
}, async () => {
  const [port] = (await freePorts(1)) as [number];
  const url = `http://127.0.0.1:${port}/judges.git`;
  const admission = { policy: { namespaces: ['judged-*'], mode: 'enforce' } };
  let git = await startGitServer(directory, port);
  // The first does not look while Git is away: it would pass the environment on.
  const { fleet, start } = await replicas('judges', { url, admission, interval: '10m' });
  const [dev, oncall] = await Promise.all(['dev', 'oncall'].map((user) => stage.as(user)));
  assert.ok(dev && oncall);
  await stage.admin.request('POST', '/api/v1/namespaces', {
    ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'judged-a' } },
  });
  const inRules = (isAllowed: boolean) =>
    isAllowed
      ? dev.request('POST', '/api/v1/namespaces/judged-a/configmaps', {
          ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'c-' } },
        })
      : dev.request('POST', '/api/v1/namespaces/judged-a/pods', {
          ...{ apiVersion: 'v1', kind: 'Pod', metadata: { generateName: 'p-' } },
          spec: { containers: [{ name: 'c', image: 'x:1', securityContext: { privileged: true } }] },
        });
  let serial = 0;
  const glass = () =>
    oncall.request(
      'PATCH',
      '/api/v1/namespaces/judges/configmaps/settings',
      { metadata: { annotations: { 'countersign.dev/break-glass': `INC-${++serial}` } }, data: { n: `${serial}` } },
      'application/merge-patch+json',
    );
  const [front, webhookA, httpA, webhookB, httpB] = (await freePorts(5)) as [number, number, number, number, number];
  // One address for both, as a Service has.
  const through = (webhook: number, http: number) => ({
    more: [
      ...['--webhook', `127.0.0.1:${webhook}`, '--webhook-url', `https://127.0.0.1:${front}/validate`],
      ...['--webhook-tls', 'secret:leases-judges/webhook-tls', '--http', `127.0.0.1:${http}`],
    ],
  });
  const to = (port: number, http: number) => Balancer.open(front, () => [{ port, probes: `http://127.0.0.1:${http}` }]);
  const probes = `http://127.0.0.1:${httpB}`;
  let balancer = await to(webhookA, httpA);
  const ready = async () => {
    const answer = await fetch(`${probes}/readyz`);
    return { status: answer.status, text: await answer.text() };
  };
  try {
    const a = await start('a', through(webhookA, httpA));
    await a.entry('apply.result', 'production', (e) => e.outcome === 'applied');
    await git.stop();
    // From here on, requests come to b, which never saw the repository.
    balancer.close();
    balancer = await to(webhookB, httpB);
    const b = await start('b', through(webhookB, httpB));
    const without = await ready();
    assert.equal(without.status, 503);
    assert.match(without.text, /the rules of `production`/);
    assert.match((await countersign(['status', '--data', b.data])).stdout, /refuses requests that need the rules/);
    const metrics = async () => (await fetch(`${probes}/metrics`)).text();
    assert.match(await metrics(), /countersign_rules_loaded\{environment="production"\} 0/);
    assert.equal((await inRules(true)).status, 429);
    for (let i = 0; i < 10; i++) assert.equal((await glass()).status, 200, 'break-glass needs no Git');
    // The API server asks again about a write that met another one.
    const used = () => new Set(b.entries('breakglass.used', 'production').map(({ entry }) => entry.reason));
    await stage.waitFor(async () => used().size === 10, `10 uses on record, not ${[...used()].join()}`);
    git = await startGitServer(directory, port);
    await stage.waitFor(async () => (await ready()).status === 200, 'the standby has the rules');
    assert.match(await metrics(), /countersign_rules_loaded\{environment="production"\} 1/);
    for (let i = 0; i < 10; i++)
      assert.deepEqual([(await inRules(true)).status, (await inRules(false)).status], [201, 403]);
    // A new revision is no gap.
    const green = await stage.change(fleet, 'green', {
      [`${PATH}/more.yaml`]: configMap('judges', 'more', { a: '1' }),
    });
    const applied = a.entry('apply.result', 'production', (e) => e.revision === green && e.outcome === 'applied');
    let isApplied = false;
    void applied.then(() => (isApplied = true));
    const looking = countersign(['reconcile', 'production', '--reason', 'it is there', '--data', a.data]);
    const answers = new Set<number>();
    while (!isApplied) answers.add((await inRules(true)).status);
    assert.equal((await looking).code, 0);
    assert.deepEqual([...answers], [201]);
    assert.equal((await statusOf(b)).state, 'standby');
    const own = b.entries('admission.denied', 'production').filter(({ entry }) => /countersign/.test(entry.user));
    assert.deepEqual(own, [], 'it refused nothing that its sibling wrote');
  } finally {
    balancer.close();
    await git.stop();
  }
});

test('a replica that is killed is taken over from once its Lease has run out, with what it left open', {
  skip,
}, async () => {
  const { fleet, start } = await replicas('takeover');
  const [a, b] = await pair(start);
  process.kill(a.pid, 'SIGKILL');
  const green = await stage.change(fleet, 'green', colour('takeover', 'green'));
  await b.entry('apply.result', 'production', (e) => e.revision === green && e.outcome === 'applied', 60_000);
  assert.equal((await stage.dataOf('takeover', 'settings'))?.['colour'], 'green');
});

test('a replica whose Lease is deleted ends, also while its ledger does not answer, and another goes on', {
  skip,
}, async () => {
  const { fleet, url, start } = await replicas('deleted');
  const proxy = await PostgresProxy.open(url);
  const a = await start('a', { address: proxy.url });
  await a.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  const b = await start('b');
  proxy.mode = 'mute';
  const green = await stage.change(fleet, 'green', colour('deleted', 'green')); // a waits for the ledger with it
  await stage.admin.request(
    'DELETE',
    '/apis/coordination.k8s.io/v1/namespaces/leases-deleted/leases/countersign-production',
  );
  assert.equal(await a.ended, 2);
  assert.match(a.log, /lost the Lease of `production`/);
  await b.entry('apply.result', 'production', (e) => e.revision === green && e.outcome === 'applied', 60_000);
  const intents = b.entries('apply.intent', 'production').filter(({ entry }) => entry.revision === green);
  assert.equal(intents.length, 1, 'one replica alone intended it');
  proxy.close();
});

test('a replica whose Lease cannot be renewed any more ends, so that no two run one environment', async () => {
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  try {
    const fleet = stage.fleet('lost');
    const configuration = stage.configuration('lost', [{ url: fleet.url, namespaces: ['lost'] }]);
    await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace('lost'), ...colour('lost', 'blue') });
    await leases('lost');
    const service = await stage.serve(configuration, 'lost', ['--lease', 'leases-lost'], proxy.kubeconfig);
    await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
    proxy.fault = (asked) => (asked.path.includes('/leases') ? { drop: 'before' } : 'pass');
    assert.equal(await service.ended, 2);
    assert.match(service.log, /lost the Lease of `production`: another replica may hold it/);
  } finally {
    await proxy.stop();
  }
});

test('a Lease is one holder’s at a time, runs out by what is seen here and not by its clock, and is refused clearly', async () => {
  const { server } = await connect({
    kubeconfig: stage.controlPlane.kubeconfig('admin'),
    context: undefined,
    namedBy: 'operator',
  });
  const lease = (who: string, ms = 2000) => new Lease(server, 'default', 'test', who, ms);
  const [a, b] = [lease('a'), lease('b')];
  assert.deepEqual([await a.take(), await b.take(), await a.take()], [true, false, true]);
  assert.equal(b.holder, 'a');
  const [c, d] = [lease('c'), lease('d')];
  assert.deepEqual([await c.take(), await d.take()], [false, false]);
  await new Promise((resolve) => setTimeout(resolve, 2300));
  const [first, second] = await Promise.all([c.take(), d.take()]);
  assert.equal(Number(first) + Number(second), 1, 'of two at the same moment one has it');
  await (first ? c : d).release();
  assert.equal(await b.take(), true, 'given back, it is free at once');
  const { server: other } = await connect({
    kubeconfig: stage.controlPlane.kubeconfig('nobody'),
    context: undefined,
    namedBy: 'operator',
  });
  await assert.rejects(
    new Lease(other, 'default', 'test', 'n', 2000).take(),
    /the Lease default\/test cannot be read: the API server answers 403/,
  );
  server.close();
  other.close();
});
