import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// A service whose clock jumps while everyone else's is right.
const PATH = 'clusters/production';
const HOUR = 3_600_000;
const MERGE = 'application/merge-patch+json';
const directory = scratch();
const stage = await openStage(directory);
const shifted = `--import ${new URL('../kit/shifted-clock.mjs', import.meta.url)}`;

test('a certificate from a clock three days ahead is made again by the API server’s time: the first write is decided', async () => {
  const name = 'early';
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name] }]);
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(name),
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
  });
  const file = join(directory, 'early.offset');
  const jump = (ms: number) => writeFileSync(file, String(ms));
  jump(72 * HOUR);
  const env = { CLOCK_FILE: file, NODE_OPTIONS: shifted };
  const service = stage.start(await stage.arguments(configuration), name, [], env);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const certificate = new X509Certificate(readFileSync(join(stage.data(name), 'tls', 'tls.crt')));
  assert.ok(certificate.validFromDate.getTime() < Date.now(), String(certificate.validFromDate));
  await service.says('is 72 h ahead of the API server');
  const status = await countersign(['status', '--data', stage.data(name)]);
  assert.match(status.stdout, /the clock of this machine is 72 h ahead of the API server/);
  const [dev, oncall] = [await stage.as('dev'), await stage.as('oncall')];
  // Break-glass for an hour: a clock that is ahead does not end it, and one that goes back does not lengthen it.
  const at = `/api/v1/namespaces/${name}`;
  const glass = { 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '1h' };
  const granted = await oncall.request('PATCH', at, { metadata: { annotations: glass } }, MERGE);
  assert.equal(granted.status, 200, String(granted.body['message']));
  const used = (config: string) =>
    oncall.request('POST', `${at}/configmaps?dryRun=All`, {
      ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: config, namespace: name } },
    });
  const { entry: opened } = await service.entry('breakglass.opened', 'production', () => true);
  assert.ok(Date.parse(opened.until) < Date.now() + 1.1 * HOUR, opened.until);
  assert.equal((await used('now')).status, 201);
  const asked = () =>
    dev.request('POST', `/api/v1/namespaces/${name}/configmaps?dryRun=All`, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'x', namespace: name },
    });
  assert.match(String((await asked()).body['message']), /denied the request/);
  for (const [off, said] of [
    [0, 'agrees with the API server again'],
    [-HOUR, 'is 60 min behind the API server'],
    [-24 * HOUR, 'is 24 h behind the API server'],
    [HOUR, 'is 60 min ahead of the API server'],
  ] as const) {
    jump(0);
    const commit = await stage.change(fleet, `before ${off}`, {
      [`${PATH}/cm.yaml`]: configMap(name, 'settings', { off: `before ${off}` }),
    });
    await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
    jump(off);
    await service.says(said);
    assert.equal((await used('x')).status, 201, `break-glass goes on at ${off}`);
    assert.match(String((await asked()).body['message']), /denied the request/, `requests are decided at ${off}`);
  }
  jump(0);
  const last = await stage.change(fleet, 'last', { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { off: 'last' }) });
  await service.entry('apply.result', 'production', (e) => e.revision === last && e.outcome === 'applied');
  assert.deepEqual(
    service.entries('change.judged', 'production').filter(({ entry }) => entry.outcome === 'denied'),
    [],
    'no approver was blamed',
  );
  assert.equal(await service.stop(), 0, service.log);
  assert.equal((await countersign(['ledger', 'verify', '--data', stage.data(name)])).code, 0);
});
