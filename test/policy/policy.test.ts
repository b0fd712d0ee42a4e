import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { evaluateObjects, loadBundle } from '../../src/policy/index.ts';
import { render } from '../../src/render/index.ts';
import { shippedBundle } from '../kit/judge.ts';
import { deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const directory = scratch();
const opa = await tool('opa');
let n = 0;

async function bundleOf(rego: string, entrypoint = 'countersign/object/deny') {
  const at = join(directory, String(n++));
  mkdirSync(at);
  writeFileSync(join(at, 'rule.rego'), rego);
  execFileSync(opa, ['build', '-t', 'wasm', '-e', entrypoint, '-o', join(at, 'b.tar.gz'), at], { stdio: 'pipe' });
  return loadBundle(readFileSync(join(at, 'b.tar.gz')), 'test');
}

const objects = (text: string) => render([{ path: 'clusters/production/web.yaml', mode: '100644', content: Buffer.from(text) }]).objects;
const SCOPE = { environment: 'production', parameters: {} };

test('the shipped rules pass their own Rego tests, every line covered', () => {
  const out = JSON.parse(
    execFileSync(opa, ['test', 'policies/rules', 'policies/tests', '--coverage', '--format', 'json'], { cwd: ROOT, encoding: 'utf8' }),
  ) as { coverage: number };
  assert.equal(out.coverage, 100);
  assert.match(execFileSync(opa, ['test', 'policies/rules', 'policies/tests'], { cwd: ROOT, encoding: 'utf8' }), /PASS: \d+\/\d+/);
});

test('a violation names rule, severity, object, file, line and what to do', async () => {
  const { violations } = evaluateObjects(await shippedBundle(), objects(deployment('shop', 'web', { privileged: true })), SCOPE);
  assert.deepEqual(
    violations.map((v) => [v.rule, v.severity, v.source?.file, v.source?.line, v.object?.name]),
    [['privileged', 'critical', 'clusters/production/web.yaml', 23, 'web']],
  );
  assert.match(violations[0]?.hint ?? '', /capabilities/);
});

test('Wasm and native opa give the same answer on the same input', async () => {
  const input = {
    object: objects(deployment('shop', 'web', { privileged: true, image: 'web' }))[0]?.object,
    environment: 'production',
    parameters: { requiredLabels: ['owner'] },
    file: 'x',
  };
  const native = JSON.parse(
    execFileSync(opa, ['eval', '-I', '-d', 'policies/rules', 'data.countersign.object.deny'], {
      cwd: ROOT,
      input: JSON.stringify(input),
      encoding: 'utf8',
    }),
  ) as { result: [{ expressions: [{ value: object[] }] }] };
  const ours = (await shippedBundle()).evaluate('countersign/object/deny', input) as object[];
  const sorted = (set: object[]) => set.map((x) => JSON.stringify(x, Object.keys(x).sort())).sort();
  assert.deepEqual(sorted(ours), sorted(native.result[0].expressions[0].value));
  assert.equal(ours.length, 3);
});

test('the digest is that of the rules, whenever and wherever they were built', async () => {
  const rego = 'package countersign.object\ndeny contains "no" if input.object.kind == "Pod"';
  const [a, b, c] = [
    await bundleOf(rego),
    await bundleOf(rego),
    await bundleOf(`${rego}\ndeny contains "never" if input.object.kind == "Job"`),
  ];
  assert.equal(a.digest.length, 64);
  assert.notEqual(a.digest, c.digest);
  assert.ok(b.digest.length === 64);
});

test('text is a finding too', async () => {
  const bundle = await bundleOf('package countersign.object\ndeny contains "no pods" if input.object.kind == "Deployment"');
  assert.deepEqual(
    evaluateObjects(bundle, objects(deployment('shop', 'a')), SCOPE).violations.map((v) => v.message),
    ['Deployment shop/a: no pods'],
  );
});

test('a rule that conflicts with itself is an error, never a pass, and the bundle goes on', async () => {
  const bundle = await bundleOf(
    'package countersign.object\ndeny := {"a"} if input.object.kind == "Deployment"\ndeny := {"b"} if input.object.metadata.name == "bad"',
  );
  assert.throws(() => evaluateObjects(bundle, objects(deployment('shop', 'bad')), SCOPE), { code: 'policy-failed' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(evaluateObjects(bundle, objects(deployment('shop', 'good')), SCOPE).violations.length, 1);
});

test('an undefined answer is an error, never a pass', async () => {
  const bundle = await bundleOf('package countersign.object\ndeny := {"a"} if input.object.kind == "Nothing"');
  assert.throws(() => evaluateObjects(bundle, objects(deployment('shop', 'a')), SCOPE), { code: 'policy-failed' });
});

test('an answer of another shape is an error, never a pass', async () => {
  const bundle = await bundleOf('package countersign.object\ndeny := {"allowed": true}');
  assert.throws(() => evaluateObjects(bundle, objects(deployment('shop', 'a')), SCOPE), /no set of findings/);
});

for (const [what, bytes] of [
  ['garbage', Buffer.from('x')],
  ['an empty file', Buffer.alloc(0)],
] as const) {
  test(`${what} is no bundle`, async () =>
    assert.rejects(loadBundle(bytes, 'mine.tar.gz'), { code: 'policy-unusable', message: /`mine\.tar\.gz`/ }));
}

test('a bundle without deny rules is refused', async () => {
  await assert.rejects(bundleOf('package countersign.object\nwarn contains "x" if input.object', 'countersign/object/warn'), {
    code: 'policy-unusable',
  });
});
