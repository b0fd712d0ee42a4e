import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readFiles, render, renderMade } from '../../src/render/index.ts';
import { configMap, deployment } from '../kit/manifests.ts';
import { LIMITS } from '../kit/rendering.ts';

const file = (path: string, text: string, mode = '100644') => ({ path, mode, content: Buffer.from(text) });
const codes = (...files: ReturnType<typeof file>[]) => render(files).violations.map((v) => v.code);

test('every object has its file, its line and the line of each value', () => {
  const { objects, violations } = render([
    file(
      'a/all.yaml',
      `# both\n${configMap('shop', 'a', { x: '1' })}---\n${deployment('shop', 'web', { privileged: true })}`,
    ),
    file('a/README.md', '# not: [a manifest'),
  ]);
  assert.deepEqual(violations, []);
  assert.deepEqual(
    objects.map((o) => [o.ref.kind, o.source.file, o.source.line]),
    [
      ['ConfigMap', 'a/all.yaml', 2],
      ['Deployment', 'a/all.yaml', 10],
    ],
  );
  assert.equal(objects[1]?.lineOf(['spec', 'template', 'spec', 'containers', 0, 'securityContext', 'privileged']), 32);
});

test('a List is its items', () => {
  const { objects } = render([
    file(
      'l.yaml',
      'apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: shop}}\n',
    ),
  ]);
  assert.deepEqual(
    objects.map((o) => [o.ref.name, o.source.line]),
    [
      ['a', 4],
      ['b', 5],
    ],
  );
});

for (const [what, f, code] of [
  ['text that is not YAML', file('a.yaml', 'a: [1\n'), 'manifest-unreadable'],
  [
    'bytes that are not text',
    { path: 'a.yaml', mode: '100644', content: Buffer.from([0xff, 0xfe, 0x41]) },
    'manifest-unreadable',
  ],
  ['a list instead of an object', file('a.yaml', '- 1\n'), 'not-an-object'],
  ['an object without kind', file('a.yaml', 'apiVersion: v1\n'), 'not-an-object'],
  [
    'an object without name',
    file('a.yaml', 'apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n'),
    'not-an-object',
  ],
  [
    'a Kustomize file',
    file('kustomization.yaml', 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'),
    'not-an-object',
  ],
  [
    'a stamp that only the gate may write',
    file('a.yaml', 'apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {countersign.dev/revision: x}}\n'),
    'not-an-object',
  ],
  [
    'a break-glass annotation in Git',
    file('a.yaml', 'apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {countersign.dev/break-glass: x}}\n'),
    'not-an-object',
  ],
  ['a link', file('a.yaml', '../../etc/passwd', '120000'), 'not-a-file'],
  ['a submodule', file('sub', '', '160000'), 'not-a-file'],
] as const) {
  test(`${what} is refused with a place`, () => {
    const { violations, objects } = render([f]);
    assert.deepEqual([violations.map((v) => v.code), objects.length], [[code], 0]);
    assert.equal(violations[0]?.source?.file, f.path);
  });
}

test('a kustomization among plain manifests is refused with the setting that builds it, also without a kind', () => {
  for (const text of ['apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n', 'resources: [a.yaml]\n'])
    assert.deepEqual(render([file('k/kustomization.yaml', text)]).violations, [
      {
        code: 'not-an-object',
        message: '`k/kustomization.yaml`: a kustomization is not an object',
        source: { file: 'k/kustomization.yaml', line: 1 },
        hint: 'set `spec.render: {with: kustomize}`, or `spec.source.path` to a directory without it',
      },
    ]);
  const other = render([file('k/other.yaml', 'resources: [a.yaml]\n')]);
  assert.deepEqual(
    other.violations.map((v) => v.message),
    ['`k/other.yaml`: `apiVersion` and `kind` are required'],
  );
});

test('a pointer of Git LFS is refused by name: what it points to was not signed', () => {
  const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n';
  assert.deepEqual(codes(file('a.yaml', pointer)), ['lfs-pointer']);
  assert.deepEqual(codes(file('notes.txt', pointer)), []);
});

test('our label and stamps in the repository are refused; what manifests may say is let through', () => {
  const cm = (metadata: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, ${metadata}}\n`;
  assert.deepEqual(codes(file('a.yaml', cm('labels: {countersign.dev/environment: other}'))), ['not-an-object']);
  assert.deepEqual(codes(file('a.yaml', cm('annotations: {countersign.dev/ledger: x}'))), ['not-an-object']);
  assert.deepEqual(codes(file('a.yaml', cm('annotations: {countersign.dev/allow: replace}'))), []);
});

test('one object in two files is refused', () => {
  assert.deepEqual(
    codes(file('a.yaml', configMap('shop', 'a', {})), file('b.yaml', configMap('shop', 'a', { x: '1' }))),
    ['object-twice'],
  );
});

test('the digest depends on the content alone, not on its order or place', () => {
  const [a] = render([
    file('a.yaml', 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\ndata: {x: "1", z: "2"}\n'),
  ]).objects;
  const [b] = render([
    file(
      'b.yaml',
      '\n\ndata: {z: "2", x: "1"}\nmetadata: {namespace: shop, name: a}\nkind: ConfigMap\napiVersion: v1\n',
    ),
  ]).objects;
  assert.equal(a?.digest, b?.digest);
});

test('any file renders or is refused, never anything else', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      (content) => render([{ path: 'a.yaml', mode: '100644', content }]) !== undefined,
    ),
    { numRuns: 1000 },
  );
});

test('a doubtful spelling in a Secret is told by its place alone', () => {
  const { warnings } = render([
    file('a.yaml', 'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  pin: 0123456\n'),
  ]);
  assert.deepEqual(
    warnings.map((w) => [w.code, w.message, w.source?.line]),
    [['yaml-ambiguous', 'the API server and other readers disagree about this value', 5]],
  );
});

const numbers = (count: number) => `apiVersion: v1\nkind: List\nitems: [${'1,'.repeat(count - 1)}1]\n`;

test('of very many violations in one file the first are kept, and the last says how many there were', () => {
  const variables = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: "${'${A}'.repeat(130_000)}"}\n`;
  const { violations } = render([file('a.yaml', variables)], { B: 'x' });
  assert.deepEqual([violations.length, violations[99]?.code], [101, 'variable-undeclared']);
  assert.equal(violations[100]?.message, '`a.yaml` has at least 130000 violations; the first 100 are shown');
  const { violations: items } = render([file('l.yaml', numbers(130_000))]);
  assert.deepEqual([items.length, items[100]?.code], [101, 'too-many-violations']);
});

test('of very many warnings in one file the first are kept, and an object beside them is still there', () => {
  const { warnings, objects } = render([
    file('a.yaml', `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: [${'yes,'.repeat(999)}yes]\n`),
  ]);
  assert.deepEqual([warnings.length, warnings[100]?.code, objects.length], [101, 'too-many-warnings', 1]);
});

test('a message stays short where the file gives it a very long name', () => {
  const long = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: "\${${'A'.repeat(1_000_000)}}"}\n`;
  assert.ok((render([file('a.yaml', long)], {}).violations[0]?.message.length ?? 0) < 3000);
});

test('of very many violations in many files the first are kept, and no file comes out without one', () => {
  const files = Array.from({ length: 60 }, (_, i) => file(`${i}.yaml`, numbers(500)));
  const read = readFiles(files, LIMITS, undefined);
  assert.ok(read.every((f) => f.violations.length > 0));
  assert.ok(read.reduce((sum, f) => sum + f.violations.length, 0) < 1100);
  const { violations } = render(files);
  assert.deepEqual(
    [violations.length, violations[1000]?.message],
    [1001, 'there are at least 6060 violations; the first 1000 are shown'],
  );
});

test('a text that substitution would make too large is refused before it is built', () => {
  const text = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: &x "${'${A}'.repeat(1000)}"\n  y: [${'*x,'.repeat(900)}*x]\n`;
  const before = process.memoryUsage().rss;
  const { violations, objects } = render([file('a.yaml', text)], { A: 'x'.repeat(4096) });
  assert.deepEqual([violations.map((v) => v.code), objects.length], [['render-too-large'], 0]);
  assert.match(violations[0]?.hint ?? '', /spec\.render\.limits\.size/);
  assert.ok(process.memoryUsage().rss - before < 300 * 1024 * 1024);
});

