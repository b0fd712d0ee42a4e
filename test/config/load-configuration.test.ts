import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ConfigurationObject, loadConfiguration, loadWithObjects } from '../../src/config/index.ts';
import { type CountersignError, sizeInBytes } from '../../src/model/index.ts';
import { parseYaml } from '../../src/yaml/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
let n = 0;

const TRUST = `apiVersion: countersign.dev/v1alpha1
kind: TrustPolicy
metadata: {name: team}
spec:
  principals:
    - {name: dana, keys: [{ssh: ssh-ed25519 AAAA}]}
  rules:
    - {name: all, signers: [dana], approvals: {required: 0}}
`;
const ENVIRONMENT = `apiVersion: countersign.dev/v1alpha1
kind: Environment
metadata: {name: production}
spec:
  source: {url: fleet.git}
  target: {namespaces: [shop]}
  trust: team
`;

function load(files: Record<string, string>) {
  const at = join(directory, String(n++));
  mkdirSync(at);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(at, name), text);
  return loadConfiguration([at]);
}

function problems(files: Record<string, string>): string[] {
  try {
    load(files);
  } catch (thrown) {
    const error = thrown as CountersignError;
    assert.equal(error.code, 'config-invalid', String(thrown));
    assert.ok(error.hint);
    return error.message
      .split('\n')
      .slice(1)
      .map((line) => line.trim().replace(/^.*?\/(?=[a-z]+\.yaml:)/, ''));
  }
  return [];
}

test('documents become settings with defaults and absolute paths', () => {
  const { environments, trustPolicies, digest } = load({ 'e.yaml': ENVIRONMENT, 't.yaml': TRUST });
  const [environment] = environments;
  assert.equal(environment?.spec.source.branch, 'main');
  assert.equal(environment?.spec.admission.mode, 'enforce');
  assert.match(environment?.spec.source.url ?? '', /^\/.*\/fleet\.git$/);
  assert.equal(trustPolicies[0]?.spec.principals[0]?.kind, 'person');
  assert.match(digest, /^[0-9a-f]{64}$/);
});

test('every problem is told at once, with file, line, path, found and expected', () => {
  const found = problems({
    'e.yaml': ENVIRONMENT.replace('trust: team', 'trust: other\n  prunne: true').replace('[shop]', '[Shop]'),
    't.yaml': TRUST.replace('required: 0', 'required: two'),
  });
  assert.deepEqual(found, [
    'e.yaml:6: spec.target.namespaces[0]: expected a lower-case name of letters, digits and dashes, at most 63 long, found `Shop`',
    'e.yaml:8: spec.prunne: `prunne` is not a known key',
    't.yaml:8: spec.rules[0].approvals.required: expected a number, found `two`',
  ]);
});

