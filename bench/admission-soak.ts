import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { createKey } from '../src/ledger/index.ts';
import { makeCertificates } from '../src/webhook/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import { configMap, namespace } from '../test/kit/manifests.ts';
import { Postgres } from '../test/kit/postgres.ts';
import { Stage } from '../test/kit/stage.ts';
import { askAdmission } from './kit/ask-admission.ts';
import { median } from './kit/figures.ts';
import { podReview } from './kit/pod-review.ts';

// 200 requests a second for half an hour, while certificates are renewed, rules are loaded anew and the ledger's
// database is restarted: no wrong answer, none that is missing, and memory that stays. `minutes=3` is the short form.
const MINUTES = Number(process.argv.find((a) => /^minutes=\d+$/.test(a))?.slice(8) ?? 30);
const RATE = 200;
const EVERY_MS = 60_000;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
const postgres = await Postgres.start();
try {
  const fleet = stage.fleet('soak');
  const admission = { policy: { namespaces: ['team-*'], mode: 'enforce' } };
  const configuration = stage.configuration('soak', [
    { url: fleet.url, namespaces: ['soak'], interval: '1s', admission },
  ]);
  const files = {
    'clusters/production/ns.yaml': namespace('soak'),
    'clusters/production/cm.yaml': configMap('soak', 'settings', { a: '0' }),
  };
  await stage.change(fleet, 'first', files);
  const { url: ledger } = await postgres.ledger();
  const key = join(directory, 'ledger.key');
  writeFileSync(key, createKey());
  const tls = join(directory, 'tls');
  await makeCertificates(tls, '127.0.0.1', new Date());
  const [port] = (await freePorts(1)) as [number];
  const service = stage.start(
    [
      '--config',
      configuration,
      '--kubeconfig',
      stage.controlPlane.kubeconfig('countersign'),
      '--webhook',
      `127.0.0.1:${port}`,
    ],
    'soak',
    ['--webhook-tls', tls, '--ledger', ledger, '--ledger-key', key],
    { MALLOC_ARENA_MAX: '2', NODE_OPTIONS: '--max-semi-space-size=8' },
  );
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');

  const agent = new Agent({ keepAlive: true, maxSockets: 32, rejectUnauthorized: false });
  const answers = { right: 0, retry: 0, wrong: [] as string[], missing: [] as string[] };
  const times: number[] = [];
  const memory: { readonly minute: number; readonly mib: number }[] = [];
  const begun = performance.now();
  const end = begun + MINUTES * 60_000;
  const kinds = [
    { namespace: 'soak', privileged: false, allowed: false },
    { namespace: 'team-a', privileged: false, allowed: true },
    { namespace: 'team-a', privileged: true, allowed: false },
  ] as const;
  const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;

  const disturb = (async () => {
    for (let minute = 1; performance.now() < end - EVERY_MS / 2; minute++) {
      await wait(EVERY_MS / 3);
      const next = join(directory, `tls-${minute}`);
      await makeCertificates(next, '127.0.0.1', new Date());
      mkdirSync(tls, { recursive: true });
      cpSync(next, tls, { recursive: true });
      await wait(EVERY_MS / 3);
      await stage.change(fleet, `minute ${minute}`, {
        'clusters/production/cm.yaml': configMap('soak', 'settings', { a: String(minute) }),
      });
      await wait(EVERY_MS / 3);
      await postgres.kill();
      await wait(2000);
      await postgres.up();
      memory.push({ minute, mib: rss() });
      process.stderr.write(
        `minute ${minute}: ${answers.right} right, ${answers.retry} to be asked again, ${answers.wrong.length} wrong, ${answers.missing.length} missing, ${rss().toFixed(0)} MiB\n`,
      );
    }
  })();
  const pending = new Set<Promise<void>>();
  for (let i = 0; performance.now() < end; i++) {
    const late = begun + (i * 1000) / RATE - performance.now();
    if (late > 0) await wait(late);
    const kind = kinds[i % kinds.length] as (typeof kinds)[number];
    const one = ask(i, kind).finally(() => pending.delete(one));
    pending.add(one);
  }
  await Promise.all(pending);
  await disturb;
  const third = Math.max(1, Math.floor(memory.length / 3));
  const of = (part: typeof memory) => median(part.map((m) => m.mib)).toFixed(0);
  times.sort((a, b) => a - b);
  process.stdout.write(
    `${MINUTES} minutes at ${RATE}/s, each minute a certificate, a revision and a restart of the ledger's database:\n` +
      `  ${answers.right} right, ${answers.retry} told to ask again, ${answers.wrong.length} wrong, ${answers.missing.length} without an answer\n` +
      `  p50 ${(times[Math.floor(times.length / 2)] ?? 0).toFixed(1)} ms, p99 ${(times[Math.floor(times.length * 0.99)] ?? 0).toFixed(1)} ms\n` +
      `  memory: ${of(memory.slice(0, third))} MiB in the first third, ${of(memory.slice(-third))} MiB in the last\n`,
  );
  for (const what of [...answers.wrong, ...answers.missing].slice(0, 10)) process.stdout.write(`  ${what}\n`);

  async function ask(i: number, { namespace: ns, privileged, allowed }: (typeof kinds)[number]): Promise<void> {
    const at = performance.now();
    try {
      const { response } = await askAdmission(agent, port, podReview(i, ns, privileged));
      times.push(performance.now() - at);
      if (response.allowed === allowed) answers.right++;
      else if (response.status?.code === 429) answers.retry++;
      else answers.wrong.push(`${ns} ${privileged}: ${JSON.stringify(response).slice(0, 300)}`);
    } catch (thrown) {
      answers.missing.push(`${((performance.now() - begun) / 1000).toFixed(1)} s: ${String(thrown)}`);
    }
  }
} finally {
  await stage.close();
  await postgres.stop();
  rmSync(directory, { recursive: true, force: true });
}
