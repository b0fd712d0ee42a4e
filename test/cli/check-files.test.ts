import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { golden } from '../kit/golden.ts';
import { deployment, namespace } from '../kit/manifests.ts';
import { filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { type CliResult, countersign, countersignProcess } from '../kit/service.ts';

const directory = scratch();

/** Runs `countersign check` in a directory, with something piped in. */
function check(cwd: string, args: readonly string[], input?: string | Buffer): Promise<CliResult> {
  return input === undefined
    ? countersign(['check', ...args], { cwd })
    : countersignProcess(['check', ...args], { cwd, input });
}

type Json = {
  outcome: string;
  objects: number;
  findings: {
    level: string;
    code: string;
    rule?: string;
    message: string;
    source?: { file: string; line: number; column?: number };
  }[];
};
const parsed = (result: CliResult): Json => {
  assert.notEqual(result.code, 2, result.stderr);
  return JSON.parse(result.stdout) as Json;
};

// A name that would break out of every form it is printed in.
const HOSTILE = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  labels: {country: NO}
spec:
  replicas: 2
  template:
    spec:
      containers:
        - name: "a]]>;|%\\n::error::<b>"
          image: registry.example.com/web:1.2.3
          securityContext: {privileged: true}
          resources: {limits: {memory: 64Mi}}
          readinessProbe: {httpGet: {path: /, port: 80}}
`;

for (const form of ['text', 'json', 'sarif', 'junit', 'github', 'gitlab', 'azuredevops', 'tap', 'markdown']) {
  test(`findings as ${form}: place, rule, what and how to fix, and hostile text breaks nothing`, async () => {
    const cwd = filesIn({ 'deploy/web.yaml': HOSTILE });
    const result = await check(cwd, ['--manifests', 'deploy', '--output', form]);
    assert.equal(result.code, 1, result.stderr);
    golden(`check-files/${form}.txt`, result.stdout);
  });
}

test('several reports are written beside the text, and a form that is not there is refused', async () => {
  const cwd = filesIn({ 'web.yaml': HOSTILE });
  const result = await check(cwd, ['--manifests', '.', '--report', 'sarif=out.sarif', 'gitlab=out/quality.json']);
  assert.equal(result.code, 1, result.stderr);
  assert.match(result.stdout, /denied: 1 violation, 1 warning/);
  assert.equal((JSON.parse(readFileSync(join(cwd, 'out.sarif'), 'utf8')) as { version: string }).version, '2.1.0');
  assert.equal((JSON.parse(readFileSync(join(cwd, 'out/quality.json'), 'utf8')) as unknown[]).length, 2);
  const wrong = await check(cwd, ['--manifests', '.', '--report', 'word=out.doc']);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /`word=out\.doc` is not a report/);
});

test('what is piped in is judged, alone and beside files', async () => {
  const cwd = filesIn({ 'ns.yaml': namespace('shop') });
  const bad = deployment('shop', 'web', { privileged: true });
  const alone = parsed(await check(cwd, ['--manifests', '-', '--output', 'json'], bad));
  assert.deepEqual([alone.objects, alone.findings[0]?.rule, alone.findings[0]?.source?.file], [1, 'privileged', '-']);
  const both = parsed(await check(cwd, ['--manifests', 'ns.yaml', '-', '--output', 'json'], bad));
  assert.deepEqual([both.objects, both.findings.length], [2, 1]);
});

test('nothing wrong is 0, warnings are 0 too, and 1 with --fail-on-warn', async () => {
  const cwd = filesIn({ 'ns.yaml': `${namespace('shop')}` });
  assert.equal((await check(cwd, ['--manifests', 'ns.yaml'])).code, 0);
  writeFileSync(join(cwd, 'ns.yaml'), namespace('shop').replace('metadata:', 'metadata:\n  annotations: {a: yes}'));
  assert.equal((await check(cwd, ['--manifests', 'ns.yaml'])).code, 0);
  const strict = await check(cwd, ['--manifests', 'ns.yaml', '--fail-on-warn']);
  assert.equal(strict.code, 1, strict.stdout);
});

test('a Terraform plan is judged by Conftest rules as it is', async () => {
  const policy = filesIn({
    'plan.rego':
      'package main\nimport rego.v1\ndeny contains msg if { some r in input.resource_changes; r.type == "aws_s3_bucket"; r.change.after.acl == "public-read"; msg := sprintf("%s is public", [r.address]) }',
  });
  const plan = JSON.stringify({
    format_version: '1.2',
    resource_changes: [
      { address: 'aws_s3_bucket.logs', type: 'aws_s3_bucket', change: { after: { acl: 'public-read' } } },
    ],
  });
  const result = parsed(
    await check(filesIn({ 'plan.json': plan }), ['--manifests', 'plan.json', '--policy', policy, '--output', 'json']),
  );
  assert.deepEqual(
    result.findings.map((f) => f.message),
    ['aws_s3_bucket.logs is public'],
  );
});

test('with --combine the rules see all documents at once, as Conftest gives them', async () => {
  const policy = filesIn({
    'r.rego':
      'package main\nimport rego.v1\nhas_deployment(n) if { some d in input; d.contents.kind == "Deployment"; d.contents.metadata.name == n }\ndeny contains msg if { some s in input; s.contents.kind == "Service"; not has_deployment(s.contents.metadata.name); msg := sprintf("%s: no deployment", [s.path]) }',
  });
  const service = (name: string) => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\n`;
  const cwd = filesIn({ 'a.yaml': service('web'), 'b.yaml': service('lost'), 'c.yaml': deployment('shop', 'web') });
  const result = parsed(await check(cwd, ['--manifests', '.', '--policy', policy, '--combine', '--output', 'json']));
  assert.deepEqual(
    result.findings.map((f) => f.message),
    ['b.yaml: no deployment'],
  );
});

