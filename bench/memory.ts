import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Service } from '../test/kit/service.ts';
import { Stage } from '../test/kit/stage.ts';
import { median, print, range } from './kit/figures.ts';
import { fleetObjects } from './kit/fleet-objects.ts';
import { MemoryWatch } from './kit/memory-watch.ts';
import { cpuOf, ofStatus } from './kit/process-figures.ts';

// Resident memory of `countersign serve`, as the package installs it (built, default options): once settled after a
// first apply, and its peak. `node bench/memory.ts [50,2000] [rounds=3] [settle=60] [off] [enforce] [sources]`; with
// `sources` the TypeScript runs as it is, like in the image; `package=DIRECTORY` measures one that is there already.
// In a comparison, Flux's two controllers reached 269 MiB together at 2,000 objects.
const words = process.argv.slice(2);
const COUNTS = words
  .find((a) => /^[\d,]+$/.test(a))
  ?.split(',')
  .map(Number) ?? [50, 2000];
const ROUNDS = Number(words.find((a) => /^rounds=\d+$/.test(a))?.slice(7) ?? 3);
const SETTLE_S = Number(words.find((a) => /^settle=\d+$/.test(a))?.slice(7) ?? 60);
const MODES = (['off', 'enforce'] as const).filter(
  (m) => words.includes(m) || !words.some((w) => /^(off|enforce)$/.test(w)),
);
const given = words.find((a) => a.startsWith('package='))?.slice(8);
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PATH = 'clusters/production';

const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
const rows = new Map<string, number[]>();
try {
  const program = words.includes('sources') ? ROOT : (given ?? installed());
  for (let round = 1; round <= ROUNDS; round++)
    for (const objects of COUNTS)
      for (const mode of MODES) {
        const figures = await measured(program, `${mode}-${objects}-${round}`, objects, mode);
        for (const [name, value] of Object.entries(figures)) {
          const row = `${objects} objects, ${mode}: ${name}`;
          rows.set(row, [...(rows.get(row) ?? []), value]);
        }
        process.stderr.write(`round ${round}: ${objects} objects, ${mode}: ${JSON.stringify(figures)}\n`);
      }
  for (const [row, values] of rows)
    print(`  ${row.padEnd(64)} ${median(values).toFixed(0).padStart(6)}   ${range(values)}`);
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

// The files of the package, built.
function installed(): string {
  const place = join(directory, 'installed');
  mkdirSync(place);
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.build.json', '--outDir', join(place, 'dist')], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  for (const name of ['bin', 'policies', 'reports', 'package.json'])
    cpSync(join(ROOT, name), join(place, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(place, 'node_modules'));
  return place;
}

async function measured(
  program: string,
  name: string,
  objects: number,
  mode: 'off' | 'enforce',
): Promise<Record<string, number>> {
  const { files, namespaces } = fleetObjects(name, objects);
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces, mode, interval: '5s' }]);
  await stage.change(fleet, 'seed', { [`${PATH}/ns.yaml`]: files[`${namespaces[0]}/ns.yaml`] });
  const args = (await stage.arguments(configuration)).filter(
    (a, i, all) => ![a, all[i - 1]].includes('--webhook-threads'),
  );
  const service = new Service(
    join(program, 'bin/countersign.mjs'),
    ['serve', ...args],
    join(directory, `data-${name}`),
  );
  try {
    await service.says('countersign is running');
    const watch = new MemoryWatch(service.pid);
    const cpuBefore = cpuOf(service.pid);
    const { [`${namespaces[0]}/ns.yaml`]: _, ...others } = files;
    const all = Object.fromEntries(Object.entries(others).map(([f, t]) => [`${PATH}/${f}`, t]));
    const commit = await stage.change(fleet, 'all', all);
    const { entry } = await service.entry(
      'apply.result',
      'production',
      (e) => e.revision === commit && e.outcome === 'applied',
      600_000,
    );
    const { entry: seen } = await service.entry('ref.advanced', 'production', (e) => e.after === commit);
    const cpu = cpuOf(service.pid) - cpuBefore;
    await new Promise((resolve) => setTimeout(resolve, SETTLE_S * 1000));
    const figures = {
      'settled, VmRSS, MiB': ofStatus(service.pid, 'VmRSS'),
      'settled, RssAnon, MiB': ofStatus(service.pid, 'RssAnon'),
      'settled, with its programs (Pss), MiB': watch.now().mib,
      'peak, VmHWM, MiB': ofStatus(service.pid, 'VmHWM'),
      'peak, with its programs (Pss), MiB': watch.peak.mib,
      'threads with JavaScript': isolates(service.pid),
      'CPU until applied, ms': Math.round(cpu * 1000),
      'seen to applied, ms': Date.parse(entry.time) - Date.parse(seen.time),
    };
    watch.stop();
    return figures;
  } finally {
    await service.stop();
    await empty(namespaces);
  }
}

async function empty(namespaces: readonly string[]): Promise<void> {
  for (const ns of namespaces) {
    for (const plural of ['api/v1/services', 'api/v1/configmaps', 'apis/apps/v1/deployments']) {
      const [group, last] = [plural.slice(0, plural.lastIndexOf('/')), plural.slice(plural.lastIndexOf('/') + 1)];
      await stage.admin.request('DELETE', `/${group}/namespaces/${ns}/${last}`);
    }
    await stage.admin.request('DELETE', `/api/v1/namespaces/${ns}`);
  }
}

function isolates(pid: number): number {
  const names = readdirSync(`/proc/${pid}/task`).map((task) => readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8'));
  return 1 + names.filter((comm) => comm.trim() === 'WorkerThread').length;
}
