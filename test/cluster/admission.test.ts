import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ApiServer } from '../../src/cluster/index.ts';
import { ANNOTATION, type ProvenWrites } from '../../src/model/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { freePorts } from '../kit/control-plane.ts';
import { configMap, deployment } from '../kit/manifests.ts';
import { installReports } from '../kit/open-reports.ts';
import { SERVICE_USER } from '../kit/plane.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const directory = scratch();
const stage = await openStage(directory);
const MERGE = 'application/merge-patch+json';
const REGISTRATION = '/apis/admissionregistration.k8s.io/v1';
const WEBHOOK = `${REGISTRATION}/validatingwebhookconfigurations/${stage.webhook}`;
const POLICY = `${REGISTRATION}/validatingadmissionpolicies/${stage.webhook}`;

test('break-glass from the command line: opened, used, listed, settled by the commit that makes Git agree', async () => {
  const { fleet, service, first } = await stage.running('cli-glass', {}, { environment: { holdFor: '2h' } });
  const glass = (args: readonly string[], user = 'oncall') =>
    countersign(['break-glass', ...args, '--kubeconfig', stage.controlPlane.kubeconfig(user)]);
  const open = ['open', '-n', 'cli-glass', '--reason', 'checkout is down', '--ticket', 'INC-1', '--for', '20m'];
  const refused = await glass(open, 'dev');
  assert.deepEqual(
    [refused.code, /denied the request/.test(refused.stdout)],
    [1, true],
    refused.stdout + refused.stderr,
  );
  const ungoverned = await glass(['open', '-n', 'default', '--reason', 'x', '--ticket', 'y']);
  assert.deepEqual([ungoverned.code, /the gate did not answer/.test(ungoverned.stdout)], [1, true]);
  const opened = await glass(open);
  assert.deepEqual([opened.code, opened.stderr], [0, '']);
  assert.match(opened.stdout, /cli-glass: break-glass is open in `cli-glass` until /);
  const grant = service.entries('breakglass.opened', 'production')[0]?.entry;
  assert.deepEqual(
    [grant?.user, grant?.reason, grant?.ticket, grant?.namespaces],
    ['oncall', 'checkout is down', 'INC-1', ['cli-glass']],
  );
  const oncall = await stage.as('oncall');
  const settings = '/api/v1/namespaces/cli-glass/configmaps/settings';
  assert.equal(
    (await oncall.request('PATCH', settings, { data: { colour: 'red' } }, MERGE)).status,
    200,
    'no annotation on the object',
  );
  const status = await countersign(['status', '--data', service.data]);
  assert.match(status.stdout, /break-glass is open in cli-glass until .*, by oncall: checkout is down/);
  assert.match(status.stdout, /1 use of break-glass to settle/);
  const settle = (...how: string[]) =>
    countersign(['break-glass', 'settle', 'production', ...how, '--reason', 'reviewed', '--data', service.data]);
  const early = await settle('--commit', first);
  assert.deepEqual([early.code, /no change with the commit .* was applied/.test(early.stderr)], [2, true]);
  const undone = await settle('--reverted');
  assert.deepEqual([undone.code, /differs from Git/.test(undone.stderr)], [2, true]);
  assert.equal((await glass(['close', '-n', 'cli-glass'])).code, 0);
  assert.equal((await oncall.request('PATCH', settings, { data: { colour: 'green' } }, MERGE)).status, 403);
  await stage.waitFor(
    async () => (await stage.dataOf('cli-glass', 'settings'))?.['colour'] === 'blue',
    'Git to take over, long before the 20 minutes are over',
  );
  assert.equal((await glass(open)).code, 0, 'the same reason once more, after it was given back');
  assert.equal((await glass(['close', '-n', 'cli-glass'])).code, 0);
  const list = await countersign(['break-glass', 'list', '--data', service.data]);
  assert.equal(list.code, 1);
  assert.match(
    list.stdout,
    /0 open, 1 to settle\n {2}\d+ .* UPDATE ConfigMap cli-glass\/settings\n {6}by oncall: checkout is down/,
  );
  const fixed = await stage.change(fleet, 'red it is', {
    'clusters/production/cm.yaml': configMap('cli-glass', 'settings', { colour: 'red' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === fixed && e.outcome === 'applied');
  const settled = await settle('--commit', fixed.slice(0, 10));
  assert.equal(settled.code, 0, settled.stderr);
  assert.equal(service.entries('breakglass.settled', 'production')[0]?.entry.commit, fixed);
  assert.equal((await settle('--commit', fixed)).code, 2, 'nothing is left');
  assert.equal((await countersign(['break-glass', 'list', '--data', service.data])).code, 0);
});

test('whoever reaches the port opens, holds and closes nothing: only what the API server has counts', async () => {
  const ns = 'forged-glass';
  const { service } = await stage.running(ns, {}, { files: { 'clusters/production/web.yaml': deployment(ns, 'web') } });
  const port = /127\.0\.0\.1:(\d+)\/validate/.exec(service.log)?.[1] ?? assert.fail('no port');
  const forge = (asked: object) =>
    post(`https://127.0.0.1:${port}/validate`, {
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      request: {
        uid: crypto.randomUUID(),
        operation: 'UPDATE',
        userInfo: { username: 'alice', groups: ['oncall', 'system:authenticated'] },
        dryRun: false,
        ...asked,
      },
    });
  const web = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace: ns } };
  const reason = { 'countersign.dev/break-glass': 'INC-1: forged' };
  const used = await forge({
    kind: { group: 'apps', version: 'v1', kind: 'Deployment' },
    resource: { group: 'apps', version: 'v1', resource: 'deployments' },
    ...{ namespace: ns, name: 'web', oldObject: web },
    object: { ...web, metadata: { ...web.metadata, annotations: reason } },
  });
  assert.equal(used.response.allowed, true, 'it looks like a use');
  const place = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: ns } };
  const annotated = { ...place, metadata: { ...place.metadata, annotations: reason } };
  const aboutNamespace = {
    kind: { group: '', version: 'v1', kind: 'Namespace' },
    resource: { group: '', version: 'v1', resource: 'namespaces' },
    name: ns,
  };
  await forge({ ...aboutNamespace, object: annotated, oldObject: place });
  const opened = await service.entry('breakglass.opened', 'production', () => true);
  const oncall = await stage.as('oncall');
  const settings = `/api/v1/namespaces/${ns}/configmaps/settings`;
  assert.equal((await oncall.request('PATCH', settings, { data: { colour: 'red' } }, MERGE)).status, 403);
  await service.entry('breakglass.unconfirmed', 'production', (e) => e.of === opened.index);
  const status = await countersign(['status', '--data', service.data]);
  assert.doesNotMatch(status.stdout, /break-glass is open/);

  // The forged use does not keep drift from being reverted.
  const controller = await stage.as('controller');
  const path = `/apis/apps/v1/namespaces/${ns}/deployments/web`;
  const replicas = async () => ((await stage.get(path)).body['spec'] as { replicas: number }).replicas;
  assert.equal((await controller.request('PATCH', path, { spec: { replicas: 5 } }, MERGE)).status, 200);
  await stage.waitFor(async () => (await replicas()) === 2, 'the scale of Git');

  // A forged closing ends nothing, and a real one does.
  const glass = (args: readonly string[]) =>
    countersign(['break-glass', ...args, '-n', ns, '--kubeconfig', stage.controlPlane.kubeconfig('oncall')]);
  assert.equal((await glass(['open', '--reason', 'INC-2', '--ticket', 'T', '--for', '20m'])).code, 0);
  assert.equal((await oncall.request('PATCH', path, { spec: { replicas: 4 } }, MERGE)).status, 200);
  const live = (await stage.get(`/api/v1/namespaces/${ns}`)).body as { metadata: { annotations: object } };
  const kept = Object.entries(live.metadata.annotations).filter(
    ([key]) => !key.startsWith('countersign.dev/break-glass'),
  );
  const metadata = { ...live.metadata, annotations: Object.fromEntries(kept) };
  const closed = { ...live, apiVersion: 'v1', kind: 'Namespace', metadata };
  await forge({ ...aboutNamespace, object: closed, oldObject: { ...live, apiVersion: 'v1', kind: 'Namespace' } });
  await service.entry('breakglass.closed', 'production', () => true);
  await service.looksAgain(2);
  assert.equal(await replicas(), 4, 'what on call did stands');
  assert.equal((await oncall.request('PATCH', settings, { data: { colour: 'green' } }, MERGE)).status, 200);
  assert.equal((await glass(['close'])).code, 0);
  await stage.waitFor(async () => (await replicas()) === 2, 'Git to take over');
  assert.equal((await oncall.request('PATCH', settings, { data: { colour: 'red' } }, MERGE)).status, 403);
});