for (const [what, files, expected] of [
  [
    'a TrustPolicy that is not there',
    { 'e.yaml': ENVIRONMENT },
    /e\.yaml:1: spec\.trust: expected the name of a TrustPolicy, found `team`/,
  ],
  [
    'a kind that is not ours',
    { 'e.yaml': ENVIRONMENT.replace('Environment', 'Enviroment') },
    /kind: expected one of `Environment`, `EnvironmentSet`, `TrustPolicy`, `Notifier`, `ReportSchedule`, found `Enviroment`/,
  ],
  [
    'a namespace of the cluster itself',
    { 't.yaml': TRUST, 'e.yaml': ENVIRONMENT.replace('[shop]', '[shop, kube-system]') },
    /spec\.target\.namespaces\[1\]: `kube-system` belongs to the cluster/,
  ],
  ['malformed YAML', { 'e.yaml': 'a: [1\n' }, /e\.yaml:1: `\[` is never closed/],
  ['a key written twice', { 'e.yaml': `${ENVIRONMENT}kind: Environment\n` }, /e\.yaml:8: .*duplicated/],
  [
    'one name twice',
    { 'a.yaml': TRUST, 'b.yaml': TRUST, 'e.yaml': ENVIRONMENT },
    /`team` is already declared at .*a\.yaml:1/,
  ],
  [
    'a signer nobody declared',
    { 't.yaml': TRUST.replace('signers: [dana]', 'signers: [eve]'), 'e.yaml': ENVIRONMENT },
    /spec\.rules\[0\]\.signers\[0\]: expected a principal or group, found `eve`/,
  ],
  [
    'more approvals than approvers',
    { 't.yaml': TRUST.replace('required: 0', 'required: 2, from: [dana]'), 'e.yaml': ENVIRONMENT },
    /2 approvals are required, but only 1 principal/,
  ],
  [
    'two forms of one key',
    { 't.yaml': TRUST.replace('{ssh: ssh-ed25519 AAAA}', '{ssh: a, openpgp: b}'), 'e.yaml': ENVIRONMENT },
    /exactly one of `ssh`, `openpgp` and `openpgpFile`/,
  ],
  [
    'a key file that is not there',
    { 't.yaml': TRUST.replace('{ssh: ssh-ed25519 AAAA}', '{openpgpFile: dana.asc}'), 'e.yaml': ENVIRONMENT },
    /expected a readable key file, found `dana\.asc`/,
  ],
  [
    'an address with a password, without the password',
    { 't.yaml': TRUST, 'e.yaml': ENVIRONMENT.replace('fleet.git', '"https://dana:very-secret@git.example.test/a"') },
    /^e\.yaml:\d+: spec\.source\.url: expected `https:\/\/…`, `ssh:\/\/…` or a path: it contains a user or a password, which belong in a separate file, found `https:\/\/…@git\.example\.test\/a`$/,
  ],
  [
    'a mail server with options',
    {
      't.yaml': TRUST,
      'e.yaml': ENVIRONMENT,
      'n.yaml':
        'apiVersion: countersign.dev/v1alpha1\nkind: Notifier\nmetadata: {name: mail}\nspec:\n  to:\n    email:\n      smtp: "smtp://h/?sendmail=true"\n      from: a@example.test\n      to: [b@example.test]\n',
    },
    /^n\.yaml:7: spec\.to\.email\.smtp: expected `smtp:\/\/HOST:PORT` or `smtps:\/\/HOST:PORT`: it has more than a host and a port, found `smtp:\/\/h\/\?sendmail=true`$/,
  ],
  [
    'a missing section',
    { 't.yaml': TRUST, 'e.yaml': ENVIRONMENT.replace('  target: {namespaces: [shop]}\n', '') },
    /spec\.target: expected a mapping, found nothing/,
  ],
] as const) {
  test(`${what} is named`, () => assert.match(problems(files as Record<string, string>).join('\n'), expected));
}

test('a path that is not there is one clear error', () => {
  assert.throws(() => loadConfiguration([join(directory, 'nowhere')]), { code: 'config-invalid' });
});

test('environments name each other rightly, and none waits for itself', () => {
  const chain = (name: string, spec: string) =>
    ENVIRONMENT.replace('production', name).replace('[shop]', `[${name}]`).replace('  trust', `  ${spec}\n  trust`);
  const loaded =
    (...documents: string[]) =>
    () =>
      load({ 't.yaml': TRUST, ...Object.fromEntries(documents.map((d, i) => [`e${i}.yaml`, d])) });
  assert.throws(
    loaded(chain('a', 'dependsOn: [nobody]')),
    /spec\.dependsOn: expected the name of an Environment, found `nobody`/,
  );
  assert.throws(
    loaded(chain('a', 'promotion: {from: nobody}')),
    /spec\.promotion\.from: expected the name of an Environment, found `nobody`/,
  );
  assert.throws(loaded(chain('a', 'dependsOn: [a]')), /`a` waits for itself/);
  assert.throws(
    loaded(chain('a', 'dependsOn: [b]'), chain('b', 'promotion: {from: c}'), chain('c', 'dependsOn: [a]')),
    /`a` waits for itself, through `dependsOn` or `promotion`/,
  );
  assert.doesNotThrow(
    loaded(chain('a', 'dependsOn: [b]'), chain('b', 'promotion: {from: c}'), chain('c', 'dependsOn: []')),
  );
});

