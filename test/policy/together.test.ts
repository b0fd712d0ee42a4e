import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { createTar, parseTar } from 'nanotar';
import { tool } from '../../scripts/tools.ts';
import { buildBundle, type PolicyBundle, readBundle } from '../../src/bundle/index.ts';
import { PolicyPool } from '../../src/policy/index.ts';
import { ask, bundleOf, filesIn } from '../kit/rules.ts';

const pod = (name: string, labels = '{}') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: shop, labels: ${labels}}\n`;

function open(bundle: PolicyBundle): PolicyPool {
  const pool = new PolicyPool([bundle], { threads: 1, deadline: 20_000 });
  after(() => pool.close());
  return pool;
}

/** The same rules, asked one by one. */
function apart(bundle: PolicyBundle): PolicyBundle {
  const { together: _, ...manifest } = bundle.manifest;
  return { ...bundle, manifest };
}

test('rules that are asked together say what each says alone', async () => {
  const bundle = await bundleOf({
    'a.rego': `package main
deny_set contains msg if { some k, v in input.metadata.labels; msg := sprintf("%s is %v", [k, v]) }
deny_complete := ["one", {"msg": "two", "path": ["metadata"]}] if input.metadata.name == "complete"
deny_undefined contains "never" if input.kind == "Nothing"
deny_wrong := 7 if input.metadata.name == "wrong"
warn_map[key] := "careful" if some key, _ in input.metadata.labels
violation_root contains {"msg": "root", "severity": "high"} if input.metadata.name != "special"
exception contains ["root"] if input.metadata.name == "excused"`,
    'b.rego': 'package team.b\ndeny contains "b" if input.metadata.labels.b',
    'own.rego': 'package countersign.object\ndeny contains "ours" if input.object.metadata.name == "ours"',
  });
  assert.equal(bundle.manifest.together, 'countersign/together/conftest');
  const [together, single] = [open(bundle), open(apart(bundle))];
  const names = ['plain', 'complete', 'wrong', 'special', 'excused', 'ours'];
  for (const text of names.flatMap((name) => [pod(name), pod(name, '{a: "1", b: "{\\"x\\": 1}", c: ""}')])) {
    const [a, b] = [await ask(together, text), await ask(single, text)];
    assert.deepEqual(a, b);
    assert.ok(a.violations.length + a.exempt.length > 0 || text.includes('special'));
  }
});

test('where one of them fails, it alone denies for that, and the others say what they have to say', async () => {
  const bundle = await bundleOf({
    'a.rego': `package main
deny_fine contains "fine" if input.kind == "Pod"
deny_torn := "x" if input.kind == "Pod"
deny_torn := "y" if input.metadata.name == "torn"`,
  });
  assert.ok(bundle.manifest.together);
  const found = await ask(open(bundle), pod('torn'));
  assert.deepEqual(found, await ask(open(apart(bundle)), pod('torn')));
  assert.deepEqual(found.violations.map((v) => v.code).sort(), ['policy', 'policy-failed']);
  assert.ok(found.violations.some((v) => v.code === 'policy-failed' && v.message.includes('main/deny_torn')));
});

for (const [look, isTogether] of [
  ['data.countersign[_][_][_] == input.metadata.name', false],
  ['data.countersign[_][_].on == input.metadata.name', true],
  ['data.countersign[_].first.on == input.metadata.name', true],
  ['data[x].settings.first.on == input.metadata.name', true],
] as const)
  test(`rules that look around (${look}) are built, and do not see what asks them together`, async () => {
    const bundle = await bundleOf({
      'a.rego': `package main
deny_a contains "on" if ${look}
deny_b contains "b" if input.metadata.name == "b"`,
      'data.json': JSON.stringify({ countersign: { settings: { first: { on: 'a' } } } }),
    });
    assert.equal(bundle.manifest.together !== undefined, isTogether);
    const pool = open(bundle);
    for (const name of ['a', 'b'])
      assert.deepEqual(
        (await ask(pool, pod(name))).violations.map((v) => `${v.rule} ${v.code}`),
        [`main/deny_${name} policy`],
      );
    assert.deepEqual(await ask(open(apart(bundle)), pod('a')), await ask(pool, pod('a')));
  });

test('a single rule needs no company', async () => {
  assert.equal(
    (await bundleOf({ 'a.rego': 'package main\ndeny contains "a" if input.kind == "Pod"' })).manifest.together,
    undefined,
  );
});

test('a manifest that names such an entrypoint where the module has none is refused', async () => {
  const root = filesIn({ 'a.rego': 'package main\ndeny contains "a" if input.kind == "Pod"' });
  const { archive } = await buildBundle({ opa: await tool('opa'), roots: [root] });
  const files = parseTar(new Uint8Array(gunzipSync(archive))).map(({ name, data = new Uint8Array() }) => ({
    name,
    data:
      name === 'countersign.json'
        ? Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(data).toString()), together: 'x/y' }))
        : data,
  }));
  await assert.rejects(readBundle(gzipSync(createTar(files)), 'theirs'), {
    code: 'policy-unusable',
    message: /`x\/y`, which the module does not have/,
  });
});
