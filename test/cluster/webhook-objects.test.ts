import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Environment as Cel } from '@marcbachmann/cel-js';
import { protectingPolicies, webhookConfiguration } from '../../src/cluster/webhook-objects.ts';
import { customResourceDefinitions } from '../../src/config/index.ts';
import { environmentSchema, isInstallation, type KubernetesObject } from '../../src/model/index.ts';
import { environmentDocument } from '../kit/documents.ts';
import { countersign } from '../kit/service.ts';

type Condition = { readonly name: string; readonly expression: string };
type Request = {
  readonly operation?: string;
  readonly name?: string;
  readonly object?: object;
  readonly oldObject?: object;
  /** Whether the user may do everything. */
  readonly isAdmin?: boolean;
};

class Authorizer {
  readonly isAdmin: boolean;
  constructor(isAdmin: boolean) {
    this.isAdmin = isAdmin;
  }
}

// As the API server has it: `check` asks about all verbs on all resources, or another right, which nobody here has.
const cel = new Cel({ unlistedVariablesAreDyn: true })
  .registerType('Authorizer', Authorizer)
  .registerFunction('Authorizer.group(string): Authorizer', (a: Authorizer, g: string) => narrowed(a, g))
  .registerFunction('Authorizer.resource(string): Authorizer', (a: Authorizer, r: string) => narrowed(a, r))
  .registerFunction('Authorizer.check(string): Authorizer', (a: Authorizer, v: string) => narrowed(a, v))
  .registerFunction('Authorizer.allowed(): bool', (a: Authorizer) => a.isAdmin)
  .registerVariable('authorizer', 'Authorizer');
const narrowed = (authorizer: Authorizer, to: string) => (to === '*' ? authorizer : new Authorizer(false));

const environment = (...clusterScoped: unknown[]) =>
  environmentSchema.parse(
    environmentDocument({
      url: 'fleet.git',
      namespaces: ['shop'],
      spec: { target: { namespaces: ['shop'], clusterScoped } },
    }),
  );
const planOf = (...clusterScoped: unknown[]) => ({
  name: 'gate-hook',
  place: { url: 'https://127.0.0.1/validate' },
  ca: '',
  environments: [environment(...clusterScoped)],
  controlPlane: [],
  genuine: [],
  ours: ['system:serviceaccount:gate:countersign'],
  own: ['gate'],
  ledger: 'ledger',
  isProtected: true,
});

function holds(conditions: readonly Condition[], names: readonly string[], given: Request): boolean {
  const { operation = 'CREATE', object, oldObject, isAdmin = false } = given;
  const { apiVersion, kind, metadata } = (object ?? oldObject) as KubernetesObject;
  const [group, version] = apiVersion.includes('/') ? (apiVersion.split('/') as [string, string]) : ['', apiVersion];
  const name = given.name ?? metadata.name;
  const resource = `${kind.toLowerCase()}${kind.endsWith('s') ? 'es' : 's'}`;
  const request = {
    operation,
    kind: { group, version, kind },
    resource: { group, version, resource },
    userInfo: { username: 'dana', groups: ['developers'] },
    ...(name === '' ? {} : { name }), // an empty field is left out
  };
  const context = {
    request,
    object: object ?? null,
    oldObject: oldObject ?? null,
    authorizer: new Authorizer(isAdmin),
  };
  const chosen = conditions.filter((c) => names.includes(c.name));
  assert.equal(chosen.length, names.length);
  return chosen.every((c) => cel.evaluate(c.expression, context) === true);
}

function isAsked(clusterScoped: readonly unknown[], request: Request): boolean {
  const { webhooks } = webhookConfiguration(planOf(...clusterScoped), '') as {
    webhooks: { name: string; matchConditions: Condition[] }[];
  };
  const hook = webhooks.find((w) => w.name === 'cluster.countersign.dev') ?? assert.fail('there is no such webhook');
  return holds(hook.matchConditions, ['objects', 'not-machinery', 'not-installation'], request);
}

