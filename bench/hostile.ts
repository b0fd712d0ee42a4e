import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openLedger } from '../src/ledger/index.ts';
import { makeCertificates } from '../src/webhook/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import type { Fleet } from '../test/kit/fleet.ts';
import { configMap, namespace } from '../test/kit/manifests.ts';
import { commitId, recordChange } from '../test/kit/report-ledger.ts';
import { type Service, until } from '../test/kit/service.ts';
import { Stage } from '../test/kit/stage.ts';
import { type HostileCommit, hostileCommits } from './kit/hostile-commits.ts';
import { MemoryWatch } from './kit/memory-watch.ts';
import { SteadyAdmission } from './kit/steady-admission.ts';

// The service on one core, with everyone against it at once: pushes that nobody signed, connections that say nothing,
// and servers that misbehave wherever it sends something. Meanwhile admission is asked steadily. Bars: p99 of admission
// within two seconds, no restart, no more than a GiB of memory, as much of it a minute later as before, and a good
// change applied at the end. `pushes=`, `connections=` make it shorter; about six minutes.
const number = (name: string, otherwise: number) =>
  Number(process.argv.find((a) => a.startsWith(`${name}=`))?.slice(name.length + 1) ?? otherwise);
const PUSHES = number('pushes', 100);
const CONNECTIONS = number('connections', 10_000);
const WAVE = 1000;
const WAVE_EVERY_MS = 10_000;
const SERVERS = 50;
const WARM_MS = number('warm', 30) * 1000;
const AFTER_MS = number('after', 60) * 1000;
const VERDICT_MS = 30_000;
const UNSOUND = 'its objects are not sound';
const MOST_MEMORY = 1024;
const BAR_MS = 2000;
const kit = (name: string) => fileURLToPath(new URL(`kit/${name}`, import.meta.url));