test('a namespace has one environment in each cluster, if the environments name their clusters', () => {
  const named = (name: string, target: string) =>
    ENVIRONMENT.replace('production', name).replace('{namespaces: [shop]}', `{namespaces: [shop], ${target}}`);
  const found = (one: string, other: string) =>
    problems({ 't.yaml': TRUST, 'a.yaml': named('a', one), 'b.yaml': named('b', other) });
  assert.deepEqual(found('cluster: eu', 'cluster: us'), []);
  assert.deepEqual(found('cluster: eu', 'cluster: eu, kubeconfig: other'), [
    'b.yaml:1: spec.target.namespaces[0]: `shop` is already governed by `a` in the cluster `eu`',
  ]);
  const unnamed = 'b.yaml:1: spec.target.namespaces[0]: `shop` is already governed by `a`';
  assert.deepEqual(found('cluster: eu', 'context: ""').length, 1, 'one names none');
  assert.deepEqual(found('namespace: shop', 'cluster: us'), [
    `${unnamed}; if it is in a different cluster, name both in \`spec.target.cluster\``,
  ]);
  const roles = (cluster: string) => `cluster: ${cluster}, clusterScoped: [ClusterRole]`;
  assert.deepEqual(found(roles('eu'), roles('us')), [], 'objects without a namespace are divided alike');
  assert.match(found(roles('eu'), `${roles('eu')}, namespace: shop`).join(), /`ClusterRole` can mean the same object/);
});

test('an object in a cluster cannot step around another one by naming its cluster differently', () => {
  const trust = parseYaml(TRUST)[0]?.value as { spec: unknown };
  const object = (kind: string, name: string, spec: unknown): ConfigurationObject => ({
    kind,
    namespace: 'ns',
    name,
    object: { apiVersion: 'countersign.dev/v1alpha1', kind, metadata: { name }, spec },
  });
  const environment = (name: string, target: object) =>
    object('Environment', name, { source: { url: 'https://git.example.test/fleet.git' }, target, trust: 'team' });
  const { configuration, invalid } = loadWithObjects(
    [],
    [
      object('TrustPolicy', 'team', trust.spec),
      environment('a', { namespaces: ['shop'], cluster: 'eu' }),
      environment('b', { namespaces: ['shop'], cluster: 'us' }),
    ],
    { files: undefined, crossNamespace: false },
  );
  assert.deepEqual(
    configuration.environments.map((e) => e.metadata.name),
    ['a'],
  );
  assert.deepEqual(invalid.get('Environment ns/b'), [
    'spec.target.cluster: the same connection leads to `eu`, says `a`: one of the two names is wrong',
  ]);
});

test('a namespace that no directory could be named by has no files', () => {
  const document = parseYaml(ENVIRONMENT.replace('fleet.git', 'https://git.example.test/fleet.git'))[0]?.value as {
    spec: object;
  };
  const spec = { ...document.spec, target: { namespaces: ['x'], kubeconfig: 'kubeconfig' } };
  for (const namespace of ['..', 'a/../..', 'A', '', 'a\0b']) {
    const object = {
      kind: 'Environment' as const,
      namespace,
      name: 'one',
      generation: 1,
      object: { ...document, spec, metadata: { name: 'one', namespace } },
    };
    const problems = [
      ...loadWithObjects([], [object], { files: '/files', crossNamespace: false }).invalid.values(),
    ].flat();
    assert.ok(
      problems.some((p) => p.startsWith('spec.target.kubeconfig: expected nothing')),
      `${namespace}: ${problems.join(', ')}`,
    );
  }
});

