import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { answerOf, classOf, isBuiltIn, minorOf, nameOf, type Pair, pairsOf } from '../../scripts/admission-matrix.ts';
import type { Answer, ApiServer } from '../../src/cluster/index.ts';
import { builtInScope, resourceOf, stableKinds } from '../../src/model/index.ts';
import { without } from '../kit/machine.ts';
import { ONE_OF_EACH } from '../kit/one-of-each.ts';
import { scratch } from '../kit/scratch.ts';
import { Stage } from '../kit/stage.ts';
import { openStage } from '../kit/test-stage.ts';

const NS = 'resources';
const MERGE = 'application/merge-patch+json';
const PAGE = readFileSync(fileURLToPath(new URL('../../docs/admission-resources.md', import.meta.url)), 'utf8');
const stage = await openStage(scratch(), { own: true }); // its webhook also decides about nodes

test('a pair that no rule knows is stored, and refused', () => {
  const pair: Pair = {
    group: 'new.k8s.io',
    version: 'v1',
    resource: 'inventions',
    subresource: '',
    kind: 'Invention',
    scope: 'Namespaced',
    verbs: ['create', 'delete', 'get', 'list'],
    connects: false,
  };
  assert.deepEqual([classOf(pair), answerOf(pair)], ['stored', 'no']);
  const part = { ...pair, subresource: 'half', verbs: ['update'] };
  assert.deepEqual([classOf(part), answerOf(part)], ['part', 'no']);
});

test('docs/admission-resources.md has every resource of the API server, and the answer that it gives', async () => {
  await holdAgainst(stage);
});

test('so it is on Kubernetes 1.37', { skip: without('kube-apiserver 1.37') }, async (t) => {
  const next = await Stage.bare(scratch(), { apiserver: 'kube-apiserver-1.37' });
  t.after(() => next.close());
  assert.equal(await minorOf(next.admin), '1.37');
  await holdAgainst(next);
});

test('custom kinds are classed and decided by the same rules, whatever they are called', async (t) => {
  const ns = 'resources-custom';
  const group = 'resources.example.test';
  const definitions = [
    definition(group, 'events', 'Event', {}),
    definition(group, 'leases', 'Lease', { subresources: { status: {} } }),
    definition(group, 'reports', 'Report', { subresources: { scale: SCALE } }),
    definition(group, 'planets', 'Planet', { scope: 'Cluster' }),
  ];
  const at = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  for (const d of definitions) assert.equal((await stage.admin.request('POST', at, d)).status, 201);
  t.after(async () => {
    for (const { metadata } of definitions) await stage.admin.request('DELETE', `${at}/${metadata.name}`);
  });
  let pairs: readonly Pair[] = [];
  await stage.waitFor(async () => {
    pairs = (await pairsOf(stage.admin)).filter((p) => p.group === group);
    return pairs.length === 6;
  }, 'the discovery of the definitions');
  assert.deepEqual(
    pairs.map((p) => [nameOf(p), classOf(p), answerOf(p)]),
    [
      [`${group}/events`, 'stored', 'no'],
      [`${group}/leases`, 'stored', 'no'],
      [`${group}/leases/status`, 'status', 'no, if metadata changes'],
      [`${group}/planets`, 'stored', 'no, if the kind is governed'],
      [`${group}/reports`, 'stored', 'no'],
      [`${group}/reports/scale`, 'scale', 'no'],
    ],
  );
  const core = { metadata: { name: ns } };
  assert.equal((await stage.admin.request('POST', '/api/v1/namespaces', core)).status, 201);
  const path = (plural: string, name = '') => `/apis/${group}/v1/namespaces/${ns}/${plural}${name}`;
  const kinds = { events: 'Event', leases: 'Lease', reports: 'Report' };
  const object = (kind: string, name: string) => ({ apiVersion: `${group}/v1`, kind, metadata: { name } });
  for (const [plural, kind] of Object.entries(kinds))
    assert.equal(
      (await stage.admin.request('POST', path(plural), { ...object(kind, 'there'), spec: { n: 1 } })).status,
      201,
    );
  await stage.running(ns);
  const dev = await stage.as('dev');
  for (const [plural, kind] of Object.entries(kinds)) {
    assert.ok(isRefused(await dev.request('POST', `${path(plural)}?${DRY}`, object(kind, 'new'))), plural);
    const status = { status: { healthy: true } };
    const reported = await dev.request('PATCH', `${path(plural, '/there')}?${DRY}`, status, MERGE);
    assert.ok(isRefused(reported), `${plural}: without the subresource, its status is content`);
  }
  const labels = { metadata: { labels: { touched: 'yes' } } };
  const toStatus = (body: object) => dev.request('PATCH', `${path('leases', '/there/status')}?${DRY}`, body, MERGE);
  assert.equal((await toStatus({ status: { healthy: true } })).status, 200);
  const kept = await toStatus(labels);
  assert.ok(isRefused(kept) || keepsNothing(kept));
  const scaled = await dev.request(
    'PATCH',
    `${path('reports', '/there/scale')}?${DRY}`,
    { spec: { replicas: 3 } },
    MERGE,
  );
  assert.ok(isRefused(scaled), String(scaled.body['message']));
  const planet = await dev.request('POST', `/apis/${group}/v1/planets?${DRY}`, object('Planet', 'mars'));
  assert.equal(planet.status, 201, 'no environment governs the kind');
});

