import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createKey } from '../../src/ledger/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { freePorts } from '../kit/control-plane.ts';
import { startGitServer } from '../kit/git-server.ts';
import { without } from '../kit/machine.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import type { Service } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// A service that starts while something it needs is away waits and says so. It is alive for whatever runs it, and not
// ready.
const noPostgres = without('PostgreSQL');
const PATH = 'clusters/production';
const directory = scratch();
const stage = await openStage(directory);
const proxy = await startApiProxy(stage.controlPlane, 'countersign');
after(() => proxy.stop());

async function started(name: string, kubeconfig: string, more: readonly string[] = [], url?: string) {
  const fleet = stage.fleet(name);
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(name),
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
  });
  const configuration = stage.configuration(name, [
    { url: url ?? fleet.url, namespaces: [name], mode: 'off', interval: '1s' },
  ]);
  const [port] = (await freePorts(1)) as [number];
  const args = [
    '--config',
    configuration,
    '--kubeconfig',
    kubeconfig,
    '--webhook',
    'off',
    '--http',
    `127.0.0.1:${port}`,
  ];
  const service = stage.start(args, name, more);
  const probe = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  return { service, probe, first, fleet };
}

async function isWaiting(
  service: Service,
  probe: (path: string) => Promise<{ status: number; text: string }>,
  why: RegExp,
): Promise<void> {
  await service.says('waiting, and trying again');
  assert.equal((await probe('/healthz')).status, 200);
  const ready = await probe('/readyz');
  assert.equal(ready.status, 503);
  assert.match(ready.text, why);
  assert.equal((await probe('/metrics')).status, 503);
}

test('the API server is away', async () => {
  proxy.fault = () => ({ drop: 'before' });
  const { service, probe, first } = await started('noapi', proxy.kubeconfig);
  await isWaiting(service, probe, /API server/);
  proxy.fault = () => 'pass';
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  await stage.waitFor(async () => (await probe('/readyz')).status === 200, 'it is ready');
  assert.equal(service.log.split('waiting, and trying again').length, 2, 'said once');
  assert.equal(service.entries('service.started', '').length, 1);
});

test('told to stop while it waits, it ends as it should', async () => {
  proxy.fault = () => ({ drop: 'before' });
  const { service, probe } = await started('stopped', proxy.kubeconfig);
  await isWaiting(service, probe, /API server/);
  assert.equal(await service.stop(), 0);
  proxy.fault = () => 'pass';
});

test('the ledger’s database is away', { skip: noPostgres }, async () => {
  const postgres = await Postgres.start();
  try {
    const { url } = await postgres.ledger();
    const key = join(directory, 'shared.key');
    writeFileSync(key, createKey());
    await postgres.kill();
    const kubeconfig = stage.controlPlane.kubeconfig('countersign');
    const { service, probe, first } = await started('nodb', kubeconfig, ['--ledger', url, '--ledger-key', key]);
    await isWaiting(service, probe, /database/);
    await postgres.up();
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  } finally {
    await postgres.stop();
  }
});

test('the Git server is away', async () => {
  const [port] = (await freePorts(1)) as [number];
  const kubeconfig = stage.controlPlane.kubeconfig('countersign');
  const url = `http://127.0.0.1:${port}/nogit.git`;
  const fleet = stage.fleet('nogit');
  fleet.remote(url);
  const { service, probe } = await started('nogit-service', kubeconfig, [], url);
  await service.says('countersign is running');
  await stage.waitFor(async () => /git|fetch/i.test((await probe('/readyz')).text), 'it says what it waits for');
  assert.deepEqual([(await probe('/healthz')).status, (await probe('/readyz')).status], [200, 503]);
  const git = await startGitServer(directory, port);
  try {
    const first = await stage.change(fleet, 'first', {
      [`${PATH}/ns.yaml`]: namespace('nogit-service'),
      [`${PATH}/cm.yaml`]: configMap('nogit-service', 'settings', { colour: 'blue' }),
    });
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  } finally {
    await git.stop();
  }
});