const insecure = new Agent({ rejectUnauthorized: false });

function post(url: string, body: object): Promise<{ readonly response: { readonly allowed: boolean } }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: 'POST', agent: insecure, headers: { 'content-type': 'application/json' } },
      (answer) => {
        let text = '';
        answer.on('data', (part) => {
          text += part;
        });
        answer.on('end', () => resolve(JSON.parse(text) as { response: { allowed: boolean } }));
      },
    );
    sent.on('error', reject);
    sent.end(JSON.stringify(body));
  });
}

test('the dashboard shows who holds break-glass, what is to be settled, verdicts and refusals', async () => {
  const [port] = (await freePorts(1)) as [number];
  const { service, first } = await stage.running('seen', {}, { arguments: ['--dashboard', `127.0.0.1:${port}`] });
  // It keeps a page for two seconds.
  const page = async (until: RegExp) => {
    let text = '';
    await stage.waitFor(async () => {
      text = await (await fetch(`http://127.0.0.1:${port}/`)).text();
      return until.test(text);
    }, `a page with ${until}`);
    return text;
  };
  const quiet = await page(/>allowed</);
  assert.doesNotMatch(quiet, /role="alert"/);
  assert.match(quiet, new RegExp(`<code title="${first}">`));
  assert.match(quiet, />allowed</);
  const settings = '/api/v1/namespaces/seen/configmaps/settings';
  const patch = { metadata: { labels: { seen: 'yes' } } };
  assert.equal((await (await stage.as('dev')).request('PATCH', settings, patch, MERGE)).status, 403);
  const opened = await countersign([
    ...['break-glass', 'open', '-n', 'seen', '--reason', 'it <b>burns</b>', '--ticket', 'INC-9', '--for', '20m'],
    ...['--kubeconfig', stage.controlPlane.kubeconfig('oncall')],
  ]);
  assert.equal(opened.code, 0, opened.stderr);
  assert.equal((await (await stage.as('oncall')).request('PATCH', settings, patch, MERGE)).status, 200);
  await service.entry('breakglass.used', 'production', () => true);
  const loud = await page(/1 use of break-glass in production to settle[\s\S]*ConfigMap seen\/settings/);
  assert.match(
    loud,
    /<body>\n<p class="open" role="alert">.*in seen \(production\) until .*, by oncall: it &lt;b&gt;burns&lt;\/b&gt; \(INC-9\)</,
  );
  assert.match(loud, /1 use of break-glass in production to settle/);
  assert.match(loud, />dev<.*>UPDATE ConfigMap seen\/settings</);
  assert.equal((await fetch(`http://localhost:${port}/`, { method: 'POST' })).status, 404);
  await stage.stopServices();
});

