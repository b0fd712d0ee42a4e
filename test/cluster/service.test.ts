import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Verdict } from '../../src/model/index.ts';
import { makeCertificates } from '../../src/webhook/index.ts';
import { approveAs } from '../kit/approve.ts';
import { freePorts } from '../kit/control-plane.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { type Person, sshPerson } from '../kit/fleet.ts';
import { startGitServer } from '../kit/git-server.ts';
import { configMap, deployment, namespace, service as serviceManifest } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, countersignProcess } from '../kit/service.ts';
import type { Running } from '../kit/stage.ts';
import { openStage } from '../kit/test-stage.ts';

const directory = scratch();
const stage = await openStage(directory);

const running = (name: string): Promise<Running> =>
  stage.running(
    name,
    {},
    {
      files: {
        'clusters/production/web.yaml': deployment(name, 'web'),
        'clusters/production/svc.yaml': serviceManifest(name, 'web'),
      },
    },
  );

const cm = (ns: string, name: string, data: object, annotations: object = {}) => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: ns, annotations },
  data,
});

test('several environments run at once, each with its own path, namespaces and verdicts', async () => {
  const fleet = stage.fleet('many');
  const configuration = stage.configuration(
    'many',
    ['one', 'two', 'three'].map((name) => ({
      name,
      url: fleet.url,
      path: `clusters/${name}`,
      namespaces: [`many-${name}`],
    })),
  );
  const first = await stage.change(
    fleet,
    'all',
    Object.fromEntries(
      ['one', 'two', 'three'].flatMap((e) => [
        [`clusters/${e}/ns.yaml`, namespace(`many-${e}`)],
        [`clusters/${e}/web.yaml`, deployment(`many-${e}`, 'web', { privileged: e === 'two' })],
      ]),
    ),
  );
  const service = await stage.serve(configuration, 'many');
  await Promise.all(
    ['one', 'three'].map((e) =>
      service.entry('apply.result', e, (r) => r.revision === first && r.outcome === 'applied'),
    ),
  );
  await service.entry('change.judged', 'two', (e) => e.to === first && e.outcome === 'denied');
  assert.equal((await stage.get('/api/v1/namespaces/many-two')).status, 404, 'one environment’s no is not the others’');

  const replay = async (environment: string, config = configuration) => {
    const { index } = service.entries('change.judged', environment).at(-1) ?? assert.fail();
    const result = await countersign([
      ...['policy', 'replay', String(index), '--config', config, '--data', stage.data('many'), '--output', 'json'],
    ]);
    assert.notEqual(result.code, 2, result.stderr);
    return { code: result.code, ...(JSON.parse(result.stdout) as { same: boolean; differences: string[] }) };
  };
  for (const environment of ['one', 'two']) assert.deepEqual((await replay(environment)).differences, []);
  const stricter = stage.configuration('many-stricter', [
    {
      name: 'one',
      url: fleet.url,
      path: 'clusters/one',
      namespaces: ['many-one'],
      parameters: { requiredLabels: ['owner'] },
    },
  ]);
  const other = await replay('one', stricter);
  assert.equal(other.code, 1);
  assert.match(
    other.differences.join('\n'),
    /outcome was allowed then, denied now[\s\S]*violation new: required-labels/,
  );
});

