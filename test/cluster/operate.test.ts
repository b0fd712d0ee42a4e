import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import type { Verdict } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { freePorts } from '../kit/control-plane.ts';
import { BROKEN, configMap, deployment, HELD, namespace } from '../kit/manifests.ts';
import { startRegistry } from '../kit/registry.ts';
import { scratch } from '../kit/scratch.ts';
import { type CliResult, countersign, countersignProcess, type Service } from '../kit/service.ts';
import { podsReady } from '../kit/status.ts';
import { openStage } from '../kit/test-stage.ts';

const PATH = 'clusters/production';
const directory = scratch();
const stage = await openStage(directory);

const colour = (name: string, value: string) => ({
  [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: value }),
});
const operate = (service: Service, ...args: string[]): Promise<CliResult> =>
  countersign([...args, '--data', service.data]);

test('status, suspend and resume: a suspended environment is left alone, also by drift, and whoever did it is on the ledger', async () => {
  const { fleet, service } = await stage.running('suspend');
  const well = await operate(service, 'status');
  assert.equal(well.code, 0, well.stderr);
  assert.match(
    well.stdout,
    /^ENVIRONMENT\s+STATE\s+REVISION\s+HEALTHY\s+LOOKED\nproduction\s+applied\s+[0-9a-f]{12}\s+2\/2/,
  );
  assert.ok(well.stdout.split('\n').every((line) => line.length <= 80));
  const nobody = await operate(service, 'suspend', 'production', '--reason', ' ');
  assert.equal(nobody.code, 2);
  assert.match(nobody.stderr, /a reason is needed/);
  const unknown = await operate(service, 'suspend', 'prod', '--reason', 'x');
  assert.match(unknown.stderr, /this service does not run the environment `prod`/);
  assert.equal((await operate(service, 'suspend', 'production', '--reason', 'INC-7: moving the database')).code, 0);
  const commit = await stage.change(fleet, 'green', colour('suspend', 'green'));
  const controller = await stage.as('controller');
  await controller.request('DELETE', '/api/v1/namespaces/suspend/configmaps/settings');
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.equal(await stage.dataOf('suspend', 'settings'), undefined);
  const held = await operate(service, 'status');
  assert.equal(held.code, 1);
  assert.match(held.stdout, /suspended: INC-7: moving the database/);
  assert.equal((await operate(service, 'resume', 'production', '--reason', 'done')).code, 0);
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  const [suspended] = service.entries('environment.suspended', 'production');
  assert.match(suspended?.entry.user ?? '', /^\w+@/);
  assert.equal(suspended?.entry.reason, 'INC-7: moving the database');
  await service.stop();
  const off = await operate(service, 'suspend', 'production', '--reason', 'while it is off');
  assert.match(off.stdout, /once the service runs again/);
  const resting = await operate(service, 'status');
  assert.equal(resting.code, 1);
  assert.match(resting.stderr, /no service runs on this data directory/);
});

test('commands find the service also where its data directory has a name too long for a socket', async () => {
  const fleet = stage.fleet('long');
  const configuration = stage.configuration('long', [{ url: fleet.url, namespaces: ['long'] }]);
  await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace('long'), ...colour('long', 'blue') });
  const service = await stage.serve(configuration, `long-${'x'.repeat(120)}`);
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  await stage.waitFor(async () => /production\s+applied/.test((await operate(service, 'status')).stdout), 'the status');
});

test('rollback: an earlier good revision after the same checks, held until a new commit, with the way to make Git agree', async () => {
  const { fleet, service, first } = await stage.running('back');
  const second = await stage.change(fleet, 'green', colour('back', 'green'));
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const never = await operate(service, 'rollback', 'production', '--to', 'abcdef0', '--reason', 'x');
  assert.equal(never.code, 2);
  assert.match(never.stderr, /`production` was never at the revision `abcdef0`/);
  const back = await operate(
    service,
    'rollback',
    'production',
    '--to',
    first.slice(0, 12),
    '--reason',
    'INC-8: green hurts',
  );
  assert.equal(back.code, 0, back.stdout + back.stderr);
  assert.match(back.stdout, new RegExp(`git revert --no-edit ${first.slice(0, 12)}\\.\\.${second.slice(0, 12)}`));
  assert.equal((await stage.dataOf('back', 'settings'))?.['colour'], 'blue');
  await service.entry('apply.intent', 'production', (e) => e.purpose === 'rollback' && e.revision === first);
  await service.looksAgain();
  assert.equal((await stage.dataOf('back', 'settings'))?.['colour'], 'blue', 'it stays there');
  assert.match((await operate(service, 'status')).stdout, /rolled back to .* until its objects change, .*: INC-8/);
  const third = await stage.change(fleet, 'grey', colour('back', 'grey'));
  await service.entry('apply.result', 'production', (e) => e.revision === third && e.outcome === 'applied');
});