const RBAC = 'rbac.authorization.k8s.io/v1';
const role = (name: string, more: object = {}) => ({
  apiVersion: RBAC,
  kind: 'ClusterRole',
  metadata: { name },
  rules: [],
  ...more,
});

test('the API server asks about the names that environments govern, and about no other object', () => {
  const names = (...patterns: string[]) => [{ kind: 'ClusterRole', names: patterns }];
  const asked = (patterns: string[], name: string) => isAsked(names(...patterns), { object: role(name) });
  assert.equal(asked(['shop-*', 'view'], 'shop-a'), true);
  assert.equal(asked(['shop-*', 'view'], 'view'), true);
  assert.equal(asked(['shop-*', 'view'], 'viewer'), false);
  assert.equal(asked(['shop-*'], 'my-shop-a'), false, 'the whole name');
  assert.equal(asked(['*.a.io'], 'x.a.io'), true);
  assert.equal(asked(['*.a.io'], 'x.aaio'), false, 'a dot is a dot');
  assert.equal(asked(['a+*'], 'aab'), false, 'and a plus is a plus');
  assert.equal(asked(['shop-*'], 'shop-\nx'), true, 'names of roles may have line breaks');
  assert.equal(asked(['*'], 'x'), true);
  assert.equal(isAsked(['ClusterRole'], { object: role('x') }), true);
  assert.equal(isAsked([`ClusterRole.${RBAC.split('/')[0]}`], { object: role('x') }), true);
  assert.equal(isAsked(['ClusterRole.example.com'], { object: role('x') }), false);
  assert.equal(isAsked(['PriorityClass', { kind: 'ClusterRole', names: ['y'] }], { object: role('x') }), false);
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'x' } };
  assert.equal(isAsked(['Namespace', 'ClusterRole'], { object: namespace }), false, 'another webhook asks about these');
});

test('a request without a name is asked about by the name of its object, or always', () => {
  const scope = [{ kind: 'ClusterRole', names: ['shop-*'] }];
  const removal = (name: string) => isAsked(scope, { operation: 'DELETE', name: '', oldObject: role(name) });
  assert.equal(removal('shop-a'), true);
  assert.equal(removal('other'), false);
  const unnamed = { ...role(''), metadata: { generateName: 'x-' } };
  assert.equal(isAsked(scope, { name: '', object: unnamed }), true);
});

test('everything that `manifests` and `crds` print is installed past environments by someone with every right', async () => {
  const kinds = ['ClusterRole', 'ClusterRoleBinding', 'PriorityClass', 'CustomResourceDefinition'];
  const { stdout } = await countersign(['manifests', '--namespace', 'gate', '--image', 'registry.example.com/c:1']);
  const { items } = JSON.parse(stdout) as { items: KubernetesObject[] };
  const clusterScoped = items.filter((i) => i.metadata.namespace === undefined && i.kind !== 'Namespace');
  const all = [...clusterScoped, ...(customResourceDefinitions() as unknown as KubernetesObject[])];
  assert.deepEqual([...new Set(all.map((o) => o.kind))].sort(), [...kinds].sort());
  for (const object of all) {
    const what = `${object.kind} ${object.metadata.name}`;
    const { apiVersion, kind, metadata } = object;
    assert.equal(isInstallation({ apiVersion, kind, namespace: '', name: metadata.name }), true, what);
    for (const operation of ['CREATE', 'UPDATE'])
      assert.equal(isAsked(kinds, { operation, object, isAdmin: true }), false, what);
    assert.equal(isAsked(kinds, { object, isAdmin: false }), true, `${what}, with fewer rights`);
    const removal = { operation: 'DELETE', oldObject: object, isAdmin: true };
    assert.equal(isAsked(kinds, removal), true, `the removal of ${what}`);
    const other = { ...object, metadata: { ...metadata, name: 'other' } };
    assert.equal(isAsked(kinds, { object: other, isAdmin: true }), true, `${kind} of another name`);
  }
});

