import assert from 'node:assert/strict';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { createKey, LedgerReader, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import { freePorts } from '../kit/control-plane.ts';
import type { Fleet } from '../kit/fleet.ts';
import { without } from '../kit/machine.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { SERVICE_USER } from '../kit/plane.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, countersignProcess, type Service } from '../kit/service.ts';
import { Stage } from '../kit/stage.ts';

const PATH = 'clusters/production';
const noPostgres = without('PostgreSQL');
const TOKEN = 'a-token-of-enough-length';
const directory = scratch();
const auditLog = join(directory, 'audit.log');
let stage: Stage;
let fleet: Fleet;
// Each test has a ledger of its own, over the objects of the one before.
const TAKING = { apply: { conflicts: 'takeOver' }, health: { wait: false } };
let configuration = '';
let listen = '';
let tokenFile = '';

before(async () => {
  const [port] = await freePorts(1);
  listen = `127.0.0.1:${port}`;
  tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, `${TOKEN}\n`);
  stage = await Stage.open(directory, { audit: { url: `https://${listen}/audit`, token: TOKEN, log: auditLog } });
  fleet = stage.fleet('fleet');
  configuration = stage.configuration('ledger', [{ url: fleet.url, namespaces: ['shop'], mode: 'off', spec: TAKING }]);
  await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { k: '0' }),
  });
});
afterEach(() => stage.stopServices());
after(() => stage.close());

const serve = (name: string, more: readonly string[] = []): Promise<Service> =>
  stage.serve(configuration, name, ['--webhook', listen, '--audit-token-file', tokenFile, ...more]);

test('every write that the API server’s audit log shows is accounted for, and one past the gate becomes an entry of its own', async () => {
  const service = await serve('audit');
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  // The webhook is off here: what an administrator writes passes, and only the audit log tells.
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'smuggled' } };
  assert.equal((await stage.admin.request('POST', '/api/v1/namespaces/shop/configmaps', body)).status, 201);
  await stage.admin.request('POST', '/api/v1/namespaces/shop/configmaps?dryRun=All', {
    ...body,
    metadata: { name: 'dry' },
  });
  await stage.admin.request('POST', '/api/v1/namespaces/default/configmaps', {
    ...body,
    metadata: { name: 'elsewhere' },
  });
  await stage.admin.request('POST', '/api/v1/namespaces/shop/configmaps', { nonsense: true });
  const found = await service.entry('audit.unmatched', 'production', () => true);
  assert.deepEqual(
    [found.entry.user, found.entry.verb, found.entry.resource, found.entry.object],
    ['admin', 'create', 'configmaps', { namespace: 'shop', name: 'smuggled', subresource: '' }],
  );
  await service.says('nothing on the ledger accounts for');
  await service.stop();
  const all = service.entries('audit.unmatched', 'production');
  assert.equal(all.length, 1, 'neither dry runs nor refusals nor other namespaces');
  const covered = service.entries('audit.covered', 'production').at(-1)?.entry;
  assert.deepEqual(
    // With what the cluster's own controllers put into each namespace.
    [covered?.unmatched, (covered?.intents ?? 0) >= 2, (covered?.events ?? 0) > (covered?.intents ?? 0)],
    [1, true, true],
  );

  const audit = (applier: string, ...more: string[]) =>
    countersign([
      'ledger',
      'audit',
      auditLog,
      '--config',
      configuration,
      '--data',
      service.data,
      '--applier',
      applier,
      ...more,
    ]);
  const reread = await audit(SERVICE_USER);
  assert.equal(reread.code, 1, reread.stderr);
  assert.match(
    reread.stdout,
    /create configmaps shop\/smuggled\n {4}by admin in production\n.*not accounted for.*: 1 write among \d+ events/s,
  );
  const asOther = await audit('nobody');
  assert.match(asOther.stdout, /: [3-9] writes among/, 'a writer who is not the service has no intents');
  const reader = new LedgerReader(join(service.data, 'ledger.db'));
  const { size } = reader;
  reader.close();
  await audit(SERVICE_USER, '--record');
  assert.equal(service.entries('audit.unmatched', 'production').length, 2, 'recorded when asked to');
  assert.ok(service.entries('audit.covered', 'production').length >= 2 && size > 0);
});

