import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { readBundle, readExamples } from '../../src/bundle/index.ts';
import { PolicyPool } from '../../src/policy/index.ts';
import { RegoModule, toJson } from '../../src/rego/index.ts';
import { shippedBundle, shippedRules } from '../kit/judge.ts';
import { deployment } from '../kit/manifests.ts';
import { ask, bundleOf, filesIn, rulesOf, said } from '../kit/rules.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const opa = await tool('opa');
const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: {}\n';
const own = (body: string) => ({ 'rule.rego': `package countersign.object\n${body}` });

// The examples of the library as the data that its Rego tests read.
function examplesFile(): string {
  const examples = readExamples(join(ROOT, 'policies'));
  const root = filesIn({
    'examples.json': JSON.stringify({ examples: Object.fromEntries(examples.map((e) => [e.name, e])) }),
  });
  return join(root, 'examples.json');
}

test('the shipped rules pass their own Rego tests, every line covered', () => {
  const files = ['policies/rules', 'policies/tests', examplesFile()];
  const out = JSON.parse(
    execFileSync(opa, ['test', ...files, '--coverage', '--format', 'json'], { cwd: ROOT, encoding: 'utf8' }),
  ) as {
    coverage: number;
  };
  assert.equal(out.coverage, 100);
  assert.match(execFileSync(opa, ['test', ...files], { cwd: ROOT, encoding: 'utf8' }), /PASS: \d+\/\d+/);
});

test('every rule of the library has METADATA, controls, remediation, and examples that fail and pass', async () => {
  const { rules } = (await shippedBundle()).manifest;
  const examples = readExamples(join(ROOT, 'policies'));
  assert.ok(rules.length >= 55, String(rules.length));
  for (const rule of rules) {
    assert.ok(
      rule.title && rule.description && rule.severity && rule.remediation && (rule.controls ?? []).length > 0,
      rule.id,
    );
    const own = examples.filter((e) => e.rule === rule.id);
    assert.ok(own.some((e) => e.fail.length > 0) && own.some((e) => e.pass.length > 0), rule.id);
  }
  assert.deepEqual(
    examples.filter((e) => !rules.some((r) => r.id === e.rule)).map((e) => e.name),
    [],
  );
});

test('a violation names rule, title, severity, controls, object, file, line, column and what to do', async () => {
  const { violations } = await ask(await shippedRules(), deployment('shop', 'web', { privileged: true }));
  const [first] = violations.filter((v) => v.rule === 'privileged');
  assert.deepEqual(
    [first?.severity, first?.source?.file, first?.source?.line, first?.object?.name],
    ['critical', 'clusters/production/web.yaml', 23, 'web'],
  );
  assert.ok((first?.source?.column ?? 0) > 1);
  assert.match(first?.hint ?? '', /capabilities/);
  assert.ok((first?.controls ?? []).includes('CC6.1'));
  assert.match(first?.title ?? '', /privileged/i);
});

test('Wasm and native opa give the same answer on the same input', async () => {
  const object = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'a' },
    spec: { hostNetwork: true, containers: [{ name: 'x', image: 'x' }] },
  };
  const input = JSON.stringify({
    object,
    environment: 'production',
    parameters: { requiredLabels: ['owner'] },
    file: 'x',
  });
  const native = JSON.parse(
    execFileSync(opa, ['eval', '-I', '-d', 'policies/rules', 'data.countersign.object.deny'], {
      cwd: ROOT,
      input,
      encoding: 'utf8',
    }),
  ) as {
    result: [{ expressions: [{ value: object[] }] }];
  };
  const bundle = await shippedBundle();
  const module = await RegoModule.open(bundle.wasm, bundle.data);
  const ours = toJson(module.withInput(input, { now: 0n })('countersign/object/deny') ?? null) as object[];
  const sorted = (set: object[]) => set.map((x) => JSON.stringify(x, Object.keys(x).sort())).sort();
  assert.deepEqual(sorted(ours), sorted(native.result[0].expressions[0].value));
  assert.ok(ours.length >= 4);
});