test('in a governed namespace the API server refuses what no verdict allows, and says what to do', async () => {
  const { service } = await running('refuse');
  const dev = await stage.as('dev');
  const base = '/api/v1/namespaces/refuse/configmaps';
  const attempts = [
    ['CREATE', await dev.request('POST', base, cm('refuse', 'mine', { a: '1' }))],
    [
      'UPDATE',
      await dev.request('PATCH', `${base}/settings`, { data: { colour: 'red' } }, 'application/merge-patch+json'),
    ],
    [
      'UPDATE',
      await dev.request(
        'PATCH',
        `${base}/settings`,
        { metadata: { labels: { a: 'b' } } },
        'application/merge-patch+json',
      ),
    ],
    ['DELETE', await dev.request('DELETE', `${base}/settings`)],
    [
      'UPDATE',
      await dev.request(
        'PATCH',
        '/apis/apps/v1/namespaces/refuse/deployments/web/scale',
        { spec: { replicas: 9 } },
        'application/merge-patch+json',
      ),
    ],
    ['DELETE', await dev.request('DELETE', '/api/v1/namespaces/refuse')],
  ] as const;
  for (const [operation, { status, body }] of attempts) {
    assert.equal(status, 403, `${operation}: ${JSON.stringify(body)}`);
    assert.match(String(body['message']), /gate\.countersign\.dev.*no recorded verdict allows/);
  }
  assert.match(String(attempts[1][1].body['message']), /clusters\/production\/cm\.yaml/);
  assert.equal(service.entries('admission.denied', 'production').length, attempts.length);
  assert.equal(
    (await dev.request('POST', '/api/v1/namespaces/default/configmaps', cm('default', `free-${Date.now()}`, {})))
      .status,
    201,
    'other namespaces are not in the way',
  );
  const lease = {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'l', namespace: 'refuse' },
    spec: {},
  };
  assert.equal(
    (await dev.request('POST', '/apis/coordination.k8s.io/v1/namespaces/refuse/leases', lease)).status,
    201,
    'leases are not in the way',
  );
  stage.admin.close();
});

test('while the service is away, governed namespaces are closed and everything else is open', async () => {
  const { service } = await running('away');
  await service.stop();
  const dev = await stage.as('dev');
  const closed = await dev.request('POST', '/api/v1/namespaces/away/configmaps', cm('away', 'mine', {}));
  assert.equal(closed.status, 500);
  assert.match(String(closed.body['message']), /failed calling webhook/);
  for (const ns of ['default', 'kube-system'])
    assert.equal(
      (await dev.request('POST', `/api/v1/namespaces/${ns}/configmaps`, cm(ns, `open-${Date.now()}`, {}))).status,
      201,
    );
});

test('drift is put right: an edit and a removal by what admission lets through', async () => {
  const { service, first } = await running('drift');
  const controller = await stage.as('controller');
  await controller.request(
    'PATCH',
    '/api/v1/namespaces/drift/configmaps/settings',
    { data: { colour: 'red' } },
    'application/merge-patch+json',
  );
  await stage.waitFor(async () => (await stage.dataOf('drift', 'settings'))?.['colour'] === 'blue', 'the correction');
  await controller.request('DELETE', '/apis/apps/v1/namespaces/drift/deployments/web');
  await stage.waitFor(
    async () => (await stage.get('/apis/apps/v1/namespaces/drift/deployments/web')).status === 200,
    'the return',
  );
  await service.entry('apply.intent', 'production', (e) => e.purpose === 'correct' && e.revision === first);
  assert.deepEqual(
    service.entries('drift.found', 'production').map((e) => e.entry.objects.map((o) => o.kind)),
    [['ConfigMap'], ['Deployment']],
  );
  await service.entry(
    'drift.corrected',
    'production',
    (e) => e.objects.some((o) => o.kind === 'Deployment') && e.revision === first,
  );
});

