import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { type EnvironmentOptions, environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// The rights of `countersign manifests --rights derived`, without a cluster. What they allow: test/cluster/rights.test.ts.
const directory = scratch();
const dana = sshPerson(directory, 'dana');
const fleet = new Fleet(directory, 'fleet');
const other = new Fleet(directory, 'other');
const PATH = 'clusters/production';
const RBAC = 'rbac.authorization.k8s.io';
let serial = 0;
let first = '';

type Rule = Readonly<Record<'apiGroups' | 'resources' | 'verbs', readonly string[]>> & {
  readonly resourceNames?: readonly string[];
};
type Item = {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[];
  readonly roleRef?: { readonly kind: string; readonly name: string };
};

const gauges = (scope: string, plural = 'gaugeses') =>
  JSON.stringify({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.meters.example.com` },
    spec: { group: 'meters.example.com', scope, names: { kind: 'Gauge', plural } },
  });
const gauge = 'apiVersion: meters.example.com/v1\nkind: Gauge\nmetadata: {name: load, namespace: shop}\n';
const role = (kind: string, name: string) =>
  `apiVersion: ${RBAC}/v1\nkind: ${kind}\nmetadata: {name: ${name}${kind === 'Role' ? ', namespace: shop' : ''}}\nrules: []\n`;
const binding = (kind: string, to: string, name: string) =>
  `apiVersion: ${RBAC}/v1\nkind: ${kind}\nmetadata: {name: ${name}-b${kind === 'RoleBinding' ? ', namespace: shop' : ''}}\n` +
  `roleRef: {apiGroup: ${RBAC}, kind: ${to}, name: ${name}}\nsubjects: []\n`;

before(() => {
  for (const one of [fleet, other]) one.remote(one.bare);
  first = commit({ 'ns.yaml': namespace('shop'), 'web.yaml': deployment('shop', 'web') });
});

// Replaces all files of the fleet's directory.
function commit(files: Readonly<Record<string, string>>, at = fleet): string {
  at.git(undefined, 'rm', '-rq', '--ignore-unmatch', '.');
  return at.commit(dana, 'change', Object.fromEntries(Object.entries(files).map(([k, v]) => [`${PATH}/${k}`, v])));
}

const environment = (more: Partial<EnvironmentOptions> = {}) =>
  environmentDocument({ url: fleet.url, namespaces: ['shop'], ...more });

function configured(...environments: readonly object[]): string {
  return writeConfiguration(join(directory, `config-${serial++}`), [...environments, trustDocument([dana])]);
}

function derive(config: string, ...more: readonly string[]) {
  const rights = ['manifests', '--rights', 'derived', '--rights-only', '--config', config];
  return countersign([...rights, '--repo', fleet.work, ...more]);
}

async function itemsOf(config: string, ...more: readonly string[]): Promise<readonly Item[]> {
  const { code, stdout, stderr } = await derive(config, ...more);
  assert.equal(code, 0, stderr);
  return (JSON.parse(stdout) as { items: readonly Item[] }).items;
}

const rulesOf = (items: readonly Item[], name: string) =>
  items.find((item) => item.kind === 'ClusterRole' && item.metadata.name === name)?.rules ?? [];
const GOVERNED = 'countersign-governed';
// The resources with a verb, as `resource.group`, with the names in brackets.
const allowed = (rules: readonly Rule[], verb: string) =>
  rules
    .filter((rule) => rule.verbs.includes(verb))
    .flatMap(({ apiGroups, resources, resourceNames }) =>
      resources.map(
        (resource) => `${[resource, ...apiGroups].filter((part) => part !== '').join('.')}${named(resourceNames)}`,
      ),
    )
    .sort();
const named = (names: readonly string[] | undefined) => (names === undefined ? '' : ` [${names.join(' ')}]`);

test('the kinds that the environments render may be written in their namespaces, and nothing else', async () => {
  commit({
    'ns.yaml': namespace('shop'),
    'web.yaml': deployment('shop', 'web'),
    'cm.yaml': configMap('shop', 'a', {}),
    'policy.yaml': 'apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, namespace: shop}\n',
  });
  const items = await itemsOf(configured(environment()));
  for (const verb of ['create', 'update', 'delete'])
    assert.deepEqual(
      allowed(rulesOf(items, GOVERNED), verb),
      ['configmaps', 'deployments.apps', 'networkpolicies.networking.k8s.io'].concat(
        verb === 'create' ? ['reports.openreports.io'] : [],
      ),
      verb,
    );
  const reads = allowed(rulesOf(items, GOVERNED), 'list');
  for (const kind of ['secrets', 'pods', 'events', 'controllerrevisions.apps', 'replicasets.apps', 'deployments.apps'])
    assert.ok(reads.includes(kind), kind);
  const places = items.filter((i) => i.kind === 'RoleBinding').map((i) => `${i.metadata.namespace} ${i.roleRef?.name}`);
  assert.deepEqual(places, [`shop ${GOVERNED}`, 'countersign countersign']);
});

test('no rule has a star, reads a part of an object, or writes an object of the cluster that has no name', async () => {
  const items = await itemsOf(configured(environment()), '--grant-roles');
  const rules = items.flatMap((item) => item.rules ?? []);
  assert.ok(rules.length > 10);
  for (const { apiGroups, resources, verbs } of rules)
    for (const text of [...apiGroups, ...resources, ...verbs]) assert.ok(!text.includes('*'), text);
  const parts = rules.filter((rule) => rule.resources.some((resource) => resource.includes('/')));
  assert.deepEqual(
    parts.flatMap((rule) => rule.verbs),
    ['patch'],
    'only the status of our own documents',
  );
  const cluster = rulesOf(items, 'countersign');
  assert.deepEqual(allowed(cluster, 'delete'), [
    'namespaces [shop]',
    'validatingadmissionpolicies.admissionregistration.k8s.io [countersign countersign-names countersign-namespace countersign-tokens]',
    'validatingadmissionpolicybindings.admissionregistration.k8s.io [countersign countersign-names countersign-namespace countersign-tokens]',
  ]);
  assert.ok(!allowed(cluster, 'create').some((resource) => resource.startsWith('namespaces')));
});

test('the same commits give the same text, in whatever order files and environments come', async () => {
  const files = {
    'a.yaml': configMap('shop', 'a', {}),
    'b.yaml': deployment('shop', 'web'),
    'c.yaml': role('Role', 'r'),
  };
  commit(files);
  const two = environment({ name: 'two', namespaces: ['two'], path: 'nothing' });
  const one = await derive(configured(environment(), two), '--grant-roles');
  commit({ 'z.yaml': files['a.yaml'], 'b.yaml': files['c.yaml'], 'a.yaml': files['b.yaml'] });
  const other = await derive(configured(two, environment()), '--grant-roles');
  assert.equal(one.code, 0, one.stderr);
  assert.equal(one.stdout, other.stdout);
});

test('the plural of a custom kind is that of its definition, and is never guessed', async () => {
  const definitions = [{ kind: 'CustomResourceDefinition', names: ['gaugeses.meters.example.com'] }];
  const config = configured(environment({ clusterScoped: ['Namespace', ...definitions] }));
  commit({ 'crd.json': gauges('Namespaced'), 'gauge.yaml': gauge });
  const items = await itemsOf(config);
  const writes = allowed(rulesOf(items, GOVERNED), 'patch');
  assert.deepEqual(writes, ['gaugeses.meters.example.com', 'reports.openreports.io']);
  const crds = 'customresourcedefinitions.apiextensions.k8s.io [gaugeses.meters.example.com]';
  assert.ok(allowed(rulesOf(items, 'countersign'), 'patch').includes(crds));

  commit({ 'gauge.yaml': gauge });
  const { code, stdout, stderr } = await derive(config);
  assert.deepEqual([code, stdout], [2, '']);
  assert.match(
    stderr,
    /clusters\/production\/gauge\.yaml:1: how the API serves `Gauge` of `meters\.example\.com\/v1` is unknown/,
  );
  assert.match(stderr, /--kubeconfig.*CustomResourceDefinition/s);
});

test('two definitions of one kind that disagree are refused', async () => {
  const clusterScoped = ['Namespace', 'CustomResourceDefinition'];
  commit({ 'a.json': gauges('Namespaced'), 'b.json': gauges('Namespaced', 'gauges') });
  const { code, stderr } = await derive(configured(environment({ clusterScoped })));
  assert.equal(code, 2);
  assert.match(stderr, /b\.json:1: `Gauge` of `meters\.example\.com` is defined otherwise there/);
});

test('a definition that no cluster would take gives no rights: a star, or a kind of Kubernetes itself', async () => {
  const config = configured(environment({ clusterScoped: ['Namespace', 'CustomResourceDefinition'] }));
  for (const [group, plural] of [
    ['meters.example.com', '*'],
    ['', '*'],
    ['', 'secrets'],
    [RBAC, 'rolebindings'],
    ['meters', 'gauges'],
  ]) {
    const spec = { group, scope: 'Namespaced', names: { kind: 'Gauge', plural } };
    const metadata = { name: `${plural}.${group}` };
    const apiVersion = group === '' ? 'v1' : `${group}/v1`;
    commit({
      'crd.json': JSON.stringify({ ...JSON.parse(gauges('Namespaced')), metadata, spec }),
      'gauge.json': JSON.stringify({ apiVersion, kind: 'Gauge', metadata: { name: 'load', namespace: 'shop' } }),
    });
    const { code, stdout, stderr } = await derive(config);
    assert.deepEqual([code, stdout], [2, ''], metadata.name);
    assert.match(stderr, /crd\.json:1: CustomResourceDefinition .* defines what no cluster would serve/);
  }
});

test('cluster-scoped objects may be written by name where the environment says their names', async () => {
  commit({ 'role.yaml': role('ClusterRole', 'meter') });
  const cluster = async (names: string[]) => {
    const clusterScoped = [{ kind: 'ClusterRole', names }];
    const rules = rulesOf(await itemsOf(configured(environment({ clusterScoped }))), 'countersign');
    return [allowed(rules, 'patch'), allowed(rules, 'watch')].map((all) =>
      all.filter((r) => r.startsWith('clusterroles')),
    );
  };
  const kind = `clusterroles.${RBAC}`;
  assert.deepEqual(await cluster(['meter', 'gauge']), [[`${kind} [gauge meter]`], [kind]]);
  assert.deepEqual(await cluster(['meter*']), [[kind], [kind]], 'a pattern is no name');
});

test('`--grant-roles` gives `escalate` on the roles in Git and `bind` on those that are bound, by name', async () => {
  commit({
    'a.yaml': role('Role', 'own'),
    'b.yaml': role('ClusterRole', 'meter'),
    'c.yaml': binding('RoleBinding', 'Role', 'own'),
    'd.yaml': binding('RoleBinding', 'ClusterRole', 'view'),
    'e.yaml': binding('ClusterRoleBinding', 'ClusterRole', 'meter'),
  });
  const config = configured(environment({ clusterScoped: ['ClusterRole', 'ClusterRoleBinding'] }));
  const items = await itemsOf(config, '--grant-roles');
  const [governed, cluster] = [rulesOf(items, GOVERNED), rulesOf(items, 'countersign')];
  assert.deepEqual(allowed(governed, 'escalate'), [`roles.${RBAC} [own]`]);
  assert.deepEqual(allowed(governed, 'bind'), [`clusterroles.${RBAC} [view]`, `roles.${RBAC} [own]`]);
  assert.deepEqual(allowed(cluster, 'escalate'), [`clusterroles.${RBAC} [meter]`]);
  assert.deepEqual(allowed(cluster, 'bind'), [`clusterroles.${RBAC} [meter]`]);
  const without = (await itemsOf(config)).flatMap((item) => item.rules ?? []).flatMap((rule) => rule.verbs);
  assert.deepEqual(
    without.filter((verb) => ['bind', 'escalate'].includes(verb)),
    [],
  );
});

test('`--revision` adds the kinds of other commits; one that no checkout has is refused', async () => {
  commit({ 'cm.yaml': configMap('shop', 'a', {}) });
  const config = configured(environment());
  const writes = async (...more: readonly string[]) =>
    allowed(rulesOf(await itemsOf(config, ...more), GOVERNED), 'update');
  assert.deepEqual(await writes(), ['configmaps']);
  assert.deepEqual(await writes('--revision', first), ['configmaps', 'deployments.apps']);
  const { code, stderr } = await derive(config, '--revision', 'nowhere');
  assert.equal(code, 2);
  assert.match(stderr, /`nowhere` is not a commit of any checkout/);
});

test('an environment without a checkout of its repository is refused, never left out', async () => {
  commit({ 'cm.yaml': configMap('shop', 'a', {}) });
  commit({ 'web.yaml': deployment('two', 'web') }, other);
  const config = configured(environment(), environment({ name: 'two', url: other.url, namespaces: ['two'] }));
  const { code, stderr } = await derive(config);
  assert.equal(code, 2);
  assert.match(stderr, /no checkout is of the repository of `two`/);
  assert.match(stderr, /--repo/);
  const items = await itemsOf(config, other.work);
  assert.deepEqual(allowed(rulesOf(items, GOVERNED), 'update'), ['configmaps', 'deployments.apps']);
});

test('what the gate would deny gets no rights', async () => {
  commit({ 'role.yaml': role('ClusterRole', 'meter') });
  const { code, stdout, stderr } = await derive(configured(environment()));
  assert.deepEqual([code, stdout], [2, '']);
  assert.match(
    stderr,
    /`production` at [0-9a-f]{12} would be denied: clusters\/production\/role\.yaml:\d+: .*cluster-scoped/,
  );
});

test('an environment with its own account adds only the right to act as that account, and is named', async () => {
  commit({ 'cm.yaml': configMap('shop', 'a', {}) });
  const target = { namespaces: ['two'], serviceAccount: 'two/deployer' };
  const config = configured(environment(), environment({ name: 'two', namespaces: ['two'], spec: { target } }));
  const { code, stdout, stderr } = await derive(config);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /left out: two uses the rights of the ServiceAccount two\/deployer/);
  const { items } = JSON.parse(stdout) as { items: readonly Item[] };
  assert.deepEqual(allowed(rulesOf(items, 'countersign'), 'impersonate'), ['serviceaccounts [deployer]']);
  assert.ok(!items.some((item) => item.metadata.namespace === 'two'));
});

test('flags that would not be heeded are refused', async () => {
  for (const [args, why] of [
    [['--revision', 'HEAD'], /`--revision` is for rights that are derived/],
    [['--cluster', 'east'], /`--cluster` is for rights that are derived/],
    [['--static', join(directory, 'static'), '--rights', 'derived'], /--static writes policies, which give no rights/],
    [['--rights', 'derived'], /the container image is missing/],
  ] as const) {
    const { code, stderr } = await countersign(['manifests', ...args]);
    assert.equal(code, 2);
    assert.match(stderr, why);
  }
  const all = await countersign(['manifests', '--rights-only']);
  const { items } = JSON.parse(all.stdout) as { items: readonly Item[] };
  assert.deepEqual(
    items.map((item) => item.kind),
    ['ClusterRole', 'ClusterRoleBinding'],
  );
});