test('documents in a namespace find each other there, and only with leave elsewhere', () => {
  const object = (namespace: string, text: string, more = {}): ConfigurationObject => {
    const document = parseYaml(text)[0]?.value as { kind: string; metadata: { name: string }; spec: object };
    const { kind, metadata, spec } = document;
    return {
      kind,
      namespace,
      name: metadata.name,
      object: { ...document, spec: { ...spec, ...more }, metadata: { ...metadata, namespace } },
    };
  };
  const environment = (namespace: string, name: string, governed: string, more = {}) => {
    const text = ENVIRONMENT.replace('name: production', `name: ${name}`).replace('[shop]', `[${governed}]`);
    return object(namespace, text.replace('fleet.git', 'https://git.example.test/fleet.git'), more);
  };
  const notifier = object(
    'a',
    'apiVersion: countersign.dev/v1alpha1\nkind: Notifier\nmetadata: {name: chat}\nspec: {to: {alertmanager: {url: "https://am.example.test"}}}\n',
  );
  const objects = [
    object('a', TRUST),
    object('b', TRUST),
    environment('a', 'one', 'x'),
    environment('b', 'two', 'web', { dependsOn: ['one'] }),
    notifier,
  ];
  const apart = loadWithObjects([], objects, { files: undefined, crossNamespace: false });
  assert.deepEqual(
    [...apart.invalid],
    [['Environment b/two', ['spec.dependsOn: expected the name of an Environment, found `one`']]],
  );
  assert.deepEqual(
    apart.configuration.environments.map((e) => [e.metadata.name, e.spec.trust]),
    [['one', 'a/team']],
  );
  const together = loadWithObjects([], objects, { files: undefined, crossNamespace: true });
  assert.equal(together.invalid.size, 0);
  assert.deepEqual(
    together.configuration.environments.map((e) => e.spec.trust),
    ['a/team', 'b/team'],
  );
  assert.deepEqual(together.configuration.notifiers[0]?.spec.environments, ['one', 'two']);
  assert.deepEqual(apart.configuration.notifiers[0]?.spec.environments, ['one']);
  const twice = loadWithObjects([], [...objects, environment('b', 'one', 'z')], {
    files: undefined,
    crossNamespace: true,
  });
  assert.deepEqual(
    [...twice.invalid.keys()],
    ['Environment b/one'],
    'one name, one environment: it is the older one’s',
  );
  const local = { source: { url: '/srv/fleet.git' } };
  assert.match(
    [
      ...loadWithObjects([], [object('a', TRUST), environment('a', 'one', 'x', local)], {
        files: undefined,
        crossNamespace: false,
      }).invalid.values(),
    ].join(),
    /spec\.source\.url: expected an address, found `\/srv\/fleet\.git`/,
  );
});

