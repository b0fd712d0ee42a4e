import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { ReadingProcess } from '../../src/fence/index.ts';
import type { SourceFile } from '../../src/render/index.ts';
import { LIMITS } from '../kit/rendering.ts';

const MIB = 1024 * 1024;
const reading = new ReadingProcess();
after(() => reading.close());

const file = (path: string, text: string): SourceFile => ({ path, mode: '100644', content: Buffer.from(text) });
const configMap = (name: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: shop}\n`;
const tiny = (count: number) => Array.from({ length: count }, (_, i) => configMap(`c${i}`)).join('---\n');
const codes = (files: readonly { violations: readonly { code: string }[] }[]) =>
  files.map((f) => f.violations.map((v) => v.code));

test('files are read as this process would read them, places included', async () => {
  const text = `${configMap('a')}data:\n  colour: "\${COLOUR}"\n---\n${configMap('b')}`;
  const [read] = await reading.files([file('x.yaml', text)], LIMITS, { COLOUR: 'red' });
  assert.deepEqual(
    read?.objects.map((o) => [o.ref.name, o.source.line, o.object['data'], o.positionOf(['data', 'colour'])]),
    [
      ['a', 1, { colour: 'red' }, { line: 5, column: 12 }],
      ['b', 7, undefined, { line: 7, column: 1 }],
    ],
  );
});

test('a file that takes more memory than it may is a refusal, and the next one is read', async () => {
  const limits = { ...LIMITS, memory: 128 * MIB };
  const [refused] = await reading.files([file('huge.yaml', tiny(100_000))], limits, undefined);
  assert.deepEqual(codes(refused === undefined ? [] : [refused]), [['render-too-large']]);
  assert.match(refused?.violations[0]?.message ?? '', /reading `huge.yaml` takes more than 128 MiB of memory/);
  assert.equal((await reading.files([file('a.yaml', configMap('a'))], limits, undefined))[0]?.objects.length, 1);
});

test('one file that takes too much memory lets none of those beside it pass', async () => {
  const limits = { ...LIMITS, memory: 128 * MIB };
  const read = await reading.files(
    [file('a.yaml', configMap('a')), file('huge.yaml', tiny(100_000)), file('b.yaml', configMap('b'))],
    limits,
    undefined,
  );
  assert.deepEqual(codes(read), [['render-too-large'], ['render-too-large'], ['render-too-large']]);
});

test('a file that takes longer than it may is a refusal', async () => {
  const [refused] = await reading.files([file('long.yaml', tiny(15_000))], { ...LIMITS, ms: 1 }, undefined);
  assert.match(refused?.violations[0]?.message ?? '', /reading `long.yaml` takes longer than 0.001 s/);
  assert.match(refused?.violations[0]?.hint ?? '', /spec.render.limits.time/);
});

test('what several files hold beyond the limits together is not handed over', async () => {
  const read = await reading.files(
    [file('a.yaml', tiny(20)), file('b.yaml', tiny(20))],
    { ...LIMITS, objects: 30 },
    undefined,
  );
  assert.deepEqual(
    read.map((f) => [f.objects.length, f.size.objects]),
    [
      [20, 20],
      [0, 20],
    ],
  );
});

test('texts that are no YAML, or take too much, are told apart from those that have no documents', async () => {
  assert.deepEqual(await reading.texts(['a: 1\n---\nb: 2\n', ''], LIMITS), {
    kind: 'values',
    values: [[{ a: 1 }, { b: 2 }], []],
  });
  assert.equal((await reading.texts(['a: ['], LIMITS)).kind, 'unreadable');
  const large = await reading.texts([tiny(100_000)], { ...LIMITS, memory: 128 * MIB });
  assert.deepEqual([large.kind, large.kind === 'exceeded' && large.limit], ['exceeded', 'memory']);
});

test('texts whose aliases hold more than they may are not handed over, and the limit is named', async () => {
  const bomb = `a: &a "${'x'.repeat(MIB)}"\nb: [${'*a,'.repeat(800)}*a]\n`;
  const before = process.memoryUsage().rss;
  for (const [texts, limits, limit, text] of [
    [[bomb], LIMITS, 'size', 'holds more than 33554432 bytes'],
    [{ ordered: [bomb] }, LIMITS, 'size', 'holds more than 33554432 bytes'],
    [['a: 1\n', `a: [${'1,'.repeat(99)}1]\n`], { ...LIMITS, values: 100 }, 'values', 'holds more than 100 values'],
    [['a: 1\n', 'a: 1\n---\na: 1\n'], { ...LIMITS, objects: 2 }, 'objects', 'holds more than 2 objects'],
  ] as const)
    assert.deepEqual(await reading.texts(texts, limits), { kind: 'exceeded', limit, text });
  assert.ok(process.memoryUsage().rss - before < 150 * MIB);
});

test('texts are given in the order they are written in where that is asked', async () => {
  const { values } = (await reading.texts({ ordered: ['z: 1\n"80": 2\n"8": 3\n'] }, LIMITS)) as { values: unknown };
  assert.deepEqual(values, [
    [
      {
        mapping: [
          ['z', 1],
          ['80', 2],
          ['8', 3],
        ],
      },
    ],
  ]);
});

test('nine files of very many wrong items are nine refusals, and take little memory here', async () => {
  const path = `${'d/'.repeat(100)}a.yaml`;
  const items = `apiVersion: v1\nkind: List\nitems: [${'1,'.repeat(99_999)}1]\n`;
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 9; i++) {
    const [read] = await reading.files([file(path, items)], LIMITS, undefined);
    assert.equal(read?.violations.length, 101);
    assert.match(read?.violations[100]?.message ?? '', /at least 100000 violations/);
  }
  assert.ok(process.memoryUsage().rss - before < 150 * MIB);
});

test('a process that someone else ended is replaced, idle or busy, and nothing is refused for it', {
  skip: process.platform !== 'linux',
}, async () => {
  const own = new ReadingProcess();
  const ask = () => own.files([file('a.yaml', configMap('a'))], LIMITS, undefined);
  const kill = () => process.kill(Number(childOf(process.pid, 'reading-child')), 'SIGKILL');
  try {
    for (const pause of [undefined, 0, 1, 5, 50]) {
      await ask();
      kill();
      if (pause !== undefined) await setTimeout(pause);
      for (const [read] of await Promise.all([ask(), ask()]))
        assert.deepEqual([read?.objects.length, read?.violations], [1, []], `after ${pause} ms`);
    }
    const busy = own.files([file('long.yaml', tiny(15_000))], LIMITS, undefined);
    const next = ask();
    await setTimeout(100);
    kill();
    assert.equal((await busy)[0]?.objects.length, 15_000);
    assert.equal((await next)[0]?.objects.length, 1);
  } finally {
    own.close();
  }
});

test('a process that is ended again and again is an error to try again, never a refusal', {
  skip: process.platform !== 'linux',
}, async () => {
  const own = new ReadingProcess();
  const killed = new Set<string>();
  await own.files([file('a.yaml', configMap('a'))], LIMITS, undefined);
  const others = new Set(childrenOf(process.pid, 'reading-child').slice(0, -1));
  const killer = setInterval(() => {
    for (const pid of childrenOf(process.pid, 'reading-child').filter((id) => !others.has(id) && !killed.has(id))) {
      killed.add(pid);
      process.kill(Number(pid), 'SIGKILL');
    }
  }, 20);
  try {
    await assert.rejects(own.files([file('long.yaml', tiny(15_000))], LIMITS, undefined), {
      code: 'render-failed',
      recover: 'retry',
      message: /died twice \(SIGKILL\)/,
    });
    assert.equal(killed.size, 2);
  } finally {
    clearInterval(killer);
    own.close();
  }
});

test('many questions at once are all answered', async () => {
  const read = await Promise.all(
    Array.from({ length: 20 }, (_, i) => reading.files([file('a.yaml', configMap(`n${i}`))], LIMITS, undefined)),
  );
  assert.deepEqual(
    read.map(([f]) => f?.objects[0]?.ref.name),
    Array.from({ length: 20 }, (_, i) => `n${i}`),
  );
});

test('once closed nothing is read, and that is an error, not an empty file', async () => {
  const closed = new ReadingProcess();
  closed.close();
  await assert.rejects(closed.files([file('a.yaml', configMap('a'))], LIMITS, undefined), {
    code: 'render-failed',
    recover: 'retry',
  });
});

test('the process has no environment, goes last where memory is short, and may write no file', {
  skip: process.platform !== 'linux',
}, async () => {
  const own = new ReadingProcess();
  try {
    await own.files([file('a.yaml', configMap('a'))], LIMITS, undefined);
    const pid = childOf(process.pid, 'reading-child');
    assert.equal(readFileSync(`/proc/${pid}/environ`, 'utf8').includes('PATH='), false);
    assert.equal(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim(), '1000');
    const started = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    assert.ok(
      started.includes('--permission') && !started.some((a) => /^--allow-(?!fs-read)/.test(a)),
      started.join(' '),
    );
  } finally {
    own.close();
  }
});

/** The newest child of a process whose command line has a word in it. */
function childOf(pid: number, word: string): string {
  const found = childrenOf(pid, word).at(-1);
  assert.ok(found, `no child of ${pid} runs ${word}`);
  return found;
}

/** Children of a process whose command lines have a word in them, oldest first. */
function childrenOf(pid: number, word: string): string[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ');
  return children.filter((id) => id.trim() !== '' && readFileSync(`/proc/${id}/cmdline`, 'utf8').includes(word));
}
