import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { buildBundle } from '../../src/bundle/index.ts';
import type { Verdict } from '../../src/model/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { Fleet, type Person, sshPerson } from '../kit/fleet.ts';
import { deployment, namespace } from '../kit/manifests.ts';
import { startRegistry } from '../kit/registry.ts';
import { bundleOf, filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const directory = scratch();
const [dana, lee, kim] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee'), sshPerson(directory, 'kim')];
const PATH = 'clusters/production';
let fleet: Fleet;
let n = 0;
let first = '';

const configure = (policies: object = {}, waivers: object = { from: ['lee'] }) =>
  writeConfiguration(join(directory, `config${n++}`), [
    environmentDocument({ url: fleet.url, namespaces: ['shop'], policies }),
    trustDocument([dana, lee, kim], { required: 0, waivers }),
  ]);

before(() => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  first = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  fleet.push();
});

async function verdict(
  config: string,
  base = first,
): Promise<Verdict & { findings: { rule?: string; level: string; state?: string }[] }> {
  const result = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    config,
    '--base',
    base,
    '--head',
    'HEAD',
    '--no-fetch',
    '--output',
    'json',
  ]);
  assert.notEqual(result.code, 2, result.stderr);
  return JSON.parse(result.stdout) as Verdict & { findings: { rule?: string; level: string }[] };
}

const back = () => fleet.git(undefined, 'reset', '--quiet', '--hard', first);
const rules = (v: Verdict) => v.violations.map((x) => x.rule ?? x.code);

async function waive(by: Person, config: string, ...more: string[]) {
  fleet.become(by);
  return countersign([
    'policy',
    'waive',
    'privileged',
    '--repo',
    fleet.work,
    '--config',
    config,
    '--kind',
    'Deployment',
    '--object',
    'web',
    '--reason',
    'old driver',
    '--ticket',
    'OPS-1',
    ...(more.length > 0 ? more : ['--until', '2099-01-01']),
  ]);
}

test('a signed waiver lets its rule be broken by its subject, is told as waived, and covers nothing else', async () => {
  const config = configure({}, { from: ['lee'], maximum: '40000d' });
  fleet.commit(dana, 'privileged', { [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }) });
  assert.deepEqual(rules(await verdict(config)), ['privileged']);
  const made = await waive(lee, config);
  assert.equal(made.code, 0, made.stderr);
  const text = readFileSync(join(fleet.work, 'countersign/waivers/privileged-web.yaml'), 'utf8');
  assert.match(text, /reason: "old driver"/);
  fleet.commit(dana, 'waiver', { 'countersign/waivers/privileged-web.yaml': text });
  const waived = await verdict(config);
  assert.deepEqual(
    [waived.outcome, waived.waived?.map((w) => [w.rule, w.waived?.waiver, w.waived?.approver, w.waived?.ticket])],
    ['allowed', [['privileged', 'privileged-web', 'lee', 'OPS-1']]],
  );
  const shown = await countersign(['check', '--repo', fleet.work, '--config', config, '--base', first, '--no-fetch']);
  assert.match(
    shown.stdout,
    /- privileged[\s\S]*waived by lee until 2099-01-01: old driver \(OPS-1\)[\s\S]*allowed, 1 waived/,
  );
  fleet.commit(dana, 'another', { [`${PATH}/other.yaml`]: deployment('shop', 'other', { privileged: true }) });
  assert.deepEqual(
    (await verdict(config)).violations.map((v) => v.object?.name),
    ['other'],
  );
  back();
});