test('cluster-scoped objects are named by kind, by kind and group, or by names; other spellings are refused with the right one', () => {
  const of = (written: string) => ({
    'e.yaml': ENVIRONMENT.replace('[shop]}', `[shop], clusterScoped: [${written}]}`),
    't.yaml': TRUST,
  });
  const definitions = '{kind: CustomResourceDefinition, group: apiextensions.k8s.io, names: ["*.shop.example.com", a]}';
  assert.deepEqual(
    load(of(`ClusterRole, PriorityClass.scheduling.k8s.io, ${definitions}`)).environments[0]?.spec.target.clusterScoped,
    [
      'ClusterRole',
      'PriorityClass.scheduling.k8s.io',
      { kind: 'CustomResourceDefinition', group: 'apiextensions.k8s.io', names: ['*.shop.example.com', 'a'] },
    ],
  );
  const at = 'e.yaml:6: spec.target.clusterScoped[0]';
  for (const [written, problem] of [
    [
      'rbac.authorization.k8s.io/v1/ClusterRole',
      ': expected the spelling `ClusterRole.rbac.authorization.k8s.io`, found `rbac.authorization.k8s.io/v1/ClusterRole`',
    ],
    ['clusterroles', ': expected the spelling `ClusterRole`, found `clusterroles`'],
    [
      'ClusterRole.v1.rbac.authorization.k8s.io',
      ': expected the spelling `ClusterRole.rbac.authorization.k8s.io`, found `ClusterRole.v1.rbac.authorization.k8s.io`',
    ],
    ['ClusterRole.rbac', ': expected the spelling `ClusterRole.rbac.authorization.k8s.io`, found `ClusterRole.rbac`'],
    [
      'widgets.example.com',
      ': expected a kind as in a manifest: `ClusterRole`, or with its group ' +
        '`ClusterRole.rbac.authorization.k8s.io`, found `widgets.example.com`',
    ],
    [
      '{kind: ClusterRole.rbac.authorization.k8s.io, names: [a]}',
      '.kind: expected the kind alone, as in a manifest, with its group under `group`, ' +
        'found `ClusterRole.rbac.authorization.k8s.io`',
    ],
    [
      '{kind: ClusterRole, group: rbac.authorization.k8s.io/v1, names: [a]}',
      '.group: expected the group without a version: `apiextensions.k8s.io`, found `rbac.authorization.k8s.io/v1`',
    ],
    [
      '{kind: ClusterRole, names: ["shop-?"]}',
      '.names[0]: expected a name, in which only `*` is a wildcard, found `shop-?`',
    ],
    ['{kind: ClusterRole}', '.names: expected a list, found nothing'],
    ['7', ': expected a kind such as `ClusterRole`, or `kind` with `names`, found `7`'],
    ['{kind: ClusterRole, names: []}', '.names: expected at least 1 item, found a list of 0'],
  ] as const)
    assert.deepEqual(problems(of(written)), [`${at}${problem}`], written);
  const many = (length: number) => Array.from({ length }, (_, i) => `K${i}`).join(', ');
  assert.match(problems(of(many(51))).join(), /expected at most 50/);
  assert.match(problems(of(`{kind: ClusterRole, names: [${many(101)}]}`)).join(), /expected at most 100/);
});

test('two environments may share a cluster-scoped kind if no object can be in both', () => {
  const of = (name: string, written: string, more = '') =>
    ENVIRONMENT.replace('name: production', `name: ${name}`).replace(
      '[shop]}',
      `[${name}], clusterScoped: [Namespace, ${written}]${more}}`,
    );
  const both = (one: string, other: string, more = '') =>
    problems({ 'e.yaml': of('one', one), 'f.yaml': of('two', other, more), 't.yaml': TRUST });
  const names = (...patterns: string[]) => `{kind: ClusterRole, names: [${patterns.map((p) => `"${p}"`).join(', ')}]}`;
  assert.deepEqual(both(names('shop-*', 'a'), names('bank-*', 'b')), []);
  assert.deepEqual(both('ClusterRole.example.com', 'ClusterRole.rbac.authorization.k8s.io'), []);
  const [problem, ...more] = both(names('shop-*'), names('bank-*', '*-reader'));
  assert.deepEqual(more, []);
  assert.match(
    String(problem),
    /^f\.yaml:6: spec\.target\.clusterScoped\[1\]: `ClusterRole \(bank-\*, \*-reader\)` can mean the same object as `ClusterRole \(shop-\*\)` of `one` \(\S*\/e\.yaml:6\); give both of them `names` that cannot match the same name$/,
  );
  assert.equal(both('ClusterRole', names('x')).length, 1);
  assert.equal(both('ClusterRole', 'ClusterRole.example.com').length, 1, 'any group is that one, too');
  assert.deepEqual(both('ClusterRole', 'ClusterRole', ', context: elsewhere'), [], 'in another cluster');
  assert.deepEqual(both('ClusterRole', 'ClusterRole', ', kubeconfig: elsewhere.yaml'), []);
});

test('two environments over one namespace are refused, and a document in a file may say its namespace', () => {
  const second = ENVIRONMENT.replace('name: production', 'name: other');
  assert.deepEqual(problems({ 'e.yaml': ENVIRONMENT, 'f.yaml': second, 't.yaml': TRUST }), [
    'f.yaml:1: spec.target.namespaces[0]: `shop` is already governed by `production`; if it is in a different cluster, name both in `spec.target.cluster`',
  ]);
  const inside = (text: string) => text.replace('metadata: {', 'metadata: {namespace: gate, ');
  assert.equal(
    load({ 'e.yaml': inside(ENVIRONMENT), 't.yaml': inside(TRUST) }).environments[0]?.spec.trust,
    'gate/team',
  );
  assert.match(
    problems({ 'e.yaml': inside(ENVIRONMENT), 't.yaml': TRUST }).join(),
    /found `team`, which is in another namespace/,
  );
});