test('with a second person, break-glass counts once they have approved it, and is left when it is closed', async () => {
  const { service } = await stage.running(
    'two-people',
    {},
    { environment: { admission: { breakGlass: { groups: ['oncall'], approvals: 1 } } } },
  );
  const glass = (who: string, ...args: string[]) =>
    countersign(['break-glass', ...args, '-n', 'two-people', '--kubeconfig', stage.controlPlane.kubeconfig(who)]);
  const oncall = await stage.as('oncall');
  const patch = { metadata: { labels: { seen: 'yes' } } };
  const write = async () =>
    (await oncall.request('PATCH', '/api/v1/namespaces/two-people/configmaps/settings', patch, MERGE)).status;
  const early = await glass('second', 'approve');
  assert.deepEqual([early.code, /nothing to approve/.test(early.stdout)], [1, true], early.stdout);
  const opened = await glass('oncall', 'open', '--reason', 'it burns', '--ticket', 'INC-9');
  assert.deepEqual([opened.code, /is asked for in `two-people`/.test(opened.stdout)], [0, true], opened.stdout);
  assert.equal(await write(), 403);
  const listed = await countersign(['break-glass', 'list', '--data', service.data]);
  assert.match(
    listed.stdout,
    /asked for in two-people .* by oncall: it burns .*waits for `countersign break-glass approve`/,
  );
  const own = await glass('oncall', 'approve');
  assert.deepEqual([own.code, /cannot approve it/.test(own.stdout)], [1, true], own.stdout);
  assert.equal(await write(), 403);
  const approved = await glass('second', 'approve');
  assert.deepEqual([approved.code, /is approved in `two-people`/.test(approved.stdout)], [0, true], approved.stdout);
  assert.equal(await write(), 200);
  const after = await countersign(['break-glass', 'list', '--data', service.data]);
  assert.match(after.stdout, /open in two-people .* by oncall: it burns \(INC-9\), approved by second/);
  assert.equal((await glass('oncall', 'close')).code, 0);
  assert.equal(await write(), 403);
  // The same reason again is another grant.
  assert.equal((await glass('oncall', 'open', '--reason', 'it burns', '--ticket', 'INC-9')).code, 0);
  assert.equal(await write(), 403);
  await stage.stopServices();
});

