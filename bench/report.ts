import { execFileSync, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openLedger } from '../src/ledger/index.ts';
import { commitId, recordChange } from '../test/kit/report-ledger.ts';
import { median } from './kit/figures.ts';

// A report of many changes, all files of it, made by the package as it is shipped: CPU, memory and sizes; and of ten
// times as many, where that is asked for.
const CHANGES = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 20_000);
const ROUNDS = Number(process.argv.find((a) => a.startsWith('rounds='))?.slice(7) ?? 3);
const AT_ONCE = 256;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TELL = `data:text/javascript,process.on('exit',()=>{const u=process.resourceUsage();process.stderr.write('usage '+JSON.stringify([(u.userCPUTime%2Bu.systemCPUTime)/1e6,u.maxRSS/1024]))})`;
try {
  const countersign = build(join(directory, 'package'));
  const data = join(directory, 'data');
  const ledger = await openLedger(data, 'countersign.dev/bench');
  let n = 0;
  const worker = async () => {
    for (let mine = n++; mine < CHANGES; mine = n++)
      await recordChange(ledger, commitId(mine), { from: commitId(mine - 1), environment: `team-${mine % 10}` });
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await ledger.close();
  process.stderr.write(`${CHANGES} changes are recorded\n`);
  const took: { cpu: number; memory: number; wall: number }[] = [];
  const out = join(directory, 'out');
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now();
    const { stderr } = await run([
      countersign,
      'report',
      '--data',
      data,
      '--out',
      out,
      '--seed',
      'bench',
      '--to',
      '2100-01-01',
    ]);
    const [cpu = 0, memory = 0] = JSON.parse(/usage (\[.*\])/.exec(stderr)?.[1] ?? '[]') as number[];
    took.push({ cpu, memory, wall: (performance.now() - begun) / 1000 });
  }
  const of = (field: 'cpu' | 'memory' | 'wall') => median(took.map((t) => t[field]));
  process.stdout.write(
    `${CHANGES} changes, the whole set, median of ${ROUNDS}: ${of('cpu').toFixed(1)} s of CPU (bar 10 for 20,000), ${of('wall').toFixed(1)} s, ${of('memory').toFixed(0)} MiB at most (bar 500 for 20,000, 1,000 for 200,000)\n`,
  );
  for (const name of readdirSync(out).sort())
    process.stdout.write(`  ${name.padEnd(18)} ${(statSync(join(out, name)).size / 1e6).toFixed(2)} MB\n`);
  if (process.argv.includes('keep')) execFileSync('cp', ['-r', out, '/tmp/countersign-report']);
} finally {
  rmSync(directory, { recursive: true, force: true });
}

// What people install is compiled; from its sources, Node takes types out at each start.
function build(at: string): string {
  mkdirSync(at);
  execFileSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', join(at, 'dist')],
    {
      cwd: ROOT,
    },
  );
  for (const name of ['bin', 'reports', 'policies', 'package.json'])
    cpSync(join(ROOT, name), join(at, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(at, 'node_modules'));
  return join(at, 'bin/countersign.mjs');
}

async function run(args: readonly string[]): Promise<{ stderr: string }> {
  const child = spawn(process.execPath, ['--import', TELL, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const chunks: Buffer[] = [];
  child.stderr.on('data', (c: Buffer) => chunks.push(c));
  const code = await new Promise((done) => child.once('close', done));
  const stderr = Buffer.concat(chunks).toString('utf8');
  if (code !== 0) throw new Error(stderr);
  return { stderr };
}
