import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evaluateDocuments } from '../../src/policy/index.ts';
import { inventoryOf } from '../../src/policy/inventory.ts';
import { render } from '../../src/render/index.ts';
import { ask, bundleOf, rulesOf, said } from '../kit/rules.ts';

const pod = (name: string, more = '', metadata = '') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: shop${metadata}}\nspec: {${more}}\n`;
const rules = (found: { violations: readonly { rule?: string }[] }) => found.violations.map((v) => v.rule);

test('Conftest: deny, violation and warn, named and unnamed, text and objects', async () => {
  const pool = await rulesOf({
    'policy/main.rego': `package main
import rego.v1
deny contains "unnamed" if input.kind == "Pod"
deny_named contains {"msg": "named", "severity": "high"} if input.kind == "Pod"
violation_object contains {"msg": sprintf("violation %s", [input.metadata.name]), "details": {}} if input.kind == "Pod"
warn_it contains "careful" if input.kind == "Pod"`,
    'policy/other.rego':
      'package team.security\nimport rego.v1\ndeny_more contains "other namespace" if input.kind == "Pod"',
  });
  const found = await ask(pool, pod('a'));
  assert.deepEqual(
    said(found),
    [
      'main/deny: Pod shop/a: unnamed',
      'main/deny_named: Pod shop/a: named',
      'main/violation_object: Pod shop/a: violation a',
      'team.security/deny_more: Pod shop/a: other namespace',
    ].sort(),
  );
  assert.equal(found.violations.find((v) => v.rule === 'main/deny_named')?.severity, 'high');
  assert.deepEqual(
    found.warnings.map((v) => v.message),
    ['Pod shop/a: careful'],
  );
});

test('Conftest: rules of version 0 stand beside rules of version 1', async () => {
  const pool = await rulesOf({
    'old.rego': 'package main\ndeny_old[msg] { input.kind == "Pod"; msg := "old" }',
    'new.rego': 'package main\ndeny_new contains "new" if input.kind == "Pod"',
  });
  assert.deepEqual(rules(await ask(pool, pod('a'))), ['main/deny_new', 'main/deny_old']);
});

test('Conftest: an exception exempts the rules it names, and says so', async () => {
  const pool = await rulesOf({
    'p.rego': `package main
import rego.v1
deny_root contains "root" if input.kind == "Pod"
deny_image contains "image" if input.kind == "Pod"
exception contains rules if { input.metadata.name == "special"; rules := ["root"] }`,
  });
  assert.deepEqual(rules(await ask(pool, pod('a'))), ['main/deny_image', 'main/deny_root']);
  const found = await ask(pool, pod('special'));
  assert.deepEqual(rules(found), ['main/deny_image']);
  assert.deepEqual(
    found.exempt.map((v) => v.rule),
    ['main/deny_root'],
  );
});

test('Conftest: an exception that fails exempts nothing, and denies', async () => {
  const pool = await rulesOf({
    'p.rego':
      'package main\ndeny_x contains "x" if input.kind == "Pod"\nexception := {["x"]} if input.kind == "Pod"\nexception := {["y"]} if input.metadata.name == "a"',
  });
  const found = await ask(pool, pod('a'));
  assert.deepEqual(found.violations.map((v) => v.code).sort(), ['policy', 'policy-failed']);
});

test('Conftest: data files are read by rules', async () => {
  const pool = await rulesOf({
    'p.rego': 'package main\ndeny contains "wrong team" if not input.metadata.labels.team in data.teams.allowed',
    'teams/data.yaml': 'allowed: [shop]\n',
  });
  assert.deepEqual(rules(await ask(pool, pod('a', '', ', labels: {team: shop}'))), []);
  assert.deepEqual(rules(await ask(pool, pod('a', '', ', labels: {team: bank}'))), ['main/deny']);
});

test('Conftest: combined input is a list of path and contents', async () => {
  const pool = await rulesOf({
    'p.rego':
      'package main\ndeny contains sprintf("%s twice", [a.contents.name]) if { some i, a in input; some j, b in input; i < j; a.contents.name == b.contents.name; a.path != b.path }',
  });
  const contents = ['a.yaml', 'b.yaml'].map((path) => ({ path, contents: { name: 'x' } }));
  const found = await evaluateDocuments(
    pool,
    [{ value: contents, file: '(combined)', positionOf: () => ({ line: 1, column: 1 }), combined: true }],
    { environment: '', parameters: {}, now: new Date() },
  );
  assert.deepEqual(
    found.violations.map((v) => v.message),
    ['x twice'],
  );
});

test('own rules have the object, its file, the environment and parameters; METADATA fills up what they do not say', async () => {
  const pool = await rulesOf({
    'p.rego': `package countersign.object