test('a ReportSchedule names what is there; as an object in a cluster it names no directory, and says what it is about', () => {
  const head = 'apiVersion: countersign.dev/v1alpha1\nkind: ReportSchedule\nmetadata: {name: monthly}\n';
  const files = (spec: string) => {
    const at = join(directory, `schedule-${n++}`);
    mkdirSync(at);
    writeFileSync(join(at, 'all.yaml'), `${ENVIRONMENT}---\n${TRUST}---\n${head}spec:\n${spec}`);
    return at;
  };
  const right = files(
    '  schedule: "0 6 1 * *"\n  environments: [production]\n  frameworks: [soc2, {file: own.json}]\n  deliver:\n  - {name: archive, directory: {path: out}}\n  - {name: s3, s3: {endpoint: "https://s3.example.test", bucket: evidence, accessKeyFile: id, secretKeyFile: key}}\n',
  );
  const [schedule] = loadConfiguration([right]).reportSchedules;
  assert.deepEqual(schedule?.spec.frameworks, ['soc2', { file: join(right, 'own.json') }]);
  assert.deepEqual(schedule?.spec.deliver[0], { name: 'archive', directory: { path: join(right, 'out') } });
  assert.deepEqual(
    [schedule?.spec.period, schedule?.spec.grace, schedule?.spec.deliver[1]],
    [
      'month',
      '24h',
      {
        name: 's3',
        s3: {
          endpoint: 'https://s3.example.test',
          region: 'us-east-1',
          bucket: 'evidence',
          prefix: '',
          accessKeyFile: join(right, 'id'),
          secretKeyFile: join(right, 'key'),
        },
      },
    ],
  );
  for (const [spec, message] of [
    ['schedule: "0 0 31 2 *"', /spec\.schedule: expected a five-field cron schedule that is due at some time/],
    [
      '{schedule: "0 6 1 * *", environments: [staging]}',
      /spec\.environments\[0\]: expected the name of an Environment, found `staging`/,
    ],
    [
      '{schedule: "0 6 1 * *", frameworks: [sox]}',
      /spec\.frameworks\[0\]: expected one of .*`soc2`.*, or a `file`, found `sox`/,
    ],
    [
      '{schedule: "0 6 1 * *", deliver: [{name: a, directory: {path: one}}, {name: a, directory: {path: two}}]}',
      /spec\.deliver\[1\]\.name: `a` is declared twice/,
    ],
    [
      '{schedule: "0 6 1 * *", deliver: [{name: a, s3: {endpoint: "https://s3.example.test", accessKeyFile: id, secretKeyFile: key}}]}',
      /spec\.deliver\[0\]\.s3\.bucket: expected a bucket name, found nothing/,
    ],
    ['{schedule: "0 6 1 * *", deliver: [{name: a, ftp: {}}]}', /spec\.deliver\[0\]: expected `name` and one of/],
  ] as const)
    assert.throws(() => loadConfiguration([files(`  ${spec}\n`.replace(/^ {2}(\{.*)\n$/, '  $1\n'))]), {
      code: 'config-invalid',
      message,
    });
  const object = (spec: object): ConfigurationObject => {
    const document = parseYaml(head)[0]?.value as object;
    return {
      kind: 'ReportSchedule',
      namespace: 'a',
      name: 'monthly',
      object: { ...document, metadata: { name: 'monthly' }, spec },
    };
  };
  const refused = (spec: object) => [
    ...loadWithObjects([], [object({ schedule: '0 6 1 * *', ...spec })], {
      files: '/files',
      crossNamespace: false,
    }).invalid.values(),
  ];
  assert.match(
    refused({ deliver: [{ name: 'x', directory: { path: '/root' } }] }).join(),
    /objects in a cluster cannot name directories/,
  );
  const elsewhere = parseYaml(ENVIRONMENT.replace('fleet.git', 'https://git.example.test/fleet.git'))[0]?.value as {
    metadata: object;
  };
  const trust = parseYaml(TRUST)[0]?.value as { metadata: object };
  const other = (kind: string, name: string, value: { metadata: object }): ConfigurationObject => ({
    kind,
    namespace: 'b',
    name,
    object: { ...value, metadata: { ...value.metadata, namespace: 'b' } },
  });
  const both = [
    other('TrustPolicy', 'team', trust),
    other('Environment', 'production', elsewhere),
    object({ schedule: '0 6 1 * *' }),
  ];
  const apart = loadWithObjects([], both, { files: undefined, crossNamespace: false });
  assert.deepEqual(
    [...apart.invalid],
    [
      [
        'ReportSchedule a/monthly',
        ['a report has entries of every environment, but `production` is in a different namespace'],
      ],
    ],
  );
  assert.equal(loadWithObjects([], both, { files: undefined, crossNamespace: true }).invalid.size, 0);
  assert.match(
    refused({ deliver: [{ name: 'x', cluster: { namespace: 'b' } }] }).join(),
    /`b` is not its own namespace/,
  );
  assert.equal(refused({ deliver: [{ name: 'x', cluster: { namespace: 'a' } }] }).length, 0);
  assert.match(
    refused({ frameworks: [{ file: '/etc/passwd' }] }).join(),
    /expected the name of a file in `\/files\/a`/,
  );
});

test('an object in the cluster lowers limits of rendering and never raises them; a file of the service does', () => {
  const documentOf = (text: string, more = {}): ConfigurationObject => {
    const document = parseYaml(text)[0]?.value as { kind: string; metadata: { name: string }; spec: object };
    const { kind, metadata, spec, ...rest } = document;
    return {
      kind,
      namespace: 'a',
      name: metadata.name,
      object: { ...rest, kind, metadata: { ...metadata, namespace: 'a' }, spec: { ...spec, ...more } },
    };
  };
  const remote = ENVIRONMENT.replace('fleet.git', 'https://git.example.test/fleet.git');
  const problems = (limits: object) =>
    [
      ...loadWithObjects([], [documentOf(TRUST), documentOf(remote, { render: { with: 'plain', limits } })], {
        files: undefined,
        crossNamespace: false,
      }).invalid.values(),
    ].flat();
  assert.deepEqual(problems({ objects: 10, memory: '128Mi', size: '1Mi', values: 10, time: '5s' }), []);
  for (const [name, more] of Object.entries({
    objects: 20_001,
    values: 1_000_001,
    size: '33Mi',
    memory: '385Mi',
    time: '121s',
  }))
    assert.match(problems({ [name]: more }).join(), new RegExp(`expected at most .* for \`${name}\``));
});

test('`spec.render` names its forms, and its limits have floors', () => {
  const render = (text: string) =>
    problems({ 't.yaml': TRUST, 'e.yaml': `${ENVIRONMENT}  render: ${text}\n` }).map((line) =>
      line.replace(/^e\.yaml:\d+: /, ''),
    );
  for (const [text, expected] of [
    ['{limits: {time: 5s}}', 'spec.render.with: expected `plain`, `kustomize` or `helm`, found nothing'],
    ['{with: kustomise}', 'spec.render.with: expected `plain`, `kustomize` or `helm`, found `kustomise`'],
    ['{with: plain, limits: {memory: 127Mi}}', 'spec.render.limits.memory: expected at least `128Mi`, found `127Mi`'],
    [
      '{with: plain, limits: {memory: 200}}',
      'spec.render.limits.memory: expected a size such as `64Mi` or `1Gi`, found `200`',
    ],
    ['{with: plain, limits: {time: 999ms}}', 'spec.render.limits.time: expected at least `1s`, found `999ms`'],
    ['{with: plain, limits: {time: 120}}', 'spec.render.limits.time: expected a duration such as `120s`, found `120`'],
    [
      '{with: helm, registries: [{host: "https://ghcr.io"}]}',
      'spec.render.registries[0].host: expected `HOST` or `HOST:PORT`: leave out `https://`, found `https://ghcr.io`',
    ],
  ] as const)
    assert.deepEqual(render(text), [expected]);
  assert.deepEqual(render('{with: plain, limits: {memory: 1Gi, time: 1s}}'), []);
  assert.equal(sizeInBytes('2Gi'), sizeInBytes('2048Mi'));
});

test('`spec.target.namespace` is a governed one, Helm needs one, and the key it had is refused with its new name', () => {
  const wrong = (target: string, render = '{with: plain}') => {
    const document = ENVIRONMENT.replace('{namespaces: [shop]}', target);
    return problems({ 't.yaml': TRUST, 'e.yaml': `${document}  render: ${render}\n` });
  };
  assert.deepEqual(wrong('{namespaces: [shop, jobs], namespace: jobs}', '{with: helm}'), []);
  assert.deepEqual(wrong('{namespaces: [shop, jobs]}'), [], 'objects may all name their own');
  assert.deepEqual(wrong('{namespaces: [shop]}', '{with: helm}'), [], 'the only one');
  assert.deepEqual(wrong('{namespaces: [shop], namespace: jobs}'), [
    'e.yaml:6: spec.target.namespace: expected a governed namespace, `shop`, found `jobs`',
  ]);
  assert.deepEqual(wrong('{namespaces: [shop, jobs]}', '{with: helm}'), [
    'e.yaml:6: spec.target.namespace: expected `shop` or `jobs`: Helm needs one namespace for its release',
  ]);
  for (const form of ['helm', 'plain'])
    assert.deepEqual(wrong('{namespaces: [shop]}', `{with: ${form}, namespace: shop}`), [
      'e.yaml:8: spec.render.namespace: this key is now `spec.target.namespace`',
    ]);
});

test('an empty list of bundles is refused with how to have no rules; other lists say how many they need', () => {
  const wrong = (text: string) => problems({ 't.yaml': TRUST, 'e.yaml': `${ENVIRONMENT}  ${text}\n` });
  assert.deepEqual(wrong('policies: {bundles: []}'), [
    'e.yaml:8: spec.policies.bundles: expected at least one bundle ' +
      '(`countersign help policy.md` shows how to run without rules), found a list of 0',
  ]);
  assert.deepEqual(
    wrong('health: {expressions: [{apiVersion: v1, kind: Pod, current: ""}]}').map((line) => line.split(': ').slice(1)),
    [['spec.health.expressions[0].current', 'expected at least 1 character, found ``']],
  );
});

test('an object in a cluster chooses no context of the operator’s kubeconfig', () => {
  const remote = ENVIRONMENT.replace('fleet.git', 'https://git.example.test/fleet.git');
  const document = (kind: string, name: string, text: string, target: object = {}): ConfigurationObject => {
    const value = parseYaml(text)[0]?.value as { metadata: object; spec: { target?: object } };
    const spec = kind === 'Environment' ? { ...value.spec, target: { ...value.spec.target, ...target } } : value.spec;
    return { kind, namespace: 'b', name, object: { ...value, metadata: { ...value.metadata, namespace: 'b' }, spec } };
  };
  const refused = (target: object) =>
    [
      ...loadWithObjects(
        [],
        [document('TrustPolicy', 'team', TRUST), document('Environment', 'production', remote, target)],
        {
          files: '/files',
          crossNamespace: false,
        },
      ).invalid.values(),
    ].flat();
  assert.deepEqual(refused({}), []);
  assert.deepEqual(refused({ kubeconfig: 'config', context: 'own' }), []);
  assert.deepEqual(refused({ context: 'admin' }), [
    'spec.target.context: expected `kubeconfig` beside it: objects in a cluster cannot choose a context of the service’s own kubeconfig',
  ]);
});
