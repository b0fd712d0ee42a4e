import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ApiServer } from '../../src/cluster/index.ts';
import { customResourceDefinitions } from '../../src/config/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, type Service } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Governs all ClusterRoles, and definitions that other files write.
const stage = await openStage(scratch(), { own: true });
const MERGE = 'application/merge-patch+json';
const APPLY = 'application/apply-patch+yaml';
const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';

const definition = (plural: string, group: string, more: object = {}) => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${plural}.${group}`, labels: { test: 'yes' } },
  spec: {
    group,
    scope: 'Namespaced',
    names: { kind: `K${plural}`, plural, singular: plural, listKind: `K${plural}List` },
    versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
    ...more,
  },
});

async function serve(name: string): Promise<Service> {
  const fleet = stage.fleet(name);
  const named = (...names: string[]) => ({ kind: 'CustomResourceDefinition', names });
  const kinds = ['ClusterRole', 'ClusterRoleBinding', 'PriorityClass.scheduling.k8s.io', named('*.countersign.dev')];
  const configuration = stage.configuration(name, [
    {
      ...{ name: 'shop', url: fleet.url, path: 'shop', namespaces: [`${name}-shop`] },
      clusterScoped: ['Namespace', ...kinds, named('*.shop.example.com', 'cards.bank.example.com')],
    },
    {
      name: 'bank',
      url: fleet.url,
      path: 'bank',
      namespaces: [`${name}-bank`],
      clusterScoped: [named('loans.bank.example.com', '*.credit.example.com')],
    },
  ]);
  const first = await stage.change(fleet, 'definitions', {
    'shop/carts.yaml': JSON.stringify(definition(`${name}-carts`, 'shop.example.com')),
    'bank/loans.yaml': JSON.stringify(definition(`${name}-loans`, 'credit.example.com')),
  });
  const args = [...(await stage.arguments(configuration)), '--allow-cross-namespace'];
  const service = stage.start(args, name, [], { POD_NAMESPACE: 'countersign' });
  await service.says('countersign is running');
  for (const environment of ['shop', 'bank'])
    await service.entry('apply.result', environment, (e) => e.revision === first && e.outcome === 'applied');
  return service;
}

async function outcome(who: ApiServer, method: string, path: string, body?: unknown, type?: string): Promise<string> {
  const answer = await who.request(method, path, body, type);
  if (answer.status < 300) return 'yes';
  const message = String(answer.body['message']);
  return message.match(/governed by the environment `\w+`/)?.[0] ?? message;
}

test('an account with rights by name creates and changes that object, and no other', async () => {
  const fleet = stage.fleet('by-name');
  const apply = async (path: string, object: object) =>
    assert.equal(await outcome(stage.admin, 'PATCH', `${path}?fieldManager=setup`, object, APPLY), 'yes');
  const metadata = { name: 'by-name' };
  await apply('/api/v1/namespaces/by-name', { apiVersion: 'v1', kind: 'Namespace', metadata });
  await apply('/api/v1/namespaces/by-name/serviceaccounts/deployer', {
    ...{ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'deployer', namespace: 'by-name' } },
  });
  const rbac = { apiVersion: 'rbac.authorization.k8s.io/v1' };
  const definitions = { apiGroups: ['apiextensions.k8s.io'], resources: ['customresourcedefinitions'] };
  await apply(`${RBAC}/clusterroles/by-name`, {
    ...{ ...rbac, kind: 'ClusterRole', metadata },
    rules: [
      { ...definitions, verbs: ['get', 'list', 'watch'] },
      { ...definitions, resourceNames: ['tools.shop.example.com'], verbs: ['create', 'patch', 'delete'] },
      { apiGroups: [''], resources: ['namespaces'], verbs: ['get'] },
    ],
  });
  await apply(`${RBAC}/clusterrolebindings/by-name`, {
    ...{ ...rbac, kind: 'ClusterRoleBinding', metadata },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'by-name' },
    subjects: [{ kind: 'ServiceAccount', name: 'deployer', namespace: 'by-name' }],
  });
  const names = ['tools.shop.example.com', 'more.shop.example.com'];
  const target = {
    ...{ namespaces: ['by-name'], serviceAccount: 'by-name/deployer' },
    clusterScoped: [{ kind: 'CustomResourceDefinition', group: 'apiextensions.k8s.io', names }],
  };
  const configuration = stage.configuration('by-name', [
    { url: fleet.url, namespaces: ['by-name'], mode: 'off', spec: { target } },
  ]);
  const file = (plural: string, more: object = {}) => ({
    [`clusters/production/${plural}.yaml`]: JSON.stringify(definition(plural, 'shop.example.com', more)),
  });
  const first = await stage.change(fleet, 'create', file('tools'));
  const service = await stage.serve(configuration, 'by-name');
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const second = await stage.change(fleet, 'change', file('tools', { conversion: { strategy: 'None' } }));
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const refused = await stage.change(fleet, 'another', file('more'));
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === refused);
  assert.match(entry.error, /"more\.shop\.example\.com" is forbidden/);
});

test('two environments share a kind: each decides about its names, and other names are free', async () => {
  const service = await serve('sharing');
  const dev = await stage.as('dev');
  const create = (plural: string, group: string) => outcome(dev, 'POST', DEFINITIONS, definition(plural, group));
  const byShop = 'governed by the environment `shop`';
  const byBank = 'governed by the environment `bank`';
  assert.equal(await create('lists', 'shop.example.com'), byShop);
  assert.equal(await create('cards', 'bank.example.com'), byShop, 'a single name');
  assert.equal(await create('loans', 'bank.example.com'), byBank, 'the same for the other');
  assert.equal(await create('cards', 'bankxexample.com'), 'yes', 'a dot in a name is only a dot');
  assert.equal(await create('free', 'shop.example.com.other.io'), 'yes', 'the whole name counts');
  const label = { metadata: { labels: { a: 'b' } } };
  assert.equal(await outcome(dev, 'PATCH', `${DEFINITIONS}/sharing-carts.shop.example.com`, label, MERGE), byShop);
  assert.equal(await outcome(dev, 'DELETE', `${DEFINITIONS}/sharing-loans.credit.example.com`), byBank);
  // Such a request has no name.
  const some = (field: string) => `${DEFINITIONS}?dryRun=All&fieldSelector=metadata.name=${field}`;
  assert.equal(await outcome(dev, 'DELETE', some('sharing-carts.shop.example.com')), byShop);
  assert.equal(await outcome(dev, 'DELETE', some('cards.bankxexample.com')), 'yes');
  await service.stop();
  assert.match(await create('more', 'shop.example.com'), /failed calling webhook/);
  assert.equal(await create('more', 'other.example.com'), 'yes', 'not asked about');
  assert.equal(await outcome(await stage.as('oncall'), 'DELETE', `${WEBHOOKS}/countersign`), 'yes');
});

test('an environment that owns all ClusterRoles is not in the way of installing and upgrading Countersign', async () => {
  const limited = { name: 'some-rights' };
  const [admin, oncall, nobody] = [stage.admin, await stage.as('oncall'), await stage.as('nobody')];
  const all = ['*'];
  const rules = [
    { apiGroups: ['apiextensions.k8s.io', 'rbac.authorization.k8s.io'], resources: all, verbs: all },
    { apiGroups: ['scheduling.k8s.io'], resources: all, verbs: all },
  ];
  const rbac = { apiVersion: 'rbac.authorization.k8s.io/v1' };
  const made = [
    await outcome(admin, 'POST', `${RBAC}/clusterroles`, { ...rbac, kind: 'ClusterRole', metadata: limited, rules }),
    await outcome(admin, 'POST', `${RBAC}/clusterrolebindings`, {
      ...{ ...rbac, kind: 'ClusterRoleBinding', metadata: limited },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: limited.name },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'nobodies' }],
    }),
  ];
  assert.deepEqual(made, ['yes', 'yes']);
  const service = await serve('installing');
  const byShop = 'governed by the environment `shop`';
  await stage.waitFor(
    async () => (await admin.request('DELETE', `${WEBHOOKS}/countersign?dryRun=All`)).status === 403,
    'the protection',
  );
  const printed = await countersign(['manifests', '--image', 'registry.example.com/countersign:0.2.0']);
  type Manifest = { kind: string; apiVersion: string; metadata: { name: string; labels: object; namespace?: string } };
  const manifests = (JSON.parse(printed.stdout) as { items: Manifest[] }).items;
  const byKind = (kind: string) => manifests.find((m) => m.kind === kind) ?? assert.fail(kind);
  const put = (who: ApiServer, object: object) => {
    const { apiVersion, kind, metadata } = object as Manifest;
    const plural = kind === 'PriorityClass' ? 'priorityclasses' : `${kind.toLowerCase()}s`;
    const path = `/apis/${apiVersion}/${plural}/${metadata.name}?fieldManager=kubectl&force=true`;
    return outcome(who, 'PATCH', path, object, APPLY);
  };
  const [role, binding, priority] = ['ClusterRole', 'ClusterRoleBinding', 'PriorityClass'].map(byKind) as [
    Manifest,
    Manifest,
    Manifest,
  ];

  // Who may do much, but not everything, installs nothing under these names.
  const [first, ...others] = customResourceDefinitions() as unknown as [Manifest, ...Manifest[]];
  assert.equal(await put(nobody, first), byShop);
  assert.equal(await put(nobody, { ...role, metadata: { name: 'made-up' } }), byShop, 'and nothing under others');
  // For everyone else the names are free only for what Countersign is.
  const conversion = {
    strategy: 'Webhook',
    webhook: { conversionReviewVersions: ['v1'], clientConfig: { url: 'https://evil.example.com/convert' } },
  };
  assert.equal(await put(admin, definition('evil', 'countersign.dev', { conversion })), byShop);
  const aggregated = { ...role.metadata, labels: { 'rbac.authorization.k8s.io/aggregate-to-edit': 'true' } };
  assert.equal(await put(oncall, { ...role, metadata: aggregated }), byShop);
  const aggregationRule = { clusterRoleSelectors: [{ matchLabels: { test: 'yes' } }] };
  assert.equal(await put(oncall, { ...role, aggregationRule }), byShop);
  for (const subject of [
    { kind: 'ServiceAccount', name: 'countersign', namespace: 'elsewhere' },
    { kind: 'ServiceAccount', name: 'other', namespace: 'countersign' },
    { kind: 'User', name: 'countersign', apiGroup: 'rbac.authorization.k8s.io' },
  ])
    assert.equal(await put(oncall, { ...binding, subjects: [subject] }), byShop, JSON.stringify(subject));
  assert.equal(await put(oncall, { ...priority, globalDefault: true }), byShop);
  const classes = '/apis/scheduling.k8s.io/v1/priorityclasses';
  assert.equal(await outcome(oncall, 'DELETE', `${classes}/countersign`), byShop, 'nothing is removed');

  const guarded = /^(?=.*this object protects the gate)/;
  for (const object of [role, binding, priority]) assert.match(await put(admin, object), guarded);
  assert.match(await outcome(admin, 'DELETE', `${WEBHOOKS}?fieldSelector=metadata.name=countersign`), guarded);

  await service.stop(); // the gate is repaired while it is away
  for (const object of [first, ...others]) assert.equal(await put(admin, object), 'yes', object.metadata.name);
  for (const object of [role, binding, priority]) assert.equal(await put(oncall, object), 'yes', object.kind);
  assert.match(await put(admin, { ...role, metadata: { name: 'made-up' } }), /failed calling webhook/);
  assert.match(await put(admin, first), guarded, 'once they are there');
  assert.equal(await outcome(oncall, 'DELETE', `${WEBHOOKS}/countersign`), 'yes');
});
