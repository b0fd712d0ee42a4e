import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import type { StatedConfiguration } from '../../src/model/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import type { Fleet } from '../kit/fleet.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, countersignProcess, until } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Documents as objects in the cluster, installed and written by the real kubectl.
const directory = scratch();
const stage = await openStage(directory);
const kubectl = await tool('kubectl');
const nothing = writeConfiguration(join(directory, 'nothing'), []);
before(async () => {
  const { stdout } = await countersign(['crds']);
  run(stdout, 'apply', '-f', '-');
  run(
    '',
    'wait',
    '--for=condition=Established',
    'crd/environments.countersign.dev',
    'crd/environmentsets.countersign.dev',
    'crd/trustpolicies.countersign.dev',
    'crd/notifiers.countersign.dev',
    'crd/reportschedules.countersign.dev',
  );
});

type Written = {
  metadata: { name: string; generation: number };
  status?: {
    observedGeneration: number;
    state?: string;
    lastAppliedRevision?: string;
    lastCheckTime?: string;
    objects?: object;
    conditions: { type: string; status: string; reason: string; message: string; observedGeneration: number }[];
  };
};

function run(input: string, ...args: string[]): string {
  const kubeconfig = stage.controlPlane.kubeconfig('oncall'); // who is let to change the gate’s own documents
  return execFileSync(kubectl, ['--kubeconfig', kubeconfig, ...args], {
    input,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

const within = (ns: string, document: object): object => {
  const { metadata } = document as { metadata: object };
  return { ...document, metadata: { ...metadata, namespace: ns } };
};
const apply = (...documents: object[]): string =>
  run(documents.map((d) => JSON.stringify(d)).join('\n'), 'apply', '-f', '-');
const read = (ns: string, plural: string, name: string): Written =>
  JSON.parse(run('', '-n', ns, 'get', plural, name, '-o', 'json')) as Written;
const ready = ({ status, metadata }: Written) => {
  const condition = status?.conditions.find((c) => c.type === 'Ready');
  return status?.observedGeneration === metadata.generation ? condition : undefined;
};

async function says(
  ns: string,
  plural: string,
  name: string,
  expected: { status: string; reason?: string; message?: RegExp },
): Promise<Written> {
  let last: Written | undefined;
  await until(
    () => {
      last = read(ns, plural, name);
      const is = ready(last);
      return (
        is?.status === expected.status &&
        (expected.reason ?? is.reason) === is.reason &&
        (expected.message ?? /./).test(is.message)
      );
    },
    20_000,
    () => JSON.stringify(last?.status),
  );
  return last as Written;
}

async function home(
  name: string,
  spec: object = {},
): Promise<{ fleet: Fleet; environment: object; trust: object; first: string }> {
  const fleet = stage.fleet(name);
  const ns = `gate-${name}`;
  const environment = within(ns, environmentDocument({ name, url: fleet.url, namespaces: [name], spec: { ...spec } }));
  const trust = within(ns, trustDocument([stage.dana, stage.lee]));
  run('', 'create', 'namespace', ns);
  const first = await stage.change(fleet, 'first', {
    'clusters/production/ns.yaml': namespace(name),
    'clusters/production/cm.yaml': configMap(name, 'settings', { colour: 'blue' }),
  });
  return { fleet, environment, trust, first };
}

test('an EnvironmentSet in the cluster makes environments, follows its elements, and leaves the objects of one that goes', async () => {
  const fleet = stage.fleet('set');
  run('', 'create', 'namespace', 'gate-set');
  const trust = within('gate-set', trustDocument([stage.dana, stage.lee]));
  const described = environmentDocument({ url: fleet.url, namespaces: ['set-${name}'], path: 'clusters/${name}' });
  const { spec } = described as { spec: object };
  const set = (names: readonly string[], more: object = {}) =>
    within('gate-set', {
      apiVersion: 'countersign.dev/v1alpha1',
      kind: 'EnvironmentSet',
      metadata: { name: 'shops' },
      spec: {
        list: { elements: names.map((name) => ({ name })) },
        template: { metadata: { name: 'set-${name}' }, spec: { ...spec, ...more } },
      },
    });
  const files = (name: string) => ({
    [`clusters/${name}/ns.yaml`]: namespace(`set-${name}`),
    [`clusters/${name}/cm.yaml`]: configMap(`set-${name}`, 'settings', { colour: 'blue' }),
  });
  const first = await stage.change(fleet, 'first', { ...files('a'), ...files('b'), ...files('c') });
  apply(set(['a', 'b']), trust);
  const service = await stage.serve(nothing, 'set', ['--config-namespace', 'gate-set']);
  const applied = (name: string) =>
    service.entry('apply.result', name, (e) => e.revision === first && e.outcome === 'applied');
  await Promise.all([applied('set-a'), applied('set-b')]);
  await says('gate-set', 'environmentsets', 'shops', { status: 'True', message: /2 environments applied and healthy/ });
  assert.match(
    run('', '-n', 'gate-set', 'get', 'envset'),
    /^NAME\s+READY\s+ENVIRONMENTS\s+HEALTHY\nshops\s+True\s+2\s+2/,
  );

  apply(set(['b', 'c']));
  await applied('set-c');
  const stated = service.entries('config.stated', '').at(-1)?.entry;
  assert.ok(stated !== undefined);
  const { changes } = service.evidence<StatedConfiguration>(stated.evidence);
  assert.deepEqual(
    changes.filter((c) => c.what === 'namespaces').map((c) => [c.environment, c.before, c.after]),
    [
      ['set-a', 'set-a', ''],
      ['set-c', '', 'set-c'],
    ],
  );
  assert.equal((await stage.dataOf('set-a', 'settings'))?.['colour'], 'blue', 'its objects stay');

  apply(set(['b', 'c'], { trust: 'nobody' }));
  const message =
    /spec\.template\.spec\.trust: expected the name of a TrustPolicy.*\(element `b`, and 1 more problem.*the previous version stays in force/;
  await says('gate-set', 'environmentsets', 'shops', { status: 'False', reason: 'Invalid', message });
  const second = await stage.change(fleet, 'second', {
    'clusters/c/cm.yaml': configMap('set-c', 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'set-c', (e) => e.revision === second && e.outcome === 'applied');
});

test('an Environment in the cluster is run; its status says what it is at, and a change of it takes effect', async () => {
  const { fleet, environment, trust, first } = await home('crs');
  apply(environment, trust);
  const service = await stage.serve(nothing, 'crs', ['--config-namespace', 'gate-crs']);
  await service.entry('apply.result', 'crs', (e) => e.revision === first && e.outcome === 'applied');
  const { status } = await says('gate-crs', 'environments', 'crs', { status: 'True', reason: 'Applied' });
  assert.equal(status?.lastAppliedRevision, first);
  assert.equal(status?.state, 'applied');
  assert.deepEqual(status?.objects, { current: 2, progressing: 0, failed: 0, missing: 0 });
  assert.match(status?.lastCheckTime ?? '', /^2\d{3}-/);
  run('', '-n', 'gate-crs', 'wait', '--for=condition=Ready', '--timeout=5s', 'environment/crs', 'trustpolicy/team');
  assert.match(
    run('', '-n', 'gate-crs', 'get', 'env'),
    /^NAME\s+READY\s+STATE\s+REVISION\s+AGE\ncrs\s+True\s+applied\s+[0-9a-f]{40}/,
  );
  // Other objects and fields are of no concern, and writing a status is no change.
  assert.equal(service.entries('service.started', '').length, 1);
  const second = await stage.change(fleet, 'second', {
    'clusters/staging/cm.yaml': configMap('crs', 'other', { k: '1' }),
  });
  await service.entry('apply.result', 'crs', (e) => e.revision === second && e.outcome === 'applied');
  const { spec } = environment as { spec: { source: object } };
  apply({ ...environment, spec: { ...spec, source: { ...spec.source, path: 'clusters' } } });
  await stage.waitFor(async () => (await stage.dataOf('crs', 'other')) !== undefined, 'the other path to be applied');
  await says('gate-crs', 'environments', 'crs', { status: 'True' });
  assert.equal(
    service.entries('service.started', '').length,
    2,
    'that it runs with another configuration is on the ledger',
  );
  assert.equal(service.entries('service.stopped', '').at(-1)?.entry.reason, 'its configuration changed');
  // A directory without manifests is refused as a commit would be, and what is applied is still defended as it was
  // judged.
  apply({ ...environment, spec: { ...spec, source: { ...spec.source, path: 'nowhere' } } });
  await says('gate-crs', 'environments', 'crs', {
    status: 'False',
    reason: 'Denied',
    message: /`nowhere` contains no manifests/,
  });
  await (await stage.as('controller')).request('DELETE', '/api/v1/namespaces/crs/configmaps/other');
  await stage.waitFor(async () => (await stage.dataOf('crs', 'other')) !== undefined, 'what was deleted to come back');
  run('', '-n', 'gate-crs', 'delete', 'environment', 'crs');
  await service.says('there is no valid Environment yet');
  assert.notEqual(await stage.dataOf('crs', 'settings'), undefined, 'what it had applied stays');
  const dev = await stage.as('dev');
  const free = await dev.request(
    'PATCH',
    '/api/v1/namespaces/crs/configmaps/settings',
    { data: { k: 'v' } },
    'application/merge-patch+json',
  );
  assert.equal(free.status, 200, 'and nobody governs it any more');
});

test('while one configuration takes the place of another no request is dropped, and none is answered otherwise', async () => {
  const { environment, trust, first } = await home('steady');
  apply(environment, trust);
  const service = await stage.serve(nothing, 'steady', ['--config-namespace', 'gate-steady', '--webhook-threads', '2']);
  await service.entry('apply.result', 'steady', (e) => e.revision === first && e.outcome === 'applied');
  // The gate's own namespace is closed to everybody but us and the break-glass groups, its Secrets and pods with it.
  const own = '/api/v1/namespaces/gate-steady';
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'ledger-key' } };
  await stage.waitFor(
    async () => (await stage.admin.request('POST', `${own}/secrets?dryRun=All`, secret)).status === 403,
    'the protection',
  );
  for (const [method, path, body] of [
    ['POST', `${own}/secrets`, secret],
    ['DELETE', '/apis/countersign.dev/v1alpha1/namespaces/gate-steady/environments/steady', undefined],
    ['DELETE', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.countersign.dev', undefined],
    ['DELETE', own, undefined],
  ] as const) {
    const refused = await stage.admin.request(method, path, body);
    assert.deepEqual(
      [
        refused.status,
        /countersign: this (is the gate’s own|object protects the gate)/.test(String(refused.body['message'])),
      ],
      [403, true],
      path,
    );
  }
  const dev = await stage.as('dev');
  const wrong: string[] = [];
  let asked = 0;
  let going = true;
  const load = Array.from({ length: 4 }, async () => {
    while (going) {
      const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `x-${asked++}` } };
      const { status, body: said } = await dev.request('POST', '/api/v1/namespaces/steady/configmaps', body);
      if (status !== 403 || !/no recorded verdict/.test(String(said['message'])))
        wrong.push(`${status} ${String(said['message']).slice(0, 200)}`);
    }
  });
  const { spec } = environment as { spec: { source: object } };
  for (const interval of ['600ms', '700ms', '800ms']) {
    const starts = service.entries('service.started', '').length;
    apply({ ...environment, spec: { ...spec, source: { ...spec.source, interval } } });
    await stage.waitFor(async () => service.entries('service.started', '').length > starts, 'the new configuration');
  }
  await service.says('countersign is running');
  const changed = asked;
  await stage.waitFor(async () => asked > changed + 50, 'requests under the last one');
  going = false;
  await Promise.all(load);
  assert.deepEqual(wrong.slice(0, 3), []);
  assert.ok(asked > 50, String(asked));
});

test('what the schema forbids the API server refuses; what else is wrong stands in the status, and what was valid stays in force', async () => {
  const { fleet, environment, trust, first } = await home('wrong');
  const { spec } = environment as { spec: { source: object; target: object } };
  for (const [bad, expected] of [
    [{ ...spec, source: { ...spec.source, interval: 'often' } }, /spec\.source\.interval in body should match/],
    [{ ...spec, target: {} }, /spec\.target\.namespaces: Required value/],
    [{ ...spec, surprise: 1 }, /unknown field "spec\.surprise"/],
  ] as const)
    assert.throws(() => apply({ ...environment, spec: bad }), expected);
  apply(environment, trust);
  let service = await stage.serve(nothing, 'wrong', ['--config-namespace', 'gate-wrong']);
  await service.entry('apply.result', 'wrong', (e) => e.revision === first && e.outcome === 'applied');
  const { spec: policy } = trust as { spec: { rules: object[] } };
  apply({
    ...trust,
    spec: { ...policy, rules: [{ name: 'everything', signers: ['nobody'], approvals: { required: 0 } }] },
  });
  const inForce = {
    status: 'False',
    reason: 'Invalid',
    message: /found `nobody`; the previous version stays in force$/,
  };
  await says('gate-wrong', 'trustpolicies', 'team', inForce);
  const second = await stage.change(fleet, 'second', {
    'clusters/production/cm.yaml': configMap('wrong', 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'wrong', (e) => e.revision === second && e.outcome === 'applied');
  assert.equal(service.entries('service.started', '').length, 1, 'nothing was begun anew for it');
  await service.stop();
  service = await stage.serve(nothing, 'wrong', ['--config-namespace', 'gate-wrong']);
  await says('gate-wrong', 'trustpolicies', 'team', inForce);
  await says('gate-wrong', 'environments', 'wrong', { status: 'True' });
  // A second environment that wants what is the first one's does not run, and the first goes on.
  const thief = within('gate-wrong', environmentDocument({ name: 'thief', url: fleet.url, namespaces: ['wrong'] }));
  apply(thief);
  await says('gate-wrong', 'environments', 'thief', {
    status: 'False',
    reason: 'Invalid',
    message: /`wrong` is already governed by `wrong`/,
  });
  await says('gate-wrong', 'environments', 'wrong', { status: 'True' });
});

test('a document names only what is in its own namespace, and files only of its own directory', async () => {
  const { fleet, environment, trust, first } = await home('own');
  run('', 'create', 'namespace', 'gate-other');
  const elsewhere = within('gate-other', { ...trust, metadata: { name: 'team' } });
  const files = join(directory, 'files');
  mkdirSync(join(files, 'gate-own'), { recursive: true });
  writeFileSync(join(files, 'gate-own', 'token'), 'a token');
  writeFileSync(join(files, 'secret-of-the-service'), 'a secret');
  const { spec } = environment as { spec: { source: object; target: object } };
  const withFile = (passwordFile: string) => ({
    ...environment,
    spec: { ...spec, source: { ...spec.source, credentials: { username: 'x', passwordFile } } },
  });
  apply(environment, elsewhere);
  const args = ['--config-namespace', 'gate-own', 'gate-other', '--config-files', files];
  const service = stage.start(await stage.arguments(nothing), 'own', args);
  const invalid = (message: RegExp) =>
    says('gate-own', 'environments', 'own', { status: 'False', reason: 'Invalid', message });
  await invalid(
    /spec\.trust: expected the name of a TrustPolicy, found `team`, which is in another namespace \(`gate-other`\)/,
  );
  apply(trust);
  await service.says('countersign is running');
  for (const [name, message] of [
    ['../secret-of-the-service', /expected the name of a file in .*gate-own`, found `\.\.\/secret-of-the-service`/],
    [join(files, 'secret-of-the-service'), /expected the name of a file in/],
  ] as const) {
    apply(withFile(name));
    await invalid(message);
  }
  apply(withFile('token'));
  await says('gate-own', 'environments', 'own', { status: 'True' });
  assert.equal(service.entries('apply.result', 'own')[0]?.entry.revision, first);
  const kept = readFileSync(join(service.data, 'documents.json'), 'utf8');
  assert.ok(kept.includes('"passwordFile":"token"') && !kept.includes('a token'));
  // Valid, and yet it leads nowhere: what ran before goes on.
  apply({ ...environment, spec: { ...spec, target: { ...spec.target, kubeconfig: 'nowhere' } } });
  await service.says('cannot run the new configuration, continuing with the previous one');
  const second = await stage.change(fleet, 'second', {
    'clusters/production/cm.yaml': configMap('own', 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'own', (e) => e.revision === second && e.outcome === 'applied');
  apply({ ...environment, spec: { ...spec, target: { ...spec.target, serviceAccount: 'gate-other/deployer' } } });
  await invalid(/expected a ServiceAccount of the namespace `gate-own` itself, found `gate-other\/deployer`/);
});

test('without its kinds in the cluster the service says how to install them', async () => {
  const served = async () => {
    const { body } = await stage.get('/apis/countersign.dev/v1alpha1');
    return ((body['resources'] ?? []) as { name: string }[]).filter((r) => !r.name.includes('/')).length;
  };
  const start = async (name: string) =>
    countersignProcess([
      'serve',
      ...(await stage.arguments(nothing)),
      '--config-namespace',
      'default',
      '--data',
      stage.data(name),
    ]);
  const others = ['notifiers', 'environments', 'environmentsets', 'trustpolicies'].map(
    (kind) => `${kind}.countersign.dev`,
  );
  run('', 'delete', 'crd', 'reportschedules.countersign.dev');
  await until(
    async () => (await served()) === others.length,
    20_000,
    () => 'the kind is still there',
  );
  assert.match(
    (await start('older')).stderr,
    /does not have our kinds \(ReportSchedule\)\n.*countersign crds \| kubectl apply -f -/s,
  );
  run('', 'delete', 'crd', ...others);
  await until(
    async () => (await served()) === 0,
    20_000,
    () => 'the kinds are still there',
  );
  const { code, stderr } = await start('none');
  assert.equal(code, 2);
  assert.match(
    stderr,
    /does not have our kinds \(Environment, EnvironmentSet, TrustPolicy, Notifier, ReportSchedule\)\n.*countersign crds \| kubectl apply -f -/s,
  );
});