test('a rollback does not wait for a rollout that hangs', async () => {
  const { fleet, service, first } = await stage.running('hangs', { health: { wait: true, timeout: '10m' } });
  const stuck = await stage.change(fleet, 'stuck', {
    ...colour('hangs', 'green'),
    [`${PATH}/web.yaml`]: deployment('hangs', 'web', { image: HELD }),
  });
  await service.entry('apply.intent', 'production', (e) => e.revision === stuck);
  const back = await operate(service, 'rollback', 'production', '--to', first, '--reason', 'INC-8');
  assert.equal(back.code, 0, back.stdout + back.stderr);
  assert.equal((await stage.dataOf('hangs', 'settings'))?.['colour'], 'blue');
  await stage.waitFor(
    async () => (await stage.get('/apis/apps/v1/namespaces/hangs/deployments/web')).status === 404,
    'the removal',
  );
});

test('reconcile looks at once; from scratch it writes everything again, and the ledger says that it was a restore', async () => {
  const { fleet, service, configuration, first } = await stage.running('again', {
    source: { url: `${stage.git.url}/again.git`, branch: 'main', path: PATH, interval: '10m' },
  });
  const next = await stage.change(fleet, 'green', colour('again', 'green'));
  const looked = await operate(service, 'reconcile', 'production', '--reason', 'the call was lost');
  assert.equal(looked.code, 0, looked.stdout + looked.stderr);
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  await service.stop();
  await stage.admin.request(
    'DELETE',
    `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${stage.webhook}`,
  );
  await stage.admin.request('DELETE', '/api/v1/namespaces/again/configmaps/settings');
  const service2 = await stage.serve(configuration, 'again');
  const restored = await operate(
    service2,
    'reconcile',
    'production',
    '--from-scratch',
    '--reason',
    'INC-9: the cluster was rebuilt',
  );
  assert.equal(restored.code, 0, restored.stdout + restored.stderr);
  assert.match(restored.stdout, /restored `production`: 2 objects in \d+\.\d s/);
  assert.equal((await stage.dataOf('again', 'settings'))?.['colour'], 'green');
  await service2.entry(
    'apply.intent',
    'production',
    (e) => e.purpose === 'restore' && e.revision === next && e.revision !== first,
  );
});

test('explain: where a live object comes from, from the ledger alone', async () => {
  const { service, first } = await stage.running('origin');
  const text = await operate(service, 'explain', 'configmap/settings');
  assert.equal(text.code, 0, text.stderr);
  for (const line of [
    /^object\s+ConfigMap origin\/settings$/m,
    /^from\s+clusters\/production\/cm\.yaml:1$/m,
    new RegExp(`^commit\\s+${first.slice(0, 12)} first$`, 'm'),
    /^signed by\s+dana$/m,
    /^approved by\s+lee \(class A\)/m,
    /^proof\s+`--proof` prints it; `countersign ledger prove \d+` writes it to files$/m,
  ])
    assert.match(text.stdout, line);
  const shown = await operate(service, 'explain', 'configmap/settings', '--proof');
  const receipt = shown.stdout.slice(shown.stdout.indexOf('c2sp.org/tlog-proof@v1'));
  const verdict = /^ledger\s+verdict (\d+)/m.exec(shown.stdout)?.[1] ?? '';
  const out = join(directory, 'proof');
  assert.equal((await operate(service, 'ledger', 'prove', verdict, '--out', out)).code, 0);
  writeFileSync(join(out, `${verdict}.tlog-proof`), receipt);
  const checked = await countersign([
    'ledger',
    'prove',
    '--check',
    join(out, `${verdict}.tlog-proof`),
    '--key',
    join(service.data, 'ledger.pub'),
  ]);
  assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  const none = await operate(service, 'explain', 'configmap/nobody');
  assert.equal(none.code, 1);
  assert.match(none.stdout, /not found: the ledger has no object configmap\/nobody/);
  assert.equal((await operate(service, 'explain', 'configmap')).code, 2);
});

