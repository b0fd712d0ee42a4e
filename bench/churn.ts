import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as wait } from 'node:timers/promises';
import type { ApiServer } from '../src/cluster/index.ts';
import { deployment, namespace } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';
import { median } from './kit/figures.ts';

// Half an hour beside 300 pods of which five a second end and are made again, and 50 requests a second by people:
// memory, descriptors and threads stay, and what a governed write costs on the disk. `minutes=3` is the short form.
const MINUTES = Number(process.argv.find((a) => /^minutes=\d+$/.test(a))?.slice(8) ?? 30);
const PODS = 300;
const DEPLOYMENTS = 10;
const ENDED = 5; // a second
const ASKED = 50; // a second
const PATH = 'clusters/production';
const YEAR_MINUTES = 365 * 24 * 60;
const BAR = 2 ** 30 / YEAR_MINUTES; // bytes of a write, if one a minute may take 1 GiB a year
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.open(directory, { own: true, qps: 200 });

// Its pages, wherever they are: the write-ahead log of SQLite has up to 32 MiB of them, and is used again.
function bytesIn(store: string): number {
  const db = new DatabaseSync(store, { readOnly: true });
  const page = (pragma: string) => Number(Object.values(db.prepare(`PRAGMA ${pragma}`).get() ?? {})[0]);
  const bytes = page('page_count') * page('page_size');
  db.close();
  return bytes;
}

type Sample = {
  readonly mib: number;
  readonly descriptors: number;
  readonly threads: number;
  readonly stored: number;
  readonly governed: number;
};