const SCALE = { specReplicasPath: '.spec.n', statusReplicasPath: '.status.n' };

function definition(group: string, plural: string, kind: string, { scope = 'Namespaced', subresources = {} }) {
  const any = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  const spec = { type: 'object', properties: { n: { type: 'integer' } } };
  const schema = { openAPIV3Schema: { type: 'object', properties: { spec, status: any } } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope,
      names: { plural, kind },
      versions: [{ name: 'v1', served: true, storage: true, schema, subresources }],
    },
  };
}

async function holdAgainst(at: Stage): Promise<void> {
  const pairs = (await pairsOf(at.admin)).filter(isBuiltIn);
  const unlike = pairs
    .filter((p) => p.subresource === '')
    .map(({ group, version, kind, scope }) => ({
      apiVersion: group === '' ? version : `${group}/${version}`,
      kind,
      scope,
    }))
    .filter((p) => builtInScope(p) !== p.scope);
  assert.deepEqual(unlike, [], 'add what is new to `src/model/kind-scope.ts`');
  const misnamed = pairs.filter((p) => p.subresource === '' && resourceOf(p.kind) !== p.resource);
  assert.deepEqual(misnamed, [], 'rights are given for the plurals of `resourceOf`');
  // Charts are told of these whatever the cluster is.
  for (const name of stableKinds()) {
    const [version, kind = ''] = [name.slice(0, name.lastIndexOf('/')), name.split('/').at(-1)];
    const { body } = await at.admin.request('GET', `/${version.includes('/') ? 'apis' : 'api'}/${version}`);
    const { resources = [] } = body as { resources?: readonly { kind: string }[] };
    assert.ok(
      resources.some((resource) => resource.kind === kind),
      `${name} is not served: add it to UNSTABLE in \`src/model/kind-scope.ts\``,
    );
  }
  const minor = await minorOf(at.admin);
  const rows = PAGE.split('\n').filter((line) => line.startsWith('| `') && line.split(' | ').length === 4);
  const expected = pairs.map((p) => `| \`${nameOf(p)}\` | ${classOf(p)} | ${answerOf(p)} |`).sort();
  assert.deepEqual(
    rows
      .filter((row) => isServed(row, minor))
      .map((row) => `${row.split(' | ').slice(0, 3).join(' | ')} |`)
      .sort(),
    expected,
    'run `npm run docs:admission`, and read what is new',
  );
  await makeOneOfEach(at, pairs);
  const { service } = await at.running(NS, {}, { environment: { clusterScoped: ['Namespace', 'RuntimeClass'] } });
  const dev = await at.as('dev');
  const wrong: string[] = [];
  for (const pair of pairs)
    for (const [what, ask, isExpected] of attempts(pair)) {
      const answer = await ask(dev);
      if (!isExpected(answer))
        wrong.push(`${nameOf(pair)}: ${what}: ${answer.status} ${String(answer.body['message']).slice(0, 200)}`);
    }
  assert.deepEqual(wrong, []);
  dev.close();
  await service.stop();
}

// The last column: `all`, or a list of minor versions.
function isServed(row: string, minor: string): boolean {
  const versions = row.replace(/ \|$/, '').split(' | ').at(-1)?.split(', ') ?? [];
  return versions.includes('all') || versions.includes(minor);
}