test('diff: nothing, something, or it could not be told; values of Secrets stay hidden', async () => {
  const name = 'diff';
  const { fleet, configuration } = await stage.running(name);
  const run = (...more: string[]) =>
    countersign([
      'diff',
      '--repo',
      fleet.work,
      '--config',
      configuration,
      '--kubeconfig',
      stage.controlPlane.kubeconfig('admin'),
      ...more,
    ]);
  const nothing = await run();
  assert.equal(nothing.code, 0, nothing.stdout + nothing.stderr);
  assert.match(nothing.stdout, /no difference: all 2 objects match Git/);
  fleet.commit(stage.dana, 'not pushed', {
    ...colour(name, 'red'),
    [`${PATH}/s.yaml`]: `apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ${name}}\nstringData: {password: correct-horse-battery}\n`,
  });
  const something = await run();
  assert.equal(something.code, 1, something.stderr);
  assert.match(something.stdout, /^update ConfigMap diff\/settings$/m);
  assert.match(something.stdout, /^- {2}colour: blue$/m);
  assert.match(something.stdout, /^\+ {2}colour: red$/m);
  assert.match(something.stdout, /^create Secret diff\/s$/m);
  assert.match(something.stdout, /password: \(hidden\)/);
  assert.doesNotMatch(something.stdout, /correct-horse|Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5/);
  assert.match(something.stdout, /2 of 3 objects differ/);
  const away = await countersign([
    'diff',
    '--repo',
    fleet.work,
    '--config',
    configuration,
    '--kubeconfig',
    join(directory, 'none'),
  ]);
  assert.equal(away.code, 2);
});

test('apply does one pass and ends, with the exit code of what came of it and the same records', async () => {
  const name = 'once';
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name] }]);
  const data = stage.data(name);
  const run = () =>
    countersign([
      'apply',
      '--config',
      configuration,
      '--kubeconfig',
      stage.controlPlane.kubeconfig('countersign'),
      '--data',
      data,
    ]);
  await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace(name), ...colour(name, 'blue') });
  const one = await run();
  assert.equal(one.code, 0, one.stdout + one.stderr);
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
  fleet.commit(stage.dana, 'not approved', colour(name, 'red'));
  fleet.push();
  const two = await run();
  assert.equal(two.code, 1);
  assert.match(two.stdout, /production: denied, .*approv/);
  const shown = await countersign(['ledger', 'show', '--data', data, '--type', 'apply', '--output', 'jsonl']);
  assert.match(shown.stdout, /"apply\.intent"[\s\S]*"apply\.result"/);
});

test('a call of a forge makes an environment look at once, when it proves itself, and only once', async () => {
  const secretFile = join(directory, 'receiver-secret');
  const secret = 'the secret of the receiver';
  writeFileSync(secretFile, `${secret}\n`);
  const [port] = await freePorts(1);
  const source = (from: string) => ({
    url: `${stage.git.url}/hook.git`,
    branch: 'main',
    path: PATH,
    interval: '10m',
    receiver: { from, secretFile },
  });
  const { fleet, service } = await stage.running(
    'hook',
    { source: source('github') },
    { arguments: ['--http', `127.0.0.1:${port}`] },
  );
  const call = async (headers: Record<string, string>, body = '{}', environment = 'production') => {
    const answer = await fetch(`http://127.0.0.1:${port}/receive/${environment}`, { method: 'POST', body, headers });
    return answer.status;
  };
  const sign = (body: string) => createHmac('sha256', secret).update(body).digest('hex');
  const green = await stage.change(fleet, 'green', colour('hook', 'green'));
  assert.equal(await call({ 'x-hub-signature-256': 'sha256=00' }), 401);
  assert.equal(await call({}), 401);
  assert.equal(await call({ 'x-hub-signature-256': `sha256=${sign('{}')}` }, '{"other":1}'), 401, 'for another body');
  assert.equal(await call({ 'x-hub-signature-256': `sha256=${sign('{}')}` }, '{}', 'staging'), 404);
  const good = { 'x-hub-signature-256': `sha256=${sign('{"n":1}')}`, 'x-github-delivery': '1' };
  assert.equal(await call(good, '{"n":1}'), 202);
  await service.entry('apply.result', 'production', (e) => e.revision === green && e.outcome === 'applied', 5000);
  assert.equal(await call(good, '{"n":1}'), 401, 'a replay');
  assert.equal(await call({ ...good, 'x-github-delivery': '2' }, '{"n":1}'), 401, 'a replay under another number');
  await service.stop();
  for (const [from, headers] of [
    ['gitlab', (_: string) => ({ 'x-gitlab-token': secret })],
    ['gitea', (body: string) => ({ 'x-gitea-signature': sign(body) })],
    ['bitbucket', (body: string) => ({ 'x-hub-signature': `sha256=${sign(body)}` })],
    [
      'generic',
      (body: string) => {
        const time = String(Math.floor(Date.now() / 1000));
        return { 'x-countersign-time': time, 'x-countersign-signature': sign(`${time}.${body}`) };
      },
    ],
  ] as const) {
    const configuration = stage.configuration('hook', [
      { url: fleet.url, namespaces: ['hook'], spec: { source: source(from) } },
    ]);
    const other = await stage.serve(configuration, 'hook', ['--http', `127.0.0.1:${port}`]);
    assert.equal(await call({}), 401, from);
    assert.equal(await call(headers('{}') as Record<string, string>, '{}'), 202, from);
    if (from === 'generic') {
      const old = String(Math.floor(Date.now() / 1000) - 301);
      assert.equal(
        await call({ 'x-countersign-time': old, 'x-countersign-signature': sign(`${old}.{}`) }),
        401,
        'too old',
      );
    }
    const large = Buffer.alloc(26 * 1024 * 1024, 97);
    assert.ok(
      [401, 413].includes(await call(headers('x') as Record<string, string>, large.toString()).catch(() => 413)),
      'too large',
    );
    await other.stop();
  }
});

