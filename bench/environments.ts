import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../test/kit/control-plane.ts';
import { configMap, deployment, namespace, service } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';
import { print } from './kit/figures.ts';
import { cpuOf, looksOf, ofStatus } from './kit/process-figures.ts';

// Many environments on one repository in one process: until all are applied, memory then and over thousands of looks.
// `node bench/environments.ts [environments] [looks]`
const [ENVIRONMENTS = 200, LOOKS = 4000] = process.argv.slice(2).map(Number);
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
try {
  const fleet = stage.fleet('many');
  const names = Array.from({ length: ENVIRONMENTS }, (_, i) => `e${String(i).padStart(3, '0')}`);
  const configuration = stage.configuration(
    'many',
    names.map((name) => ({
      name,
      url: fleet.url,
      path: `clusters/${name}`,
      namespaces: [name],
      interval: '2s',
      mode: 'off' as const,
    })),
  );
  const files = Object.fromEntries(
    names.flatMap((name) => Object.entries(objects(name)).map(([f, t]) => [`clusters/${name}/${f}`, t])),
  );
  const commit = await stage.change(fleet, 'all', files);
  const [port] = await freePorts(1);
  const begun = Date.now();
  const running = await stage.serve(configuration, 'many', ['--http', `127.0.0.1:${port}`]);
  for (const name of names)
    await running.entry('apply.result', name, (e) => e.revision === commit && e.outcome === 'applied', 300_000);
  print(
    `${ENVIRONMENTS} environments of 20 objects: all applied ${((Date.now() - begun) / 1000).toFixed(1)} s after the start`,
  );
  print(`memory then: ${ofStatus(running.pid, 'VmRSS')} MiB, at most ${ofStatus(running.pid, 'VmHWM')} MiB (bar 512)`);
  const heap = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  for (const name of ['nodejs_heap_size_used_bytes', 'nodejs_heap_size_total_bytes', 'nodejs_external_memory_bytes'])
    print(`  ${name} ${Math.round(Number(new RegExp(`^${name} (\\S+)`, 'm').exec(heap)?.[1]) / 1024 / 1024)} MiB`);
  const cpu = cpuOf(running.pid);
  const from = await looksOf(port as number);
  const since = Date.now();
  for (let next = 1; ; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const done = (await looksOf(port as number)) - from;
    if (done < (LOOKS / 4) * next) continue;
    print(
      `after ${done} looks at nothing new: ${ofStatus(running.pid, 'VmRSS')} MiB, ${(((cpuOf(running.pid) - cpu) / done) * 1000).toFixed(1)} ms CPU a look`,
    );
    next++;
    if (done >= LOOKS) break;
  }
  print(`${((Date.now() - since) / 1000).toFixed(0)} s for these; at most ${ofStatus(running.pid, 'VmHWM')} MiB`);
  const changed = await stage.change(fleet, 'one', {
    'clusters/e007/c1.yaml': configMap('e007', 'c1', { k: 'changed' }),
  });
  const pushed = Date.now();
  const result = await running.entry(
    'apply.result',
    'e007',
    (e) => e.revision === changed && e.outcome === 'applied',
    60_000,
  );
  print(
    `one object of one environment changed, looked for every 2 s: applied after ${((Date.parse(result.entry.time) - pushed) / 1000).toFixed(1)} s`,
  );
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

function objects(ns: string): Record<string, string> {
  const files: Record<string, string> = { 'ns.yaml': namespace(ns) };
  for (let i = 1; i < 20; i++)
    files[`c${i}.yaml`] =
      i % 4 === 0
        ? deployment(ns, `c${i}`)
        : i % 4 === 2
          ? service(ns, `c${i}`)
          : configMap(ns, `c${i}`, { k: String(i) });
  return files;
}