test('what a program made is read only up to the limits of all of it together', () => {
  let read = 0;
  const value = (i: number) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: `a${i}` },
    get data() {
      read++;
      return { x: '${A}' };
    },
  });
  const documents = Array.from({ length: 1000 }, (_, i) => ({ value: value(i), source: { file: 'k.yaml', line: 1 } }));
  const { objects, size } = renderMade(documents, { A: 'x'.repeat(4096) }, { ...LIMITS, size: 20_000 });
  assert.deepEqual([objects, size.size > 20_000], [[], true]);
  assert.ok(read < 50, `${read}`);
  const complaints = renderMade(
    Array.from({ length: 30 }, () => ({
      value: { apiVersion: 'v1', kind: 'List', items: Array(500).fill(1) },
      source: { file: 'k.yaml', line: 1 },
    })),
  );
  assert.equal(complaints.violations.length, 1001);
});

test('a hook that leaves its name to the API server gets one that follows from its content', () => {
  const job = (annotation: string, image: string) =>
    render([
      file(
        'j.yaml',
        `apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: migrate-, namespace: shop, annotations: {${annotation}}}\nspec: {image: ${image}}\n`,
      ),
    ]);
  const [one] = job('argocd.argoproj.io/hook: PreSync', 'x').objects;
  const [same] = job('argocd.argoproj.io/hook: PreSync', 'x').objects;
  const [other] = job('argocd.argoproj.io/hook: PreSync', 'y').objects;
  assert.match(one?.ref.name ?? '', /^migrate-[0-9a-f]{8}$/);
  assert.deepEqual([one?.object.metadata.name, one?.object.metadata['generateName']], [one?.ref.name, undefined]);
  assert.equal(same?.ref.name, one?.ref.name);
  assert.notEqual(other?.ref.name, one?.ref.name);
  assert.deepEqual(
    job('team: shop', 'x').violations.map((v) => [v.message, v.hint]),
    [
      [
        '`j.yaml`: `metadata.name` is required',
        'a name that the API server generates is in no commit: replace `generateName` by `name`',
      ],
    ],
  );
});
