import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { configMap, deployment, namespace } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';
import { print } from './kit/figures.ts';
import { cpuOf, ofStatus } from './kit/process-figures.ts';

// What comparing the pods that run with their templates costs a service: processor time of the first minute after a
// start, and of the next, which is what unchanged pods cost; and resident memory. With few pods and with many.
// `node bench/scan.ts [pods]`.
const PODS = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 5000);
const EACH = 500; // pods of one Deployment
const MINUTE_MS = 60_000;
const PATH = 'clusters/production';
const NS = 'scanned';
const FIRST = 'CPU of the first minute, s';
const THEN = 'CPU of the next minute, s';
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.open(directory, { own: true, qps: 1000 });
try {
  const names = Array.from({ length: Math.ceil(PODS / EACH) }, (_, i) => `web-${i}`);
  const fleet = stage.fleet(NS);
  const configuration = stage.configuration(NS, [
    { url: fleet.url, namespaces: [NS], mode: 'enforce', interval: '5s', spec: { health: { wait: false } } },
  ]);
  const files = (replicas: number) =>
    Object.fromEntries(names.map((name) => [`${PATH}/${name}.yaml`, deployment(NS, name, { replicas })]));
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(NS),
    [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'blue' }),
    ...files(1),
  });
  const service = await stage.serve(configuration, NS);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  await running(names.length);
  await stage.stopServices();
  const few = await measured(configuration);
  const again = await stage.serve(configuration, NS);
  const next = await stage.change(fleet, 'scale', files(EACH));
  await again.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  await running(PODS);
  await stage.stopServices();
  const many = await measured(configuration);
  const denied = again.entries('content.unproven', 'production').length;
  if (denied > 0) throw new Error(`${denied} objects were not proven`);
  for (const [name, value] of Object.entries(many)) {
    const before = few[name] as number;
    print(
      `  ${name.padEnd(44)} ${names.length} pods: ${before.toFixed(1)}, ${PODS} pods: ${(value as number).toFixed(1)}`,
    );
  }
  print(
    `  the scan of ${PODS} pods took ${((many[FIRST] as number) - (few[FIRST] as number)).toFixed(1)} s of CPU (bar 10); ` +
      `afterwards ${((many[THEN] as number) - (few[THEN] as number)).toFixed(1)} s a minute`,
  );
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

async function running(pods: number): Promise<void> {
  const ready = async () => {
    const { body } = await stage.get(`/apis/apps/v1/namespaces/${NS}/deployments`);
    const items = body['items'] as readonly { readonly status?: { readonly readyReplicas?: number } }[];
    return items.reduce((sum, { status }) => sum + (status?.readyReplicas ?? 0), 0);
  };
  for (let last = -1; ; ) {
    const now = await ready();
    if (now === pods) return;
    if (now !== last) process.stderr.write(`${now} of ${pods} pods\n`);
    last = now;
    await wait(2000);
  }
}

async function measured(configuration: string): Promise<Record<string, number>> {
  const service = await stage.serve(configuration, NS);
  const begun = cpuOf(service.pid);
  await wait(MINUTE_MS);
  const scanned = cpuOf(service.pid);
  await wait(MINUTE_MS);
  const then = cpuOf(service.pid);
  const figures = {
    'CPU before it ran, s': begun,
    [FIRST]: scanned - begun,
    [THEN]: then - scanned,
    'resident, MiB': ofStatus(service.pid, 'VmRSS'),
    'peak, MiB': ofStatus(service.pid, 'VmHWM'),
  };
  await stage.stopServices();
  return figures;
}