try {
  const fleet = stage.fleet('churn');
  const configuration = stage.configuration('churn', [
    {
      ...{ url: fleet.url, namespaces: ['churn'], interval: '10s', spec: { health: { wait: false } } },
      admission: { policy: { namespaces: ['team'], mode: 'enforce' } },
    },
  ]);
  const web = Object.fromEntries(
    Array.from({ length: DEPLOYMENTS }, (_, i) => [
      `${PATH}/web-${i}.yaml`,
      deployment('churn', `web-${i}`, { replicas: PODS / DEPLOYMENTS }),
    ]),
  );
  const first = await stage.change(fleet, 'first', { [`${PATH}/ns.yaml`]: namespace('churn'), ...web });
  await stage.admin.request('POST', '/api/v1/namespaces', {
    ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team' } },
  });
  const service = await stage.serve(configuration, 'churn', ['--heartbeat', '1m']);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const pods = async () => {
    const { body } = await stage.get('/api/v1/namespaces/churn/pods');
    return body['items'] as { metadata: { name: string; uid: string }; status: { phase?: string } }[];
  };
  await stage.waitFor(
    async () => (await pods()).filter((p) => p.status.phase === 'Running').length >= PODS,
    'the pods',
  );

  const proc = `/proc/${service.pid}`;
  const governed = () =>
    service
      .entries('admission.proven', 'production')
      .reduce((n, { entry }) => n + ((entry as { count?: number }).count ?? 0), 0);
  const sample = (): Sample => ({
    mib: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`${proc}/status`, 'utf8'))?.[1] ?? 0) / 1024,
    descriptors: readdirSync(`${proc}/fd`).length,
    threads: Number(/Threads:\s+(\d+)/.exec(readFileSync(`${proc}/status`, 'utf8'))?.[1] ?? 0),
    stored: bytesIn(join(service.data, 'ledger.db')),
    governed: governed(),
  });
  const samples: Sample[] = [];
  const counts = { ended: 0, asked: 0, right: 0, wrong: new Map<string, number>() };
  const end = performance.now() + MINUTES * 60_000;
  const isOver = () => performance.now() >= end;

  await Promise.all([endPods(await stage.as('node'), await stage.as('node-b')), ask(await stage.as('dev')), watch()]);

  const third = Math.max(1, Math.floor(samples.length / 3));
  const [early, late] = [samples.slice(0, third), samples.slice(-third)];
  const of = (part: Sample[], what: keyof Sample) => median(part.map((s) => s[what])).toFixed(0);
  const [begun, last] = [samples[0] as Sample, samples.at(-1) as Sample];
  const each = (last.stored - begun.stored) / Math.max(1, last.governed - begun.governed);
  process.stdout.write(
    `${MINUTES} minutes, ${PODS} pods of which ${counts.ended} ended, ${counts.asked} requests, ${counts.right} answered right\n` +
      ['mib', 'descriptors', 'threads']
        .map(
          (what) =>
            `  ${what}: ${of(early, what as keyof Sample)} in the first third, ${of(late, what as keyof Sample)} in the last\n`,
        )
        .join('') +
      `  ${each.toFixed(0)} bytes on the disk for each of ${last.governed - begun.governed} governed writes of controllers, refusals included ` +
      `(bar ${BAR.toFixed(0)})\n`,
  );
  for (const [what, n] of counts.wrong) process.stdout.write(`  WRONG ${n} times: ${what}\n`);

  // As a kubelet that evicts: the ReplicaSets make new ones.
  async function endPods(...nodes: readonly ApiServer[]): Promise<void> {
    while (!isOver()) {
      const all = (await pods()).filter((p) => p.status.phase === 'Running');
      const at = performance.now();
      for (let i = 0; i < Math.min(50, all.length) && !isOver(); i++) {
        const late = at + (i * 1000) / ENDED - performance.now();
        if (late > 0) await wait(late);
        const { name, uid } = (all[i] as (typeof all)[number]).metadata;
        const body = { gracePeriodSeconds: 0, preconditions: { uid } };
        for (const node of nodes) {
          const { status } = await node.request('DELETE', `/api/v1/namespaces/churn/pods/${name}`, body);
          if (status === 200) counts.ended++;
          if (status === 200 || status === 404) break;
        }
      }
    }
  }

  // People write in a namespace of rules, and in the governed one, where they may not.
  async function ask(dev: ApiServer): Promise<void> {
    const begun = performance.now();
    const asking = new Set<Promise<void>>();
    for (let i = 0; !isOver(); i++) {
      const late = begun + (i * 1000) / ASKED - performance.now();
      if (late > 0) await wait(late);
      const one = write(dev, i).finally(() => asking.delete(one));
      asking.add(one);
    }
    await Promise.all(asking);
  }

  async function write(dev: ApiServer, i: number): Promise<void> {
    counts.asked++;
    const isGoverned = i % 10 === 0;
    const ns = isGoverned ? 'churn' : 'team';
    const object = JSON.parse(JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', data: { i: String(i) } }));
    object.metadata = { name: `asked-${i % 100}`, namespace: ns };
    const path = `/api/v1/namespaces/${ns}/configmaps`;
    const { status, body } = await dev
      .request(i % 200 < 100 ? 'POST' : 'PUT', i % 200 < 100 ? path : `${path}/asked-${i % 100}`, object)
      .catch((thrown: unknown) => ({ status: 0, body: { message: String(thrown) } as Record<string, unknown> }));
    const wanted = isGoverned ? [403, 404] : [200, 201, 404, 409];
    if (wanted.includes(status)) counts.right++;
    else {
      const what = `${ns} ${status}: ${String(body['message']).slice(0, 120)}`;
      counts.wrong.set(what, (counts.wrong.get(what) ?? 0) + 1);
    }
  }

  async function watch(): Promise<void> {
    await wait(Math.min(60_000, (MINUTES * 60_000) / 4)); // until everything was loaded once
    for (let minute = 1; !isOver(); minute++) {
      const now = sample();
      samples.push(now);
      process.stderr.write(
        `minute ${minute}: ${counts.ended} pods ended, ${counts.right} of ${counts.asked} right, ${now.mib.toFixed(0)} MiB, ` +
          `${now.descriptors} descriptors, ${now.threads} threads, ledger ${(now.stored / 1024).toFixed(0)} KiB, ${now.governed} proven\n`,
      );
      await wait(Math.min(60_000, Math.max(0, end - performance.now())));
    }
    samples.push(sample());
  }
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}
