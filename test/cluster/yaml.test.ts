import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { tool } from '../../scripts/tools.ts';
import { parseYaml, YamlError } from '../../src/yaml/index.ts';
import type { ControlPlane } from '../kit/control-plane.ts';
import { sharedPlane } from '../kit/plane.ts';
import { scratch } from '../kit/scratch.ts';

// A file must mean here what it means to kubectl, or be refused here by name.
const run = promisify(execFile);
const directory = scratch();
const HEAD = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';
let plane: ControlPlane;
let kubectl = '';
before(async () => {
  plane = await sharedPlane();
  kubectl = await tool('kubectl', { pinned: true });
});
after(() => plane.stop());

/** What kubectl makes of a file, before the API server sees it; undefined where it refuses. */
async function theirs(text: string | Buffer): Promise<{ data?: unknown } | undefined> {
  const file = join(directory, 'case.yaml');
  writeFileSync(file, text);
  const args = [
    '--kubeconfig',
    plane.kubeconfig('admin'),
    'create',
    '--dry-run=client',
    '--validate=false',
    '-o',
    'json',
    '-f',
    file,
  ];
  return run(kubectl, args, { maxBuffer: 1 << 28, env: { ...process.env, HOME: directory } }).then(
    ({ stdout }) => JSON.parse(stdout) as { data?: unknown },
    () => undefined,
  );
}

function ours(text: string): { data?: unknown } | undefined {
  try {
    return parseYaml(text)[0]?.value as { data?: unknown };
  } catch (thrown) {
    assert.ok(thrown instanceof YamlError, String(thrown));
    return undefined;
  }
}

const SCALARS =
  `0 00 010 0777 08 09 0o14 0O14 0x1F 0X1f 0xg 0b101 0B1 0b2 -010 +010 +5 -5 --5 +-5 1_000 _1 1_ 1__0 0_1 0x_1 0b_1 0x1_F 1e3 1E3 1e+3 1e-3 1.5
1. .5 -.5 +.5 5.e3 .e3 1e 1e+ 0.0 -0 -0.0 +0 0e0 1.0 100000000000000000000 9007199254740991 9007199254740993 -9007199254740993 9223372036854775807
9223372036854775808 18446744073709551615 18446744073709551616 1e400 -1e400 .inf -.inf .Inf +.inf .nan .NaN .NAN inf nan Infinity NaN yes Yes YES yEs
y Y no No NO n N on On ON oN off Off OFF true True TRUE tRUE false False FALSE null Null NULL nUll ~ ~~ 12:30 12:30:45 1:2 190:20:30 -1:30 1:60
2024-01-01 2024-01-01T00:00:00Z 2024-1-1 2024-01-01T10:00:00.5+02:00 1_2.3_4 1_0e1 0.1_0 ._5 1,000 1.2.3 v1 a-b = << 'a' "a" 0x 0b 0o 0o8 0o_7 00x1
1e1_0 +0x10 -0x10 -0b1 +0b1 -0o7 +1_000 -.inf_ 0.e1 1e0x1 0x1.8p1 1f 0755 644 0644 0888 1E400 123456789012345678901234567890 0.1e-400 3.4028235e+39
12e03 012e3 0_7 07_7 0_ -_1 +_1 !!str !!null !!int !!bool "!!str" a#b a:b ? - :`.split(/\s+/);

// What kubectl would round, or write in a way that nobody foresees, is refused here.
const REFUSED_VALUES = [
  '9007199254740993',
  '-9007199254740993',
  '9223372036854775807',
  '9223372036854775808',
  '18446744073709551615',
];

test('every spelling of a scalar has the value that kubectl gives it', async () => {
  const taken = SCALARS.filter((s) => ours(`${HEAD}data:\n  v: ${s}\n`) !== undefined);
  const text = `${HEAD}data:\n${taken.map((s) => `- v: ${s}\n`).join('')}`;
  const [here, there] = [ours(text)?.data as unknown[], (await theirs(text))?.data as unknown[]];
  assert.equal(there.length, taken.length);
  assert.deepEqual(
    Object.fromEntries(taken.map((s, i) => [s, here[i]])),
    Object.fromEntries(taken.map((s, i) => [s, there[i]])),
  );
  const refusedHere: string[] = [];
  for (const s of SCALARS.filter((s) => !taken.includes(s)))
    if ((await theirs(`${HEAD}data:\n  v: ${s}\n`)) !== undefined) refusedHere.push(s);
  assert.deepEqual(refusedHere, REFUSED_VALUES);
});

