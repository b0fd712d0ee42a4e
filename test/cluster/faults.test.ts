import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { buildBundle } from '../../src/bundle/index.ts';
import { ObjectEvents } from '../../src/cluster/object-events.ts';
import { LedgerReader, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import type { Plan } from '../../src/model/index.ts';
import { type Asked, type Fault, startApiProxy } from '../kit/api-proxy.ts';
import { approveAs } from '../kit/approve.ts';
import type { Fleet } from '../kit/fleet.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, type Service } from '../kit/service.ts';
import type { Running } from '../kit/stage.ts';
import { openStage } from '../kit/test-stage.ts';

// The API server fails at every request of a change, in every way; nothing is ever half-done without a record, and it
// goes on by itself.
const PATH = 'clusters/production';
const directory = scratch();
// Before the services are ended.
afterEach(() => {
  proxy.fault = () => 'pass';
});
const stage = await openStage(directory);
const proxy = await startApiProxy(stage.controlPlane, 'countersign');
after(() => proxy.stop());

const running = (name: string, spec: Readonly<Record<string, unknown>> = {}): Promise<Running> =>
  stage.running(name, spec, {
    environment: { mode: 'off' },
    kubeconfig: proxy.kubeconfig,
    files: { [`${PATH}/old.yaml`]: configMap(name, 'old-0', { k: '1' }) },
  });

const change = (fleet: Fleet, name: string, n: number) =>
  stage.change(fleet, `change ${n}`, {
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: `green-${n}` }),
    [`${PATH}/web.yaml`]: deployment(name, 'web', { replicas: n }),
    [`${PATH}/old.yaml`]: configMap(name, `old-${n}`, { k: '1' }),
  });

/** The cluster is at the n-th change, whole, and every write to it was intended before it was made. */
async function isAt(service: Service, name: string, commit: string, n: number): Promise<void> {
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], `green-${n}`);
  assert.notEqual(await stage.dataOf(name, `old-${n}`), undefined);
  assert.equal(await stage.dataOf(name, `old-${n - 1}`), undefined);
  const spec = (await stage.get(`/apis/apps/v1/namespaces/${name}/deployments/web`)).body['spec'] as {
    replicas: number;
  };
  assert.equal(spec.replicas, n);
  const intents = service.entries('apply.intent', 'production').filter((r) => r.entry.revision === commit);
  const planned = new Set(
    intents.flatMap((i) => service.evidence<Plan>(i.entry.evidence).objects.map((o) => o.ref.name)),
  );
  assert.ok(['settings', 'web', `old-${n}`].every((o) => planned.has(o)));
}

function checkLedger(name: string): void {
  const data = stage.data(name);
  const reader = new LedgerReader(join(data, 'ledger.db'));
  const { finding } = verifyLedger(reader, parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8')), {
    trusted: [readFileSync(join(data, 'checkpoint'), 'utf8')],
  });
  reader.close();
  assert.equal(finding, undefined);
}

const isWrite = (a: Asked) =>
  !a.watch && !a.dryRun && (a.method === 'PATCH' || a.method === 'DELETE') && !a.path.includes('webhookconfigurations');
const isDryRun = (a: Asked) => a.dryRun;
const isRead = (a: Asked) => a.method === 'GET' && !a.watch;

const FAULTS: [string, Fault][] = [
  ['answers 500', { status: 500 }],
  ['answers 503', { status: 503 }],
  ['answers 504 after the work is done', { status: 504, after: true }],
  ['answers 429 with a Retry-After', { status: 429, retryAfter: 1 }],
  [
    'answers 409, somebody else was faster',
    { status: 409, body: { kind: 'Status', code: 409, reason: 'Conflict', message: 'the object has been modified' } },
  ],
  ['breaks off before', { drop: 'before' }],
  ['breaks off after the work is done', { drop: 'after' }],
  ['is slow', { delayMs: 1500 }],
];

