import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { tool } from '../scripts/tools.ts';
import { buildBundle, type PolicyBundle, readBundle } from '../src/bundle/index.ts';
import { PolicyPool } from '../src/policy/index.ts';
import { LoadedRules, type Subject } from '../src/policy/judge-subject.ts';
import { findOnPath } from '../src/tools/index.ts';
import { parseYaml } from '../src/yaml/index.ts';
import { median, print, range, round0 } from './kit/figures.ts';
import { writeTemplates } from './kit/gatekeeper-rules.ts';
import { writeManifests } from './kit/manifests.ts';

// Rules against native OPA, Conftest and Gator on the same rules and objects, turn by turn in one run. Peers are taken
// from the PATH; those that are not there are skipped.
const ROUNDS = 5;
const SMALL = 2000;
const LARGE = 20_000;
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ORDINARY = join(ROOT, 'bench/kit/conftest');
const path = process.env['PATH'] ?? '';
const scope = { environment: 'bench', parameters: {}, now: '1780315200000000000', namespaces: [] };
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
// JavaScript, as the package is published; `dist` would be taken by every other run here
const built = join(ROOT, 'dist-bench');
try {
  execFileSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', built],
    {
      cwd: ROOT,
    },
  );
  const opa = await tool('opa');
  const shipped = await readBundle(readFileSync(join(ROOT, 'policies/dist/bundle.tar.gz')), 'shipped');
  const ordinary = await readBundle((await buildBundle({ opa, roots: [ORDINARY] })).archive, 'ordinary');
  writeManifests(join(directory, 'small'), SMALL);
  writeManifests(join(directory, 'large'), LARGE);
  const subjects = subjectsOf(join(directory, 'small')).slice(0, 500);
  await evaluations(
    'the shipped library',
    shipped,
    subjects,
    'data.countersign.object.deny',
    join(ROOT, 'policies/rules'),
  );
  await evaluations('13 ordinary rules', ordinary, subjects, 'data.main', ORDINARY);
  await throughThread(shipped, subjects);
  await memory(shipped, subjects);
  wholeProcess('small', SMALL, ROUNDS);
  wholeProcess('large', LARGE, 1);
} finally {
  rmSync(directory, { recursive: true, force: true });
  rmSync(built, { recursive: true, force: true });
}

function subjectsOf(from: string): Extract<Subject, { kind: 'object' }>[] {
  return readdirSync(from)
    .sort()
    .map((file) => ({
      kind: 'object',
      json: JSON.stringify(parseYaml(readFileSync(join(from, file), 'utf8'))[0]?.value),
      file,
    }));
}

// On one core. Ours begins with JSON text and ends with findings; OPA begins with a parsed value and ends with its
// result.
async function evaluations(
  what: string,
  bundle: PolicyBundle,
  subjects: readonly Extract<Subject, { kind: 'object' }>[],
  query: string,
  rules: string,
): Promise<void> {
  const inputs = join(directory, 'inputs.jsonl');
  writeFileSync(
    inputs,
    subjects
      .map((s) =>
        query === 'data.main'
          ? s.json
          : `{"environment":"bench","parameters":{},"file":${JSON.stringify(s.file)},"object":${s.json}}`,
      )
      .join('\n'),
  );
  const native = await tool('opa-rate').catch(() => undefined);
  const loaded = await LoadedRules.open([bundle]);
  const ours: number[] = [];
  const theirs: number[] = [];
  let found = 0;
  let foundThere = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const started = performance.now();
    let count = 0;
    while (performance.now() - started < 3000) {
      found = 0;
      for (const subject of subjects) found += loaded.judge(subject, scope).findings.length;
      count += subjects.length;
    }
    ours.push((count / (performance.now() - started)) * 1000);
    if (native === undefined) continue;
    const said = JSON.parse(execFileSync(native, [rules, query, inputs, '3'], { encoding: 'utf8' })) as {
      rate: number;
      found: number;
    };
    theirs.push(said.rate);
    foundThere = said.found;
  }
  print(
    `${what}, one core: ${round0(median(ours))} evaluations/s (${range(ours)}), ${found} findings in ${subjects.length} objects`,
  );
  if (theirs.length > 0)
    print(
      `  native OPA: ${round0(median(theirs))}/s (${range(theirs)}), ${foundThere} findings; ratio ${(median(ours) / median(theirs)).toFixed(2)}`,
    );
  else print('  native OPA: skipped, there is no Go here');
}

// Beside a thread that only sends back what it got: the machine's own price of the way there and back.
async function throughThread(bundle: PolicyBundle, subjects: readonly Subject[]): Promise<void> {
  const pool = new PolicyPool([bundle], { threads: 1 });
  const echo = new Worker(
    "const { parentPort } = require('node:worker_threads'); parentPort.on('message', (m) => parentPort.postMessage(m.id))",
    { eval: true },
  );
  const asked: number[] = [];
  const echoed: number[] = [];
  const time = async (times: number[], run: () => Promise<unknown>) => {
    const started = performance.now();
    await run();
    times.push(performance.now() - started);
  };
  for (let i = 0; i < 12_000; i++) {
    const subject = subjects[i % subjects.length] as Subject;
    await time(asked, () => pool.judge([subject], scope));
    await time(echoed, () => {
      const answer = once(echo, 'message');
      echo.postMessage({ id: i, scope, subjects: [subject] });
      return answer;
    });
  }
  await Promise.all([pool.close(), echo.terminate()]);
  const at = (times: readonly number[], p: number) => {
    const sorted = times.slice(2000).sort((a, b) => a - b);
    return (sorted[Math.floor(sorted.length * p)] ?? Number.NaN).toFixed(3);
  };
  print(
    `one object through the thread, the shipped library, 10,000 times: median ${at(asked, 0.5)} ms, p99 ${at(asked, 0.99)} ms`,
  );
  print(`  the same message to a thread that only answers: median ${at(echoed, 0.5)} ms, p99 ${at(echoed, 0.99)} ms`);
}