for (const [what, by, waivers, edit, code] of [
  ['by somebody who may not waive', kim, { from: ['lee'], maximum: '40000d' }, (t: string) => t, 'waiver-not-allowed'],
  ['where nobody may waive', lee, {}, (t: string) => t, 'waiver-not-allowed'],
  ['that runs longer than is allowed', lee, { from: ['lee'] }, (t: string) => t, 'waiver-too-long'],
  [
    'for another rule than was signed',
    lee,
    { from: ['lee'], maximum: '40000d' },
    (t: string) => t.replace('"privileged"', '"privileged-x"'),
    'bad-signature',
  ],
  [
    'with a later day than was signed',
    lee,
    { from: ['lee'], maximum: '40000d' },
    (t: string) => t.replace('2099-01-01', '2100-01-01'),
    'bad-signature',
  ],
  [
    'without signature',
    lee,
    { from: ['lee'], maximum: '40000d' },
    (t: string) => t.slice(0, t.indexOf('signature:')),
    'waiver-unsigned',
  ],
  [
    'with a key nobody knows',
    lee,
    { from: ['lee'], maximum: '40000d' },
    (t: string) => t.replace('reason:', 'colour: red\n  reason:'),
    'waiver-unusable',
  ],
] as const) {
  test(`a waiver ${what} does not count, and says why`, async () => {
    const config = configure({}, waivers);
    const made = await waive(by, config);
    assert.equal(made.code, 0, made.stderr);
    const file = 'countersign/waivers/privileged-web.yaml';
    const text = edit(readFileSync(join(fleet.work, file), 'utf8'));
    fleet.commit(dana, 'both', { [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }), [file]: text });
    const result = await verdict(config);
    assert.deepEqual(rules(result), ['privileged']);
    assert.ok(
      result.warnings.some((w) => w.code === code),
      JSON.stringify(result.warnings),
    );
    back();
  });
}

test('a waiver for another repository does not count here', async () => {
  const elsewhere = writeConfiguration(join(directory, 'elsewhere'), [
    environmentDocument({ url: 'https://git.example.com/other.git', namespaces: ['shop'] }),
    trustDocument([dana, lee, kim]),
  ]);
  const made = await waive(lee, elsewhere);
  assert.equal(made.code, 0, made.stderr);
  fleet.commit(dana, 'both', {
    [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }),
    'countersign/waivers/privileged-web.yaml': readFileSync(
      join(fleet.work, 'countersign/waivers/privileged-web.yaml'),
      'utf8',
    ),
  });
  const result = await verdict(configure({}, { from: ['lee'], maximum: '40000d' }));
  assert.deepEqual(rules(result), ['privileged']);
  assert.ok(result.warnings.some((w) => w.code === 'bad-signature'));
  back();
});

test('a waiver whose day has come is not made', async () => {
  const made = await waive(lee, configure(), '--until', '2020-01-01');
  assert.equal(made.code, 2);
  assert.match(made.stderr, /is not in the future/);
  assert.ok(!existsSync(join(fleet.work, 'countersign/waivers/privileged-web.yaml')));
});

test('what the base had already is told apart from what is new and what is fixed', async () => {
  const config = configure();
  const base = fleet.commit(dana, 'two faults', {
    [`${PATH}/a.yaml`]: deployment('shop', 'a', { privileged: true }),
    [`${PATH}/b.yaml`]: deployment('shop', 'b', { privileged: true }),
  });
  fleet.commit(dana, 'one fixed, one new', {
    [`${PATH}/b.yaml`]: deployment('shop', 'b'),
    [`${PATH}/c.yaml`]: deployment('shop', 'c', { privileged: true }),
  });
  const result = (await verdict(config, base)) as unknown as {
    findings: { level: string; state?: string; object?: { name: string } }[];
    fixed: { object?: { name: string } }[];
  };
  assert.deepEqual(
    result.findings.filter((f) => f.level === 'error').map((f) => [f.object?.name, f.state]),
    [
      ['a', 'existing'],
      ['c', 'new'],
    ],
  );
  assert.deepEqual(
    result.fixed.map((f) => f.object?.name),
    ['b'],
  );
  back();
});