describe('a change is carried through although the API server, at the first requests of a kind,', () => {
  const name = 'faults';
  let n = 0;
  let fleet: Fleet | undefined;
  let service: Service | undefined;
  after(() => service?.stop());
  async function begun(): Promise<Service> {
    if (service === undefined) {
      ({ fleet, service } = await running(name));
      stage.keep(service);
    }
    return service;
  }
  for (const [what, which] of [
    ['dry runs', isDryRun],
    ['writes', isWrite],
    ['reads', isRead],
  ] as const)
    for (const [how, fault] of FAULTS)
      test(`${what}: ${how}`, async () => {
        const service = await begun();
        const i = ++n;
        let left = 6; // more than one request is tried over: some go on to the next look
        proxy.fault = (asked) => {
          if (!which(asked) || left === 0) return 'pass';
          left--;
          return fault;
        };
        const commit = await change(fleet as Fleet, name, i);
        await isAt(service, name, commit, i);
        proxy.fault = () => 'pass';
        checkLedger(name);
        assert.deepEqual(
          service.entries('apply.result', 'production').filter((r) => r.entry.outcome === 'failed'),
          [],
          'passing trouble is no failure',
        );
      });
});

test('a credential that ends is told as that, nothing is written, and it goes on once there is a new one', async () => {
  const name = 'expired';
  const { fleet, service } = await running(name);
  proxy.fault = (asked) =>
    asked.watch
      ? 'pass'
      : { status: 401, body: { kind: 'Status', code: 401, reason: 'Unauthorized', message: 'Unauthorized' } };
  const commit = await change(fleet, name, 1);
  await service.says('grant the service’s account this right');
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
  proxy.fault = () => 'pass';
  const next = await change(fleet, name, 2);
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.notEqual(commit, next);
});

test('an API server that is away for a while changes nothing; the last good state is defended as soon as it is back', async () => {
  const name = 'api-away';
  const { service } = await running(name);
  proxy.fault = () => ({ drop: 'before' });
  await stage.admin.request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal(await stage.dataOf(name, 'settings'), undefined);
  proxy.fault = () => 'pass';
  await stage.waitFor(async () => (await stage.dataOf(name, 'settings'))?.['colour'] === 'blue', 'the return');
  assert.deepEqual(service.entries('apply.refused', 'production'), []);
});

test('watches that break off, or whose place is forgotten (410), miss nothing', async () => {
  const name = 'watches';
  const { service } = await running(name);
  let broken = 0;
  proxy.fault = (asked) => {
    if (!asked.watch) return 'pass';
    broken++;
    return broken % 3 === 0 ? { status: 410 } : { drop: 'before' };
  };
  const controller = await stage.as('controller');
  for (let i = 0; i < 3; i++) {
    await controller.request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
    await stage.waitFor(async () => (await stage.dataOf(name, 'settings'))?.['colour'] === 'blue', 'the return');
    await stage.waitFor(async () => service.entries('drift.corrected', 'production').length === i + 1, 'its record');
  }
});

test('another owner’s webhook that refuses one object is named before anything is written (Flux 4073)', async () => {
  const name = 'hooked';
  const { fleet, service } = await running(name);
  const said = 'admission webhook "team.example.test" denied the request: no Deployments on Fridays';
  proxy.fault = (asked) =>
    asked.dryRun && asked.path.includes('/deployments/')
      ? { status: 400, body: { kind: 'Status', code: 400, reason: 'BadRequest', message: said } }
      : 'pass';
  const commit = await change(fleet, name, 1);
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
  assert.match(
    refused.entry.error,
    /cannot dry-run Deployment hooked\/web: admission webhook "team\.example\.test" denied/,
  );
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
});

test('a webhook that knows no dry runs is named, with what its owner must do (Flux 1927, Argo CD 23752)', async () => {
  const name = 'nodry';
  const { fleet, service } = await running(name);
  const said = 'admission webhook "old.example.test" does not support dry run';
  proxy.fault = (asked) =>
    asked.dryRun && asked.path.includes('/deployments/')
      ? { status: 400, body: { kind: 'Status', code: 400, message: said } }
      : 'pass';
  await change(fleet, name, 1);
  await service.says('its owner must declare `sideEffects: None`');
});