test('what others add beside our fields is not drift, and is not fought', async () => {
  const { service } = await running('beside');
  const controller = await stage.as('controller');
  await controller.request(
    'PATCH',
    '/apis/apps/v1/namespaces/beside/deployments/web',
    { metadata: { annotations: { 'deployment.kubernetes.io/revision': '1' } } },
    'application/merge-patch+json',
  );
  await service.looksAgain();
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('break-glass is let through for its group, stands for its time, then Git takes over', async () => {
  const { service } = await running('glass');
  const oncall = await stage.as('oncall');
  const annotations = { 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '6s' };
  const answer = await oncall.request(
    'PATCH',
    '/api/v1/namespaces/glass/configmaps/settings',
    { metadata: { annotations }, data: { colour: 'red', added: 'beside' } },
    'application/merge-patch+json',
  );
  assert.equal(answer.status, 200);
  assert.match(answer.warnings.join(' '), /break-glass is recorded/);
  const used = await service.entry('breakglass.used', 'production', (e) => e.reason === 'INC-1');
  await service.looksAgain();
  assert.equal((await stage.dataOf('glass', 'settings'))?.['colour'], 'red', 'it stands for its time');
  await stage.waitFor(async () => (await stage.dataOf('glass', 'settings'))?.['colour'] === 'blue', 'the return');
  assert.deepEqual(
    await stage.dataOf('glass', 'settings'),
    { colour: 'blue' },
    'what was added beside our fields is gone too',
  );
  const { metadata } = (await stage.get('/api/v1/namespaces/glass/configmaps/settings')).body as {
    metadata: { annotations: Record<string, string> };
  };
  assert.equal(metadata.annotations['countersign.dev/break-glass'], undefined);
  await service.looksAgain();
  assert.equal(service.entries('drift.found', 'production').length, 1, 'once');
  const drift = await service.entry('drift.found', 'production', () => true);
  assert.ok(drift.entry.time >= used.entry.until);
  assert.equal(drift.entry.details?.[0]?.admission, used.index, 'who it was and why is on the ledger');
});

test('a change the API server refuses in the dry run writes nothing, and is recorded once', async () => {
  const { fleet, service, first } = await running('invalid');
  const bad = await stage.change(fleet, 'invalid', {
    'clusters/production/aa.yaml': configMap('invalid', 'aa', { a: '1' }),
    'clusters/production/svc.yaml': serviceManifest('invalid', 'web').replace('port: 80\n', 'port: 99999\n'),
  });
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === bad);
  assert.match(refused.entry.error, /Service invalid\/web.*99999/s);
  await service.looksAgain();
  assert.equal(service.entries('apply.refused', 'production').length, 1);
  assert.equal((await stage.get('/api/v1/namespaces/invalid/configmaps/aa')).status, 404);
  assert.equal(service.entries('apply.intent', 'production').filter((e) => e.entry.revision !== first).length, 0);
});

test('a manifest that moves to another version of its kind keeps its object', async () => {
  const { fleet, service } = await running('version');
  const hpa = (version: string) =>
    `apiVersion: autoscaling/${version}\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: version}\nspec:\n  maxReplicas: 3\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n`;
  const one = await stage.change(fleet, 'v1', { 'clusters/production/hpa.yaml': hpa('v1') });
  await service.entry('apply.result', 'production', (e) => e.revision === one && e.outcome === 'applied');
  const uid = async () =>
    (
      (await stage.get('/apis/autoscaling/v2/namespaces/version/horizontalpodautoscalers/web')).body['metadata'] as {
        uid?: string;
      }
    ).uid;
  const before = await uid();
  const two = await stage.change(fleet, 'v2', { 'clusters/production/hpa.yaml': hpa('v2') });
  const result = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === two && e.outcome === 'applied',
  );
  assert.deepEqual([result.entry.pruned, await uid()], [0, before]);
  assert.ok(before);
});

test('drift that cannot be put right is recorded once, not at every look', async () => {
  const { service } = await running('stuck');
  const group = '/apis/admissionregistration.k8s.io/v1';
  const metadata = { name: 'stuck' };
  const matchConstraints = {
    resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['configmaps'] }],
  };
  const validations = [{ expression: 'object.metadata.namespace != "stuck"', message: 'never' }];
  await stage.admin.request('POST', `${group}/validatingadmissionpolicies`, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicy',
    metadata,
    spec: { failurePolicy: 'Fail', matchConstraints, validations },
  });
  await stage.admin.request('POST', `${group}/validatingadmissionpolicybindings`, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata,
    spec: { policyName: 'stuck', validationActions: ['Deny'] },
  });
  const controller = await stage.as('controller');
  const probe = cm('stuck', 'probe', {});
  await stage.waitFor(
    async () =>
      (await controller.request('POST', '/api/v1/namespaces/stuck/configmaps?dryRun=All', probe)).status === 422,
    'the refusal',
  );
  await controller.request('DELETE', '/api/v1/namespaces/stuck/configmaps/settings');
  await service.entry('apply.refused', 'production', () => true);
  await service.looksAgain();
  assert.deepEqual(
    [service.entries('drift.found', 'production').length, service.entries('apply.refused', 'production').length],
    [1, 1],
  );
  await stage.admin.request('DELETE', `${group}/validatingadmissionpolicybindings/stuck`);
  await stage.waitFor(
    async () => (await stage.dataOf('stuck', 'settings')) !== undefined,
    'the return once it is possible',
  );
});