test('probes and metrics say what an environment is at', async () => {
  const [port] = await freePorts(1);
  const { service } = await stage.running('probes', {}, { arguments: ['--http', `127.0.0.1:${port}`] });
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: answer.status, text: await answer.text() };
  };
  assert.deepEqual(await get('/healthz'), { status: 200, text: 'ok\n' });
  await stage.waitFor(async () => (await get('/readyz')).status === 200, 'readiness');
  // The ledger has the result a moment before the status that the metrics are made of.
  const applied = /^countersign_events_total\{environment="production",event="applied"\} 1$/m;
  await stage.waitFor(async () => applied.test((await get('/metrics')).text), 'the result to be counted');
  const { text } = await get('/metrics');
  for (const line of [
    /^countersign_environment_info\{environment="production",revision="[0-9a-f]{40}",state="applied"\} 1$/m,
    /^countersign_environment_ready\{environment="production"\} 1$/m,
    /^countersign_objects\{environment="production",health="current"\} 2$/m,
    applied,
    /^countersign_reconcile_duration_seconds_count\{environment="production",kind="look"\} \d+$/m,
    /^countersign_admission_requests_total\{environment="production",operation="CREATE",decision="allowed"\} \d+$/m,
    /^countersign_ledger_entries \d+$/m,
    /^process_cpu_seconds_total /m,
  ])
    assert.match(text, line);
  await operate(service, 'suspend', 'production', '--reason', 'x');
  const suspended = /^countersign_events_total\{environment="production",event="suspended"\} 1$/m;
  await stage.waitFor(async () => suspended.test((await get('/metrics')).text), 'the count');
});

test('promotion: production takes only commits that staging had in health, and depends on it', async () => {
  const fleet = stage.fleet('promote');
  const health = { wait: true, timeout: '5s' };
  const configuration = stage.configuration('promote', [
    { name: 'staging', url: fleet.url, path: 'clusters/staging', namespaces: ['p-staging'], spec: { health } },
    {
      name: 'production',
      url: fleet.url,
      path: 'clusters/production',
      namespaces: ['p-production'],
      spec: { health, dependsOn: ['staging'], promotion: { from: 'staging', healthyFor: '2s' } },
    },
  ]);
  const files = (value: string, more: Record<string, string | undefined> = {}) => ({
    'clusters/staging/ns.yaml': namespace('p-staging'),
    'clusters/staging/cm.yaml': configMap('p-staging', 'settings', { colour: value }),
    'clusters/production/ns.yaml': namespace('p-production'),
    'clusters/production/cm.yaml': configMap('p-production', 'settings', { colour: value }),
    ...more,
  });
  const good = await stage.change(fleet, 'blue', files('blue'));
  const service = await stage.serve(configuration, 'promote');
  const there = await service.entry('apply.result', 'staging', (e) => e.revision === good && e.outcome === 'applied');
  const here = await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied');
  assert.ok(Date.parse(here.entry.time) - Date.parse(there.entry.time) >= 2000, 'two seconds in health');
  const bad = await stage.change(
    fleet,
    'red',
    files('red', { 'clusters/staging/web.yaml': deployment('p-staging', 'web', { image: BROKEN, deadline: 1 }) }),
  );
  await service.entry('apply.intent', 'staging', (e) => e.revision === bad);
  await service.entry('apply.result', 'staging', (e) => e.outcome === 'failed');
  await service.looksAgain(6);
  assert.equal(
    (await stage.dataOf('p-production', 'settings'))?.['colour'],
    'blue',
    'what failed in staging stays there',
  );
  assert.deepEqual(
    service.entries('apply.intent', 'production').filter((r) => r.entry.revision === bad),
    [],
  );
});