test('the digest is that of the rules, whenever and wherever they were built', async () => {
  const rule = own('deny contains "no" if input.object.kind == "Pod"');
  const [a, b, c] = [
    await bundleOf(rule),
    await bundleOf(rule),
    await bundleOf(own('deny contains "no" if input.object.kind == "Job"')),
  ];
  assert.equal(a.digest, b.digest);
  assert.equal(a.digest.length, 64);
  assert.notEqual(a.digest, c.digest);
});

test('what a rule read of a Secret goes into no finding', async () => {
  const pool = await rulesOf(
    own(
      'deny contains {"rule": "leak", "message": sprintf("%v", [input.object]), "hint": base64.decode(input.object.data.token)} if input.object.kind == "Secret"',
    ),
  );
  const found = await ask(
    pool,
    'apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\ndata: {token: aHVudGVyMg==}\nstringData: {pin: 0123, user: correct-horse}\n',
  );
  assert.equal(found.violations.length, 1);
  assert.doesNotMatch(JSON.stringify(found), /hunter2|aHVudGVyMg|correct-horse/);
  assert.match(found.violations[0]?.message ?? '', /"token": "\(hidden\)"/);
});

test('text is a finding too', async () => {
  assert.deepEqual(said(await ask(await rulesOf(own('deny contains "no pods" if input.object.kind == "Pod"')), POD)), [
    'unnamed: Pod shop/a: no pods',
  ]);
});

for (const [what, body, code, message] of [
  [
    'conflicts with itself',
    'deny := {"a"} if input.object.kind == "Pod"\ndeny := {"b"} if input.object.metadata.name == "a"',
    'policy-failed',
    /conflict/,
  ],
  ['is undefined', 'deny := {"a"} if input.object.kind == "Nothing"', 'policy-undefined', /undefined for this input/],
  [
    'answers with an object',
    'deny := {"allowed": true}',
    'policy-wrong-shape',
    /something other than a set of findings/,
  ],
  [
    'answers with a number among its findings',
    'deny contains 7',
    'policy-wrong-shape',
    /something other than a set of findings/,
  ],
  [
    'answers with a finding without text',
    'deny contains {"rule": "x"}',
    'policy-wrong-shape',
    /something other than a set of findings/,
  ],
] as const) {
  test(`a rule that ${what} denies with a code of its own, and the rules go on`, async () => {
    const pool = await rulesOf(own(body));
    const found = await ask(pool, POD);
    assert.deepEqual(
      found.violations.map((v) => v.code),
      [code],
    );
    assert.match(found.violations[0]?.message ?? '', message);
    assert.deepEqual((await ask(pool, POD)).violations, found.violations);
  });
}

test('a rule that takes too long denies what it was asked about, and the others are judged', async () => {
  const slow =
    'deny contains "slow" if { input.object.metadata.name == "slow"; a := concat("", ["a" | some _ in numbers.range(1, 600000)]); contains(a, concat("", [substring(a, 0, 300000), "b"])) }\ndeny contains "seen" if input.object.kind == "Pod"';
  const pool = await rulesOf(own(slow), { deadline: 3000 });
  const names = ['a', 'b', 'slow', 'c', 'd'];
  const found = await ask(pool, names.map((n) => `apiVersion: v1\nkind: Pod\nmetadata: {name: ${n}}\n`).join('---\n'));
  assert.deepEqual(
    found.violations.map((v) => [v.object?.name, v.code]),
    [
      ['a', 'policy'],
      ['b', 'policy'],
      ['slow', 'policy-timeout'],
      ['c', 'policy'],
      ['d', 'policy'],
    ],
  );
});

test('a rule that takes too long is ended also where other threads have nothing to do', async () => {
  const pool = await rulesOf(
    own(
      'deny contains "slow" if { input.object.metadata.name == "slow"; a := concat("", ["a" | some _ in numbers.range(1, 600000)]); contains(a, concat("", [substring(a, 0, 300000), "b"])) }\ndeny contains "seen" if input.object.kind == "Pod"',
    ),
    { threads: 2, deadline: 3000 },
  );
  const pods = (...names: string[]) =>
    names.map((name) => `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\n`).join('---\n');
  pool.warm();
  await ask(pool, pods('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i')); // both threads are there
  assert.deepEqual(
    (await ask(pool, pods('slow'))).violations.map((v) => v.code),
    ['policy-timeout'],
  );
});