test('an object that did not change is not written, and keeps the stamp of its own revision', async () => {
  const { fleet, service, first } = await running('stamp');
  const second = await stage.change(fleet, 'second', {
    'clusters/production/cm.yaml': configMap('stamp', 'settings', { colour: 'green' }),
  });
  const result = await service.entry('apply.result', 'production', (e) => e.revision === second);
  assert.equal(result.entry.applied, 1);
  const stampOf = async (path: string) =>
    ((await stage.get(path)).body['metadata'] as { annotations: Record<string, string> }).annotations[
      'countersign.dev/revision'
    ];
  assert.deepEqual(
    [
      await stampOf('/api/v1/namespaces/stamp/configmaps/settings'),
      await stampOf('/apis/apps/v1/namespaces/stamp/deployments/web'),
    ],
    [second, first],
  );
});

test('a branch that goes back is refused, and applied once enough people say that it may; the ledger tells first sight and rollback', async () => {
  const { fleet, service, first } = await running('goes-back');
  const second = await stage.change(fleet, 'red', {
    'clusters/production/cm.yaml': configMap('goes-back', 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const seen = service.entries('commits.seen', 'production').flatMap((r) => [r.entry.tip]);
  assert.deepEqual(seen, [first, second]);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  fleet.push('--force', 'main');
  const refused = await service.entry('change.judged', 'production', (e) => e.to === first && e.from === second);
  assert.equal(refused.entry.outcome, 'denied');
  await approveAs(stage.lee, fleet, second, first, { rollback: true });
  await approveAs(stage.dana, fleet, second, first, { rollback: true });
  await stage.waitFor(async () => (await stage.dataOf('goes-back', 'settings'))?.['colour'] === 'blue', 'the way back');
  const [verdict] = service.entries('change.judged', 'production').slice(-1);
  assert.ok(verdict !== undefined && verdict.index > refused.index);
  assert.equal(service.evidence<Verdict>(verdict.entry.evidence).rollback, true);
  const rewound = service.entries('ref.rewound', 'production').map((r) => [r.entry.before, r.entry.after]);
  const allowed = service
    .entries('rollback.allowed', 'production')
    .map((r) => [r.entry.from, r.entry.to, r.entry.verdict]);
  assert.deepEqual([rewound, allowed], [[[second, first]], [[second, first, verdict.index]]]);
});

test('over HTTPS with a token; the TrustPolicy in the repository changes when its roots approve, and new people sign from then on', async () => {
  const fleet = stage.fleet('in-repository');
  const tls = await makeCertificates(join(directory, 'git-tls'), '127.0.0.1', new Date());
  const server = await startGitServer(dirname(fleet.bare), 0, {
    tls: { cert: tls.cert, key: tls.key },
    login: 'robot:a token',
  });
  try {
    const url = `${server.url}/${basename(fleet.bare)}`;
    const robin = sshPerson(directory, 'robin');
    const policy = (people: readonly Person[]) => {
      const document = trustDocument(people, { required: 0 }) as { spec: object };
      return { ...document, spec: { ...document.spec, roots: { members: ['lee'] } } };
    };
    const environment = environmentDocument({ url, namespaces: ['in-repository'] }) as { spec: { source: object } };
    Object.assign(environment.spec, { trustPath: 'countersign/trust.yaml' });
    Object.assign(environment.spec.source, {
      credentials: { username: 'robot', passwordFile: 'token', caFile: 'ca.pem' },
    });
    const configuration = writeConfiguration(join(directory, 'config-in-repository'), [
      environment,
      policy([stage.dana, stage.lee]),
    ]);
    writeFileSync(join(configuration, 'token'), 'a token\n');
    writeFileSync(join(configuration, 'ca.pem'), tls.ca);
    const put = (people: readonly Person[]) => ({ 'countersign/trust.yaml': JSON.stringify(policy(people)) });
    const first = fleet.commit(stage.dana, 'first', {
      'clusters/production/ns.yaml': namespace('in-repository'),
      ...put([stage.dana, stage.lee]),
    });
    fleet.push();
    const service = await stage.serve(configuration, 'in-repository');
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
    assert.ok(!service.log.includes('a token'));
    const joins = fleet.commit(stage.dana, 'robin joins', put([stage.dana, stage.lee, robin]));
    fleet.push();
    assert.equal((await service.entry('change.judged', 'production', (e) => e.to === joins)).entry.outcome, 'denied');
    await approveAs(stage.lee, fleet, first, joins, { repository: url });
    const changed = await service.entry('trust.changed', 'production', (e) => e.revision === joins);
    await service.entry('apply.result', 'production', (e) => e.revision === joins && e.outcome === 'applied');
    const byRobin = fleet.commit(robin, 'by robin', {
      'clusters/production/cm.yaml': configMap('in-repository', 'settings', { colour: 'green' }),
    });
    fleet.push();
    await service.entry('apply.result', 'production', (e) => e.revision === byRobin && e.outcome === 'applied');
    const judged = service.entries('change.judged', 'production').at(-1);
    assert.ok(judged !== undefined);
    assert.equal(service.evidence<Verdict>(judged.entry.evidence).consulted.trustDigest, changed.entry.after);
  } finally {
    await server.stop();
  }
});

test('an unreachable repository changes nothing, is said, and the last good state goes on being defended', async () => {
  const { fleet, service } = await running('gone');
  renameSync(fleet.bare, `${fleet.bare}.away`);
  await service.says('cannot fetch from');
  await (await stage.as('controller')).request('DELETE', '/api/v1/namespaces/gone/configmaps/settings');
  await stage.waitFor(async () => (await stage.dataOf('gone', 'settings'))?.['colour'] === 'blue', 'the defence');
  renameSync(`${fleet.bare}.away`, fleet.bare);
  const next = await stage.change(fleet, 'back', {
    'clusters/production/cm.yaml': configMap('gone', 'settings', { colour: 'green' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next);
});

test('started with what cannot work, it says so in one clear message with the fix, exits with 2 and leaves nothing half-done', async () => {
  const { configuration } = await running('usage');
  await stage.stopServices();
  const attempt = async (args: readonly string[], expected: RegExp) => {
    const result = await countersignProcess(['serve', '--data', stage.data('attempt'), ...args]);
    assert.equal(result.code, 2, result.stderr);
    assert.match(result.stderr, expected);
    assert.match(result.stderr, /^fix: /m);
    assert.doesNotMatch(result.stderr, /\n {4}at /);
  };
  const kube = (user: string) => ['--kubeconfig', stage.controlPlane.kubeconfig(user)];
  await attempt(['--config', configuration, ...kube('nobody')], /cluster-|nobody/);
  await attempt(['--config', configuration, '--kubeconfig', '/nowhere'], /kubeconfig `\/nowhere` cannot be used/);
  await attempt(['--config', configuration, ...kube('countersign'), '--context', 'other'], /no context `other`/);
  await attempt(
    ['--config', configuration, ...kube('countersign'), '--webhook', 'nonsense'],
    /not an address to listen on/,
  );
  const remote = JSON.parse(
    readFileSync(stage.controlPlane.kubeconfig('countersign'), 'utf8').replace('https://127.0.0.1', 'https://0.0.0.0'),
  ) as { clusters: { cluster: object }[] };
  for (const { cluster } of remote.clusters) Object.assign(cluster, { 'tls-server-name': '127.0.0.1' });
  writeFileSync(join(directory, 'remote.yaml'), JSON.stringify(remote));
  const [spare] = await freePorts(1);
  await attempt(
    ['--config', configuration, '--kubeconfig', join(directory, 'remote.yaml'), '--webhook', `127.0.0.1:${spare}`],
    /the API server at `https:\/\/0\.0\.0\.0:\d+` cannot reach a webhook at `https:\/\/127/,
  );
  const blocker = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => blocker.once('listening', resolve));
  const { port } = blocker.address() as { port: number };
  await attempt(
    ['--config', configuration, ...kube('countersign'), '--webhook', `127.0.0.1:${port}`],
    new RegExp(`the port ${port} on 127.0.0.1 is in use`),
  );
  blocker.close();
});