test('promotion counts what the service has seen: the time in which it was away proves nothing', async () => {
  const fleet = stage.fleet('soak');
  const seconds = 8;
  const environment = (name: string, spec: object) => ({
    ...{ name, url: fleet.url, path: `clusters/${name}`, namespaces: [`soak-${name}`], spec: { ...spec } },
  });
  const configuration = stage.configuration('soak', [
    environment('staging', {}),
    environment('production', { promotion: { from: 'staging', healthyFor: `${seconds}s` } }),
  ]);
  const files = (name: string) => ({
    [`clusters/${name}/ns.yaml`]: namespace(`soak-${name}`),
    [`clusters/${name}/cm.yaml`]: configMap(`soak-${name}`, 'settings', { colour: 'blue' }),
  });
  const commit = await stage.change(fleet, 'blue', { ...files('staging'), ...files('production') });
  const first = await stage.serve(configuration, 'soak');
  const there = await first.entry('apply.result', 'staging', (e) => e.revision === commit && e.outcome === 'applied');
  await first.stop();
  const seen = first
    .entries('heartbeat', '')
    .at(-1)
    ?.entry.environments.find((e) => e.name === 'staging');
  const longAgo = Date.parse(there.entry.time) + (seconds + 1) * 1000;
  await stage.waitFor(async () => Date.now() > longAgo, 'the time');
  const second = await stage.serve(configuration, 'soak');
  const begun = second.entries('service.started', '').at(-1);
  const here = await second.entry(
    'apply.result',
    'production',
    (e) => e.revision === commit && e.outcome === 'applied',
  );
  const since = (Date.parse(here.entry.time) - Date.parse(begun?.entry.time as string)) / 1000;
  assert.ok(
    (seen?.healthySeconds as number) + 1 + since >= seconds,
    `${seen?.healthySeconds} s and ${since} s were seen`,
  );
});

test('an environment that depends on another waits until that is applied and healthy', async () => {
  const fleet = stage.fleet('depends');
  const health = { wait: true, timeout: '10m' };
  const configuration = stage.configuration('depends', [
    { name: 'database', url: fleet.url, path: 'database', namespaces: ['d-database'], spec: { health } },
    { name: 'shop', url: fleet.url, path: 'shop', namespaces: ['d-shop'], spec: { dependsOn: ['database'] } },
  ]);
  const commit = await stage.change(fleet, 'both', {
    'database/ns.yaml': namespace('d-database'),
    'database/db.yaml': deployment('d-database', 'db', { image: HELD }),
    'shop/ns.yaml': namespace('d-shop'),
    'shop/cm.yaml': configMap('d-shop', 'settings', { colour: 'blue' }),
  });
  const service = await stage.serve(configuration, 'depends');
  await service.entry('apply.intent', 'database', (e) => e.revision === commit);
  await service.looksAgain(3, 'shop');
  assert.deepEqual(service.entries('apply.intent', 'shop'), []);
  assert.match(
    (await operate(service, 'status', '--environment', 'shop')).stdout,
    /depends on `database`, which is applying/,
  );
  const node = await stage.as('node');
  await podsReady(node, 'd-database', 'db');
  node.close();
  await service.entry('apply.result', 'shop', (e) => e.revision === commit && e.outcome === 'applied');
});

test('a replica runs the environments of its label alone, and admission is for all of them', async () => {
  const fleet = stage.fleet('shards');
  const shard = (name: string) => ({
    name,
    url: fleet.url,
    path: name,
    namespaces: [`shard-${name}`],
    labels: { shard: name },
  });
  const configuration = stage.configuration('shards', [shard('a'), shard('b')]);
  const files = Object.fromEntries(['a', 'b'].map((n) => [`${n}/ns.yaml`, namespace(`shard-${n}`)]));
  await stage.change(fleet, 'both', files);
  await stage.admin.request('POST', '/api/v1/namespaces', { metadata: { name: 'shard-b' } });
  const service = await stage.serve(configuration, 'shards', ['--selector', 'shard=a']);
  await service.entry('apply.result', 'a', (e) => e.outcome === 'applied');
  assert.deepEqual(service.entries('apply.intent', 'b'), []);
  assert.doesNotMatch((await operate(service, 'status')).stdout, /^b /m);
  const refused = await stage.admin.request('POST', '/api/v1/namespaces/shard-b/configmaps', {
    metadata: { name: 'x' },
  });
  assert.match(String(refused.body['message']), /governed by the environment `b`/);
  await service.stop();
  for (const [selector, message] of [
    ['shard', /`shard` selects nothing/],
    ['shard=c', /no environment has the labels `shard=c`/],
  ] as const) {
    const none = await countersignProcess([
      'serve',
      ...(await stage.arguments(configuration)),
      '--data',
      service.data,
      '--selector',
      selector,
    ]);
    assert.equal(none.code, 2);
    assert.match(none.stderr, message);
  }
});