test('every spelling of a key has the name that kubectl gives it, or is refused', async () => {
  const taken = SCALARS.filter(
    (s) => s !== '<<' && s !== '?' && s !== '-' && ours(`${HEAD}data:\n  ${s}: x\n`) !== undefined,
  );
  const text = `${HEAD}data:\n${taken.map((s) => `- ${s}: x\n`).join('')}`;
  const [here, there] = [ours(text)?.data as unknown[], (await theirs(text))?.data as unknown[]];
  assert.deepEqual(
    Object.fromEntries(taken.map((s, i) => [s, here[i]])),
    Object.fromEntries(taken.map((s, i) => [s, there[i]])),
  );
  assert.ok(taken.length > 100, `${taken.length}`);
});

test('thousands of scalars made by chance have the value that kubectl gives them', async () => {
  const scalar = fc.string({
    unit: fc.constantFrom(...'0123456789012345678901__..eE+-xobXOByYnNtTfF~'),
    minLength: 1,
    maxLength: 9,
  });
  const all = [...new Set(fc.sample(scalar, { numRuns: 6000, seed: 11 }))];
  const taken = all.filter((s) => ours(`${HEAD}data:\n- v: ${s}\n`) !== undefined);
  assert.ok(taken.length > 4000, `${taken.length}`);
  const text = `${HEAD}data:\n${taken.map((s) => `- v: ${s}\n`).join('')}`;
  const [here, there] = [ours(text)?.data as { v: unknown }[], (await theirs(text))?.data as { v: unknown }[]];
  assert.deepEqual(
    taken.flatMap((s, i) => (Object.is(here[i]?.v, there[i]?.v) ? [] : [[s, here[i]?.v, there[i]?.v]])),
    [],
  );
});