test('what is undone is settled as that, once it is', async () => {
  const { service } = await stage.running('given-back', {}, { environment: { holdFor: '2h' } });
  const oncall = await stage.as('oncall');
  const cm = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'extra', annotations: { [ANNOTATION.breakGlass]: 'INC-2' } },
  };
  assert.equal((await oncall.request('POST', '/api/v1/namespaces/given-back/configmaps', cm)).status, 201);
  const settle = () =>
    countersign(['break-glass', 'settle', 'production', '--reverted', '--reason', 'reviewed', '--data', service.data]);
  assert.match((await settle()).stderr, /ConfigMap given-back\/extra differs from Git/);
  const grant = { [ANNOTATION.breakGlass]: 'INC-2 cleaning up', [ANNOTATION.breakGlassFor]: '5m' };
  await oncall.request('PATCH', '/api/v1/namespaces/given-back', { metadata: { annotations: grant } }, MERGE);
  assert.equal((await oncall.request('DELETE', '/api/v1/namespaces/given-back/configmaps/extra')).status, 200);
  const done = await settle();
  assert.equal(done.code, 0, done.stderr);
  assert.equal(service.entries('breakglass.settled', 'production')[0]?.entry.uses.length, 2);
});

test('the API server itself tells a controller from who borrows its name, and gives out no tokens of it', async () => {
  await stage.running('borrowed');
  const [admin, dev] = [stage.admin, await stage.as('dev')];
  const borrowed = (account: string, namespace?: string) => actingAs(stage.controlPlane.url, account, true, namespace);
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'x' },
    spec: { containers: [{ name: 'a', image: 'evil' }] },
  };
  const refuses = async (answer: Promise<{ status: number; body: object }>, why: RegExp) => {
    const { status, body } = await answer;
    assert.deepEqual([status, why.test(JSON.stringify(body))], [403, true], JSON.stringify(body));
  };
  const [borrows, tokens] = [/only borrows its name/, /only the controller manager and nodes get tokens/];
  const settings = '/api/v1/namespaces/borrowed/configmaps/settings';
  const collector = borrowed('generic-garbage-collector');
  await stage.waitFor(async () => {
    const { body } = await collector.request('DELETE', `${settings}?dryRun=All`);
    return borrows.test(JSON.stringify(body));
  }, 'the policy'); // takes effect within a second
  await refuses(borrowed('replicaset-controller').request('POST', '/api/v1/namespaces/borrowed/pods', pod), borrows);
  // Also what the webhook is not asked about.
  const slice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'x' },
    ...{ addressType: 'IPv4', endpoints: [{ addresses: ['10.66.6.6'] }] },
  };
  const slices = '/apis/discovery.k8s.io/v1/namespaces/borrowed/endpointslices';
  await refuses(borrowed('endpointslice-controller').request('POST', slices, slice), borrows);
  const mint = (who: ApiServer, namespace: string, account: string) =>
    who.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {},
    });
  await refuses(mint(admin, 'kube-system', 'replicaset-controller'), tokens);
  await refuses(mint(dev, 'kube-system', 'generic-garbage-collector'), tokens);
  assert.equal((await mint(admin, 'kube-system', 'default')).status, 201, 'another account');
  const secret = (account: string) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: `of-${account}`, annotations: { 'kubernetes.io/service-account.name': account } },
    type: 'kubernetes.io/service-account-token',
  });
  const secrets = '/api/v1/namespaces/kube-system/secrets';
  await refuses(admin.request('POST', secrets, secret('job-controller')), tokens);
  assert.equal((await admin.request('POST', `${secrets}?dryRun=All`, secret('default'))).status, 201);
  // The gate's own account is one of them.
  const [own = '', account = ''] = SERVICE_USER.split(':').slice(2);
  await refuses(mint(admin, own, account), tokens);
  await refuses(borrowed(account, own).request('DELETE', WEBHOOK), /this object protects the gate/);
  await stage.stopServices();
});

