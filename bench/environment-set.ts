import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../test/kit/control-plane.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../test/kit/documents.ts';
import { configMap, namespace, service } from '../test/kit/manifests.ts';
import { countersignProcess } from '../test/kit/service.ts';
import { Stage } from '../test/kit/stage.ts';
import { print } from './kit/figures.ts';
import { cpuOf, looksOf, ofStatus } from './kit/process-figures.ts';

// Environments of 5 objects from one EnvironmentSet, in one process: until all are healthy, memory, and one that changes.
// `node bench/environment-set.ts [environments] [interval in seconds]`
const [ENVIRONMENTS = 1000, INTERVAL = 4] = process.argv.slice(2).map(Number);
const CHANGES = 5;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
try {
  const fleet = stage.fleet('set');
  const names = Array.from({ length: ENVIRONMENTS }, (_, i) => `s${String(i).padStart(4, '0')}`);
  const described = environmentDocument({
    name: '${name}',
    url: fleet.url,
    path: 'clusters/${name}',
    namespaces: ['${name}'],
    interval: `${INTERVAL}s`,
    mode: 'off',
    spec: { health: { wait: true } },
  }) as { readonly metadata: object; readonly spec: object };
  const set = {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'EnvironmentSet',
    metadata: { name: 'many' },
    spec: {
      list: { elements: names.map((name) => ({ name })) },
      template: { metadata: described.metadata, spec: described.spec },
    },
  };
  const configuration = writeConfiguration(join(directory, 'configuration'), [
    set,
    trustDocument([stage.dana, stage.lee]),
  ]);
  const files = Object.fromEntries(
    names.flatMap((name) => Object.entries(objects(name)).map(([file, text]) => [`clusters/${name}/${file}`, text])),
  );
  const first = await stage.change(fleet, 'all', files);
  const [port = 0] = await freePorts(1);
  const begun = Date.now();
  const running = await stage.serve(configuration, 'set', ['--http', `127.0.0.1:${port}`]);
  const started = Date.now();
  await allAt(port, first);
  print(`${ENVIRONMENTS} environments of 5 objects from one EnvironmentSet, looked for every ${INTERVAL} s`);
  print(`running after ${seconds(started - begun)} s, all applied and healthy after ${seconds(Date.now() - begun)} s`);
  print(`memory then: ${ofStatus(running.pid, 'VmRSS')} MiB, at most ${ofStatus(running.pid, 'VmHWM')} MiB (bar 1024)`);
  const [cpu, looks, since] = [cpuOf(running.pid), await looksOf(port), Date.now()];
  await new Promise((resolve) => setTimeout(resolve, 30_000));
  const done = (await looksOf(port)) - looks;
  const used = cpuOf(running.pid) - cpu;
  print(
    `at rest: ${((used / (Date.now() - since)) * 1e5).toFixed(0)} % of a core, ` +
      `${(done / 30).toFixed(0)} looks a second, ${((used / done) * 1000).toFixed(1)} ms each`,
  );
  await check(fleet.work, configuration);
  const took: number[] = [];
  for (let i = 0; i < CHANGES; i++) {
    const name = names[Math.floor((names.length * (i + 0.5)) / CHANGES)] as string;
    const changed = await stage.change(fleet, `change ${i}`, {
      [`clusters/${name}/c1.yaml`]: configMap(name, 'c1', { k: `changed ${i}` }),
    });
    const pushed = Date.now();
    const { entry } = await running.entry(
      'apply.result',
      name,
      (e) => e.revision === changed && e.outcome === 'applied',
      300_000,
    );
    took.push(Date.parse(entry.time) - pushed);
    await allAt(port, changed);
    print(
      `one object of one environment changed: applied after ${seconds(took.at(-1) as number)} s; ` +
        `all environments at that commit after ${seconds(Date.now() - pushed)} s`,
    );
  }
  print(`slowest of ${CHANGES}: ${seconds(Math.max(...took))} s (bar 5)`);
  print(
    `memory at the end: ${ofStatus(running.pid, 'VmRSS')} MiB, at most ${ofStatus(running.pid, 'VmHWM')} MiB (bar 1024)`,
  );
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

// Waits until every environment is applied at a commit, and healthy.
async function allAt(port: number, commit: string): Promise<void> {
  for (;;) {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const at = text.matchAll(/^countersign_environment_info\{[^}]*revision="([0-9a-f]+)",state="applied"\} 1$/gm);
    const ready = text.matchAll(/^countersign_environment_ready\{[^}]*\} 1$/gm);
    if ([...at].filter(([, revision]) => revision === commit).length === ENVIRONMENTS)
      if ([...ready].length === ENVIRONMENTS) return;
    await new Promise((resolve) => setTimeout(resolve, 3000)); // an answer costs the service tens of milliseconds;
  }
}

// The same change for all environments, before it is merged.
async function check(repo: string, configuration: string): Promise<void> {
  const begun = Date.now();
  const base = ['--base', '0'.repeat(40), '--no-fetch'];
  const { code, stdout } = await countersignProcess([
    'check',
    '--all-environments',
    ...base,
    '--repo',
    repo,
    '--config',
    configuration,
  ]);
  print(
    `check --all-environments: ${stdout.trim().split('\n').at(-1)} (exit ${code}) after ${seconds(Date.now() - begun)} s`,
  );
}

function objects(ns: string): Record<string, string> {
  return {
    'ns.yaml': namespace(ns),
    'c1.yaml': configMap(ns, 'c1', { k: '1' }),
    'c2.yaml': configMap(ns, 'c2', { k: '2' }),
    's1.yaml': service(ns, 's1'),
    's2.yaml': service(ns, 's2'),
  };
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}