test('rules on the change see objects before and after, and who approved', async () => {
  const bundle = join(directory, 'change.tar.gz');
  const rego = `package countersign.change
import rego.v1
deny contains {"rule": "no-shrink", "message": sprintf("%s goes from %d to %d", [o.name, o.before.spec.replicas, o.after.spec.replicas])} if { some o in input.change.objects; o.action == "update"; o.after.spec.replicas < o.before.spec.replicas }
deny contains {"rule": "secret-values", "message": "a value was seen"} if { some o in input.change.objects; o.kind == "Secret"; contains(json.marshal(o), "aHVudGVyMg") }
deny contains {"rule": "secret-keys", "message": "no keys"} if { some o in input.change.objects; o.kind == "Secret"; not o.after.data.password }
deny contains {"rule": "weekday", "message": "no day"} if not input.change.weekday in {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}`;
  writeFileSync(bundle, (await buildBundle({ opa: await tool('opa'), roots: [filesIn({ 'r.rego': rego })] })).archive);
  const config = configure({ bundles: [{ file: bundle }] });
  const at = (replicas: number) => deployment('shop', 'web').replace(/replicas: \d+/, `replicas: ${replicas}`);
  const base = fleet.commit(dana, 'three', { [`${PATH}/web.yaml`]: at(3) });
  fleet.commit(dana, 'one', {
    [`${PATH}/web.yaml`]: at(1),
    [`${PATH}/s.yaml`]:
      'apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop, annotations: {kubectl.kubernetes.io/last-applied-configuration: aHVudGVyMg}}\ndata: {password: aHVudGVyMg==}\n',
  });
  assert.deepEqual(
    (await verdict(config, base)).violations.map((v) => [v.rule, v.message]),
    [['no-shrink', 'web goes from 3 to 1']],
  );
  back();
});

test('a bundle from the repository is that of the revision that is judged', async () => {
  const archive = async (word: string) =>
    (
      await buildBundle({
        opa: await tool('opa'),
        roots: [
          filesIn({
            'r.rego': `package countersign.object\ndeny contains {"rule": "${word}", "message": "${word}"} if input.object.kind == "Namespace"`,
          }),
        ],
      })
    ).archive;
  const config = configure({ bundles: [{ path: 'policies/rules.tar.gz' }] });
  const missing = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    config,
    '--base',
    first,
    '--head',
    'HEAD',
    '--no-fetch',
  ]);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /no policy bundle `policies\/rules\.tar\.gz` in the repository/);
  mkdirSync(join(fleet.work, 'policies'), { recursive: true });
  for (const word of ['one', 'two']) {
    writeFileSync(join(fleet.work, 'policies/rules.tar.gz'), await archive(word));
    fleet.git(undefined, 'add', 'policies/rules.tar.gz');
    fleet.commit(dana, word, {});
    assert.deepEqual(rules(await verdict(config)), [word]);
  }
  back();
});

test('a bundle that must be signed is refused without a signature of the right person, and taken with it', async () => {
  const bundle = join(directory, 'signed.tar.gz');
  writeFileSync(
    bundle,
    (
      await buildBundle({
        opa: await tool('opa'),
        roots: [filesIn({ 'r.rego': 'package countersign.object\ndeny contains "x" if input.object.kind == "Never"' })],
      })
    ).archive,
  );
  const config = configure({ bundles: [{ file: bundle, signedBy: ['lee'] }] });
  fleet.commit(dana, 'change', { [`${PATH}/web.yaml`]: deployment('shop', 'web') });
  const check = () =>
    countersign(['check', '--repo', fleet.work, '--config', config, '--base', first, '--head', 'HEAD', '--no-fetch']);
  const refused = async (why: RegExp) => {
    const result = await check();
    assert.equal(result.code, 2, result.stdout);
    assert.match(result.stderr, why);
  };
  await refused(/not signed by one of `lee`: it has no signature/);
  fleet.become(kim);
  assert.equal((await countersign(['policy', 'sign', bundle, '--repo', fleet.work])).code, 0);
  await refused(/`kim` signed it/);
  fleet.become(lee);
  assert.equal((await countersign(['policy', 'sign', bundle, '--repo', fleet.work])).code, 0);
  assert.equal((await check()).code, 0);
  writeFileSync(
    bundle,
    (
      await buildBundle({
        opa: await tool('opa'),
        roots: [filesIn({ 'r.rego': 'package countersign.object\ndeny contains "y" if input.object.kind == "Never"' })],
      })
    ).archive,
  );
  await refused(/does not match the content/);
  back();
});