test('with --trace, what rules print is told, and without it is not', async () => {
  const policy = filesIn({
    'r.rego':
      'package countersign.object\nimport rego.v1\ndeny contains "x" if { print("seen", input.object.kind, {1, "a"}, input.nothing); trace("traced"); input.object.kind == "Never" }',
  });
  const cwd = filesIn({ 'ns.yaml': namespace('shop') });
  const told = await check(cwd, ['--manifests', '.', '--policy', policy, '--trace']);
  assert.equal(told.stderr, 'trace: seen Namespace {1, "a"} <undefined>\ntrace: traced\n');
  assert.equal((await check(cwd, ['--manifests', '.', '--policy', policy])).stderr, '');
});

test('parameters and data reach the rules', async () => {
  const policy = filesIn({
    'r.rego':
      'package countersign.object\nimport rego.v1\ndeny contains {"rule": "owner", "message": sprintf("%v %v", [input.parameters.team, data.teams])} if not input.parameters.team in data.teams',
  });
  const cwd = filesIn({ 'ns.yaml': namespace('shop'), 'data.yaml': 'teams: [red, blue]\n', 'p.yaml': 'team: red\n' });
  const run = async (...more: string[]) =>
    (await check(cwd, ['--manifests', 'ns.yaml', '--policy', policy, '--data', 'data.yaml', ...more])).code;
  assert.deepEqual([await run('--parameters', 'team=green'), await run('--parameters', 'p.yaml')], [1, 0]);
  assert.equal(await run('--parameters', 'nothing.yaml'), 2);
});

const laughs = `${['a: &a [x,x,x,x,x,x,x,x,x]', ...'bcdefghi'.split('').map((c, i) => `${c}: &${c} [${`*${'abcdefgh'[i]},`.repeat(9)}]`)].join('\n')}\n`;
for (const [what, content, why] of [
  ['billion laughs', laughs, /alias/i],
  ['50 MB', Buffer.alloc(50 * 1024 * 1024, 'a: b\n'), /larger than 32 MiB/],
  ['20,000-deep', `a: ${'['.repeat(20_000)}${']'.repeat(20_000)}`, /nested|deep/],
  ['no UTF-8', Buffer.from([0x61, 0x3a, 0x20, 0xff, 0xfe, 0x0a]), /encod|UTF|valid/i],
  ['the same key twice', 'a: 1\na: 2\n', /duplicated mapping key/],
  ['no YAML', 'a: [1\nb: }', /./],
] as const) {
  test(`a file that is ${what} is named and denies, and the others are judged`, async () => {
    const cwd = filesIn({ 'good.yaml': deployment('shop', 'web', { privileged: true }), 'ns.yaml': namespace('shop') });
    writeFileSync(join(cwd, 'bad.yaml'), content);
    const started = process.hrtime.bigint();
    const result = await check(cwd, ['--manifests', '.', '--output', 'json']);
    const { findings, objects } = parsed(result);
    assert.equal(result.code, 1);
    assert.deepEqual(
      findings.map((f) => f.code),
      ['manifest-unreadable', 'policy'],
    );
    assert.match(findings[0]?.message ?? '', why);
    assert.equal(objects, 2);
    assert.ok(Number(process.hrtime.bigint() - started) < 30e9, 'in bounded time');
  });
}