test('an attempt on the gate’s own objects, which the API server refused by itself, is on the ledger', async () => {
  const enforcing = stage.configuration('attempt', [
    { url: fleet.url, namespaces: ['shop'], mode: 'enforce', spec: TAKING },
  ]);
  const service = await stage.serve(enforcing, 'attempt', ['--webhook', listen, '--audit-token-file', tokenFile]);
  const webhook = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/countersign';
  await stage.waitFor(async () => (await stage.admin.request('DELETE', webhook)).status === 403, 'the refusal');
  const attempt = await service.entry('protection.refused', '', () => true);
  const { user, verb, resource, name } = attempt.entry;
  assert.deepEqual(
    [user, verb, resource, name],
    ['admin', 'delete', 'validatingwebhookconfigurations.admissionregistration.k8s.io', 'countersign'],
  );
  // What the webhook says of a write stands in the API server's own log.
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  const dev = await stage.as('dev');
  await dev.request('POST', '/api/v1/namespaces/shop/configmaps', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'noted' },
  });
  await stage.waitFor(
    async () => /"gate\.countersign\.dev\/denied":"ConfigMap shop\/noted/.test(readFileSync(auditLog, 'utf8')),
    'the note',
  );
  const oncall = await stage.as('oncall');
  const { items } = (await stage.get('/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings'))
    .body as {
    items: { metadata: { name: string } }[];
  };
  await service.stop();
  // The tests after this one are about the audit log alone.
  for (const { metadata } of items)
    await oncall.request(
      'DELETE',
      `/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/${metadata.name}`,
    );
  assert.equal((await oncall.request('DELETE', webhook)).status, 200);
});

test('the audit endpoint hears only who has its token, and takes only events', async () => {
  const service = await serve('endpoint');
  const post = (path: string, body: string, headers: Record<string, string> = {}) =>
    insecureFetch(`https://${listen}${path}`, body, headers);
  const authorization = { authorization: `Bearer ${TOKEN}` };
  assert.equal(await post('/audit', '{}'), 401);
  assert.equal(await post('/audit', '{}', { authorization: 'Bearer a-token-of-another-length' }), 401);
  for (const body of [
    '{}',
    '[]',
    'nonsense',
    '{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[1]}',
    '{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}',
  ])
    assert.equal(await post('/audit', body, authorization), 400, body);
  assert.equal(
    await post('/audit', '{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[]}', authorization),
    200,
  );
  await service.stop();
});