# METADATA
# title: Nothing in production
# description: Because.
# related_resources:
#   - https://example.com/why
# custom:
#   rule: no-production
#   severity: high
#   controls: [CC8.1]
#   remediation: move it
deny contains {"rule": "no-production", "message": sprintf("%s %s %s", [input.file, input.environment, input.parameters.word])} if input.object.kind == "Pod"`,
  });
  const [first] = (await ask(pool, pod('a'), { word: 'hello' })).violations;
  assert.deepEqual(
    [first?.message, first?.rule, first?.severity, first?.controls, first?.hint, first?.title],
    [
      'Pod shop/a: clusters/production/web.yaml production hello',
      'no-production',
      'high',
      ['CC8.1'],
      'move it',
      'Nothing in production',
    ],
  );
  assert.deepEqual(pool.bundles[0]?.manifest.rules[0]?.links, ['https://example.com/why']);
});

const template = (kind: string, rego: string, extra = '', version = '') => `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: ${kind.toLowerCase()}}
spec:
  crd:
    spec:
      names: {kind: ${kind}}
      validation:
        openAPIV3Schema:
          type: object
          properties:
            labels: {type: array, items: {type: string}}
            message: {type: string, default: "missing %v"}
  targets:
    - target: admission.k8s.gatekeeper.sh
${version === '' ? `      rego: |\n${rego.replace(/^/gm, '        ')}\n${extra}` : `      code:\n        - engine: Rego\n          source:\n            version: ${version}\n            rego: |\n${rego.replace(/^/gm, '              ')}\n`}`;

const LABELS = `package k8srequiredlabels
import data.lib.sets.missing
violation[{"msg": msg, "details": {"missing_labels": m}}] {
  m := missing(input.parameters.labels, input.review.object.metadata.labels)
  count(m) > 0
  msg := sprintf(input.parameters.message, [m])
}`;
const LIB = `      libs:
        - |
          package lib.sets
          missing(wanted, have) = m { m := {l | l := wanted[_]} - {l | have[l]} }