test('others who wait for the thread that was ended get their answers from the next', async () => {
  const endless =
    'deny contains "slow" if { input.object.metadata.name == "slow"; a := concat("", ["a" | some _ in numbers.range(1, 600000)]); contains(a, concat("", [substring(a, 0, 300000), "b"])) }\ndeny contains "seen" if input.object.kind == "Pod"';
  const pool = await rulesOf(own(endless), { deadline: 3000 });
  const of = (name: string) => ask(pool, `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\n`);
  const found = await Promise.all([of('slow'), of('a'), of('slow'), of('b')]);
  assert.deepEqual(
    found.map((f) => f.violations.map((v) => v.code)),
    [['policy-timeout'], ['policy'], ['policy-timeout'], ['policy']],
  );
});

test('rules that are closed while they are asked say so to everybody who waits', async () => {
  const pool = await rulesOf(own('deny contains "seen" if input.object.kind == "Pod"'));
  const asked = [ask(pool, POD), ask(pool, POD), ask(pool, POD)];
  const told = Promise.all(asked.map((a) => assert.rejects(a, { code: 'policy-failed', message: /closed during/ })));
  await pool.close();
  await told;
});

test('rules are closed at any moment of their start, and the process ends by itself', () => {
  const file = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const script = `
    import { readFileSync } from 'node:fs';
    import { setTimeout as wait } from 'node:timers/promises';
    const { readBundle } = await import(${file('bundle/index.ts')});
    const { PolicyPool } = await import(${file('policy/index.ts')});
    const bundle = await readBundle(readFileSync('policies/dist/bundle.tar.gz'), 'shipped');
    const asleep = new Int32Array(new SharedArrayBuffer(4));
    for (const ms of [0, 50, 2000]) {
      const pool = new PolicyPool([bundle], { threads: 2 });
      pool.warm();
      await wait(1);
      Atomics.wait(asleep, 0, 0, ms); // what the threads say meanwhile is heard only after the end was asked for
      await pool.close();
    }`;
  execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
  });
});

test('a rule that takes memory without end denies, and the memory comes back', async () => {
  const greedy =
    'deny contains "big" if { input.object.metadata.name == "big"; count({sprintf("%d-%d", [a, b]) | some a in numbers.range(1, 4000); some b in numbers.range(1, 4000)}) == 0 }';
  const pool = await rulesOf(own(greedy), { deadline: 30_000 });
  const found = await ask(pool, 'apiVersion: v1\nkind: Pod\nmetadata: {name: big}\n');
  assert.match(found.violations[0]?.code ?? '', /policy-failed|policy-out-of-memory/);
  assert.deepEqual((await ask(pool, POD)).violations, []);
  assert.ok(pool.memory < 8 * 1024 * 1024, `${pool.memory}`);
});

test('a rule that aborts ten thousand times leaves the others their answers', async () => {
  const module = await RegoModule.open(
    (
      await bundleOf(
        own(
          'deny := {"a"} if input.object.bad\ndeny := {"b"} if input.object.bad\ndeny := set() if not input.object.bad',
        ),
      )
    ).wasm,
  );
  const context = { now: 0n };
  for (let i = 0; i < 10_000; i++)
    assert.throws(() => module.withInput('{"object":{"bad":true}}', context)('countersign/object/deny'), {
      code: 'policy-failed',
    });
  assert.deepEqual(toJson(module.withInput('{"object":{}}', context)('countersign/object/deny') ?? null), []);
});

for (const [what, value, code] of [
  ['20,000 values deep', `${'['.repeat(20_000)}${']'.repeat(20_000)}`, 'policy-input-too-deep'],
  ['larger than any manifest', JSON.stringify('x'.repeat(17 * 1024 * 1024)), 'policy-input-too-large'],
] as const) {
  test(`an input that is ${what} is denied before a rule is asked`, async () => {
    const pool = await rulesOf(own('deny contains "never" if input.object.kind == "Never"'));
    const [judged] = await pool.judge(
      [{ kind: 'object', json: `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"x":${value}}`, file: 'a' }],
      { environment: 'p', parameters: {}, now: '0', namespaces: [] },
    );
    assert.deepEqual(
      judged?.findings.map((f) => f.code),
      [code],
    );
  });
}