test('a closed window keeps a change back and says so; an approval that says so passes it, and both are on the ledger', async () => {
  const freeze = { name: 'always', kind: 'freeze', schedule: '* * * * *', duration: '1h' };
  const { fleet, service, configuration, first } = await stage.running('window');
  await service.stop();
  const overriding = (who: string) =>
    stage.configuration('window', [
      { url: fleet.url, namespaces: ['window'], spec: { windows: [freeze], windowOverride: [who] } },
    ]);
  overriding('dana');
  const again = await stage.serve(configuration, 'window');
  const before = fleet.head();
  const commit = await stage.change(fleet, 'green', colour('window', 'green'));
  const closed = await again.entry('window.closed', 'production', (e) => e.revision === commit);
  assert.equal(closed.entry.window, 'always');
  assert.match((await operate(again, 'status')).stdout, /waits for the window `always` until/);
  const controller = await stage.as('controller');
  await controller.request('DELETE', '/api/v1/namespaces/window/configmaps/settings');
  await stage.waitFor(
    async () => (await stage.dataOf('window', 'settings'))?.['colour'] === 'blue',
    'drift is put right all the same',
  );
  assert.equal(again.entries('window.closed', 'production').length, 1);
  await approveAs(stage.lee, fleet, before, commit, { windowOverride: true, reason: 'INC-10: must go out' });
  fleet.push();
  await again.looksAgain();
  assert.equal((await stage.dataOf('window', 'settings'))?.['colour'], 'blue', 'lee may approve, and not override');
  await again.stop();
  overriding('lee');
  const last = await stage.serve(configuration, 'window');
  await last.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  const passed = await last.entry('window.overridden', 'production', (e) => e.revision === commit);
  assert.deepEqual([passed.entry.principal, passed.entry.reason], ['lee', 'INC-10: must go out']);
  assert.notEqual(first, commit);
});

test('an environment acts as its own ServiceAccount, and has no other rights', async () => {
  const name = 'account';
  const fleet = stage.fleet(name);
  await stage.admin.request('POST', '/api/v1/namespaces', { metadata: { name } });
  await stage.admin.request('POST', '/api/v1/namespaces/default/serviceaccounts', { metadata: { name: 'deployer' } });
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  await stage.admin.request('POST', `${rbac}/namespaces/${name}/roles`, {
    metadata: { name: 'deployer' },
    rules: [
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list', 'watch', 'create', 'patch', 'delete'] },
    ],
  });
  await stage.admin.request('POST', `${rbac}/namespaces/${name}/rolebindings`, {
    metadata: { name: 'deployer' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'deployer' },
    subjects: [{ kind: 'ServiceAccount', name: 'deployer', namespace: 'default' }],
  });
  await stage.admin.request('POST', `${rbac}/clusterroles`, {
    metadata: { name: 'read-namespaces' },
    rules: [{ apiGroups: [''], resources: ['namespaces'], verbs: ['get'] }],
  });
  await stage.admin.request('POST', `${rbac}/clusterrolebindings`, {
    metadata: { name: 'read-namespaces' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'read-namespaces' },
    subjects: [{ kind: 'ServiceAccount', name: 'deployer', namespace: 'default' }],
  });
  const configuration = stage.configuration(name, [
    {
      url: fleet.url,
      namespaces: [name],
      mode: 'off',
      spec: { target: { namespaces: [name], serviceAccount: 'default/deployer' } },
    },
  ]);
  const first = await stage.change(fleet, 'first', colour(name, 'blue'));
  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  await stage.admin.request(
    'PATCH',
    `/api/v1/namespaces/${name}/configmaps/settings`,
    { data: { colour: 'red' } },
    'application/merge-patch+json',
  );
  await stage.waitFor(
    async () => (await stage.dataOf(name, 'settings'))?.['colour'] === 'blue',
    'the correction, by a watch on the namespace alone',
  );
  const web = await stage.change(fleet, 'web', { [`${PATH}/web.yaml`]: deployment(name, 'web') });
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === web);
  assert.match(refused.entry.error, /deployments.*|may not list and watch the kind `Deployment`/);
});