test('checkpoints are kept in a ConfigMap and a file, starts and ends are on record, and a store put back does not serve', async () => {
  const elsewhere = join(directory, 'elsewhere');
  const anchors = ['--anchor', 'configmap:default/ledger', `file:${elsewhere}`, '--anchor-every', '1s'];
  const service = await serve('anchored', anchors);
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  await stage.waitFor(
    async () => existsSync(elsewhere) && (await stage.dataOf('default', 'ledger'))?.['checkpoint'] !== undefined,
    'the anchors',
  );
  assert.equal(await service.stop(), 0);
  const data = service.data;
  const before = join(directory, 'before');
  cpSync(data, before, { recursive: true });
  const [port] = await freePorts(1);
  const changed = stage.configuration('changed', [
    { url: fleet.url, namespaces: ['shop'], mode: 'off', interval: '600ms', spec: TAKING },
  ]);
  const again = await stage.serve(changed, 'anchored', [
    '--webhook',
    `127.0.0.1:${port}`,
    '--heartbeat',
    '1s',
    ...anchors,
  ]);
  const commit = await stage.change(fleet, 'second', {
    [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { k: '1' }),
  });
  await again.entry('ref.advanced', 'production', (e) => e.after === commit);
  await again.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  await stage.waitFor(
    async () => again.entries('heartbeat', '').some((r) => r.entry.environments[0]?.revision === commit),
    'the heartbeat',
  );
  assert.equal(await again.stop(), 0);
  const reader = new LedgerReader(join(data, 'ledger.db'));
  const types = [...reader.stored()].map((s) => s.type);
  assert.equal(verifyLedger(reader, parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8'))).finding, undefined);
  const started = reader.latest(['service.started'], '')?.entry;
  const verified = reader.all('commit.verified', 'production');
  const approved = reader.all('approval.recorded', 'production');
  reader.close();
  for (const type of [
    'service.started',
    'service.stopped',
    'checkpoint.anchored',
    'policy.changed',
    'config.changed',
    'ref.advanced',
    'heartbeat',
  ])
    assert.ok(types.includes(type), type);
  assert.deepEqual(
    [types.filter((t) => t === 'service.stopped').length, (started?.found?.entries ?? 0) > 5],
    [2, true],
  );
  assert.ok(verified.every((r) => r.entry.principal === 'dana') && verified.length === 2, JSON.stringify(verified));
  assert.ok(approved.every((r) => r.entry.principal === 'lee') && approved.length >= 2);

  // The whole data directory goes back, its own anchor with it: only what was kept elsewhere tells.
  rmSync(data, { recursive: true });
  cpSync(before, data, { recursive: true });
  const refused = await countersignProcess([
    ...['serve', ...(await stage.arguments(configuration))],
    ...['--data', data, '--anchor', 'configmap:default/ledger'],
  ]);
  assert.equal(refused.code, 2, refused.stderr);
  assert.match(
    refused.stderr,
    /the checkpoint kept in configmap default\/ledger covers \d+: the ledger was rolled back to an older state/,
  );
  assert.equal((await stage.dataOf('shop', 'settings'))?.['k'], '1', 'and changes nothing');
});

test('while the store is down nothing is applied, break-glass is recorded beside it; once it is back all of that is on the ledger, once', {
  skip: noPostgres,
}, async () => {
  const postgres = await Postgres.start();
  try {
    const { url } = await postgres.ledger();
    const key = join(directory, 'shared.key');
    writeFileSync(key, createKey());
    const governed = stage.configuration('down', [{ url: fleet.url, namespaces: ['shop'], spec: TAKING }]);
    const service = await stage.serve(governed, 'down', ['--ledger', url, '--ledger-key', key]);
    await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
    const before = (await stage.dataOf('shop', 'settings'))?.['k'];
    await postgres.kill();
    await stage.change(fleet, 'unrecorded', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { k: 'down' }) });
    const oncall = await stage.as('oncall');
    const emergency = { metadata: { annotations: { 'countersign.dev/break-glass': 'INC-1' } }, data: { k: 'glass' } };
    await service.says('cannot reach the ledger’s database');
    assert.equal((await stage.dataOf('shop', 'settings'))?.['k'], before, 'nothing is applied unrecorded');
    const path = '/api/v1/namespaces/shop/configmaps/settings';
    const through = await oncall.request('PATCH', path, emergency, 'application/merge-patch+json');
    assert.equal(through.status, 200, JSON.stringify(through.body));
    const beside = join(service.data, 'write-ahead.jsonl');
    assert.match(readFileSync(beside, 'utf8'), /"breakglass.used"/);
    assert.equal(service.entries('breakglass.used', 'production').length, 0);
    await postgres.up();
    await service.entry(
      'breakglass.used',
      'production',
      (e) => e.reason === 'INC-1' && e.at !== undefined && e.user === 'oncall',
    );
    assert.equal(service.entries('breakglass.used', 'production').length, 1);
    await stage.waitFor(async () => readFileSync(beside, 'utf8') === '', 'the end of what is beside');
    await stage.waitFor(async () => (await stage.dataOf('shop', 'settings'))?.['k'] === 'down', 'the change');
    assert.equal(await service.stop(), 0);
    oncall.close();
  } finally {
    await postgres.stop();
  }
});

async function insecureFetch(url: string, body: string, headers: Record<string, string>): Promise<number> {
  const { request } = await import('node:https');
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: 'POST', rejectUnauthorized: false, headers: { 'content-type': 'application/json', ...headers } },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}