test('an input that takes more memory than there is denies, and the next is judged', async () => {
  const pool = await rulesOf(own('deny contains "seen" if input.object.kind == "Pod"'));
  const judge = async (x: string) => {
    const json = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"x":${x}}`;
    const [judged] = await pool.judge([{ kind: 'object', json, file: 'a' }], {
      environment: 'p',
      parameters: {},
      now: '0',
      namespaces: [],
    });
    return judged?.findings.map((f) => f.code);
  };
  assert.deepEqual(await judge(`[${'{"a":1},'.repeat(1_900_000)}0]`), ['policy-failed']);
  assert.deepEqual(await judge('1'), ['policy']);
});

test('now is one moment for all of a decision, and the one that was given', async () => {
  const pool = await rulesOf(own('deny contains sprintf("%d", [time.now_ns()])'));
  assert.deepEqual(said(await ask(pool, POD)), ['unnamed: Pod shop/a: 1780315200000000000']);
});

for (const [what, bytes] of [
  ['garbage', Buffer.from('x')],
  ['an empty file', Buffer.alloc(0)],
] as const) {
  test(`${what} is no bundle`, async () =>
    assert.rejects(readBundle(bytes, 'mine.tar.gz'), { code: 'policy-unusable', message: /`mine\.tar\.gz`/ }));
}

test('a bundle without rules that deny is refused', async () => {
  await assert.rejects(bundleOf(own('warn contains "x" if input.object')), {
    code: 'policy-unusable',
    message: /no rule that denies/,
  });
});

for (const name of [
  'http.send({"method": "get", "url": "http://x"})',
  'opa.runtime()',
  'rand.intn("a", 3)',
  'net.lookup_ip_addr("x")',
  'uuid.rfc4122("x")',
]) {
  test(`the builtin ${name.split('(')[0]} is refused when rules are built`, async () => {
    await assert.rejects(bundleOf(own(`deny contains "x" if ${name}`)), {
      code: 'policy-unusable',
      message: new RegExp(`\`${name.split('(')[0]}\` is refused`),
    });
  });
}

test('a module that was built with such a builtin is refused when it is loaded, by name', async () => {
  const { mkdtempSync, readFileSync, writeFileSync } = await import('node:fs');
  const at = mkdtempSync('/tmp/countersign-test-');
  writeFileSync(`${at}/a.rego`, 'package main\nimport rego.v1\ndeny contains "x" if rand.intn("a", 3) == 1');
  execFileSync(opa, ['build', '-t', 'wasm', '-e', 'main/deny', '-o', `${at}/b.tar.gz`, `${at}/a.rego`]);
  await assert.rejects(readBundle(readFileSync(`${at}/b.tar.gz`), 'theirs'), {
    code: 'policy-unusable',
    message: /`rand\.intn` \(it returns something different each time\)/,
  });
});

test('a module of another ABI is refused', async () => {
  // an import section that is cut off
  const wat = Buffer.from('0061736d010000000208010003656e76066d656d6f72790200', 'hex');
  await assert.rejects(RegoModule.open(wat), { code: 'policy-unusable' });
  const empty = Buffer.from('0061736d01000000', 'hex');
  await assert.rejects(RegoModule.open(empty), { code: 'policy-unusable', message: /imports no memory/ });
  const memoryOnly = Buffer.concat([
    Buffer.from('0061736d01000000', 'hex'),
    Buffer.from('020f0103656e76066d656d6f72790200 05'.replace(' ', ''), 'hex'),
  ]);
  await assert.rejects(RegoModule.open(memoryOnly), { code: 'policy-unusable', message: /ABI version unknown/ });
});

test('closed rules are not asked', async () => {
  const pool = new PolicyPool([await shippedBundle()]);
  await pool.close();
  await assert.rejects(pool.judge([], { environment: '', parameters: {}, now: '0', namespaces: [] }), {
    code: 'policy-failed',
  });
});