test('the gate’s own objects: others are kept from them also while it is away; what they do reach is put back and recorded', async () => {
  const { service } = await stage.running('guarded');
  const [admin, oncall] = [stage.admin, await stage.as('oncall')];
  const touches: [string, string, unknown][] = [
    ['DELETE', WEBHOOK, undefined],
    ['PATCH', WEBHOOK, { webhooks: [] }],
  ];
  await stage.waitFor(
    async () => (await admin.request('DELETE', `${WEBHOOK}?dryRun=All`)).status === 403,
    'the protection',
  ); // takes effect within a second
  const refuse = async () => {
    for (const [method, path, body] of touches) {
      const answer = await admin.request(method, path, body, MERGE);
      assert.deepEqual(
        [answer.status, /this object protects the gate/.test(String(answer.body['message']))],
        [403, true],
        JSON.stringify(answer.body),
      );
    }
  };
  await refuse();
  // Kubernetes lets nobody protect a policy itself: that is found and put back.
  assert.equal((await admin.request('DELETE', POLICY)).status, 200);
  await service.says('someone changed an object that keeps the gate in place; restored it');
  await stage.waitFor(async () => (await admin.request('GET', POLICY)).status === 200, 'the return of the policy');
  // So is what the members of the group change: a condition that would let everything past.
  const [first, ...others] = ((await admin.request('GET', WEBHOOK)).body['webhooks'] ?? []) as {
    matchConditions: object[];
  }[];
  const webhooks = [
    { ...first, matchConditions: [...(first?.matchConditions ?? []), { name: 'nobody', expression: 'false' }] },
    ...others,
  ];
  assert.equal((await oncall.request('PATCH', WEBHOOK, { webhooks }, MERGE)).status, 200);
  await stage
    .waitFor(
      async () => !JSON.stringify((await admin.request('GET', WEBHOOK)).body).includes('"nobody"'),
      'the return of the webhook',
    )
    .catch(async (thrown) =>
      assert.fail(
        `${thrown}\n${service.log.slice(-3000)}\n${JSON.stringify((await admin.request('GET', WEBHOOK)).body['metadata'])}`,
      ),
    );
  await stage.waitFor(async () => service.entries('protection.changed', '').length >= 2, 'the records');
  assert.deepEqual(
    service
      .entries('protection.changed', '')
      .map(({ entry }) => [entry.object.kind, entry.change])
      .slice(0, 2),
    [
      ['ValidatingAdmissionPolicy', 'removed'],
      ['ValidatingWebhookConfiguration', 'changed'],
    ],
  );
  await stage.waitFor(
    async () => (await admin.request('DELETE', `${WEBHOOK}?dryRun=All`)).status === 403,
    'the protection',
  );
  await service.stop();
  await refuse();
  assert.equal((await oncall.request('DELETE', WEBHOOK)).status, 200, 'nobody is locked out');
});

test('other namespaces that an environment names are held against its rules', async () => {
  const { service } = await stage.running(
    'ruled',
    {},
    { environment: { admission: { policy: { namespaces: ['team-*'], mode: 'enforce' } } } },
  );
  const dev = await stage.as('dev');
  for (const name of ['team-a', 'free'])
    await stage.admin.request('POST', '/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name },
    });
  const pod = (privileged: boolean) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { generateName: 'p-' },
    spec: { containers: [{ name: 'c', image: 'registry.example.com/c:1', securityContext: { privileged } }] },
  });
  const post = (ns: string, privileged: boolean) =>
    dev.request('POST', `/api/v1/namespaces/${ns}/pods`, pod(privileged));
  const denied = await post('team-a', true);
  assert.equal(denied.status, 403);
  assert.match(
    String(denied.body['message']),
    /policy\.countersign\.dev.*the rules of the environment `production` deny it:.*privileged/,
  );
  assert.equal((await post('free', true)).status, 201);
  await service.entry('admission.denied', 'production', (e) => e.object.namespace === 'team-a');
  const plain = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'c-' } };
  assert.equal((await dev.request('POST', '/api/v1/namespaces/team-a/configmaps', plain)).status, 201);
});