// Before the namespace is governed.
async function makeOneOfEach({ admin }: Stage, pairs: readonly Pair[]): Promise<void> {
  const made = await admin.request('POST', '/api/v1/namespaces', { metadata: { name: NS } });
  assert.equal(made.status, 201, String(made.body['message']));
  const account = { metadata: { name: 'default' } }; // which pods need, and the controllers make too
  await admin.request('POST', `/api/v1/namespaces/${NS}/serviceaccounts`, account);
  const stored = pairs.filter((p) => p.scope === 'Namespaced' && classOf(p) === 'stored');
  const isService = (p: Pair) => Number(nameOf(p) === 'services');
  // A controller that starts just now removes the Endpoints that it finds without their Service.
  for (const pair of stored.toSorted((a, b) => isService(b) - isService(a))) {
    const content = contentOf(pair);
    if (content === undefined) continue;
    const answer = await admin.request('POST', pathOf(pair), objectOf(pair, 'there'));
    // an Event is in two groups, and `default` may be there already
    assert.ok([201, 409].includes(answer.status), `${nameOf(pair)}: ${answer.status} ${answer.body['message']}`);
  }
}

type Attempt = readonly [what: string, ask: (who: ApiServer) => Promise<Answer>, isExpected: (a: Answer) => boolean];

const DRY = 'dryRun=All';
const isLetThrough = ({ status }: Answer) => status >= 200 && status < 300;
function isRefused({ status, body }: Answer): boolean {
  return status === 403 && /countersign\.dev" denied/.test(String(body['message']));
}

// Everything is a dry run: admission decides as for the real thing, and nothing happens.
function attempts(pair: Pair): readonly Attempt[] {
  const answer = answerOf(pair);
  const name = nameOf(pair);
  const there = pathOf(pair, 'there');
  const isExpected = answer === 'not asked' || answer === 'yes' ? isLetThrough : isRefused;
  switch (classOf(pair)) {
    case 'read only':
      return [];
    case 'connect':
      return pair.scope === 'Cluster'
        ? [['POST', (who) => who.request('POST', `${pathOf(pair, 'node-a')}/exec/${NS}/there/a`), isRefused]]
        : [['POST', (who) => who.request('POST', there), isRefused]];
    case 'question':
      if (name === 'bindings')
        return [['POST', (who) => who.request('POST', `${pathOf(pair)}?${DRY}`, binding()), isRefused]];
      if (pair.scope === 'Cluster') return [];
      return [['POST', (who) => who.request('POST', pathOf(pair), question()), isLetThrough]];
    case 'status':
      return statusAttempts(pair);
    case 'scale':
      return [['PATCH', (who) => who.request('PATCH', `${there}?${DRY}`, { spec: { replicas: 1 } }, MERGE), isRefused]];
    case 'part':
      return partAttempts(pair);
    case 'stored':
      return pair.scope === 'Cluster' ? clusterAttempts(pair) : storedAttempts(pair, isExpected);
  }
}

function storedAttempts(pair: Pair, isExpected: (answer: Answer) => boolean): readonly Attempt[] {
  if (contentOf(pair) === undefined) return [];
  const there = pathOf(pair, 'there');
  const labels = { touched: 'yes' };
  const all: Readonly<Record<string, Attempt>> = {
    create: ['CREATE', (who) => who.request('POST', `${pathOf(pair)}?${DRY}`, objectOf(pair, 'new')), isExpected],
    patch: ['PATCH', (who) => who.request('PATCH', `${there}?${DRY}`, { metadata: { labels } }, MERGE), isExpected],
    delete: ['DELETE', (who) => who.request('DELETE', `${there}?${DRY}`), isExpected],
    deletecollection: [
      'DELETE of all',
      (who) => who.request('DELETE', `${pathOf(pair)}?${DRY}&labelSelector=one-of-each`),
      isExpected,
    ],
  };
  return Object.entries(all)
    .filter(([verb]) => pair.verbs.includes(verb))
    .map(([, attempt]) => attempt);
}

// Some kinds keep no metadata that is written through their status. What is not kept need not be refused.
function statusAttempts(pair: Pair): readonly Attempt[] {
  const isNamespace = pair.resource === 'namespaces';
  if (pair.scope === 'Cluster' && !isNamespace) return [];
  if (!isNamespace && contentOf({ ...pair, subresource: '' }) === undefined) return [];
  if (pair.subresource === 'finalize') {
    const body = (labels: object) => ({ metadata: { name: NS, labels }, spec: { finalizers: ['kubernetes'] } });
    const put = (labels: object) => (who: ApiServer) => who.request('PUT', `${pathOf(pair, NS)}?${DRY}`, body(labels));
    return [['PUT with a label', put({ 'kubernetes.io/metadata.name': NS, touched: 'yes' }), isRefused]];
  }
  const at = `${pathOf(pair, isNamespace ? NS : 'there')}?${DRY}`;
  const patch = (body: object) => (who: ApiServer) => who.request('PATCH', at, body, MERGE);
  return [
    ['PATCH of nothing but status', patch({ status: {} }), isLetThrough],
    ...['annotations', 'labels'].map(
      (of): Attempt => [
        `PATCH of ${of}`,
        patch({ metadata: { [of]: { touched: 'yes' } } }),
        (answer) => isRefused(answer) || (isLetThrough(answer) && keepsNothing(answer)),
      ],
    ),
  ];
}

