import { spawn } from 'node:child_process';
import { SUPPORTED, type Versioned } from '../src/model/index.ts';
import { type Choice, readVersions, variablesOf } from './versions.ts';

/**
 * `npm run test:matrix`: the cluster tests on each version of Kubernetes, then the rendering tests with each pair of
 * Helm and Kustomize. `-- kubernetes=1.35,1.36` chooses versions, and with them the rows; files replace the tests.
 * Prints the runner's own totals of each row again at the end. The exit code is the worst.
 */
const CLUSTER = ['--test-force-exit', '--test-global-setup=./test/kit/setup.ts', '--test-concurrency=3'];
const LAST = 200_000; // characters kept of a run's output: failures are listed after the totals
const RENDERING = ['--test-global-setup=./test/kit/setup-unit.ts', '--test-concurrency=2'];

type Row = { readonly choice: Choice; readonly args: readonly string[] };

const asked = process.argv.slice(2);
const isVersion = (argument: string) => argument.includes('=');
const chosen = new Map<Versioned, readonly string[]>(asked.filter(isVersion).map(readVersions));
const files = asked.filter((argument) => !isVersion(argument));
const rows = [...clusterRows(), ...renderingRows()];
const summary: string[] = [];
let worst = 0;
for (const { choice, args } of rows) {
  const name = Object.entries(choice)
    .map(([program, minor]) => `${program} ${minor}`)
    .join(', ');
  process.stdout.write(`\n=== ${name}\n`);
  const begun = Date.now();
  const { code, totals } = await run(args, await variablesOf(choice));
  worst = Math.max(worst, code);
  summary.push(`${name}: ${totals.join(', ')}, exit code ${code}, ${Math.round((Date.now() - begun) / 1000)} s`);
}
process.stdout.write(`\n${summary.join('\n')}\n`);
process.exitCode = worst;

function versionsOf(program: Versioned): readonly string[] {
  return chosen.get(program) ?? Object.keys(SUPPORTED[program]);
}

function clusterRows(): readonly Row[] {
  if (chosen.size > 0 && !chosen.has('Kubernetes')) return [];
  const tests = files.length === 0 ? ['test/cluster/**/*.test.ts'] : files;
  return versionsOf('Kubernetes').map((minor) => ({ choice: { Kubernetes: minor }, args: [...CLUSTER, ...tests] }));
}

function renderingRows(): readonly Row[] {
  if (chosen.size > 0 && !chosen.has('Helm') && !chosen.has('Kustomize')) return [];
  const tests = files.length === 0 ? ['test/{fence,render}/**/*.test.ts'] : files;
  return versionsOf('Helm').flatMap((helm) =>
    versionsOf('Kustomize').map((kustomize) => ({
      choice: { Helm: helm, Kustomize: kustomize },
      args: [...RENDERING, ...tests],
    })),
  );
}

function run(
  args: readonly string[],
  variables: Readonly<Record<string, string>>,
): Promise<{ readonly code: number; readonly totals: readonly string[] }> {
  return new Promise((resolve) => {
    const env = { ...process.env, ...variables };
    const child = spawn(process.execPath, ['--test', '--test-timeout=900000', ...args], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (part: Buffer) => {
      process.stdout.write(part);
      said = (said + part.toString('utf8')).slice(-LAST);
    });
    child.on('close', (code) => resolve({ code: code ?? 1, totals: totalsIn(said) }));
  });
}

// The runner's own lines: `ℹ tests 12`.
function totalsIn(said: string): readonly string[] {
  return ['tests', 'pass', 'fail', 'cancelled', 'skipped'].map((name) => {
    const count = [...said.matchAll(new RegExp(`^\\S+ ${name} (\\d+)$`, 'gm'))].at(-1)?.[1];
    return `${name} ${count ?? '?'}`;
  });
}