const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
runsOn(otherCores());
const hostile = spawn(process.execPath, [kit('hostile-servers.ts'), String(SERVERS)], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const urls = JSON.parse(String((await once(hostile.stdout, 'data'))[0])) as string[];
const stage = await Stage.bare(directory);
try {
  const tls = join(directory, 'tls');
  await makeCertificates(tls, '127.0.0.1', new Date());
  const [port, http] = (await freePorts(2)) as [number, number];
  const fleet = stage.fleet('hostile');
  const configuration = configure(fleet, urls);
  await recordEarlierMonth(stage.data('hostile'));
  await stage.change(fleet, 'first', firstFiles());
  const service = startOnOneCore(configuration, port, http, tls);
  for (const environment of ['production', 'chart'])
    await service.entry('apply.result', environment, (e) => e.outcome === 'applied', 120_000);
  await service.entry('report.issued', '', () => true, 120_000);

  let ended: number | undefined;
  void service.ended.then((code) => (ended = code));
  const memory = new MemoryWatch(service.pid);
  const admission = new SteadyAdmission(port, await stage.as('oncall'));
  await wait(WARM_MS / 2);
  await stage.prepare(fleet, 'second', { 'clusters/production/cm.yaml': configMap('hostile', 'settings', { a: '1' }) });
  const before = await timeToApply(fleet, service);
  const commits = hostileCommits(fleet, PUSHES);
  await wait(WARM_MS / 2);
  const resting = memory.now();
  const heaps = [await heapOf(http)];

  admission.begin();
  const begun = performance.now();
  const silent = spawn(
    process.execPath,
    [kit('silent-connections.ts'), ...[port, CONNECTIONS, WAVE, WAVE_EVERY_MS].map(String)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [verdicts, connections] = await Promise.all([pushAll(fleet, service, commits), text(silent.stdout)]);
  const loadedSeconds = (performance.now() - begun) / 1000;
  const asked = await admission.end();
  const loadedLog = service.log;

  await stage.prepare(fleet, 'third', { 'clusters/production/cm.yaml': configMap('hostile', 'settings', { a: '2' }) });
  const good = await timeToApply(fleet, service).catch(() => Number.POSITIVE_INFINITY);
  await wait(AFTER_MS);
  const later = memory.now();
  heaps.push(await heapOf(http));
  memory.stop();
  hostile.stdin.end();
  const askedServers = (JSON.parse(await text(hostile.stdout)) as number[]).filter((n) => n > 0).length;

  const bar = (isMet: boolean) => (isMet ? 'met' : 'MISSED');
  const back = later.mib - resting.mib;
  const all = [...asked.webhook.times, ...asked.apiServer.times];
  const of = (times: readonly number[], share: number) => {
    const sorted = [...times].sort((a, b) => a - b);
    return `${(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN).toFixed(0)} ms`;
  };
  const p99 = [...all].sort((a, b) => a - b)[Math.floor(all.length * 0.99)] ?? Number.POSITIVE_INFINITY;
  const { opened, secured, endedByService } = JSON.parse(connections) as Record<
    'opened' | 'secured' | 'endedByService',
    number
  >;
  const { denied, unsound, allowed, unjudged } = verdicts;
  const rows: [string, string, string][] = [
    ['under load', `${loadedSeconds.toFixed(0)} s, ${askedServers} of ${SERVERS} hostile servers asked`, ''],
    [
      'pushes',
      `${PUSHES}: ${denied} denied, ${unsound} not taken over by git, ${allowed} allowed, ${unjudged.length} not judged within ${VERDICT_MS / 1000} s`,
      bar(allowed + unjudged.length === 0),
    ],
    [
      'connections',
      `${CONNECTIONS}: ${opened} accepted, ${secured} agreed on TLS, ${endedByService} ended by the service`,
      '',
    ],
  ];
  for (const [name, { right, retry, wrong, none, times }] of Object.entries(asked)) {
    const counts = `${right} right, ${retry} told to ask again, ${wrong.length} wrong, ${none.length} without an answer`;
    rows.push([
      name,
      `${counts}; p50 ${of(times, 0.5)}, p99 ${of(times, 0.99)}, most ${of(times, 1)}`,
      bar(wrong.length + none.length === 0),
    ]);
  }
  rows.push(
    ['admission', `p50 ${of(all, 0.5)}, p99 ${of(all, 0.99)} (bar ${BAR_MS} ms)`, bar(p99 <= BAR_MS)],
    [
      'memory',
      `${resting.text} before, ${memory.peak.text} at most (bar ${MOST_MEMORY}), ${later.text} ${AFTER_MS / 1000} s after`,
      bar(memory.peak.mib <= MOST_MEMORY && (back <= 50 || back <= resting.mib / 10)),
    ],
    ['its main thread', `${heaps.join(' before, ')} after`, ''],
    ['restarts', ended === undefined ? '0' : `ended with ${ended}`, bar(ended === undefined)],
    [
      'a good change',
      `applied after ${before.toFixed(1)} s before, ${good.toFixed(1)} s at the end`,
      bar(Number.isFinite(good)),
    ],
  );
  for (const row of rows) process.stdout.write(`${row[0].padEnd(20)} ${row[1]}${row[2] === '' ? '' : `: ${row[2]}`}\n`);
  for (const { wrong, none } of Object.values(asked))
    for (const what of [...wrong, ...none].slice(0, 5)) process.stdout.write(`  ${what}\n`);
  for (const kind of unjudged) process.stdout.write(`  not judged: ${kind}\n`);
  if (process.argv.includes('log'))
    writeFileSync('hostile.log', `${loadedLog}\n--- after\n${service.log.slice(loadedLog.length)}`);
} finally {
  hostile.kill();
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

function firstFiles(): Record<string, string> {
  return {
    'clusters/production/ns.yaml': namespace('hostile'),
    'clusters/production/cm.yaml': configMap('hostile', 'settings', { a: '0' }),
    'charts/web/Chart.yaml': 'apiVersion: v2\nname: web\nversion: 1.0.0\n',
    'charts/web/templates/ns.yaml': namespace('chart'),
    'charts/web/templates/cm.yaml': configMap('chart', 'settings', { a: '0' }),
  };
}

// Three of the servers are Git servers of environments, two are where a report goes, and all others are told of what
// happens.
function configure(
  fleet: Fleet,
  [git1 = '', git2 = '', git3 = '', place1 = '', place2 = '', ...told]: readonly string[],
): string {
  const secret = fileWith('secret', 'a-secret-of-ours');
  const admission = { policy: { namespaces: ['team-*'], mode: 'enforce' } };
  const configuration = stage.configuration('hostile', [
    { url: fleet.url, namespaces: ['hostile'], interval: '1s', admission },
    {
      name: 'chart',
      url: fleet.url,
      namespaces: ['chart'],
      interval: '1s',
      path: 'charts/web',
      spec: { render: { with: 'helm' } },
    },
    ...[git1, git2, git3].map((url, i) => ({
      name: `away-${i}`,
      url: `${url}/fleet.git`,
      namespaces: [`away-${i}`],
      interval: '1s',
    })),
  ]);
  const document = (kind: string, name: string, spec: object) =>
    writeFileSync(
      join(configuration, `${name}.yaml`),
      JSON.stringify({ apiVersion: 'countersign.dev/v1alpha1', kind, metadata: { name }, spec }),
    );
  document('ReportSchedule', 'monthly', {
    schedule: '0 0 1 * *',
    period: 'month',
    grace: '0s',
    deliver: [
      { name: 'webhook', webhook: { url: `${place1}/in`, secretFile: secret } },
      { name: 'store', s3: { endpoint: place2, bucket: 'evidence', accessKeyFile: secret, secretKeyFile: secret } },
    ],
  });
  for (const [i, url] of told.entries()) {
    const address = fileWith(`address-${i}`, `${url}/services/${i}`);
    const forge = { forge: 'github', apiUrl: url, repository: 'a/b', tokenFile: secret };
    const kinds = [
      { webhook: { url, secretFile: secret } },
      { slack: { urlFile: address } },
      { teams: { urlFile: address } },
      { alertmanager: { url } },
      { email: { smtp: `smtp://${new URL(url).host}`, from: 'gate@example.test', to: ['dana@example.test'] } },
      { commitStatus: forge },
      { deployment: forge },
    ];
    document('Notifier', `told-${i}`, { to: kinds[i % kinds.length], repeatAfter: '1s' });
  }
  return configuration;
}

function fileWith(name: string, content: string): string {
  const file = join(directory, name);
  writeFileSync(file, content);
  return file;
}

// A few changes of the month before, so that a report is due at once.
async function recordEarlierMonth(data: string): Promise<void> {
  const ledger = await openLedger(data, 'countersign.dev/bench', {
    clock: () => new Date(Date.now() - 32 * 86_400_000),
  });
  for (let i = 0; i < 5; i++)
    await recordChange(ledger, commitId(i), { environment: 'earlier', from: commitId(i - 1) });
  await ledger.close();
}

// A new process runs where the thread that starts it may run.
function startOnOneCore(configuration: string, port: number, http: number, tls: string): Service {
  runsOn('0', '-cp');
  const service = stage.start(
    [
      '--config',
      configuration,
      '--kubeconfig',
      stage.controlPlane.kubeconfig('countersign'),
      '--webhook',
      `127.0.0.1:${port}`,
    ],
    'hostile',
    ['--webhook-tls', tls, '--http', `127.0.0.1:${http}`],
    { MALLOC_ARENA_MAX: '2', NODE_OPTIONS: '--max-semi-space-size=8' },
  );
  runsOn(otherCores());
  return service;
}

function otherCores(): string {
  return cpus().length > 1 ? `1-${cpus().length - 1}` : '0';
}

function runsOn(cores: string, which: '-cp' | '-acp' = '-acp'): void {
  execFileSync('taskset', [which, cores, String(process.pid)], { stdio: 'ignore' });
}

/** What the heap of the service's main thread holds and has taken, by its own metrics. */
async function heapOf(http: number): Promise<string> {
  const metrics = await (await fetch(`http://127.0.0.1:${http}/metrics`)).text();
  const of = (name: string) =>
    (Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN) / 1024 / 1024).toFixed(0);
  return `${of('nodejs_heap_size_used_bytes')} of ${of('nodejs_heap_size_total_bytes')} MiB heap, ${of('nodejs_external_memory_bytes')} MiB beside it`;
}

/** Pushes and gives the seconds until the cluster has it. */
async function timeToApply(fleet: Fleet, service: Service): Promise<number> {
  const revision = fleet.head();
  const begun = performance.now();
  await promisify(execFile)('git', ['push', '--quiet', '--force', 'origin', 'main'], { cwd: fleet.work });
  await service.entry('apply.result', 'production', (e) => e.revision === revision && e.outcome === 'applied', 120_000);
  return (performance.now() - begun) / 1000;
}

/** One after the other: each waits for its verdict, or until git refuses to take its objects over. */
async function pushAll(fleet: Fleet, service: Service, commits: readonly HostileCommit[]) {
  const counts = { denied: 0, unsound: 0, allowed: 0, unjudged: [] as string[] };
  for (const [i, { kind, id }] of commits.entries()) {
    const before = service.log.length;
    await promisify(execFile)('git', ['push', '--quiet', '--force', 'origin', `${id}:refs/heads/main`], {
      cwd: fleet.work,
    });
    const verdict = () => service.entries('change.judged', 'production').find((r) => r.entry.to === id)?.entry.outcome;
    const isUnsound = () =>
      service.log
        .slice(before)
        .split('\n')
        .some((line) => line.includes('"production"') && line.includes(UNSOUND));
    await until(
      () => verdict() !== undefined || isUnsound(),
      VERDICT_MS,
      () => '',
    ).catch(() => {});
    const outcome = verdict();
    if (outcome === 'denied') counts.denied++;
    else if (outcome !== undefined) counts.allowed++;
    else if (isUnsound()) counts.unsound++;
    else counts.unjudged.push(`push ${i}, ${kind}`);
    if (i % 10 === 9) process.stderr.write(`${i + 1} pushed\n`);
  }
  return counts;
}
