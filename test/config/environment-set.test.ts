import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ConfigurationObject, loadConfiguration, loadWithObjects } from '../../src/config/index.ts';
import type { CountersignError } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
let n = 0;

const TRUST = {
  apiVersion: 'countersign.dev/v1alpha1',
  kind: 'TrustPolicy',
  metadata: { name: 'team' },
  spec: {
    principals: [{ name: 'dana', keys: [{ ssh: 'ssh-ed25519 AAAA' }] }],
    rules: [{ name: 'all', signers: ['dana'], approvals: { required: 0 } }],
  },
};
const URL = 'https://git.example.test/fleet.git';
const LIST = {
  list: {
    elements: [
      { name: 'eu', colour: 'blue' },
      { name: 'us', colour: 'green' },
    ],
  },
};

type Parts = { readonly from?: object; readonly name?: string; readonly spec?: object };

function set({ from = LIST, name = 'shop-${name}', spec = {} }: Parts = {}) {
  const described = {
    source: { url: URL, path: 'clusters/${name}' },
    target: { cluster: '${name}', namespaces: ['shop'] },
    trust: 'team',
    ...spec,
  };
  return {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'EnvironmentSet',
    metadata: { name: 'shops' },
    spec: { ...from, template: { metadata: { name }, spec: described } },
  };
}

function written(documents: readonly object[], files: Readonly<Record<string, string>> = {}): string {
  const at = join(directory, String(n++));
  mkdirSync(at);
  for (const [i, document] of documents.entries())
    writeFileSync(join(at, `${i}.yaml`), JSON.stringify(document, null, 2));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(at, name), text);
  return at;
}

const load = (...documents: readonly object[]) => loadConfiguration([written([...documents, TRUST])]);

function problems(documents: readonly object[], files: Readonly<Record<string, string>> = {}): string[] {
  const at = written([...documents, TRUST], files);
  try {
    loadConfiguration(
      ['0.yaml', `${documents.length}.yaml`, ...(documents.length > 1 ? ['1.yaml'] : [])].map((f) => join(at, f)),
    );
  } catch (thrown) {
    assert.equal((thrown as CountersignError).code, 'config-invalid', String(thrown));
    return (thrown as CountersignError).message
      .split('\n')
      .slice(1)
      .map((line) => line.trim().replaceAll(`${at}/`, ''));
  }
  return [];
}

test('the environments of a set are those that one would write by hand', () => {
  const made = load(set({ spec: { render: { with: 'plain', substitute: { COLOUR: '${colour}', KEPT: '$${x}' } } } }));
  const [eu] = made.environments;
  assert.deepEqual(made.environmentSets, [{ name: 'shops', namespace: '', environments: ['shop-eu', 'shop-us'] }]);
  const byHand = (name: string, colour: string) => ({
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'Environment',
    metadata: { name: `shop-${name}` },
    spec: {
      source: { url: URL, path: `clusters/${name}` },
      target: { cluster: name, namespaces: ['shop'] },
      trust: 'team',
      render: { with: 'plain', substitute: { COLOUR: colour, KEPT: '${x}' } },
    },
  });
  const hand = load(byHand('eu', 'blue'), byHand('us', 'green'));
  assert.deepEqual(made.environments, hand.environments);
  assert.equal(made.digest, hand.digest, 'the ledger cannot tell them apart');
  assert.equal(eu?.spec.admission.mode, 'enforce', 'with the defaults');
});

test('a file of clusters is a list of the same mappings', () => {
  const from = { clusters: { file: 'clusters.list' } };
  const files = (text: string) => ({ 'clusters.list': text });
  const at = written([set({ from }), TRUST], files('- {name: eu}\n- {name: us}\n'));
  assert.deepEqual(
    loadConfiguration([at]).environments.map((e) => e.metadata.name),
    ['shop-eu', 'shop-us'],
  );
  const found = (text: string) => problems([set({ from })], files(text)).join();
  assert.match(
    found('- {name: eu}\n- {name: 7}\n'),
    /^0\.yaml:\d+: spec\.clusters\.file: `clusters\.list:2`: expected a text; put a number in quotes at `1\.name`$/,
  );
  assert.match(found('name: eu\n'), /expected a list of mappings at `\.`/);
  assert.match(found('[]'), /expected at least one cluster/);
  assert.match(found('- {name: eu\n'), /expected a readable list of clusters, found `clusters\.list`/);
  assert.match(
    problems([set({ from })]).join(),
    /expected a readable list of clusters, found `clusters\.list`: ENOENT/,
  );
});

