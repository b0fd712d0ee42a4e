import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inParallel } from '../src/model/index.ts';
import { parseYaml } from '../src/yaml/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import { configMap } from '../test/kit/manifests.ts';
import type { Service } from '../test/kit/service.ts';
import { Stage } from '../test/kit/stage.ts';
import { median, print } from './kit/figures.ts';
import { fleetObjects } from './kit/fleet-objects.ts';

// Push to applied, one change, nothing changed and drift, against a bare client that only sends the same objects (dry
// run, then apply) to the same control plane, turn by turn in one run. `node bench/reconcile.ts [objects] [rounds]
// [enforce]`.
const numbers = process.argv
  .slice(2)
  .filter((a) => /^\d+$/.test(a))
  .map(Number);
const [OBJECTS = 2000, ROUNDS = 3] = numbers;
const MODE = process.argv.includes('enforce') ? 'enforce' : 'off';
const BARE = 'bare client, dry run + apply, s';
const RATIO = 'ratio of the two, round by round (bar 1.5)';
const SECRET = 'a secret of the receiver';
const PATH = 'clusters/production';

const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
const rows = new Map<string, number[]>();
const note = (what: string, value: number) => rows.set(what, [...(rows.get(what) ?? []), value]);
try {
  const atOnce = await bestAtOnce();
  for (let round = 1; round <= ROUNDS; round++) {
    process.stderr.write(`round ${round} of ${ROUNDS}: ${OBJECTS} objects, admission ${MODE}\n`);
    // The machine is not the same from minute to minute: ours stands between two of theirs.
    const before = await bareRound(`bare-${round}-a`, OBJECTS, atOnce);
    const ours = await countersignRound(round);
    const after = await bareRound(`bare-${round}-b`, OBJECTS, atOnce);
    note(BARE, before);
    note(BARE, after);
    note(RATIO, ours / ((before + after) / 2));
  }
  for (const [what, values] of rows)
    print(
      `  ${what.padEnd(62)} ${show(what, median(values)).padStart(10)}   ${show(what, Math.min(...values))} to ${show(what, Math.max(...values))}`,
    );
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

function show(what: string, value: number): string {
  return what.endsWith(', s') ? value.toFixed(3) : value.toFixed(value < 10 ? 2 : 0);
}

// A control plane that was never asked is slow, so the first try does not count.
async function bestAtOnce(): Promise<number> {
  await bareRound('warm', 1000, 16);
  const tried: [number, number][] = [];
  for (const n of [8, 16, 32]) tried.push([n, await bareRound(`try-${n}`, 1000, n)]);
  const [best] = tried.sort(([, a], [, b]) => a - b);
  return best?.[0] ?? 16;
}

// With the same account as the service: an administrator's requests go before all others.
async function bareRound(prefix: string, count: number, atOnce: number): Promise<number> {
  const client = await stage.as('countersign');
  const { files } = fleetObjects(prefix, count);
  const objects = Object.values(files).map(
    (text) => parseYaml(text)[0]?.value as { kind: string; metadata: { name: string; namespace?: string } },
  );
  const send = async (object: (typeof objects)[number], dryRun: boolean) => {
    const { kind, metadata } = object;
    const base = kind === 'Deployment' ? '/apis/apps/v1' : '/api/v1';
    const place = kind === 'Namespace' ? '/namespaces' : `/namespaces/${metadata.namespace}/${kind.toLowerCase()}s`;
    const query = `fieldManager=bare&force=true${dryRun ? '&dryRun=All' : ''}`;
    const answer = await client.request(
      'PATCH',
      `${base}${place}/${metadata.name}?${query}`,
      object,
      'application/apply-patch+yaml',
    );
    if (answer.status >= 300) throw new Error(JSON.stringify(answer.body));
  };
  const begun = performance.now();
  const namespaces = objects.filter((o) => o.kind === 'Namespace');
  const rest = objects.filter((o) => o.kind !== 'Namespace');
  await inParallel(
    namespaces,
    (o) => send(o, true),
    () => atOnce,
  );
  await inParallel(
    namespaces,
    (o) => send(o, false),
    () => atOnce,
  );
  await inParallel(
    rest,
    (o) => send(o, true),
    () => atOnce,
  );
  await inParallel(
    rest,
    (o) => send(o, false),
    () => atOnce,
  );
  const seconds = (performance.now() - begun) / 1000;
  await empty(namespaces.map((o) => o.metadata.name));
  client.close();
  return seconds;
}

async function countersignRound(round: number): Promise<number> {
  const { files, namespaces } = fleetObjects(`b${round}`, OBJECTS);
  const fleet = stage.fleet(`bench-${round}`);
  const secretFile = join(directory, 'secret');
  writeFileSync(secretFile, SECRET);
  const configuration = stage.configuration(`bench-${round}`, [
    {
      url: fleet.url,
      namespaces,
      mode: MODE,
      spec: {
        source: {
          url: fleet.url,
          branch: 'main',
          path: PATH,
          interval: '10m',
          receiver: { from: 'generic', secretFile },
        },
      },
    },
  ]);
  const seed = await stage.change(fleet, 'seed', { [`${PATH}/ns.yaml`]: files[`${namespaces[0]}/ns.yaml`] });
  const [port] = await freePorts(1);
  const http = `127.0.0.1:${port}`;
  const service = await stage.serve(configuration, `bench-${round}`, ['--http', http]);
  await service.entry('apply.result', 'production', (e) => e.revision === seed && e.outcome === 'applied');
  const { [`${namespaces[0]}/ns.yaml`]: _, ...others } = files;
  const all = Object.fromEntries(Object.entries(others).map(([f, t]) => [`${PATH}/${f}`, t]));
  const cpuAtStart = cpuOf(service.pid);
  const first = await push(fleet, service, http, 'all', all);
  note('first apply, push to applied, s', first);
  note('first apply, CPU of the service, s', cpuOf(service.pid) - cpuAtStart);
  const name = `${namespaces[0]}/app-40.yaml`;
  for (let i = 0; i < 5; i++)
    note(
      'one changed, push to applied, s',
      await push(fleet, service, http, `one ${i}`, {
        [`${PATH}/${name}`]: configMap(namespaces[0] ?? '', 'app-40', { key: `changed ${i}` }),
      }),
    );
  const cpuBefore = cpuOf(service.pid);
  for (let i = 0; i < 10; i++) await call(http, 'production');
  await new Promise((resolve) => setTimeout(resolve, 1500));
  note('ten looks at nothing new, CPU of the service, s', cpuOf(service.pid) - cpuBefore);
  for (let i = 0; i < 5; i++) await drift(namespaces[0] ?? '');
  note(
    'peak memory, MiB',
    Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024,
  );
  await stage.stopServices();
  await empty(namespaces);
  return first;
}

// No controller empties a namespace here, and each Service that is left makes the next one's address slower to find.
async function empty(namespaces: readonly string[]): Promise<void> {
  await inParallel([...namespaces], async (ns) => {
    for (const kinds of ['api/v1', 'apis/apps/v1'] as const)
      for (const plural of kinds === 'api/v1' ? ['services', 'configmaps'] : ['deployments'])
        await stage.admin.request('DELETE', `/${kinds}/namespaces/${ns}/${plural}`);
    await stage.admin.request('DELETE', `/api/v1/namespaces/${ns}`);
  });
}

// From the moment the push is done (Git has it) to the time the ledger gives the result; one machine, one clock.
async function push(
  fleet: ReturnType<Stage['fleet']>,
  service: Service,
  http: string,
  message: string,
  files: Record<string, string>,
): Promise<number> {
  const commit = await stage.change(fleet, message, files);
  const pushed = Date.now();
  await call(http, 'production');
  const result = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === commit && e.outcome === 'applied',
    300_000,
  );
  if (process.argv.includes('phases')) {
    const at = (r: { entry: { time: string } } | undefined) =>
      r === undefined ? 0 : Date.parse(r.entry.time) - pushed;
    const intents = service.entries('apply.intent', 'production').filter((r) => r.entry.revision === commit);
    const judged = service.entries('change.judged', 'production').find((r) => r.entry.to === commit);
    print(
      `  ${message}: seen ${at(service.entries('ref.advanced', 'production').find((r) => r.entry.after === commit))}, judged ${at(judged)}, intents ${intents.map(at).join(' ')}, result ${at(result)} ms`,
    );
  }
  return (Date.parse(result.entry.time) - pushed) / 1000;
}

async function call(http: string, environment: string): Promise<void> {
  const time = String(Math.floor(Date.now() / 1000));
  const body = `{"n":${Math.random()}}`;
  const signature = createHmac('sha256', SECRET).update(`${time}.${body}`).digest('hex');
  const headers = { 'x-countersign-time': time, 'x-countersign-signature': signature };
  const answer = await fetch(`http://${http}/receive/${environment}`, { method: 'POST', body, headers });
  if (answer.status !== 202) throw new Error(`the receiver answered ${answer.status}`);
}

async function drift(ns: string): Promise<void> {
  const path = `/api/v1/namespaces/${ns}/configmaps/app-41`;
  const begun = performance.now();
  await stage.admin.request('DELETE', path);
  while ((await stage.get(path)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 2));
  note('deleted, until it is back, s', (performance.now() - begun) / 1000);
}

function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  const ticks = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}
