import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { assess, type Gate, renderedAt, servedThen } from '../../src/gate/index.ts';
import { ignoredNamespace, placeObject, scopesOf } from '../../src/gate/place-objects.ts';
import { renderedBy, renderingAs } from '../../src/gate/render-tree.ts';
import {
  CountersignError,
  digestOf,
  environmentSchema,
  NO_REVISION,
  type Rendered,
  refText,
} from '../../src/model/index.ts';
import { render } from '../../src/render/index.ts';
import { openSealed } from '../../src/sops/index.ts';
import { environmentDocument, trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { rulesOf } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';

const PATH = 'clusters/production';
const dana = sshPerson(scratch(), 'dana');
const trust = trustDocument([dana], { required: 0 });
// Denies every object, and so says in which namespace the rules see it.
const rules = await rulesOf({
  'rule.rego':
    'package countersign.object\n' +
    'deny contains msg if msg := sprintf("%s in %s", ' +
    '[input.object.metadata.name, object.get(input.object.metadata, "namespace", "-")])\n',
});

type Target = {
  readonly namespaces?: readonly string[];
  readonly namespace?: string;
  readonly clusterScoped?: string[];
};
type Render = Readonly<Record<string, unknown>>;

/** The verdict on these files below the environment's directory, and where rules and cluster have their objects. */
async function judged(
  target: Target,
  files: Readonly<Record<string, string>>,
  more: Partial<Gate> = {},
  render: Render = { with: 'plain' },
) {
  const fleet = new Fleet(scratch());
  fleet.remote(fleet.bare);
  const named = Object.fromEntries(Object.entries(files).map(([path, text]) => [`${PATH}/${path}`, text]));
  const commit = fleet.commit(dana, 'x', named);
  fleet.push();
  const namespaces = target.namespaces ?? ['shop'];
  const spec = { target: { ...target, namespaces }, render };
  const gate = { ...(await gateOf(fleet, [dana], { trust, rules, environment: { namespaces, spec } })), ...more };
  const { verdict, objects } = await assess(gate, NO_REVISION, commit);
  const all = await renderedAt(gate, commit);
  assert.deepEqual(
    all.objects.map((o) => o.digest),
    objects.map((o) => digestOf(o.object)),
    'the same everywhere',
  );
  return {
    rules: verdict.violations
      .filter((v) => v.code === 'policy')
      .map((v) => v.message.split(': ')[1])
      .sort(),
    refused: verdict.violations.filter((v) => v.code !== 'policy'),
    warnings: verdict.warnings,
    objects: objects.map((o) => refText(o.ref)).sort(),
    verdict,
    gate,
    commit,
  };
}

const service = (name: string, namespace = '') =>
  `apiVersion: v1\nkind: Service\nmetadata:\n  name: ${name}\n${namespace}`;
const WIDGET = 'apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: w\n';
const definition = (scope: string, kind = 'Widget', group = 'example.com') =>
  'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n' +
  `metadata: {name: ${kind.toLowerCase()}s.${group}}\n` +
  `spec: {group: ${group}, scope: ${scope}, names: {kind: ${kind}, plural: ${kind.toLowerCase()}s}}\n`;
const CRDS = ['Namespace', 'CustomResourceDefinition'];

test('an object that names no namespace goes into the only governed one, before the rules see it', async () => {
  const { rules, refused, objects } = await judged({}, { 'svc.yaml': service('web') });
  assert.deepEqual([rules, objects, refused], [['web in shop'], ['Service shop/web'], []]);
});

test('of several governed namespaces it is the one that the environment names', async () => {
  const target = { namespaces: ['shop', 'jobs'], namespace: 'jobs' };
  const files = { 'a.yaml': service('web'), 'b.yaml': service('db', '  namespace: shop\n') };
  const { rules, objects } = await judged(target, files);
  assert.deepEqual(rules, ['db in shop', 'web in jobs']);
  assert.deepEqual(objects, ['Service jobs/web', 'Service shop/db'], 'a named one stays');
});

test('if it fits nowhere, the message names the file, the line, and both ways to mend it', async () => {
  const { refused } = await judged({ namespaces: ['shop', 'jobs'] }, { 'svc.yaml': service('web') });
  assert.deepEqual(refused, [
    {
      code: 'namespace-missing',
      message: 'Service web has no namespace',
      object: { apiVersion: 'v1', kind: 'Service', namespace: '', name: 'web' },
      source: { file: `${PATH}/svc.yaml`, line: 3 },
      hint:
        `set \`metadata.namespace\` in \`${PATH}/svc.yaml\`, ` +
        'or `spec.target.namespace` of the Environment `production`',
    },
  ]);
});

for (const none of ['  namespace: ""\n', '  namespace:\n', '  namespace: null\n'])
  test(`${JSON.stringify(none.trim())} names no namespace`, async () => {
    const { rules, objects } = await judged({}, { 'svc.yaml': service('web', none) });
    assert.deepEqual([rules, objects], [['web in shop'], ['Service shop/web']]);
  });

test('so do the items of a List', async () => {
  const list = 'apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Secret\n    metadata: {name: s}\n';
  const { rules } = await judged({}, { 'list.yaml': list });
  assert.deepEqual(rules, ['s in shop']);
});

test('an object that names the namespace and one that does not are the same object', async () => {
  const files = { 'a.yaml': service('web'), 'b.yaml': service('web', '  namespace: shop\n') };
  const { refused } = await judged({}, files);
  assert.deepEqual(
    refused.map((v) => [v.code, v.message]),
    [['object-twice', `Service shop/web is also in \`${PATH}/a.yaml:1\``]],
  );
});

test('so are objects of two files that get name or namespace by substitution', async () => {
  const files = { 'a.yaml': service('web'), 'b.yaml': service('"${WEB}"', '  namespace: "${NS}"\n') };
  const { refused } = await judged({}, files, {}, { with: 'plain', substitute: { WEB: 'web', NS: 'shop' } });
  assert.deepEqual(
    refused.map((v) => [v.code, v.message]),
    [['object-twice', `Service shop/web is also in \`${PATH}/a.yaml:1\``]],
  );
});

test('a cluster-scoped object goes into no namespace, and one that it names has no effect', async () => {
  const role = (name: string, namespace: string) =>
    `apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: ${name}\n${namespace}rules: []\n`;
  const files = {
    'a.yaml': role('a', ''),
    'b.yaml': role('b', '  namespace: shop\n'),
    'c.yaml': role('c', '  namespace: ""\n'),
  };
  const { rules, objects, warnings, refused } = await judged({ clusterScoped: ['ClusterRole'] }, files);
  assert.deepEqual(rules, ['a in -', 'b in -', 'c in -']);
  assert.deepEqual([objects, refused], [['ClusterRole a', 'ClusterRole b', 'ClusterRole c'], []]);
  assert.deepEqual(
    warnings.map((w) => [w.code, w.message, w.source, w.hint]),
    [
      [
        'namespace-ignored',
        'ClusterRole b is cluster-scoped: its namespace `shop` has no effect',
        { file: `${PATH}/b.yaml`, line: 5 },
        `remove \`metadata.namespace\` in \`${PATH}/b.yaml\``,
      ],
    ],
  );
  const ungoverned = await judged({}, { 'b.yaml': role('b', '  namespace: shop\n') });
  assert.deepEqual(
    ungoverned.refused.map((v) => [v.code, v.message, v.hint]),
    [
      [
        'kind-not-governed',
        'ClusterRole b is cluster-scoped, and the only cluster-scoped objects this environment may own are `Namespace`',
        'remove it, or add `ClusterRole` to `spec.target.clusterScoped`',
      ],
    ],
    'a namespace does not make a cluster-scoped object one of the environment',
  );
});

test('a custom kind is what its definition in the same directory says', async () => {
  const namespaced = await judged({ clusterScoped: CRDS }, { 'w.yaml': WIDGET, 'z.yaml': definition('Namespaced') });
  assert.deepEqual([namespaced.rules, namespaced.refused], [['w in shop', 'widgets.example.com in -'], []]);
  const cluster = await judged({ clusterScoped: CRDS }, { 'w.yaml': WIDGET, 'z.yaml': definition('Cluster') });
  assert.deepEqual(
    cluster.refused.map((v) => [v.code, v.object?.kind]),
    [['kind-not-governed', 'Widget']],
  );
});

test('of a custom kind without its definition nothing is guessed: the verdict says that it could not tell', async () => {
  const { refused, objects } = await judged({}, { 'w.yaml': WIDGET });
  assert.deepEqual(objects, ['Widget w']);
  assert.deepEqual(
    refused.map((v) => [v.code, v.message, v.hint]),
    [
      [
        'scope-unknown',
        'Widget w has no namespace, and the scope of `Widget.example.com` is unknown',
        `set \`metadata.namespace\` in \`${PATH}/w.yaml\`, or keep its CustomResourceDefinition beside it; ` +
          'if it is cluster-scoped, add `Widget.example.com` to `spec.target.clusterScoped`',
      ],
    ],
  );
});

for (const [what, files] of [
  ['of another group', { 'z.yaml': definition('Namespaced', 'Widget', 'other.example.com') }],
  ['without a scope', { 'z.yaml': definition('Everywhere') }],
  ['twice, and not alike', { 'y.yaml': definition('Namespaced'), 'z.yaml': `${definition('Cluster')}\n` }],
] as const)
  test(`a definition ${what} says nothing`, async () => {
    const { refused } = await judged({ clusterScoped: CRDS }, { 'w.yaml': WIDGET, ...files });
    assert.ok(refused.some((v) => v.code === 'scope-unknown'));
  });

test('an environment that governs a kind as cluster-scoped says so, and no definition makes a kind of Kubernetes another', async () => {
  const declared = await judged({ clusterScoped: ['Widget.example.com'] }, { 'w.yaml': WIDGET });
  assert.deepEqual([declared.rules, declared.refused], [['w in -'], []]);
  const files = { 'a.yaml': service('web'), 'z.yaml': definition('Cluster', 'Service', '""') };
  const { rules } = await judged({ clusterScoped: [...CRDS, 'Service'] }, files);
  assert.ok(rules.includes('web in shop'));
});

test('a cluster that is asked decides where a custom kind goes, and the verdict records its answer', async () => {
  const serving = (scope: 'Namespaced' | 'Cluster' | undefined) => {
    const asked: string[] = [];
    const servedScope = async ({ apiVersion, kind }: { apiVersion: string; kind: string }) => {
      asked.push(`${apiVersion} ${kind}`);
      return scope;
    };
    return { asked, servedScope };
  };
  const files = { 'a.yaml': service('web'), 'w.yaml': WIDGET, 'x.yaml': WIDGET.replace('name: w', 'name: x') };
  const namespaced = serving('Namespaced');
  const { rules, verdict, gate, commit } = await judged({}, files, namespaced);
  assert.deepEqual(rules, ['w in shop', 'web in shop', 'x in shop']);
  assert.deepEqual(verdict.consulted.served, { 'Widget.example.com': 'Namespaced' });
  assert.deepEqual(new Set(namespaced.asked), new Set(['example.com/v1 Widget']), 'only about what is unknown');
  const { refused } = await judged({}, files, serving('Cluster'));
  assert.deepEqual([...new Set(refused.map((v) => v.code))], ['kind-not-governed']);
  const named = serving(undefined);
  await judged({}, { 'w.yaml': `${WIDGET}  namespace: shop\n` }, named);
  assert.deepEqual(named.asked, [], 'one that names its namespace does not need an answer');
  // What was allowed is rendered as it was, whatever the cluster serves by now.
  const then = { ...gate, servedScope: servedThen(verdict) };
  assert.deepEqual((await renderedAt(then, commit)).objects.map((o) => refText(o.ref)).sort(), [
    'Service shop/web',
    'Widget shop/w',
    'Widget shop/x',
  ]);
  assert.equal(await servedThen(verdict)({ apiVersion: 'v1', kind: 'constructor' }), undefined);
});

test('a kind that the cluster does not serve yet is not denied but waited for; so is a cluster that does not answer', async () => {
  const files = { 'w.yaml': WIDGET };
  await assert.rejects(judged({}, files, { servedScope: async () => undefined }), {
    code: 'cluster-refused',
    recover: 'retry',
    message: '`Widget.example.com` is not served by the cluster, so it is unknown whether its objects need a namespace',
  });
  const away = new CountersignError('cluster-unreachable', 'no answer', { recover: 'retry' });
  await assert.rejects(judged({}, files, { servedScope: () => Promise.reject(away) }), away);
});

test('lines are still those of the file, and the digest is that of the object as it is placed', () => {
  const { objects } = render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(`# x\n${service('web')}`) }]);
  const [written] = objects;
  assert.ok(written !== undefined);
  const placed = placeObject(written, 'shop', scopesOf(objects));
  assert.equal(placed.digest, digestOf({ ...written.object, metadata: { name: 'web', namespace: 'shop' } }));
  assert.notEqual(placed.digest, written.digest);
  assert.equal(placed.lineOf(['metadata', 'name']), 5);
  assert.equal(placeObject(written, undefined, scopesOf(objects)), written);
  assert.equal(ignoredNamespace(placed, scopesOf(objects)), undefined);
});