for (const [what, parts, expected] of [
  [
    'a text that an element lacks',
    { spec: { trust: '${team}' } },
    /spec\.template\.spec\.trust: there is no `team` \(element `eu`, and 1 more problem like it\)/,
  ],
  [
    'an unknown key of the template',
    { spec: { trst: 'team' } },
    /spec\.template\.spec\.trst: `trst` is not a known key \(element `eu`, and 1 more/,
  ],
  [
    'an unknown key of the set',
    { from: { ...LIST, directories: {} } },
    /spec\.directories: `directories` is not a known key/,
  ],
  ['no elements at all', { from: {} }, /expected exactly one of `list` and `clusters`/],
  [
    'two sources of elements',
    { from: { ...LIST, clusters: { file: 'x' } } },
    /expected exactly one of `list` and `clusters`/,
  ],
  [
    'more elements than a set may have',
    { from: { list: { elements: Array.from({ length: 2001 }, (_, i) => ({ name: `e${i}` })) } } },
    /spec\.list\.elements: expected at most 2000/,
  ],
  [
    'a name twice',
    { name: 'shop' },
    /spec\.template\.metadata\.name: Environment `shop` is already declared at 0\.yaml \[eu\]:\d+ \(element `us`\)/,
  ],
  [
    'a namespace twice in a cluster',
    { spec: { target: { namespaces: ['shop'] } } },
    /spec\.target\.namespaces\[0\]: `shop` is already governed by `shop-eu`.* \(element `us`\)/,
  ],
  [
    'a namespace of the cluster itself',
    { spec: { target: { namespaces: ['kube-system'] } } },
    /`kube-system` belongs to the cluster/,
  ],
  [
    'a text that makes a name of another form',
    { name: '${name}/x' },
    /spec\.template\.metadata\.name: expected a lower-case name .* found `eu\/x`/,
  ],
  [
    'documents that grow without bounds',
    {
      spec: {
        policies: {
          parameters: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`p${i}`, '${name}'.repeat(100)])),
        },
      },
      from: { list: { elements: [{ name: 'x'.repeat(1024) }] } },
    },
    /more than 67108864 characters together/,
  ],
] as const)
  test(`${what} is refused, with the place in the template`, () => {
    const found = problems([set(parts as Parts)]);
    assert.match(found.join('\n'), /^0\.yaml:\d+: /);
    assert.match(found.join('\n'), expected);
  });

test('a text that an element lacks is one problem, and not also what it leaves behind', () => {
  assert.equal(problems([set({ spec: { trust: '${team}' } })]).length, 1);
});

test('a set and a document by hand do not make one environment twice', () => {
  const hand = {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'Environment',
    metadata: { name: 'shop-us' },
    spec: { source: { url: URL }, target: { namespaces: ['other'] }, trust: 'team' },
  };
  assert.match(problems([set(), hand]).join(), /Environment `shop-us` is already declared at/);
});

test('a text is never a key, and a value never becomes anything but a text', () => {
  const found = problems([
    set({
      from: { list: { elements: [{ name: 'eu', key: 'trust', on: 'false' }] } },
      spec: { '${key}': 'x', health: { wait: '${on}' } },
    }),
  ]);
  assert.match(found.join('\n'), /`\$\{key\}` is not a known key/);
  assert.match(found.join('\n'), /spec\.health\.wait: expected `true` or `false`, found `false`/);
});

const object = (
  document: { kind: string; metadata: { name: string }; spec: object },
  namespace = 'ns',
): ConfigurationObject => ({
  kind: document.kind,
  namespace,
  name: document.metadata.name,
  object: document,
});

test('a set that is an object in a cluster is held to the rules of such objects, as a whole', () => {
  const read = (parts: Parts, files?: string) => {
    const { configuration, invalid } = loadWithObjects([], [object(TRUST), object(set(parts))], {
      files,
      crossNamespace: false,
    });
    assert.equal(configuration.environments.length, 0);
    assert.deepEqual(configuration.environmentSets, []);
    return invalid.get('EnvironmentSet ns/shops')?.join('\n') ?? '';
  };
  const target = { namespaces: ['${name}'] };
  assert.match(
    read({ spec: { target: { ...target, serviceAccount: '${name}/admin' } } }),
    /expected a ServiceAccount of the namespace `ns` itself, found `eu\/admin`/,
  );
  assert.match(
    read({ spec: { target: { ...target, kubeconfig: '/etc/${name}' } } }, '/files'),
    /expected the name of a file in `\/files\/ns`, found `\/etc\/eu`/,
  );
  assert.match(read({ spec: { target: { ...target, context: '${name}' } } }), /cannot choose a context/);
  assert.match(
    read({ spec: { source: { url: '/srv/${name}' }, target } }),
    /spec\.template\.spec\.source\.url: expected an address, found `\/srv\/eu`/,
  );
  assert.match(
    read({ spec: { render: { with: 'plain', limits: { size: '1Gi' } }, target } }),
    /only a file of the service can raise it/,
  );
  assert.match(
    read({ from: { clusters: { file: '../other/clusters' } } }, '/files'),
    /expected the name of a file in `\/files\/ns`/,
  );
  assert.match(read({}), /the same connection leads to `eu`, says `shop-eu`/, 'names of clusters are the operator’s');
});

test('a valid set in a cluster makes its environments; an older environment keeps its namespace', () => {
  const older = {
    kind: 'Environment',
    metadata: { name: 'mine' },
    apiVersion: 'countersign.dev/v1alpha1',
    spec: { source: { url: URL }, target: { namespaces: ['us'] }, trust: 'team' },
  };
  const younger = set({ spec: { target: { namespaces: ['${name}'] } } });
  const read = (...documents: (typeof TRUST | typeof older | typeof younger)[]) =>
    loadWithObjects(
      [],
      documents.map((d) => object(d)),
      { files: undefined, crossNamespace: false },
    );
  const alone = read(TRUST, younger);
  assert.deepEqual(
    alone.configuration.environments.map((e) => [e.metadata.name, e.spec.trust]),
    [
      ['shop-eu', 'ns/team'],
      ['shop-us', 'ns/team'],
    ],
  );
  const beside = read(TRUST, older, younger);
  assert.deepEqual(
    beside.configuration.environments.map((e) => e.metadata.name),
    ['mine'],
  );
  assert.match(beside.invalid.get('EnvironmentSet ns/shops')?.join() ?? '', /`us` is already governed by `mine`/);
});