test('an answer about a Secret that repeats its value is not repeated (kustomize-controller 1372, CVE-2025-23216)', async () => {
  const name = 'secretive';
  // The shipped rules would not let a Secret into the repository at all.
  const bundle = join(directory, 'rules.tar.gz');
  const root = filesIn({
    'r.rego': 'package countersign.object\ndeny contains "never" if input.object.kind == "Never"',
  });
  writeFileSync(bundle, (await buildBundle({ opa: await tool('opa'), roots: [root] })).archive);
  const { fleet, service } = await running(name, { policies: { bundles: [{ file: bundle }] } });
  proxy.fault = (asked) =>
    asked.dryRun && asked.path.includes('/secrets/')
      ? { status: 422, body: { kind: 'Status', code: 422, message: 'invalid: "correct-horse-battery"' } }
      : 'pass';
  const commit = await stage.change(fleet, 'secret', {
    [`${PATH}/s.yaml`]: `apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ${name}}\nstringData: {password: correct-horse-battery}\n`,
  });
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
  assert.match(
    refused.entry.error,
    /cannot dry-run Secret secretive\/s: the API server answered 422 \(message withheld/,
  );
  assert.doesNotMatch(service.log, /correct-horse/);
});

test('a kind that cannot be listed any more keeps no other from being defended and changed (Argo CD 25305)', async () => {
  const name = 'unrelated';
  const crd = `apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gadgets.example.test}\nspec:\n  group: example.test\n  scope: Namespaced\n  names: {kind: Gadget, plural: gadgets, singular: gadget, listKind: GadgetList}\n  versions:\n    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n`;
  const { fleet, service } = await running(name, {
    target: { namespaces: [name], clusterScoped: ['Namespace', 'CustomResourceDefinition'] },
  });
  const gadget = await stage.change(fleet, 'gadget', {
    [`${PATH}/crd.yaml`]: crd,
    [`${PATH}/gadget.yaml`]: `apiVersion: example.test/v1\nkind: Gadget\nmetadata: {name: g, namespace: ${name}}\n`,
  });
  await service.entry('apply.result', 'production', (e) => e.revision === gadget && e.outcome === 'applied');
  await service.stop();
  proxy.fault = (asked) => (asked.path.includes('/gadgets') ? { status: 500 } : 'pass');
  const again = await stage.serve(join(directory, `config-${name}`), name, [], proxy.kubeconfig);
  await again.says('cannot be watched');
  await stage.admin.request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
  await stage.waitFor(async () => (await stage.dataOf(name, 'settings'))?.['colour'] === 'blue', 'the return');
  const commit = await change(fleet, name, 1);
  await again.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.deepEqual(
    again.entries('drift.found', 'production').filter((r) => r.entry.objects.some((o) => o.kind === 'Gadget')),
    [],
    'what cannot be seen is not taken for missing',
  );
});

test('a branch that is pushed to in the middle of a run: the run ends with what it began with, the next one follows', async () => {
  const name = 'push';
  const { fleet, service } = await running(name);
  let pushed: string | undefined;
  let pushing: Promise<void> | undefined;
  proxy.fault = (asked) => {
    if (isWrite(asked))
      pushing ??= change(fleet, name, 2).then((c) => {
        pushed = c;
      });
    return isWrite(asked) ? { delayMs: 700 } : 'pass';
  };
  const commit = await change(fleet, name, 1);
  const one = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === commit && e.outcome === 'applied',
  );
  await pushing;
  proxy.fault = () => 'pass';
  const two = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === pushed && e.outcome === 'applied',
  );
  assert.ok(one.index < two.index);
  const frozen = service.evidence<Plan>(
    (await service.entry('apply.intent', 'production', (e) => e.revision === commit)).entry.evidence,
  );
  assert.ok(frozen.objects.every((o) => o.revision === commit));
});