test('a new certificate is taken without a dropped request', async () => {
  const { makeCertificates } = await import('../../src/webhook/index.ts');
  const tls = join(directory, 'tls-files');
  await makeCertificates(tls, '127.0.0.1', new Date());
  const { service } = await stage.running(
    'certified',
    {},
    { arguments: ['--webhook-tls', tls, '--webhook-threads', '2'] },
  );
  const dev = await stage.as('dev');
  let asked = 0;
  const wrong: string[] = [];
  let going = true;
  const load = Array.from({ length: 4 }, async (_, worker) => {
    while (going) {
      const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `w-${worker}-${asked++}` } };
      const { status, body: said } = await dev.request('POST', '/api/v1/namespaces/certified/configmaps', body);
      if (status !== 403 || !String(said['message']).includes('no recorded verdict'))
        wrong.push(`${status} ${String(said['message']).slice(0, 200)}`);
    }
  });
  const before = readFileSync(join(tls, 'tls.crt'), 'utf8');
  const other = join(directory, 'tls-other');
  await makeCertificates(other, '127.0.0.1', new Date());
  for (const name of ['tls.key', 'tls.crt', 'ca.crt']) writeFileSync(join(tls, name), readFileSync(join(other, name)));
  assert.notEqual(readFileSync(join(tls, 'tls.crt'), 'utf8'), before);
  await service.says('the webhook has a new certificate');
  const renewed = asked;
  await stage.waitFor(async () => asked > renewed + 50, 'requests under the new one');
  going = false;
  await Promise.all(load);
  assert.deepEqual(wrong.slice(0, 5), []);
  assert.ok(asked > 100, String(asked));
});

test('an operator in the cluster may write what belongs to an object that Git has', async () => {
  const { service } = await stage.running(
    'operated',
    {},
    {
      files: { 'clusters/production/web.yaml': deployment('operated', 'web') },
      environment: { admission: { operators: ['user:operator'] } },
    },
  );
  const operator: ApiServer = await stage.as('operator');
  const { uid } = (await stage.get('/apis/apps/v1/namespaces/operated/deployments/web')).body['metadata'] as {
    uid: string;
  };
  const make = (reference: object) =>
    operator.request('POST', '/apis/apps/v1/namespaces/operated/replicasets', {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        generateName: 'web-',
        ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', controller: true, ...reference }],
      },
      spec: {
        selector: { matchLabels: { a: 'b' } },
        template: {
          metadata: { labels: { a: 'b' } },
          spec: {
            containers: [
              { name: 'c', image: 'registry.example.com/c:1', resources: { limits: { memory: '64Mi', cpu: '1' } } },
            ],
          },
        },
      },
    });
  const made = await make({ uid });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  assert.equal((await make({ uid: '00000000-0000-0000-0000-000000000000' })).status, 403);
  const allowed = await service.entry('admission.allowed', 'production', (e) => e.count > 0);
  assert.ok(allowed.entry.evidence.size > 0);
});

test('pods that controllers make are on the ledger in one summary, by name and owner', async () => {
  const ns = 'summed';
  const { service } = await stage.running(
    ns,
    {},
    { files: { 'clusters/production/web.yaml': deployment(ns, 'web', { replicas: 4 }) } },
  );
  let pods: readonly string[] = [];
  await stage.waitFor(async () => {
    const { body } = await stage.get(`/api/v1/namespaces/${ns}/pods`);
    pods = (body['items'] as { metadata: { name: string } }[]).map((p) => p.metadata.name);
    return pods.length === 4;
  }, 'the pods');
  assert.deepEqual(service.entries('admission.proven', 'production'), [], 'not one by one');
  await service.stop();
  const [summed, ...more] = service.entries('admission.proven', 'production');
  assert.ok(summed !== undefined && more.length === 0);
  const made = service
    .evidence<ProvenWrites[]>(summed.entry.evidence)
    .filter((w) => w.kind === 'Pod' && w.operation === 'CREATE');
  assert.equal(made.length, 1);
  assert.match(`${made[0]?.user} ${made[0]?.owner}`, /replicaset-controller ReplicaSet web-/);
  assert.deepEqual(made[0]?.writes.map(([name]) => name).sort(), [...pods].sort());
});

