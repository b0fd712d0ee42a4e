import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { configMap, deployment, namespace } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';
import { median } from './kit/figures.ts';

// What proving pods costs: from the intent to scale a Deployment of Git to the last of its pods running, with the
// gate in the API server's path and without, turn by turn in one run beside a real controller manager.
const PODS = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 500);
const ROUNDS = Number(process.argv.find((a) => /^rounds=\d+$/.test(a))?.slice(7) ?? 3);
// The default of kube-controller-manager is 20. With more, the processors are the limit, not its rate.
const QPS = Number(process.argv.find((a) => /^qps=\d+$/.test(a))?.slice(4) ?? 20);
const PATH = 'clusters/production';
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.open(directory, { own: true, qps: QPS });
try {
  const took: Record<'off' | 'enforce', number[]> = { off: [], enforce: [] };
  for (let round = 0; round < ROUNDS; round++)
    for (const mode of round % 2 === 0 ? (['off', 'enforce'] as const) : (['enforce', 'off'] as const)) {
      const seconds = await scaled(`${mode}-${round}`, mode);
      took[mode].push(seconds);
      process.stderr.write(`round ${round + 1} of ${ROUNDS}, ${mode}: ${seconds.toFixed(1)} s\n`);
    }
  const ratios = took.enforce.map((s, i) => s / (took.off[i] as number));
  process.stdout.write(
    `${PODS} pods, controllers at ${QPS} requests a second, median of ${ROUNDS} rounds: ${median(took.enforce).toFixed(1)} s with the gate, ` +
      `${median(took.off).toFixed(1)} s without; ratio in the median of rounds ${median(ratios).toFixed(2)} (bar 1.20); ` +
      `by round: ${ratios.map((r) => r.toFixed(2)).join(', ')}\n`,
  );
} finally {
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

async function scaled(ns: string, mode: 'off' | 'enforce'): Promise<number> {
  const fleet = stage.fleet(ns);
  const configuration = stage.configuration(ns, [
    { url: fleet.url, namespaces: [ns], mode, interval: '1s', spec: { health: { wait: false } } },
  ]);
  const web = (replicas: number) => ({ [`${PATH}/web.yaml`]: deployment(ns, 'web', { replicas }) });
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(ns),
    [`${PATH}/cm.yaml`]: configMap(ns, 'settings', { colour: 'blue' }),
    ...web(1),
  });
  const service = await stage.serve(configuration, ns);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const running = async () => {
    const { body } = await stage.get(`/apis/apps/v1/namespaces/${ns}/deployments/web`);
    return (body['status'] as { readyReplicas?: number }).readyReplicas ?? 0;
  };
  await stage.waitFor(async () => (await running()) === 1, 'the first pod');
  const next = await stage.change(fleet, 'scale', web(PODS));
  const { entry } = await service.entry('apply.intent', 'production', (e) => e.revision === next);
  await stage.waitFor(async () => (await running()) === PODS, `${PODS} pods`);
  const seconds = (Date.now() - Date.parse(entry.time)) / 1000;
  const denied = service.entries('admission.denied', 'production').length;
  if (denied > 0) throw new Error(`${denied} writes were refused`);
  // the next turn begins with an empty cluster
  await stage.change(fleet, 'down', web(1));
  await stage.waitFor(async () => {
    const { body } = await stage.get(`/api/v1/namespaces/${ns}/pods?limit=10`);
    return (body['items'] as unknown[]).length === 1;
  }, 'the end of the pods');
  await stage.stopServices();
  return seconds;
}