for (const [what, args, why] of [
  ['a path that is not there', ['--manifests', 'nowhere'], /`nowhere` cannot be read/],
  ['a directory without manifests', ['--manifests', 'empty'], /there are no manifests in `empty`/],
  ['rules that are not there', ['--manifests', 'ns.yaml', '--policy', 'nowhere'], /`nowhere` cannot be read/],
  ['rules that do not compile', ['--manifests', 'ns.yaml', '--policy', 'broken'], /broken\/r\.rego:2/],
  ['rules that follow no convention', ['--manifests', 'ns.yaml', '--policy', 'odd'], /no rule follows a convention/],
  ['a bundle that is none', ['--manifests', 'ns.yaml', '--policy', 'x.tar.gz'], /not a gzipped tar archive/],
  ['a constraint without its template', ['--manifests', 'ns.yaml', '--policy', 'lonely'], /K8sLonely/],
  [
    'a template with an unknown builtin',
    ['--manifests', 'ns.yaml', '--policy', 'odd-template'],
    /`http\.send` is refused/,
  ],
] as const) {
  test(`${what} could not be judged: one error, exit 2`, async () => {
    const cwd = filesIn({
      'ns.yaml': namespace('shop'),
      'empty/readme.md': '',
      'broken/r.rego': 'package main\ndeny contains x if { y }',
      'odd/r.rego': 'package main\nallow if true',
      'x.tar.gz': 'x',
      'lonely/c.yaml': 'apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sLonely\nmetadata: {name: x}\n',
      'odd-template/t.yaml':
        'apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata: {name: k8sodd}\nspec:\n  crd: {spec: {names: {kind: K8sOdd}}}\n  targets:\n    - target: admission.k8s.gatekeeper.sh\n      rego: |\n        package k8sodd\n        violation[{"msg": "x"}] { http.send({"method": "get", "url": "http://x"}).status_code == 200 }\n',
    });
    const result = await check(cwd, args);
    assert.equal(result.code, 2, result.stdout);
    assert.match(result.stderr, why);
    assert.equal(result.stdout, '');
  });
}

test('a file may say one thing to kubectl and another to others, and that is said with its place', async () => {
  const cwd = filesIn({
    'cm.yaml':
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\ndata:\n  mode: 0644\n  on: "x"\n  when: 2024-01-01\n',
  });
  const { findings } = parsed(await check(cwd, ['--manifests', '.', '--output', 'json']));
  assert.deepEqual(
    findings
      .filter((f) => f.code === 'yaml-ambiguous')
      .map((f) => [f.source?.line, f.source?.column, f.message.split(' ')[0]]),
    [
      [5, 9, '`0644`'],
      [6, 3, '`on`'],
    ],
  );
});

test('what is no Kubernetes object is not held against the API server’s reader', async () => {
  const cwd = filesIn({ '.github/workflows/ci.yml': 'on: push\njobs: {}\n', 'ns.yaml': namespace('shop') });
  assert.equal((await check(cwd, ['--manifests', '.', '--fail-on-warn'])).code, 0);
});

test('links to files are those files, and one that leads nowhere is named', async () => {
  const cwd = filesIn({
    'real/web.txt': deployment('shop', 'web', { privileged: true }),
    'm/ns.yaml': namespace('shop'),
  });
  symlinkSync('../real/web.txt', join(cwd, 'm/web.yaml'));
  symlinkSync('nowhere', join(cwd, 'm/lost.yaml'));
  symlinkSync('../real', join(cwd, 'm/directory.yaml'));
  const { findings, objects } = parsed(await check(cwd, ['--manifests', 'm', '--output', 'json']));
  assert.deepEqual(
    findings.map((f) => [f.code, f.source?.file]),
    [
      ['manifest-unreadable', 'm/lost.yaml'],
      ['policy', 'm/web.yaml'],
    ],
  );
  assert.equal(objects, 2);
});

test('who reads only the first line has had enough, without an error', async () => {
  const cwd = filesIn(
    Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [`${i}.yaml`, deployment('shop', `web-${i}`, { privileged: true })]),
    ),
  );
  const bin = fileURLToPath(new URL('../../bin/countersign.mjs', import.meta.url));
  const child = spawn(process.execPath, [bin, 'check', '--manifests', '.'], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (d) => (stderr += d));
  child.stdout.once('data', () => child.stdout.destroy());
  await new Promise((done) => child.on('close', done));
  assert.equal(stderr, '');
});

test('a Gatekeeper rule over the inventory sees the other files', async () => {
  const policy = filesIn({
    't.yaml':
      'apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata: {name: k8sunique}\nspec:\n  crd: {spec: {names: {kind: K8sUnique}}}\n  targets:\n    - target: admission.k8s.gatekeeper.sh\n      rego: |\n        package k8sunique\n        violation[{"msg": msg}] {\n          host := input.review.object.spec.rules[_].host\n          other := data.inventory.namespace[ns]["networking.k8s.io/v1"].Ingress[name]\n          other.spec.rules[_].host == host\n          name != input.review.object.metadata.name\n          msg := sprintf("%v is taken by %v", [host, name])\n        }\n',
    'c.yaml':
      'apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sUnique\nmetadata: {name: hosts}\nspec: {match: {kinds: [{apiGroups: [networking.k8s.io], kinds: [Ingress]}]}}\n',
  });
  const ingress = (name: string) =>
    `apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: ${name}, namespace: shop}\nspec: {rules: [{host: shop.example.com}]}\n`;
  const { findings } = parsed(
    await check(filesIn({ 'a.yaml': ingress('a'), 'b.yaml': ingress('b') }), [
      '--manifests',
      '.',
      '--policy',
      policy,
      '--output',
      'json',
    ]),
  );
  assert.deepEqual(findings.map((f) => f.message.replace(/^.*?: /, '')).sort(), [
    'shop.example.com is taken by a',
    'shop.example.com is taken by b',
  ]);
});