test('a bundle with another digest than the configuration pins is refused', async () => {
  const bundle = join(directory, 'pinned.tar.gz');
  copyFileSync(join(ROOT, 'policies/dist/bundle.tar.gz'), bundle);
  const result = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    configure({ bundles: [{ file: bundle, sha256: 'a'.repeat(64) }] }),
    '--base',
    first,
    '--head',
    'HEAD',
    '--no-fetch',
  ]);
  assert.equal(result.code, 2);
  assert.match(result.stderr, /has the digest [0-9a-f]{12}…, not aaaaaaaaaaaa…/);
});

test('a bundle from another repository is read at its pinned commit', async () => {
  const other = new Fleet(join(directory, 'other'));
  other.remote(other.bare);
  mkdirSync(other.work, { recursive: true });
  writeFileSync(
    join(other.work, 'rules.tar.gz'),
    (
      await buildBundle({
        opa: await tool('opa'),
        roots: [
          filesIn({
            'r.rego':
              'package countersign.object\ndeny contains {"rule": "theirs", "message": "no"} if input.object.kind == "Namespace"',
          }),
        ],
      })
    ).archive,
  );
  other.git(undefined, 'add', 'rules.tar.gz');
  const commit = other.commit(dana, 'rules', { readme: 'x' });
  other.push();
  const config = configure({ bundles: [{ repository: { url: other.bare, commit, path: 'rules.tar.gz' } }] });
  fleet.commit(dana, 'change', { [`${PATH}/web.yaml`]: deployment('shop', 'web') });
  assert.deepEqual(rules(await verdict(config)), ['theirs']);
  back();
});

test('a bundle is pulled from a registry by digest, with a token, and every byte is hashed again', async (t) => {
  const { archive } = await buildBundle({
    opa: await tool('opa'),
    roots: [
      filesIn({
        'r.rego':
          'package countersign.object\ndeny contains {"rule": "pulled", "message": "no"} if input.object.kind == "Namespace"',
      }),
    ],
  });
  const credentialsFile = join(directory, 'credentials');
  writeFileSync(credentialsFile, 'u:p\n');
  const { reference, asked, server } = await startRegistry('team/rules', archive);
  t.after(() => server.close());
  fleet.commit(dana, 'change', { [`${PATH}/web.yaml`]: deployment('shop', 'web') });
  assert.deepEqual(rules(await verdict(configure({ bundles: [{ oci: reference, credentialsFile }] }))), ['pulled']);
  assert.ok(
    asked.some((a) => a.startsWith('/token?service=r&scope=repository%3Ateam%2Frules%3Apull')),
    asked.join('\n'),
  );
  const denied = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    configure({ bundles: [{ oci: reference }] }),
    '--base',
    first,
    '--head',
    'HEAD',
    '--no-fetch',
  ]);
  assert.equal(denied.code, 2);
  assert.match(denied.stderr, /rejects the credentials/);
  for (const part of ['manifest', 'blob']) {
    const bad = await startRegistry('team/rules', archive, undefined, (body, path) =>
      path === part ? Buffer.concat([body, Buffer.from(' ')]) : body,
    );
    t.after(() => bad.server.close());
    const result = await countersign([
      'check',
      '--repo',
      fleet.work,
      '--config',
      configure({ bundles: [{ oci: bad.reference, credentialsFile }] }),
      '--base',
      first,
      '--head',
      'HEAD',
      '--no-fetch',
    ]);
    assert.equal(result.code, 2);
    assert.match(result.stderr, /the registry returned bytes that do not match/);
  }
  back();
});