test('a Secret that SOPS encrypted is opened for the API server alone; neither ledger nor log nor disk has its values', async () => {
  const fixtures = fileURLToPath(new URL('../sops/fixtures/', import.meta.url));
  // SOPS' MAC covers the namespace, which is `shop`
  const text = (name: string) => readFileSync(join(fixtures, name), 'utf8');
  const keys = join(directory, 'age.key');
  writeFileSync(keys, text('age.key'));
  const { fleet, service, configuration } = await stage.running('shop', { decryption: { ageKeyFile: keys } });
  const secret = async () => {
    const { status, body } = await stage.get('/api/v1/namespaces/shop/secrets/database');
    const values = Object.entries((body['data'] ?? {}) as Record<string, string>);
    return status === 200
      ? Object.fromEntries(values.map(([k, v]) => [k, Buffer.from(v, 'base64').toString()]))
      : undefined;
  };
  const change = (message: string, content: string) =>
    stage.change(fleet, message, { [`${PATH}/secret.yaml`]: content });
  const commit = await change('a secret', text('age.yaml'));
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.deepEqual(await secret(), {
    password: 'correct horse battery staple',
    empty: '',
    umlaut: 'grün ✓',
    lines: 'one\ntwo\n',
  });
  const { body } = await stage.get('/api/v1/namespaces/shop/secrets/database');
  assert.equal(body['sops'], undefined);
  // Drift in it is put right, and not told by value.
  const controller = await stage.as('controller');
  const path = '/api/v1/namespaces/shop/secrets/database?fieldManager=vault';
  const patched = await controller.request(
    'PATCH',
    path,
    { stringData: { password: 'stolen' } },
    'application/merge-patch+json',
  );
  assert.equal(patched.status, 200, JSON.stringify(patched.body));
  await service.entry('drift.corrected', 'production', (e) => e.objects.some((o) => o.kind === 'Secret'));
  assert.equal((await secret())?.['password'], 'correct horse battery staple');
  const shown = await countersign([
    'diff',
    '--repo',
    fleet.work,
    '--config',
    configuration,
    '--kubeconfig',
    stage.controlPlane.kubeconfig('countersign'),
  ]);
  assert.equal(shown.code, 0, shown.stdout + shown.stderr);
  // A value that was altered, and a key that is not ours: refused before anything is written.
  const altered = await change('altered', text('age.yaml').replace(/(password: ENC\[AES256_GCM,data:)./, '$1A'));
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === altered);
  assert.match(refused.entry.error, /Secret shop\/database cannot be decrypted: `stringData\.password` was altered/);
  // A copy under another name is refused as a whole, though its values are whole: the MAC covers the name.
  const copied = await change('copied', text('age.yaml').replace('name: database', 'name: mine'));
  const moved = await service.entry('apply.refused', 'production', (e) => e.revision === copied);
  assert.match(
    moved.entry.error,
    /Secret shop\/mine cannot be decrypted: a value was added, removed, moved or changed/,
  );
  const bound = await service.entry('secret.bound', 'production', (e) => e.object === 'Secret shop/database');
  assert.match(bound.entry.key, /^[0-9a-f]{64}$/);
  // So is a copy of one whose MAC leaves its name out: its key is known for another object.
  const first = await change('only values', text('only.yaml'));
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const second = await change('copied once more', text('only.yaml').replace('name: numbers', 'name: mine'));
  const stolen = await service.entry('apply.refused', 'production', (e) => e.revision === second);
  assert.match(
    stolen.entry.error,
    /Secret shop\/mine cannot be decrypted: its data key was encrypted for Secret shop\/numbers/,
  );
  const back = await change('back', text('age.yaml'));
  await service.entry('apply.result', 'production', (e) => e.revision === back && e.outcome === 'applied');
  const foreign = await change('for another key', text('openpgp.yaml'));
  const unreadable = await service.entry('apply.refused', 'production', (e) => e.revision === foreign);
  assert.match(unreadable.entry.error, /none of the environment’s keys can decrypt it/);
  assert.equal((await secret())?.['password'], 'correct horse battery staple');
  await service.stop();
  const everything = readdirSync(service.data, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
  const secrets = [
    'correct horse battery staple',
    Buffer.from('correct horse battery staple').toString('base64'),
    'AGE-SECRET-KEY',
  ];
  for (const entry of everything) {
    const bytes = readFileSync(join(entry.parentPath, entry.name));
    for (const word of secrets) assert.ok(!bytes.includes(word), `${entry.name} holds it`);
  }
  for (const word of secrets) assert.ok(!service.log.includes(word));
});

test('an encrypted Secret is refused where the environment has no keys', async () => {
  const { fleet, service } = await stage.running('keyless');
  const text = readFileSync(new URL('../sops/fixtures/age.yaml', import.meta.url), 'utf8').replaceAll(
    'namespace: shop',
    'namespace: keyless',
  );
  const commit = await stage.change(fleet, 'a secret', { [`${PATH}/secret.yaml`]: text });
  const judged = await service.entry('change.judged', 'production', (e) => e.to === commit);
  const { violations } = service.evidence<Verdict>(judged.entry.evidence);
  assert.deepEqual(
    violations.map((v) => v.code),
    ['cannot-be-decrypted'],
  );
});

test('traces follow a change from the look to the last write, and name nobody; a collector that is away is in nobody’s way', async () => {
  type Span = {
    name: string;
    spanId: string;
    parentSpanId?: string;
    attributes: { key: string; value: { stringValue?: string } }[];
  };
  const spans: Span[] = [];
  let all = '';
  const collector = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const text = Buffer.concat(parts).toString();
      all += text;
      type Sent = { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] };
      for (const { scopeSpans } of (JSON.parse(text) as Sent).resourceSpans)
        spans.push(...scopeSpans.flatMap((s) => s.spans));
      response.setHeader('content-type', 'application/json').end('{}');
    });
  });
  const [port = 0, nobody = 0] = await freePorts(2);
  await new Promise<void>((done) => collector.listen(port, '127.0.0.1', done));
  const { service } = await stage.running(
    'traced',
    {},
    { arguments: ['--traces', `http://127.0.0.1:${port}/v1/traces`] },
  );
  assert.equal(await service.stop(), 0);
  await new Promise((done) => collector.close(done));
  const find = (name: string, test: (span: Span) => boolean = () => true) =>
    spans.find((s) => s.name === name && test(s)) ?? assert.fail(`no span ${name}`);
  const above = (span: Span) => spans.find((s) => s.spanId === span.parentSpanId)?.name;
  for (const [name, parent] of [
    ['fetch', 'look'],
    ['judge', 'look'],
    ['apply', 'look'],
    ['dry-run', 'apply'],
    ['write', 'apply'],
    ['prune', 'apply'],
  ] as const)
    assert.equal(above(find(name)), parent, name);
  const attribute = (span: Span, key: string) =>
    span.attributes.find((a) => a.key === `countersign.${key}`)?.value.stringValue;
  assert.equal(attribute(find('judge'), 'outcome'), 'allowed');
  assert.equal(attribute(find('apply'), 'outcome'), 'applied');
  assert.equal(
    attribute(
      find('admit', (s) => attribute(s, 'kind') === 'ConfigMap'),
      'operation',
    ),
    'CREATE',
  );
  assert.ok(!/dana|lee|example\.test/.test(all), 'nobody is named');
  const alone = await stage.running(
    'untraced',
    {},
    { arguments: ['--traces', `http://127.0.0.1:${nobody}/v1/traces`] },
  );
  assert.equal(await alone.service.stop(), 0);
  const wrong = await countersignProcess([
    'serve',
    ...(await stage.arguments(alone.configuration)),
    '--data',
    stage.data('wrong'),
    '--traces',
    'collector',
  ]);
  assert.match(wrong.stderr, /`collector` is not the address of a collector/);
});