test('a Git server that answers with garbage, with half of an answer, or never: nothing changes, it is said, and it goes on by itself', async () => {
  const name = 'garbage';
  let how: 'well' | 'garbage' | 'half' | 'never' = 'well';
  const open = new Set<Socket>();
  const between = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const headers = Object.fromEntries(
      Object.entries(request.headers).filter(([key]) => /^(content-type|accept|git-protocol)$/.test(key)),
    ) as Record<string, string>;
    const body = request.method === 'POST' ? { body: Buffer.concat(parts) } : {};
    const answer = await fetch(`${stage.git.url}${request.url}`, { method: request.method ?? 'GET', headers, ...body });
    const bytes = Buffer.from(await answer.arrayBuffer());
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' });
    if (how === 'never') return;
    if (how === 'half') return void response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
    response.end(how === 'well' ? bytes : Buffer.alloc(bytes.length, 'garbage'));
  });
  between.on('connection', (socket) => void open.add(socket));
  await new Promise<void>((done) => between.listen(0, '127.0.0.1', done));
  try {
    const fleet = stage.fleet(name);
    const url = `http://127.0.0.1:${(between.address() as AddressInfo).port}/${name}.git`;
    fleet.url = url; // what approvals are bound to; people push to the server itself
    const configuration = stage.configuration(name, [{ url, namespaces: [name], mode: 'off', interval: '10m' }]);
    const files = {
      [`${PATH}/ns.yaml`]: namespace(name),
      [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
    };
    const first = await stage.change(fleet, 'first', files);
    const service = await stage.serve(configuration, name);
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
    for (const next of ['garbage', 'half', 'never'] as const) {
      const commit = await stage.change(fleet, next, {
        [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: next }),
      });
      how = next;
      // It looks every ten minutes, and when it is told to.
      const asked = countersign(['reconcile', 'production', '--reason', next, '--data', service.data]);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      await (await stage.as('controller')).request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
      await stage.waitFor(
        async () => (await stage.dataOf(name, 'settings')) !== undefined,
        `what was deleted to come back while it is ${next}`,
      );
      assert.deepEqual(
        service.entries('change.judged', 'production').filter((r) => r.entry.to === commit),
        [],
        next,
      );
      how = 'well';
      for (const socket of open) socket.destroy();
      await service.entry(
        'apply.result',
        'production',
        (e) => e.revision === commit && e.outcome === 'applied',
        60_000,
      );
      await asked;
    }
    assert.deepEqual(
      service.entries('apply.result', 'production').filter((r) => r.entry.outcome === 'failed'),
      [],
    );
    await service.stop();
    checkLedger(name);
  } finally {
    between.close();
    for (const socket of open) socket.destroy();
  }
});

test('a flood of what happened makes a few Events, and not a full etcd (Argo CD 10529, 16284)', async () => {
  const events = new ObjectEvents(stage.admin, { warn: () => {} });
  const objects = Array.from({ length: 100 }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    namespace: 'default',
    name: `flood-${i}`,
  }));
  for (let i = 0; i < 50; i++)
    events.tell({
      environment: 'e',
      event: 'drift',
      message: 'x',
      revision: '0'.repeat(40),
      at: new Date().toISOString(),
      objects,
    });
  const count = async () => {
    const { body } = await stage.get('/apis/events.k8s.io/v1/namespaces/default/events');
    return (body['items'] as { regarding: { name: string } }[]).filter((e) => e.regarding.name.startsWith('flood-'))
      .length;
  };
  await stage.waitFor(async () => (await count()) >= 60, 'the first Events');
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(await count(), 60, 'no more than sixty a minute');
});