test('before it is enforced, a preview says from recorded traffic what would be refused, and what would not', async () => {
  const { service } = await stage.running('preview', {}, { environment: { mode: 'audit' } });
  const [dev, controller] = [await stage.as('dev'), await stage.as('controller')];
  const make = (who: ApiServer, name: string) =>
    who.request('POST', '/api/v1/namespaces/preview/configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name },
    });
  for (const name of ['a', 'b', 'c']) assert.equal((await make(dev, name)).status, 201);
  assert.equal((await make(controller, 'd')).status, 201);
  const preview = await countersign(['admission', 'preview', '--data', service.data]);
  assert.equal(preview.code, 1, preview.stderr);
  assert.match(preview.stdout, /production: 3 requests would be refused/);
  assert.match(preview.stdout, /refused +3 x CREATE ConfigMap by dev\n +such as preview\/[abc]: .*no recorded verdict/);
  assert.match(preview.stdout, /let through +1 x CREATE ConfigMap by controller/);
  assert.equal((await countersign(['admission', 'preview', '--data', service.data, '--environment', 'none'])).code, 2);
  const event = (user: string, verb: string, more: object = {}) =>
    JSON.stringify({
      auditID: `${user}-${verb}-${JSON.stringify(more)}`,
      stage: 'ResponseComplete',
      verb,
      user: { username: user, groups: user === 'ola' ? ['oncall'] : [] },
      objectRef: { resource: 'configmaps', namespace: 'preview', name: 'x', apiVersion: 'v1', ...more },
      responseStatus: { code: 200 },
      requestReceivedTimestamp: '2026-01-01T00:00:00Z',
      stageTimestamp: '2026-01-01T00:00:00Z',
    });
  const log = join(directory, 'preview-audit.log');
  const config = stage.configuration('preview-off', [
    { url: 'https://git.example.com/fleet', namespaces: ['preview'], mode: 'off' },
  ]);
  const lines = [
    event('dev', 'patch'),
    event('ola', 'delete'),
    event('system:kube-scheduler', 'create'),
    event('kubelet', 'patch', { resource: 'pods', subresource: 'status' }),
  ];
  writeFileSync(log, lines.join('\n'));
  const audit = await countersign(['admission', 'preview', '--audit-log', log, '--config', config, '--output', 'json']);
  assert.equal(audit.code, 1, audit.stderr);
  const [of] = JSON.parse(audit.stdout) as { requests: { outcome: string; user: string; operation: string }[] }[];
  assert.deepEqual(
    of?.requests.map((r) => [r.outcome, r.user, r.operation]),
    [
      ['refused', 'dev', 'UPDATE'],
      ['break-glass', 'ola', 'DELETE'],
      ['let through', 'system:kube-scheduler', 'CREATE'],
    ],
  );
  writeFileSync(log, 'no json');
  assert.equal((await countersign(['admission', 'preview', '--audit-log', log, '--config', config])).code, 2);
});

test('only whoever has a certificate of the authority is answered; replicas share a certificate by a Secret', async () => {
  const kubeSystem = 'kube-public';
  const { service } = await stage.running(
    'tls-secret',
    {},
    { arguments: ['--webhook-tls', `secret:${kubeSystem}/gate-tls`] },
  );
  const secret = (await stage.get(`/api/v1/namespaces/${kubeSystem}/secrets/gate-tls`)).body as {
    type: string;
    data: Record<string, string>;
  };
  assert.deepEqual(
    [secret.type, Object.keys(secret.data).sort()],
    ['kubernetes.io/tls', ['ca.crt', 'tls.crt', 'tls.key']],
  );
  const dev = await stage.as('dev');
  const post = () =>
    dev.request('POST', '/api/v1/namespaces/tls-secret/configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { generateName: 'x-' },
    });
  assert.match(String((await post()).body['message']), /no recorded verdict/);
  await service.stop();
  const ca = join(directory, 'client-ca.pem');
  const { makeCertificates } = await import('../../src/webhook/index.ts');
  writeFileSync(ca, (await makeCertificates(join(directory, 'client-ca'), 'client', new Date())).ca);
  const fleet = stage.fleet('tls-client');
  const closed = stage.configuration('tls-client', [{ url: fleet.url, namespaces: ['tls-client'] }]);
  await stage.admin.request('POST', '/api/v1/namespaces', {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'tls-client' },
  });
  await stage.serve(closed, 'tls-client', ['--webhook-client-ca', ca]);
  const refused = await dev.request('POST', '/api/v1/namespaces/tls-client/configmaps', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'x' },
  });
  assert.match(
    String(refused.body['message']),
    /failed calling webhook.*certificate/,
    'the API server of this test has none',
  );
});