test('policy test: Rego tests, a Gatekeeper suite and examples, and what fails is named', async () => {
  const template = `apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata: {name: k8sname}\nspec:\n  crd: {spec: {names: {kind: K8sName}}}\n  targets:\n    - target: admission.k8s.gatekeeper.sh\n      rego: |\n        package k8sname\n        violation[{"msg": "bad name"}] { input.review.object.metadata.name == "bad" }\n`;
  const root = filesIn({
    'rule.rego':
      'package countersign.object\nimport rego.v1\n# METADATA\n# title: T\n# custom:\n#   rule: no-bad\ndeny contains {"rule": "no-bad", "message": "bad"} if input.object.metadata.name == "bad"',
    'rule_test.rego': 'package t_test\nimport rego.v1\ntest_good if true\ntest_bad if count(data.examples) == 7',
    'examples/no-bad/fail.yaml':
      'apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: good}\n',
    'examples/no-bad/pass.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: {name: good}\n',
    'gk/template.yaml': template,
    'gk/constraint.yaml': 'apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sName\nmetadata: {name: x}\n',
    'gk/bad.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\n',
    'gk/good.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: {name: good}\n',
    'gk/suite.yaml':
      'kind: Suite\napiVersion: test.gatekeeper.sh/v1alpha1\ntests:\n  - name: names\n    template: template.yaml\n    constraint: constraint.yaml\n    cases:\n      - {name: bad, object: bad.yaml, assertions: [{violations: yes, message: bad name}]}\n      - {name: good, object: good.yaml, assertions: [{violations: no}]}\n      - {name: wrong, object: good.yaml, assertions: [{violations: 1}]}\n',
  });
  const result = await countersign(['policy', 'test', root, '--output', 'json']);
  assert.equal(result.code, 1, result.stderr);
  const { passed, results } = JSON.parse(result.stdout) as {
    passed: number;
    results: { name: string; passed: boolean }[];
  };
  assert.equal(passed, 5);
  assert.deepEqual(
    results.filter((r) => !r.passed).map((r) => r.name.replace(/^.*\/gk/, 'gk')),
    ['data.t_test.test_bad', 'gk/suite.yaml names/wrong', 'examples/no-bad/fail.yaml #2'],
  );
  assert.equal((await countersign(['policy', 'test', root, '--run', 'pass', '--output', 'json'])).code, 0);
  const none = await countersign(['policy', 'test', filesIn({ 'a.rego': 'package main' })]);
  assert.equal(none.code, 2);
  assert.match(none.stderr, /there are no tests/);
});

test('policy build, list and explain; what does not compile is refused with its line', async () => {
  const out = join(directory, 'built/rules.tar.gz');
  const root = filesIn({
    'rule.rego':
      'package main\nimport rego.v1\n# METADATA\n# title: No pods\n# description: Really.\n# custom:\n#   rule: no-pods\n#   severity: low\ndeny contains "x" if input.kind == "Pod"',
  });
  const built = await countersign(['policy', 'build', root, '--bundle', out, '--output', 'json']);
  assert.equal(built.code, 0, built.stderr);
  assert.equal(
    (JSON.parse(built.stdout) as { digest: string }).digest,
    (await bundleOf({ 'rule.rego': readFileSync(join(root, 'rule.rego'), 'utf8') })).digest,
  );
  assert.match((await countersign(['policy', 'list', '--policy', out])).stdout, /no-pods +low +No pods/);
  assert.match((await countersign(['check', '--explain', 'no-pods', '--policy', out])).stdout, /Really\./);
  const unknown = await countersign(['check', '--explain', 'privilege']);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /did you mean `privilege-escalation`|`privileged`/);
  const broken = await countersign([
    'policy',
    'build',
    filesIn({ 'r.rego': 'package main\ndeny contains x if { y }' }),
    '--bundle',
    join(directory, 'never.tar.gz'),
  ]);
  assert.equal(broken.code, 2);
  assert.match(broken.stderr, /r\.rego:2/);
  assert.ok(!existsSync(join(directory, 'never.tar.gz')));
});
