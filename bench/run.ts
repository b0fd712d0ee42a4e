import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { tool } from '../scripts/tools.ts';
import { configMap, deployment, namespace, service } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';

// Push to applied, against kubectl on the same objects and the same control plane, turn by turn in one run.
const OBJECTS = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 500);
const ROUNDS = 3;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
const kubectl = await tool('kubectl', { pinned: true });
try {
  const rows: Record<string, number[]> = {};
  const note = (what: string, ms: number) => {
    rows[what] = [...(rows[what] ?? []), ms];
  };
  for (let round = 1; round <= ROUNDS; round++) {
    process.stderr.write(`round ${round} of ${ROUNDS}: ${OBJECTS} objects\n`);
    await countersignRound(round, note);
    kubectlRound(round, note);
  }
  print(rows);
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

function objects(ns: string): Record<string, string> {
  const files: Record<string, string> = { 'ns.yaml': namespace(ns) };
  for (let i = 0; i < OBJECTS - 1; i++) {
    const name = `app-${String(i).padStart(4, '0')}`;
    files[`${name}.yaml`] =
      i % 5 < 2
        ? deployment(ns, name)
        : i % 5 < 3
          ? service(ns, name)
          : configMap(ns, name, { key: `value ${i}`, text: 'x'.repeat(600) });
  }
  return files;
}

// The clock starts at the push of an approved commit; the service looks every 500 ms. Signatures, approvals, rules, dry
// run, ledger and admission webhook are all in it.
async function countersignRound(round: number, note: (what: string, ms: number) => void): Promise<void> {
  const ns = `bench-${round}`;
  const fleet = stage.fleet(ns);
  const configuration = stage.configuration(ns, [{ url: fleet.url, namespaces: [ns], interval: '500ms' }]);
  const seed = await stage.change(fleet, 'seed', { 'clusters/production/ns.yaml': namespace(ns) });
  const running = await stage.serve(configuration, ns);
  await running.entry('apply.result', 'production', (e) => e.revision === seed);
  const push = async (what: string, files: Record<string, string>) => {
    const commit = await stage.change(
      fleet,
      what,
      Object.fromEntries(Object.entries(files).map(([f, t]) => [`clusters/production/${f}`, t])),
    );
    const pushed = performance.now();
    await running.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied', 120_000);
    note(what, performance.now() - pushed);
  };
  await push(`countersign: push to applied, ${OBJECTS} new objects`, objects(ns));
  await push(`countersign: push to applied, 1 of ${OBJECTS} changed`, {
    'app-0003.yaml': configMap(ns, 'app-0003', { key: 'changed' }),
  });
  const rss = Number(
    /VmHWM:\s+(\d+)/.exec(execFileSync('cat', [`/proc/${running.pid}/status`], { encoding: 'utf8' }))?.[1] ?? 0,
  );
  note('countersign: peak memory, MiB', rss / 1024);
  await stage.stopServices();
}

function kubectlRound(round: number, note: (what: string, ms: number) => void): void {
  const ns = `peer-${round}`;
  const at = join(directory, ns);
  mkdirSync(at);
  for (const [file, text] of Object.entries(objects(ns))) writeFileSync(join(at, file), text);
  const apply = (...more: string[]) =>
    execFileSync(kubectl, ['--kubeconfig', stage.controlPlane.kubeconfig('admin'), 'apply', '--server-side', ...more], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, HOME: directory },
    });
  apply('-f', join(at, 'ns.yaml'));
  let started = performance.now();
  apply('-R', '--dry-run=server', '-f', at);
  note('kubectl: server-side dry run of all', performance.now() - started);
  started = performance.now();
  apply('-R', '-f', at);
  note('kubectl: server-side apply of all', performance.now() - started);
}

function print(rows: Record<string, number[]>): void {
  const median = (what: string) =>
    [...(rows[what] ?? [])].sort((a, b) => a - b)[Math.floor((rows[what]?.length ?? 0) / 2)] ?? Number.NaN;
  process.stdout.write(`\nmedian of ${ROUNDS} rounds, lowest and highest; one machine, one run\n`);
  for (const [what, values] of Object.entries(rows)) {
    const unit = what.includes('MiB')
      ? (v: number) => `${v.toFixed(0)} MiB`
      : (v: number) => `${(v / 1000).toFixed(2)} s`;
    process.stdout.write(
      `  ${what.padEnd(58)} ${unit(median(what)).padStart(9)}   ${unit(Math.min(...values))} to ${unit(Math.max(...values))}\n`,
    );
  }
  const peer = median('kubectl: server-side dry run of all') + median('kubectl: server-side apply of all');
  process.stdout.write(
    `\nratio: countersign (sign check, rules, dry run, ledger, apply, admission) to kubectl (dry run, apply): ${(median(`countersign: push to applied, ${OBJECTS} new objects`) / peer).toFixed(2)}\n`,
  );
}
