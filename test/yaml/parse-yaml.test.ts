import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseYaml, YamlError } from '../../src/yaml/index.ts';

const value = (text: string) => parseYaml(text)[0]?.value;

test('words mean what they mean to the API server', () => {
  assert.deepEqual(value('a: yes\nb: off\nc: 010\nd: 12:30\ne: 2001-01-01\nf: 1e3\ng: ~\nh: "yes"\n'), {
    a: true,
    b: false,
    c: 8,
    d: '12:30',
    e: '2001-01-01',
    f: 1000,
    g: null,
    h: 'yes',
  });
});

test('each value knows its line, and what was not written has its parent’s', () => {
  const [first, second] = parseYaml('# about\na: 1\nlist:\n  - name: x\n    deep: {k: v}\n---\nb: 2\n');
  assert.equal(first?.line, 2);
  assert.equal(first?.lineOf(['list', 0, 'deep', 'k']), 5);
  assert.equal(first?.lineOf(['list', 0, 'missing', 'further']), 4);
  assert.equal(second?.lineOf(['b']), 7);
});

test('merges and aliases become plain copies', () => {
  const parsed = value('base: &b {x: {k: 1}}\nc:\n  <<: *b\nd: *b\n') as {
    base: { x: object };
    c: { x: object };
    d: { x: object };
  };
  assert.deepEqual(parsed.c, { x: { k: 1 } });
  assert.notEqual(parsed.d.x, parsed.base.x);
});

for (const [what, text, line, message] of [
  ['a key written twice', 'a: 1\nb: 2\na: 3\n', 3, /duplicated/],
  ['an open bracket', 'a: [1\nb: 2\n', 1, /`\[` is never closed/],
  ['infinity', 'a: 1\nb: .inf\n', 2, /no JSON form/],
  [
    'a bomb of aliases',
    `a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n${[0, 1, 2, 3, 4, 5, 6].map((i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`).join(',')}]`).join('\n')}\n`,
    undefined,
    /aliases/,
  ],
  ['an alias to what is around it', 'a: &x {b: *x}\n', undefined, /nested more than 100 deep|alias/],
  ['a merge after a key it has', 'a: &x {k: 1}\nb:\n  k: 2\n  <<: *x\n', 4, /`<<` follows `k`/],
  ['a number that would be rounded', 'a: 1\nb: 9007199254740993\n', 2, /beyond 2\^53/],
  ['the largest number of 64 bits', 'a: 1\nb: 9223372036854775807\n', 2, /beyond 2\^53/],
  ['a key that is a fraction', 'a: 1\n1.10: 2\n', 2, /put it in quotes/],
  ['nesting without end', `a: ${'['.repeat(20_000)}`, undefined, /nested more than 100 deep/],
] as const) {
  test(`${what} is refused with its line`, () => {
    assert.throws(
      () => parseYaml(text),
      (thrown: unknown) => {
        assert.ok(thrown instanceof YamlError, String(thrown));
        assert.match(thrown.message, message);
        if (line !== undefined) assert.equal(thrown.line, line);
        return true;
      },
    );
  });
}

test('any text is parsed or refused, never anything else', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: fc.constantFrom(...'a1:-[]{}&*!|>\'"#%@` \n\t<?,') }),
        fc.json(),
      ),
      (text) => {
        try {
          JSON.stringify(parseYaml(text));
        } catch (thrown) {
          assert.ok(thrown instanceof YamlError, `${JSON.stringify(text)}: ${String(thrown)}`);
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('a number beyond 2^53 is taken if its digits stay: definitions of kinds have such limits', () => {
  for (const digits of ['9223372036854775000', '-9223372036854775000', '9007199254740994', '18446744073709552000'])
    assert.equal(JSON.stringify(parseYaml(`a: ${digits}\n`)[0]?.value), `{"a":${digits}}`);
});

test('JSON is YAML', () => {
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.string({ unit: fc.constantFrom(...'abcxyz'), minLength: 1 }),
        fc.oneof(fc.integer(), fc.boolean(), fc.string({ unit: 'grapheme-ascii' })),
      ),
      (object) => {
        assert.deepEqual(parseYaml(JSON.stringify(object))[0]?.value, { ...object });
      },
    ),
  );
});

test('a text that explains nothing takes no longer for it', () => {
  for (const text of [
    `a: [ "${'\\"'.repeat(200_000)}`,
    `a: [\n${'# '.repeat(200_000)}\r\nb`,
    `a: [${'x: ['.repeat(200_000)}`,
  ]) {
    const begun = process.cpuUsage();
    assert.throws(() => parseYaml(text), YamlError);
    const { user } = process.cpuUsage(begun);
    assert.ok(user < 5_000_000, `${user} µs of this process`);
  }
});

test('brackets in comments, quotes and earlier documents are not blamed', () => {
  for (const text of [
    'a: 1 # see [docs\r\nb: "x\n',
    'a: "[\n',
    "a: 'it''s ['\nb:\n- x\n c: 1\n",
    'a: [1]\n---\nb:\n- x\n c: 1\n',
  ])
    assert.throws(
      () => parseYaml(text),
      (thrown: Error) => !/never closed/.test(thrown.message),
      text,
    );
});