test('a chart of a registry is a part of the change by the digest that stands in the repository, and is brought once', async () => {
  const name = 'pinned';
  const chart = join(directory, 'web');
  mkdirSync(join(chart, 'templates'), { recursive: true });
  writeFileSync(join(chart, 'Chart.yaml'), 'apiVersion: v2\nname: web\nversion: 1.0.0\n');
  writeFileSync(
    join(chart, 'templates', 'ns.yaml'),
    'apiVersion: v1\nkind: Namespace\nmetadata: {name: {{ .Release.Namespace }}}\n',
  );
  writeFileSync(
    join(chart, 'templates', 'cm.yaml'),
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: {{ .Release.Namespace }}}\ndata: {colour: {{ .Values.colour }}}\n',
  );
  execFileSync(await tool('helm'), ['package', chart, '--destination', directory]);
  const archive = readFileSync(join(directory, 'web-1.0.0.tgz'));
  const registry = await startRegistry('charts/web', archive, 'application/vnd.cncf.helm.chart.content.v1.tar+gzip');
  const host = registry.reference.slice(0, registry.reference.indexOf('/'));
  const credentialsFile = join(directory, 'registry');
  writeFileSync(credentialsFile, 'u:p\n');
  const fleet = stage.fleet(name);
  const render = {
    with: 'helm',
    chart: 'web.yaml',
    values: ['values.yaml'],
    registries: [{ host, credentialsFile }],
  };
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], spec: { render } }]);
  const oci = JSON.stringify({ url: `oci://${host}/charts/web`, digest: registry.digest });
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/web.yaml`]: oci,
    [`${PATH}/values.yaml`]: 'colour: blue\n',
  });
  const check = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    configuration,
    '--base',
    '0'.repeat(40),
    '--output',
    'json',
  ]);
  assert.equal(check.code, 0, check.stdout + check.stderr);
  let service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
  await service.stop();
  // The registry is gone: what was brought is here, also after a restart; drift is put right, and new values are
  // applied.
  await new Promise((done) => registry.server.close(done));
  service = await stage.serve(configuration, name);
  await (await stage.as('controller')).request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
  await stage.waitFor(
    async () => (await stage.dataOf(name, 'settings')) !== undefined,
    'what was deleted to come back',
  );
  const second = await stage.change(fleet, 'second', { [`${PATH}/values.yaml`]: 'colour: red\n' });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const away = await stage.change(fleet, 'other bytes', {
    [`${PATH}/web.yaml`]: oci.replace(/sha256:./, (m) => (m.endsWith('0') ? 'sha256:1' : 'sha256:0')),
  });
  await service.says('cannot fetch the chart');
  assert.deepEqual(
    service.entries('change.judged', 'production').filter((r) => r.entry.to === away),
    [],
    'not a verdict: it could not be told',
  );
  const text = JSON.stringify(
    service.entries('change.judged', 'production').map((r) => service.evidence(r.entry.evidence)),
  );
  assert.ok(!text.includes(credentialsFile) && text.includes('web.yaml'));
});