test('what is only named like a part of Countersign is asked about, whoever writes it', () => {
  const kinds = ['ClusterRole', 'ClusterRoleBinding', 'PriorityClass', 'CustomResourceDefinition'];
  const asked = (object: object) => isAsked(kinds, { object, isAdmin: true });
  const ours = role('countersign');
  assert.equal(asked(ours), false);
  const labels = { 'rbac.authorization.k8s.io/aggregate-to-edit': 'true' };
  assert.equal(asked({ ...ours, metadata: { name: 'countersign', labels } }), true, 'others would collect it');
  assert.equal(asked({ ...ours, aggregationRule: { clusterRoleSelectors: [] } }), true, 'it would collect others');
  assert.equal(asked({ ...ours, apiVersion: 'example.com/v1' }), true, 'another group');
  const binding = {
    ...{ apiVersion: RBAC, kind: 'ClusterRoleBinding', metadata: { name: 'countersign' } },
    roleRef: { kind: 'ClusterRole', name: 'countersign' },
    subjects: [{ kind: 'ServiceAccount', name: 'countersign', namespace: 'gate' }],
  };
  assert.equal(asked(binding), false);
  assert.equal(asked({ ...binding, roleRef: { kind: 'ClusterRole', name: 'cluster-admin' } }), true);
  assert.equal(asked({ ...binding, roleRef: { kind: 'Role', name: 'countersign' } }), true);
  for (const change of [{ namespace: 'elsewhere' }, { name: 'other' }, { kind: 'User' }]) {
    const subjects = [...binding.subjects, { ...binding.subjects[0], ...change }];
    assert.equal(asked({ ...binding, subjects }), true, JSON.stringify(change));
  }
  const definition = (spec: object, name = 'environments.countersign.dev') => ({
    ...{ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name }, spec },
  });
  assert.equal(asked(definition({ conversion: { strategy: 'None' } })), false);
  assert.equal(asked(definition({ conversion: { strategy: 'Webhook' } })), true);
  assert.equal(asked(definition({}, 'environments.countersign.dev.example.com')), true);
  const priority = { apiVersion: 'scheduling.k8s.io/v1', kind: 'PriorityClass', metadata: { name: 'countersign' } };
  assert.equal(asked(priority), false);
  assert.equal(asked({ ...priority, globalDefault: true }), true);
});

test('the gate’s own objects are protected by their names, with or without one in the request', () => {
  const [policy] = protectingPolicies(planOf('Namespace')) as { spec: { matchConditions: Condition[] } }[];
  const guards = (apiVersion: string, kind: string, name: string, more: Request = {}) => {
    const oldObject = { apiVersion, kind, metadata: { name } };
    return holds(policy?.spec.matchConditions ?? [], ['ours', 'others'], { operation: 'DELETE', oldObject, ...more });
  };
  for (const [apiVersion, kind, name] of [
    ['admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', 'gate-hook'],
    ['apiextensions.k8s.io/v1', 'CustomResourceDefinition', 'environments.countersign.dev'],
    [RBAC, 'ClusterRole', 'countersign'],
    [RBAC, 'ClusterRoleBinding', 'countersign'],
    ['scheduling.k8s.io/v1', 'PriorityClass', 'countersign'],
    ['v1', 'Namespace', 'gate'],
  ] as const) {
    assert.equal(guards(apiVersion, kind, name), true, kind);
    assert.equal(guards(apiVersion, kind, name, { name: '' }), true, `a collection with the ${kind}`);
    assert.equal(guards(apiVersion, kind, 'other'), false, `another ${kind}`);
  }
  // Each name counts for its own kind.
  const webhook = ['admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration'] as const;
  const definition = ['apiextensions.k8s.io/v1', 'CustomResourceDefinition'] as const;
  assert.equal(guards(...webhook, 'countersign'), false, 'it may belong to another gate');
  assert.equal(guards(...webhook, 'x.countersign.dev'), false);
  assert.equal(guards(...definition, 'countersign'), false);
  for (const name of ['gate', 'gate-hook', 'x.countersign.dev'])
    assert.equal(guards(RBAC, 'ClusterRole', name), false, name);
  assert.equal(guards('v1', 'Namespace', 'countersign'), false);
});