test('what is in a governed namespace already is judged, and what no commit has is listed', async () => {
  await installReports(stage);
  const ns = 'rescan';
  await stage.admin.request('POST', '/api/v1/namespaces', {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: ns },
  });
  const pod = (name: string, privileged: boolean, more: object = {}) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...more },
    spec: { containers: [{ name: 'c', image: 'registry.example.com/c:1', securityContext: { privileged } }] },
  });
  await stage.admin.request('POST', `/api/v1/namespaces/${ns}/pods`, pod('left-behind', true));
  const { service } = await stage.running(
    ns,
    {},
    { arguments: ['--rescan', '1h'], files: { 'clusters/production/web.yaml': deployment(ns, 'web') } },
  );
  const { uid } = (await stage.get(`/apis/apps/v1/namespaces/${ns}/deployments/web`)).body['metadata'] as {
    uid: string;
  };
  const controller = await stage.as('controller');
  const owner = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', uid, controller: true };
  const cm = (name: string, more: object = {}) =>
    controller.request('POST', `/api/v1/namespaces/${ns}/configmaps`, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, ...more },
    });
  assert.equal((await cm('of-web', { ownerReferences: [owner] })).status, 201);
  assert.equal((await cm('stray')).status, 201);
  const scan = async () => {
    const { code, stdout, stderr } = await countersign([
      'admission',
      'scan',
      '--data',
      service.data,
      '--output',
      'json',
    ]);
    const [found] =
      code === 2
        ? []
        : (JSON.parse(stdout) as {
            unmanaged: { object: { name: string } }[];
            violations: { object: { name: string }; rule: string }[];
            objects: number;
          }[]);
    return { code, stderr, found };
  };
  // A ReplicaSet may be read before its Deployment.
  const names = (scanned: Awaited<ReturnType<typeof scan>>) =>
    scanned.found?.unmanaged.map((u) => u.object.name).sort();
  await stage.waitFor(
    async () => String(names(await scan())) === 'left-behind,stray',
    'what no commit has, by a watch',
  );
  const { code, found } = await scan();
  assert.equal(code, 1);
  assert.deepEqual(
    found?.unmanaged.map((u) => u.object.name).sort(),
    ['left-behind', 'stray'],
    'not what belongs to a Deployment of Git, nor what Kubernetes makes',
  );
  const unproven = service.entries('content.unproven', 'production').map(({ entry: e }) => [e.object.name, e.reason]);
  assert.deepEqual(unproven, [['left-behind', 'no commit has it, and no controller owns it']]);
  assert.ok(found?.violations.some((v) => v.object.name === 'left-behind' && v.rule === 'privileged'));
  const text = await countersign(['admission', 'scan', '--data', service.data]);
  assert.match(text.stdout, /in no commit Pod rescan\/left-behind/);
  const reportPath = `/apis/openreports.io/v1alpha1/namespaces/${ns}/reports/countersign-production`;
  await stage
    .waitFor(async () => JSON.stringify((await stage.get(reportPath)).body).includes('left-behind'), 'the Report')
    .catch((thrown) => assert.fail(`${thrown}\n${service.log.slice(-2000)}`));
  const report = (await stage.get(`/apis/openreports.io/v1alpha1/namespaces/${ns}/reports/countersign-production`))
    .body as {
    summary: Record<string, number>;
    results: { rule: string; result: string; resources: { name: string }[] }[];
  };
  assert.ok(
    report.results.some(
      (r) => r.rule === 'privileged' && r.result === 'fail' && r.resources[0]?.name === 'left-behind',
    ),
  );
  assert.ok(report.results.some((r) => r.rule === 'unmanaged' && r.result === 'warn'));
  assert.ok((report.summary['fail'] ?? 0) >= 1 && (report.summary['pass'] ?? 0) >= 1);
  const before = service.entries('cluster.scanned', 'production').length;
  await new Promise((done) => setTimeout(done, 5000));
  assert.equal(
    service.entries('cluster.scanned', 'production').length,
    before,
    'the same result is not recorded again',
  );
});