test('an encrypted Secret that is placed still opens: its MAC is over the file', async () => {
  const fixture = (name: string) => readFileSync(new URL(`../sops/fixtures/${name}`, import.meta.url), 'utf8');
  const text = fixture('only.yaml').replace('  namespace: shop\n', '');
  const { objects } = render([{ path: 's.yaml', mode: '100644', content: Buffer.from(text) }]);
  const [written] = objects;
  assert.ok(written?.ref.namespace === '');
  const placed = placeObject(written, 'jobs', scopesOf(objects));
  const { object } = await openSealed(placed, { age: fixture('age.key'), openpgp: undefined });
  assert.equal(object.metadata.namespace, 'jobs');
  assert.equal(JSON.stringify(object).includes('ENC['), false);
});

test('a verdict records the namespace, and is rendered with it again when the environment has another', async () => {
  const { verdict } = await judged({}, { 'svc.yaml': service('web') });
  assert.equal(verdict.consulted.rendered?.namespace, 'shop');
  const environment = (target: Target, spec = {}) => {
    const namespaces = target.namespaces ?? ['shop'];
    const document = environmentDocument({
      url: '/x',
      namespaces,
      spec: { target: { ...target, namespaces }, ...spec },
    });
    return environmentSchema.parse(document);
  };
  const now = environment({ namespaces: ['shop', 'jobs'], namespace: 'jobs' });
  assert.equal(renderingAs(now, verdict.consulted.rendered).spec.target.namespace, 'shop');
  assert.equal(renderedBy(now).namespace, 'jobs');
  assert.equal(renderedBy(environment({ namespaces: ['shop', 'jobs'] })).namespace, undefined);
  // Verdicts of older versions: Helm's release was in `render.namespace`, or the first governed namespace.
  const helm = environment({ namespaces: ['shop', 'jobs'], namespace: 'jobs' }, { render: { with: 'helm' } });
  const { namespace: _, ...old } = renderedBy(helm);
  assert.equal(renderingAs(helm, old).spec.target.namespace, 'shop');
  const render: object = { ...old.render, namespace: 'jobs' };
  const named = { ...old, render } as Rendered;
  assert.equal(renderingAs(helm, named).spec.target.namespace, 'jobs');
});

test('governing a cluster-scoped kind takes no namespace from a kind of the same name in another group', async () => {
  const provider = 'apiVersion: notification.example.com/v1\nkind: Provider\nmetadata: {name: chat, namespace: shop}\n';
  const { rules, warnings } = await judged({ clusterScoped: ['Provider'] }, { 'p.yaml': provider });
  assert.deepEqual(rules, ['chat in shop']);
  assert.ok(!warnings.some((v) => v.code === 'namespace-ignored'));
});