function keepsNothing({ body }: Answer): boolean {
  const { annotations, labels } = (body['metadata'] ?? {}) as Record<string, object | undefined>;
  return !('touched' in { ...annotations, ...labels });
}

function partAttempts(pair: Pair): readonly Attempt[] {
  const at = `${pathOf(pair, 'there')}?${DRY}`;
  const post = (body: object) => (who: ApiServer) => who.request('POST', at, body);
  const patch = (spec: object) => (who: ApiServer) =>
    who.request('PATCH', at, { spec }, 'application/strategic-merge-patch+json');
  const container = { name: 'debug', image: 'registry.example.test/a:1', terminationMessagePolicy: 'File' };
  const attempt: Readonly<Record<string, Attempt>> = {
    'pods/binding': ['POST with an annotation', post(binding()), isRefused],
    'pods/eviction': ['POST', post({ metadata: { name: 'there' } }), isLetThrough],
    'pods/ephemeralcontainers': ['PATCH', patch({ ephemeralContainers: [container] }), isRefused],
    'pods/resize': ['PATCH', patch({ containers: [{ name: 'a', resources: {} }] }), isRefused],
    'serviceaccounts/token': ['POST', post({ spec: { audiences: ['a'] } }), isLetThrough],
  };
  if (pair.scope === 'Cluster') return [];
  return [attempt[nameOf(pair)] ?? assert.fail(`nobody has tried ${nameOf(pair)}: add a request`)];
}

// The environment governs Namespace and RuntimeClass. One of the others stands for all.
function clusterAttempts(pair: Pair): readonly Attempt[] {
  const create = (object: object) => (who: ApiServer) => who.request('POST', `${pathOf(pair)}?${DRY}`, object);
  const metadata = { name: 'resources-new' };
  switch (nameOf(pair)) {
    case 'namespaces': {
      const labels = { touched: 'yes' };
      const patch = (who: ApiServer) =>
        who.request('PATCH', `${pathOf(pair, NS)}?${DRY}`, { metadata: { labels } }, MERGE);
      return [
        ['PATCH', patch, isRefused],
        ['DELETE', (who) => who.request('DELETE', `${pathOf(pair, NS)}?${DRY}`), isRefused],
      ];
    }
    case 'node.k8s.io/runtimeclasses':
      return [['CREATE', create({ metadata, handler: 'a' }), isRefused]];
    case 'rbac.authorization.k8s.io/clusterroles':
      return [['CREATE', create({ metadata, rules: [] }), isLetThrough]];
    default:
      return [];
  }
}

function contentOf(pair: Pair): Readonly<Record<string, unknown>> | undefined {
  const name = nameOf(pair);
  assert.ok(Object.hasOwn(ONE_OF_EACH, name), `nobody has tried ${name}: add one to test/kit/one-of-each.ts`);
  return ONE_OF_EACH[name];
}

function objectOf(pair: Pair, name: string): object {
  const { group, version, kind } = pair;
  const metadata = { name, namespace: NS, labels: { 'one-of-each': 'yes' } };
  return { apiVersion: group === '' ? version : `${group}/${version}`, kind, metadata, ...contentOf(pair) };
}

function binding(): object {
  return { metadata: { name: 'there', annotations: { touched: 'yes' } }, target: { kind: 'Node', name: 'node-a' } };
}

function question(): object {
  return {
    metadata: { namespace: NS },
    spec: { user: 'x', resourceAttributes: { namespace: NS, verb: 'get', resource: 'pods' } },
  };
}

function pathOf({ group, version, resource, subresource, scope }: Pair, name?: string): string {
  return [
    group === '' ? `/api/${version}` : `/apis/${group}/${version}`,
    ...(scope === 'Cluster' ? [] : ['namespaces', NS]),
    resource,
    ...(name === undefined ? [] : [name]),
    ...(subresource === '' ? [] : [subresource]),
  ].join('/');
}