test('check says so when it is given neither a repository nor files that can be read', async () => {
  const result = await countersign(['check', '--config', directory], { cwd: directory });
  assert.equal(result.code, 2);
  assert.match(result.stderr, /^error: .*\nfix: /);
});

const UNPLACED = 'apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n';
const NAMESPACES = {
  'policy/rule.rego':
    'package main\nimport rego.v1\n' +
    'deny contains msg if msg := sprintf("%s in %s", ' +
    '[input.metadata.name, object.get(input.metadata, "namespace", "-")])\n',
};

test('with --namespace, rules see objects where the gate will have them', async () => {
  const custom = 'apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n';
  const definition =
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\n' +
    'spec: {group: example.com, scope: Namespaced, names: {kind: Widget}}\n';
  const role =
    'apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: shop}\nrules: []\n';
  const files = { 'a/s.yaml': UNPLACED, 'a/w.yaml': custom, 'a/x.yaml': role, ...NAMESPACES };
  const run = async (cwd: string, ...more: string[]) =>
    parsed(await check(cwd, ['--manifests', 'a', '--policy', 'policy', '--output', 'json', ...more])).findings;
  const messages = (findings: Json['findings'], level: string) =>
    findings
      .filter((f) => f.level === level)
      .map((f) => f.message.replace(/^.*: /, ''))
      .sort();
  const found = await run(filesIn({ ...files, 'a/z.yaml': definition }), '--namespace', 'shop');
  assert.deepEqual(messages(found, 'error'), ['r in -', 'w in shop', 'web in shop', 'widgets.example.com in -']);
  assert.deepEqual(found.find((f) => f.code === 'namespace-ignored')?.source, { file: 'a/x.yaml', line: 3 });
  const unknown = await run(filesIn(files), '--namespace', 'shop');
  assert.deepEqual(
    unknown.filter((f) => f.rule === undefined && f.level === 'error').map((f) => [f.code, f.source?.file]),
    [['scope-unknown', 'a/w.yaml']],
    'what cannot be told is not allowed',
  );
  assert.deepEqual(messages(await run(filesIn(files)), 'error'), ['r in shop', 'w in -', 'web in -'], 'as written');
  const combined = filesIn({
    'a/s.yaml': UNPLACED,
    'policy/rule.rego':
      'package main\nimport rego.v1\ndeny contains f.contents.metadata.namespace if some f in input\n',
  });
  assert.deepEqual(messages(await run(combined, '--combine', '--namespace', 'shop'), 'error'), ['shop']);
  assert.deepEqual(messages(await run(combined, '--combine'), 'error'), []);
});

test('an order that is no integer is refused as the gate does it', async () => {
  const text = 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations: {countersign.dev/order: "x"}\n';
  const files = { 'a/a.yaml': text, 'a/b.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: none\n', ...NAMESPACES };
  const found = parsed(
    await check(filesIn(files), ['--manifests', 'a', '--policy', 'policy', '--output', 'json']),
  ).findings.filter((f) => f.code !== 'policy');
  assert.deepEqual(
    found.map((f) => [f.level, f.code, f.source?.line]),
    [['error', 'order-unreadable', 5]],
  );
});

test('without it, a note says that the gate needs a namespace, and the findings stay those of the rules', async () => {
  const cwd = filesIn({ 'a/s.yaml': UNPLACED });
  const result = await check(cwd, ['--manifests', 'a']);
  assert.equal(result.code, 0, result.stdout);
  assert.match(result.stderr, /^note: 1 object names no namespace; the gate needs `spec\.target\.namespace`/);
  assert.equal((await check(cwd, ['--manifests', 'a', '--namespace', 'shop'])).stderr, '');
  const refused = await check(cwd, ['--namespace', 'shop']);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /`--namespace` is only for plain files/);
});

test('a file without metadata is left as it is, with a namespace and without', async () => {
  const cwd = filesIn({
    'a/kustomization.yaml': 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n',
    'a/config': 'apiVersion: v1\nkind: Config\nclusters: []\n',
  });
  for (const more of [[], ['--namespace', 'shop']])
    assert.doesNotMatch((await check(cwd, ['--manifests', 'a', ...more])).stderr, /defect|Cannot convert/);
});