`;
const constraint = (kind: string, name: string, spec: string) =>
  `apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: ${kind}\nmetadata: {name: ${name}}\nspec:\n${spec.replace(/^/gm, '  ')}\n`;
const ANY = template(
  'K8sAny',
  'package k8sany\nviolation[{"msg": sprintf("%v %v", [input.review.kind.kind, input.review.object.metadata.name])}] { true }',
);

test('Gatekeeper: a template with a library of version 0, parameters and defaults of its schema', async () => {
  const pool = await rulesOf({
    't.yaml': template('K8sRequiredLabels', LABELS, LIB),
    'c.yaml': constraint(
      'K8sRequiredLabels',
      'must-have-owner',
      'match: {kinds: [{apiGroups: [""], kinds: ["Pod"]}]}\nparameters: {labels: [owner, team]}',
    ),
  });
  const found = await ask(pool, pod('a', '', ', labels: {team: x}'));
  assert.deepEqual(said(found), ['K8sRequiredLabels/must-have-owner: Pod shop/a: missing {"owner"}']);
  assert.deepEqual(rules(await ask(pool, pod('b', '', ', labels: {team: x, owner: y}'))), []);
});

test('Gatekeeper: Rego of version 1, and two templates whose libraries have one name', async () => {
  const lib = (word: string) => `      libs:\n        - |\n          package lib.words\n          word = "${word}"\n`;
  const rego = (p: string) => `package ${p}\nviolation[{"msg": data.lib.words.word}] { true }`;
  const pool = await rulesOf({
    'a.yaml': template('K8sA', rego('a'), lib('from a')),
    'b.yaml': template('K8sB', rego('b'), lib('from b')),
    'v1.yaml': template(
      'K8sNew',
      'package new\nviolation contains {"msg": "new"} if input.review.kind.kind == "Pod"',
      '',
      'v1',
    ),
    'c.yaml': ['K8sA', 'K8sB', 'K8sNew'].map((k) => constraint(k, 'x', 'parameters: {}')).join('---\n'),
  });
  assert.deepEqual(said(await ask(pool, pod('p'))), [
    'K8sA/x: Pod shop/p: from a',
    'K8sB/x: Pod shop/p: from b',
    'K8sNew/x: Pod shop/p: new',
  ]);
});

for (const [what, match, names] of [
  ['kinds with groups', 'kinds: [{apiGroups: ["apps"], kinds: ["Deployment"]}]', ['web']],
  ['kinds with a star', 'kinds: [{apiGroups: ["*"], kinds: ["*"]}]', ['a', 'b', 'web', 'admin', 'shop']],
  ['namespaces with globs', 'namespaces: ["sh*"]', ['a', 'web', 'admin', 'shop']],
  ['namespaces at the end', 'namespaces: ["*-system"]', ['b', 'admin']],
  ['excluded namespaces', 'excludedNamespaces: ["shop"]', ['b', 'admin']],
  ['labels', 'labelSelector: {matchLabels: {tier: gold}}', ['a']],
  [
    'label expressions',
    'labelSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}',
    ['b', 'web', 'admin', 'shop'],
  ],
  [
    'In and NotIn',
    'labelSelector: {matchExpressions: [{key: tier, operator: In, values: [gold, silver]}, {key: tier, operator: NotIn, values: [silver]}]}',
    ['a'],
  ],
  ['an operator that does not exist', 'labelSelector: {matchExpressions: [{key: tier, operator: Around}]}', []],
  ['labels of the namespace', 'namespaceSelector: {matchLabels: {env: prod}}', ['a', 'b', 'web', 'admin', 'shop']],
  ['labels of the namespace, other', 'namespaceSelector: {matchLabels: {env: dev}}', ['b', 'admin']],
  ['a name', 'name: "w*"', ['web']],
  ['cluster scope', 'scope: Cluster', ['admin', 'shop']],
  ['namespaced scope', 'scope: Namespaced', ['a', 'b', 'web']],
  ['what is generated', 'source: Generated', []],
] as const) {
  test(`Gatekeeper: a constraint matches by ${what}`, async () => {
    const pool = await rulesOf({ 't.yaml': ANY, 'c.yaml': constraint('K8sAny', 'x', `match:\n  ${match}`) });
    const objects = [
      pod('a', '', ', labels: {tier: gold}'),
      'apiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: kube-system}\n',
      'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n',
      'apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: admin}\n',
      'apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {env: prod}}\n',
    ];
    const found = await ask(pool, objects.join('---\n'));
    assert.deepEqual(
      found.violations.map((v) => v.object?.name),
      names,
    );
  });
}

test('Gatekeeper: deny, warn, dryrun and scoped actions', async () => {
  const scoped = (point: string) =>
    `enforcementAction: scoped\nscopedEnforcementActions:\n  - {action: warn, enforcementPoints: [{name: audit.gatekeeper.sh}]}\n  - {action: deny, enforcementPoints: [{name: ${point}}]}`;
  const pool = await rulesOf({
    't.yaml': ANY,
    'c.yaml': [
      constraint('K8sAny', 'a-deny', 'parameters: {}'),
      constraint('K8sAny', 'b-warn', 'enforcementAction: warn'),
      constraint('K8sAny', 'c-dryrun', 'enforcementAction: dryrun'),
      constraint('K8sAny', 'd-scoped', scoped('validation.gatekeeper.sh')),
      constraint('K8sAny', 'e-elsewhere', scoped('vap.k8s.io')),
    ].join('---\n'),
  });
  const found = await ask(pool, pod('a'));
  assert.deepEqual(rules(found), ['K8sAny/a-deny', 'K8sAny/d-scoped']);
  assert.deepEqual(
    found.warnings.map((v) => v.rule),
    ['K8sAny/b-warn', 'K8sAny/c-dryrun'],
  );
});

test('Gatekeeper: data.inventory holds the other objects', async () => {
  const rego =
    'package unique\nviolation[{"msg": "host twice"}] {\n  other := data.inventory.namespace[_][_]["Ingress"][name]\n  name != input.review.object.metadata.name\n  other.spec.rules[_].host == input.review.object.spec.rules[_].host\n}';
  const files = {
    't.yaml': template('K8sUnique', rego),
    'c.yaml': constraint('K8sUnique', 'x', 'match: {kinds: [{apiGroups: ["*"], kinds: ["Ingress"]}]}'),
  };
  const ingress = (name: string, host: string) =>
    `apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: ${name}, namespace: shop}\nspec: {rules: [{host: ${host}}]}\n`;
  const yaml = [ingress('a', 'x.example'), ingress('b', 'x.example'), ingress('c', 'y.example')].join('---\n');
  const { objects } = render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(yaml) }]);
  const pool = await rulesOf(files, { inventory: inventoryOf(objects) });
  assert.equal(pool.bundles[0]?.manifest.templates[0]?.inventory, true);
  assert.deepEqual(
    (await ask(pool, yaml)).violations.map((v) => v.object?.name),
    ['a', 'b'],
  );
});

test('Gatekeeper: an ExpansionTemplate makes the Pod of a workload', async () => {
  const pool = await rulesOf({
    't.yaml': ANY,
    'c.yaml': constraint('K8sAny', 'x', 'match: {kinds: [{apiGroups: [""], kinds: ["Pod"]}]}'),
    'e.yaml':
      'apiVersion: expansion.gatekeeper.sh/v1beta1\nkind: ExpansionTemplate\nmetadata: {name: e}\nspec:\n  applyTo: [{groups: [apps], versions: [v1], kinds: [Deployment]}]\n  templateSource: spec.template\n  generatedGVK: {kind: Pod, group: "", version: v1}\n',
  });
  const found = await ask(
    pool,
    'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  template:\n    metadata: {labels: {a: b}}\n    spec: {}\n',
  );
  assert.deepEqual(said(found), ['K8sAny/x: Deployment shop/web: Pod web-pod']);
});

for (const [what, files, message] of [
  [
    'a constraint of a kind without template',
    { 't.yaml': ANY, 'c.yaml': constraint('K8sOther', 'x', 'parameters: {}') },
    /c\.yaml:1: the constraint `K8sOther\/x` has no template: add the ConstraintTemplate `k8sother`/,
  ],
  [
    'a parameter that the schema does not know',
    {
      't.yaml': template('K8sRequiredLabels', LABELS, LIB),
      'c.yaml': constraint('K8sRequiredLabels', 'x', 'parameters: {lables: [a]}'),
    },
    /`parameters\.lables` is not a parameter/,
  ],
  [
    'a parameter of another type',
    {
      't.yaml': template('K8sRequiredLabels', LABELS, LIB),
      'c.yaml': constraint('K8sRequiredLabels', 'x', 'parameters: {labels: a}'),
    },
    /`parameters\.labels` must be array/,
  ],
  [
    'an enforcementAction nobody knows',
    { 't.yaml': ANY, 'c.yaml': constraint('K8sAny', 'x', 'enforcementAction: maybe') },
    /enforcementAction must be .*found `maybe`/,
  ],
  [
    'a template that asks external data',
    {
      't.yaml': template(
        'K8sOut',
        'package out\nviolation[{"msg": "x"}] { external_data({"provider": "p", "keys": []}) }',
      ),
    },
    /uses external data/,
  ],
  [
    'a template with a builtin nobody knows',
    { 't.yaml': template('K8sOut', 'package out\nviolation[{"msg": "x"}] { frobnicate(1) }') },
    /undefined function frobnicate/,
  ],
  [
    'a template that asks the network',
    { 't.yaml': template('K8sOut', 'package out\nviolation[{"msg": "x"}] { http.send({}) }') },
    /`http\.send` is refused/,
  ],
  ['a template without Rego', { 't.yaml': ANY.replace('rego: |', 'celo: |') }, /has no Rego/],
  ['one template twice', { 't.yaml': ANY, 'u.yaml': ANY }, /is defined twice/],
  ['Rego that does not parse', { 'r.rego': 'package main\ndeny contains x if {' }, /r\.rego:/],
  ['rules that follow no convention', { 'r.rego': 'package main\nallow if true' }, /no rule follows a convention/],
  [
    'data that is there twice',
    { 'r.rego': 'package main\ndeny contains "x"', 'data.json': '{"a": 1}', 'data.yaml': 'a: 2' },
    /two files define `a`/,
  ],
  [
    'YAML that cannot be read',
    { 'r.rego': 'package main\ndeny contains "x"', 'c.yaml': 'gatekeeper.sh: [' },
    /c\.yaml:\d+:/,
  ],
] as const) {
  test(`${what} is refused when rules are built, with the place`, async () => {
    await assert.rejects(bundleOf(files as Record<string, string>), { code: 'policy-unusable', message });
  });
}
