import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openLedger } from '../src/ledger/index.ts';
import { makeCertificates } from '../src/webhook/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import { configMap, namespace } from '../test/kit/manifests.ts';
import { commitId, recordChange } from '../test/kit/report-ledger.ts';
import { Stage } from '../test/kit/stage.ts';

// How long answers take at a steady rate, alone, and while the same service applies a change of many objects and a
// report of many changes is made beside it: by a process of its own or, with `report=service`, by the very service that
// answers. A bare server that only parses and answers is asked now and then as well: what it waits is the machine's.
const RATE = Number(process.argv.find((a) => a.startsWith('rate='))?.slice(5) ?? 1000);
const OBJECTS = Number(process.argv.find((a) => a.startsWith('objects='))?.slice(8) ?? 2000);
const BY_SERVICE = process.argv.includes('report=service');
const CHANGES = Number(process.argv.find((a) => a.startsWith('changes='))?.slice(8) ?? 20_000);
const ALONE_MS = 15_000;
const PROBES = 50; // a second
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
let bare: ChildProcess | undefined;
try {
  const data = BY_SERVICE ? stage.data('beside') : join(directory, 'report-data');
  const begun = Date.now() - 32 * 86_400_000; // the changes are of the month before, which a schedule is asked for
  const clock = BY_SERVICE ? () => new Date(begun) : () => new Date();
  const ledger = await openLedger(data, 'countersign.dev/bench', { clock });
  let n = 0;
  const worker = async () => {
    for (let mine = n++; mine < CHANGES; mine = n++)
      await recordChange(ledger, commitId(mine), { environment: 'earlier', from: commitId(mine - 1) });
  };
  await Promise.all(Array.from({ length: 256 }, worker));
  await ledger.close();

  const tls = join(directory, 'tls');
  await makeCertificates(tls, '127.0.0.1', new Date());
  const [port, barePort] = (await freePorts(2)) as [number, number];
  bare = spawn(
    process.execPath,
    [fileURLToPath(new URL('kit/admission-server.ts', import.meta.url)), 'bare', String(barePort), tls],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(bare.stdout as NonNullable<ChildProcess['stdout']>, 'data');

  const fleet = stage.fleet('beside');
  const admission = { policy: { namespaces: ['team-*'], mode: 'enforce' } };
  const configuration = stage.configuration('beside', [
    { url: fleet.url, namespaces: ['beside'], interval: '10s', admission },
  ]);
  if (BY_SERVICE)
    writeFileSync(
      join(configuration, 'reports.yaml'),
      JSON.stringify({
        apiVersion: 'countersign.dev/v1alpha1',
        kind: 'ReportSchedule',
        metadata: { name: 'monthly' },
        spec: { schedule: '0 0 1 * *', period: 'month', grace: '0s' },
      }),
    );
  const files = (content: string) => ({
    'clusters/production/ns.yaml': namespace('beside'),
    ...Object.fromEntries(
      Array.from({ length: OBJECTS - 1 }, (_, i) => [
        `clusters/production/c${i}.yaml`,
        configMap('beside', `c${i}`, { text: content }),
      ]),
    ),
  });
  await stage.change(fleet, 'first', files('1'));
  const service = await stage.serve(configuration, 'beside', [
    '--webhook',
    `127.0.0.1:${port}`,
    '--webhook-tls',
    tls,
    '--rescan',
    'off',
  ]);
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied', 300_000);

  if (BY_SERVICE) await service.entry('report.issued', '', () => true, 300_000);

  const during = async (work: () => Promise<unknown>) => {
    const asker = fileURLToPath(new URL('kit/ask-steadily.ts', import.meta.url));
    const child = spawn(process.execPath, [asker, `${port}:${RATE}`, `${barePort}:${PROBES}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    const answers = text(child.stdout);
    await work();
    child.stdin.end();
    const [ours, bare] = JSON.parse(await answers) as [number[], number[]];
    return { ours, bare };
  };
  const show = (what: string, times: Awaited<ReturnType<typeof during>>) => {
    const of = (all: number[], share: number) =>
      (all.sort((a, b) => a - b)[Math.floor(all.length * share)] ?? 0).toFixed(1);
    process.stdout.write(
      `${what}: p50 ${of(times.ours, 0.5)} ms, p99 ${of(times.ours, 0.99)} ms of ${times.ours.length}; a bare server p50 ${of(times.bare, 0.5)}, p99 ${of(times.bare, 0.99)} ms\n`,
    );
  };
  show(`${RATE}/s alone`, await during(() => wait(ALONE_MS)));
  const out = join(directory, 'out');
  const report = async () => {
    const args = BY_SERVICE
      ? ['report', 'run', 'monthly', '--again', '--data', data]
      : ['report', '--data', data, '--out', out];
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('../bin/countersign.mjs', import.meta.url)), ...args],
      {
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
    const [code] = (await once(child, 'close')) as [number];
    if (code !== 0) throw new Error('no report was made');
  };
  await stage.prepare(fleet, 'all of them', files('2'));
  const change = async () => {
    fleet.push();
    await service.entry(
      'apply.result',
      'production',
      (e) => e.outcome === 'applied' && e.applied > OBJECTS / 2,
      300_000,
    );
  };
  show(
    `${RATE}/s beside a report of ${CHANGES} changes${BY_SERVICE ? ', made anew by the service,' : ''} and a change of ${OBJECTS} objects (bar 10)`,
    await during(() => Promise.all([report(), change()])),
  );
} finally {
  bare?.kill();
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}