const DOCUMENTS: Record<string, string> = {
  'block scalars':
    'data:\n  a: |\n    x\n     y\n\n  b: |-\n    x\n  c: |+\n    x\n\n  d: >\n    x\n    y\n\n    z\n  e: >-\n    x\n      y\n    z\n  f: |2\n      x\n',
  'text over several lines':
    'data:\n  a: one\n    two\n\n    three\n  b: "one\n    two\\n\\\n    three"\n  c: \'one\n\n    two\'\n',
  escapes: 'data: {a: "\\u00e9\\x41\\t\\\\\\"\\e\\0\\N\\_\\L\\P", b: \'it\'\'s\', c: "\\U0001F600"}\n',
  'an escaped slash': 'data: {a: "b\\/c"}\n',
  'a merge after a key it has': 'data:\n  a: &x {k: 1}\n  b:\n    k: 4\n    <<: *x\n',
  'flow collections': 'data: {a: [1, {b: c}, [], {}], "d": {e, f: }, g: [a, b, ], h: {i: 1, }}\n',
  'flow without spaces': 'data: {"a":1,"b":[1,2],c: {"d":e}}\n',
  'anchors and aliases': 'data:\n  a: &x {k: 1}\n  b: *x\n  c: [*x, *x]\n',
  merges:
    'data:\n  a: &x {k: 1, l: 2}\n  b: {<<: *x, k: 3}\n  c:\n    n: 4\n    <<: *x\n  d:\n    <<: [*x, {m: 5, k: 6}]\n',
  'nested merges': 'data:\n  a: &x {k: {l: 1}}\n  b: &y {<<: *x, m: 2}\n  c: {<<: *y, k: {n: 3}}\n',
  'an anchor given twice': 'data:\n  a: &x 1\n  b: &x 2\n  c: *x\n',
  'explicit keys': 'data:\n  ? a\n  : b\n  ? "c d"\n  : [1]\n  ? e\n',
  'complex keys': 'data:\n  ? [a, b]\n  : c\n',
  comments: 'data: # one\n  # two\n  a: b # three\n  c: d#e\n  f: "g # h" # i\n',
  'list not indented': 'data:\n  a:\n  - b\n  - c: d\n    e: f\n  -\n    - g\n  - - h\n    - i\n',
  'tabs after values': 'data:\n  a: b\t\n  c:\td\n',
  'tabs as indentation': 'data:\n\ta: b\n',
  CRLF: 'data:\r\n  a: b\r\n  c: |\r\n    d\r\n    e\r\n',
  'lone CR': 'data:\r  a: b\r',
  'no newline at the end': 'data: {a: b}',
  'explicit tags':
    'data: {a: !!str 1, b: !!int "7", c: !!float 1, d: !!bool "true", e: !!null "", f: !!str yes, g: !!map {h: 1}, i: !!seq [1], j: !!int 0x1f, k: !!float "1.5"}\n',
  'binary tag': 'data: {a: !!binary aGVsbG8=}\n',
  'timestamp tag': 'data: {a: !!timestamp 2024-01-01}\n',
  'set tag': 'data: {a: !!set {x, y}}\n',
  'unknown tag': 'data: {a: !foo x, b: !<tag:example.com,2000:x> y}\n',
  'tag that does not fit': 'data: {a: !!int abc}\n',
  'the same key twice': 'data: {a: 1, a: 2}\n',
  'the same key twice in other spellings': 'data: {1: a, "1": b}\n',
  'the same key twice, deep': 'data:\n  a:\n    b: 1\n    c: 2\n    b: 3\n',
  'an unknown alias': 'data: {a: *nobody}\n',
  'an alias to what is around it': 'data: &x {a: *x}\n',
  'an open quote': 'data: {a: "b}\n',
  'a reserved character': 'data: {a: @b}\n',
  'a percent sign': 'data: {a: %b}\n',
  'a colon in plain text': 'data:\n  a: b: c\n',
  'a URL': 'data:\n  a: http://example.com:80/x?y=z#w\n',
  'a URL in a flow mapping': 'data: {a: http://example.com:80/x?y=z#w}\n',
  'a dash that is text': 'data:\n  a: -x\n  b: - x\n',
  'dashes that are text': 'data: {a: -, b: --, c: ---x}\n',
  'wrong indentation': 'data:\n    a: 1\n  b: 2\n',
  'a list where a key was': 'data:\n  a: 1\n  - b\n',
  'emoji and other planes': 'data: {a: 😀, "ключ": "значение", 鍵: 値}\n',
  'a control character': 'data: {a: "\u0001"}\n',
  'a control character without quotes': 'data: {a: x\u0007y}\n',
  'DEL and C1': 'data: {a: "\u007f", b: "\u0085x"}\n',
  'next line and line separators': 'data:\n  a: x\u2028y\n  b: z\n',
  'a byte order mark inside': 'data: {a: \ufeffb}\n',
  'nothing as value': 'data:\n  a:\n  b: ~\n  c: ""\n  d: null\n  e:\n    -\n    - ~\n',
  'deep nesting': `data: ${'['.repeat(60)}${']'.repeat(60)}\n`,
  'long keys': `data: {${'k'.repeat(1500)}: v}\n`,
  'long explicit keys': `data:\n  ? ${'k'.repeat(1500)}\n  : v\n`,
  'a directive inside': 'data: {a: b}\n%YAML 1.1\n',
  'an end mark': 'data: {a: b}\n...\n',
  'a prototype': 'data: {__proto__: {a: 1}, constructor: x, toString: y}\n',
  'quotes after quotes': 'data: {a: "b" "c"}\n',
  JSON: '{}\n'.replace('{}', '"data": {"a": "b/c", "d": [1.0, 2e3, 0, 1E-2, true, null]}'),
};

// Refused by us alone: what readers take in more than one way, and tags nobody should need.
const ONLY_HERE = [
  'a merge after a key it has',
  'the same key twice',
  'the same key twice in other spellings',
  'the same key twice, deep',
  'unknown tag',
  'binary tag',
  'timestamp tag',
  'set tag',
  'dashes that are text',
  'a directive inside',
];

// Refused by kubectl's reader alone, which is older than YAML 1.2; others read them in one way.
const ONLY_THERE = [
  'an escaped slash',
  'a URL in a flow mapping',
  'DEL and C1',
  'next line and line separators',
  'long keys',
];

for (const [what, body] of Object.entries(DOCUMENTS)) {
  test(`kubectl and we agree on ${what}`, async () => {
    const text = what.includes('CR') ? HEAD.replaceAll('\n', what === 'CRLF' ? '\r\n' : '\r') + body : HEAD + body;
    const [here, there] = [ours(text), await theirs(text)];
    const refuses = (one: object | undefined) => (one === undefined ? 'refused' : 'taken');
    assert.equal(
      refuses(here),
      ONLY_HERE.includes(what) ? 'refused' : ONLY_THERE.includes(what) ? 'taken' : refuses(there),
      JSON.stringify(there),
    );
    if (ONLY_HERE.includes(what)) assert.ok(there !== undefined, 'kubectl refuses it too');
    if (here !== undefined && there !== undefined) assert.deepEqual(here.data ?? null, there.data ?? null);
    if (ONLY_THERE.includes(what)) assert.equal(there, undefined, 'kubectl takes it too');
  });
}