test('a repository of 100,000 files is looked at, and only what the environment has of it is read', async () => {
  const name = 'huge';
  const { fleet, service } = await running(name);
  const blob = fleet.git(undefined, 'hash-object', '-w', fileURLToPath(import.meta.url));
  const index = Array.from({ length: 100_000 }, (_, i) => `100644 ${blob}\tother/${i % 300}/${i}.yaml\n`).join('');
  execFileSync('git', ['update-index', '--index-info'], { cwd: fleet.work, input: index });
  // The files are in the commit and not on the disk: only what is changed here is added.
  writeFileSync(join(fleet.work, PATH, 'cm.yaml'), configMap(name, 'settings', { colour: 'huge' }));
  fleet.git(stage.dana, 'add', `${PATH}/cm.yaml`);
  const before = fleet.head();
  fleet.git(stage.dana, 'commit', '--quiet', '-S', '-m', 'huge');
  await approveAs(stage.lee, fleet, before, fleet.head());
  fleet.push();
  await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === fleet.head() && e.outcome === 'applied',
    60_000,
  );
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'huge');
  const resident = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))?.[1]) / 1024;
  assert.ok(resident < 700, `${Math.round(resident)} MiB`);
});

test('a clock that jumps a day ahead, and then behind: drift goes on, a change waits for the clock and no one is blamed, the ledger holds', async () => {
  const name = 'clock';
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], mode: 'off' }]);
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(name),
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
  });
  const clock = join(directory, 'clock.offset');
  const jump = (ms: number) => writeFileSync(clock, String(ms));
  jump(0);
  const shifted = `--import ${new URL('../kit/shifted-clock.mjs', import.meta.url)}`;
  const service = stage.start(await stage.arguments(configuration), name, [], {
    CLOCK_FILE: clock,
    NODE_OPTIONS: shifted,
  });
  const controller = await stage.as('controller');
  const applied = (commit: string, ms?: number) =>
    service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied', ms);
  const defended = async () => {
    await controller.request('DELETE', `/api/v1/namespaces/${name}/configmaps/settings`);
    await stage.waitFor(
      async () => (await stage.dataOf(name, 'settings')) !== undefined,
      'what was deleted to come back',
    );
  };
  const paint = (colour: string) =>
    stage.change(fleet, colour, { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour }) });
  await applied(first);
  jump(86_400_000);
  await defended();
  await applied(await paint('green'));
  jump(-7_200_000);
  await defended();
  const ahead = await paint('red');
  await service.says('is 2 h behind the API server: changes may wait until it is right');
  await service.says('nothing is judged until it is right');
  jump(0);
  await applied(ahead);
  assert.deepEqual(
    service.entries('change.judged', 'production').filter(({ entry }) => entry.outcome === 'denied'),
    [],
  );
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'red');
  await service.stop();
  checkLedger(name);
});

test('while others keep the webhook busy, a change is written with fewer requests at a time', async () => {
  const name = 'yielding';
  const settings = (n: number) =>
    Object.fromEntries(
      Array.from({ length: 120 }, (_, i) => [`${PATH}/c${i}.yaml`, configMap(name, `c${i}`, { n: String(n) })]),
    );
  let most = 0;
  proxy.fault = (asked) => {
    const isOurs = (a: Asked) => (a.dryRun || isWrite(a)) && a.path.includes(`/namespaces/${name}/configmaps/`);
    if (isOurs(asked)) most = Math.max(most, proxy.seen.filter((a) => a.ended !== true && isOurs(a)).length);
    return 'pass';
  };
  const { fleet, service } = await stage.running(
    name,
    {},
    {
      environment: { admission: { policy: { namespaces: ['busy-*'], mode: 'enforce' } } },
      kubeconfig: proxy.kubeconfig,
      files: settings(1),
    },
  );
  assert.ok(most > 4, String(most));
  await stage.admin.request('POST', '/api/v1/namespaces', {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'busy-team' },
  });
  const dev = await stage.as('dev');
  let going = true;
  let asked = 0;
  const load = Array.from({ length: 4 }, async () => {
    for (; going; asked++)
      await dev.request('POST', '/api/v1/namespaces/busy-team/configmaps?dryRun=All', {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'c' },
      });
  });
  await stage.waitFor(async () => asked > 100, 'a hundred requests');
  most = 0;
  const second = await stage.change(fleet, 'second', settings(2));
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  going = false;
  await Promise.all(load);
  assert.ok(most > 0 && most <= 3, String(most)); // one more while the answer of another is on its way
});