async function memory(bundle: PolicyBundle, subjects: readonly Subject[]): Promise<void> {
  const pool = new PolicyPool([bundle]);
  const mib: number[] = [];
  for (let done = 0; done < 100_000; ) {
    for (const until = done + 10_000; done < until; done += subjects.length) await pool.judge(subjects, scope);
    mib.push(process.memoryUsage.rss() / 1024 / 1024);
  }
  await pool.close();
  print(`resident memory after each 10,000 of 100,000 evaluations, MiB: ${mib.map(round0).join(' ')}`);
}

type Run = { readonly seconds: number; readonly cpu: number; readonly mib: number; readonly findings: number };

function wholeProcess(size: string, count: number, rounds: number): void {
  const manifests = join(directory, size);
  const templates = join(directory, 'templates');
  const number = writeTemplates(readFileSync(join(ORDINARY, 'rules.rego'), 'utf8'), templates);
  const main = join(built, 'main.js');
  const check = (policy: string, form: string) => [
    process.execPath,
    main,
    'check',
    '--manifests',
    manifests,
    '--policy',
    policy,
    '--output',
    form,
  ];
  const bundle = join(directory, 'bundles');
  mkdirSync(bundle, { recursive: true });
  for (const [name, root] of [
    ['rego', ORDINARY],
    ['templates', templates],
  ] as const)
    execFileSync(process.execPath, [main, 'policy', 'build', root, '--bundle', join(bundle, `${name}.tar.gz`)], {
      stdio: 'ignore',
    });
  const [conftest, gator] = [findOnPath('conftest', path), findOnPath('gator', path)];
  const contestants: [string, string[] | undefined, (out: string) => number][] = [
    ['countersign, Rego', check(ORDINARY, 'json'), ourFindings],
    ['countersign, the bundle of it', check(join(bundle, 'rego.tar.gz'), 'json'), ourFindings],
    [
      'conftest',
      conftest === undefined
        ? undefined
        : [
            conftest,
            'test',
            manifests,
            '--policy',
            ORDINARY,
            '--all-namespaces',
            '--output',
            'json',
            '--parser',
            'yaml',
          ],
      (out) => (JSON.parse(out) as { failures?: unknown[] }[]).reduce((n, f) => n + (f.failures?.length ?? 0), 0),
    ],
    ['countersign, templates', check(templates, 'json'), ourFindings],
    [
      'gator',
      gator === undefined || count > SMALL
        ? undefined
        : [gator, 'test', '-f', manifests, '-f', templates, '-o', 'json'],
      (out) =>
        (JSON.parse(out) as { violatingObject?: { metadata?: { namespace?: string } } }[]).filter(
          (r) => r.violatingObject?.metadata?.namespace !== undefined,
        ).length, // not the templates themselves
    ],
  ];
  const rows = new Map<string, Run[]>();
  for (let round = 0; round < rounds; round++)
    for (const [name, command, findings] of contestants)
      if (command !== undefined) rows.set(name, [...(rows.get(name) ?? []), timed(command, findings)]);
  print(
    `${round0(count)} manifests, ${number} rules, whole process, ${rounds} round(s), ${availableParallelism()} cores:`,
  );
  const wall = (name: string) => median((rows.get(name) ?? []).map((r) => r.seconds));
  for (const [name, command] of contestants) {
    const runs = rows.get(name);
    if (runs === undefined)
      print(`  ${name}: ${command === undefined ? 'skipped, it is not on the PATH or not asked for this many' : ''}`);
    else
      print(
        `  ${name}: ${wall(name).toFixed(2)} s (${runs.map((r) => r.seconds.toFixed(2)).join(' ')}), cores used ${median(runs.map((r) => r.cpu / r.seconds)).toFixed(2)}, peak ${round0(median(runs.map((r) => r.mib)))} MiB, ${runs[0]?.findings} findings`,
      );
  }
  for (const [ours, peer] of [
    ['countersign, Rego', 'conftest'],
    ['countersign, templates', 'gator'],
  ] as const)
    if (rows.has(peer)) print(`  ratio to ${peer}: ${(wall(ours) / wall(peer)).toFixed(2)}`);
}

function ourFindings(out: string): number {
  return (JSON.parse(out) as { findings: { level: string }[] }).findings.filter((f) => f.level === 'error').length;
}

function timed([program, ...args]: string[], findings: (out: string) => number): Run {
  const started = performance.now();
  // GNU time's figures of the whole process: seconds of user and system, peak resident KiB.
  const result = spawnSync('/usr/bin/env', ['time', '-f', '%U %S %M', program as string, ...args], {
    maxBuffer: 1 << 30,
    encoding: 'utf8',
  });
  const seconds = (performance.now() - started) / 1000;
  const [user, system, kib] = (result.stderr.trim().split('\n').at(-1) ?? '').split(' ').map(Number);
  if (kib === undefined) throw new Error(`${program}: ${result.stderr.slice(-500)}`);
  return { seconds, cpu: (user ?? 0) + (system ?? 0), mib: kib / 1024, findings: findings(result.stdout) };
}
