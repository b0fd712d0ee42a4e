import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeCertificates } from '../src/webhook/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import { configMap, deployment, namespace, service as serviceManifest } from '../test/kit/manifests.ts';
import { Stage } from '../test/kit/stage.ts';
import { median } from './kit/figures.ts';

// What the gate costs those who apply: the same first apply of many objects with the webhook in the API server's path,
// without it, and with a bare server there that only parses and answers, turn by turn in one run. Taken from the
// ledger: from the intent to the result.
const OBJECTS = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 2000);
const ROUNDS = 5;
const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';
type Gate = 'on' | 'off' | 'bare';
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const stage = await Stage.bare(directory);
let bare: ChildProcess | undefined;
try {
  const tls = join(directory, 'tls');
  const { ca } = await makeCertificates(tls, '127.0.0.1', new Date());
  const [port] = (await freePorts(1)) as [number];
  bare = spawn(
    process.execPath,
    [fileURLToPath(new URL('kit/admission-server.ts', import.meta.url)), 'bare', String(port), tls],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(bare.stdout as NonNullable<ChildProcess['stdout']>, 'data');
  const took: Record<Gate, number[]> = { on: [], off: [], bare: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const gate of round % 2 === 0 ? (['off', 'on', 'bare'] as const) : (['bare', 'on', 'off'] as const)) {
      if (gate === 'bare') await putBare(port, ca, `bare-${round}`);
      const seconds = await applyAll(`${gate}-${round}`, gate);
      took[gate].push(seconds);
      process.stderr.write(`round ${round + 1} of ${ROUNDS}, gate ${gate}: ${seconds.toFixed(1)} s\n`);
    }
  }
  const ratios = (gate: Gate) => took[gate].map((s, i) => s / (took.off[i] as number));
  const [on, off] = [median(took.on), median(took.off)];
  process.stdout.write(
    `${OBJECTS} objects, first apply, median of ${ROUNDS} rounds: ${on.toFixed(1)} s with the gate, ${off.toFixed(1)} s without; ratio in the median of rounds ${median(ratios('on')).toFixed(2)} (bar 1.30), with a bare server ${median(ratios('bare')).toFixed(2)}\n`,
  );
  for (const gate of ['on', 'bare'] as const)
    process.stdout.write(
      `  ${gate} by round: ${ratios(gate)
        .map((r) => r.toFixed(2))
        .join(', ')}\n`,
    );
} finally {
  bare?.kill();
  await stage.close();
  rmSync(directory, { recursive: true, force: true });
}

// As the gate's own registration has it for a namespace that it governs.
async function putBare(port: number, ca: string, ns: string): Promise<void> {
  const oncall = await stage.as('oncall');
  await oncall.request('POST', CONFIGURATIONS, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingWebhookConfiguration',
    metadata: { name: 'countersign' },
    webhooks: [
      {
        name: 'bare.example.com',
        admissionReviewVersions: ['v1'],
        clientConfig: { url: `https://127.0.0.1:${port}/validate`, caBundle: Buffer.from(ca).toString('base64') },
        sideEffects: 'None',
        failurePolicy: 'Fail',
        namespaceSelector: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values: [ns] }] },
        rules: [
          {
            operations: ['CREATE', 'UPDATE', 'DELETE'],
            apiGroups: ['*'],
            apiVersions: ['*'],
            resources: ['*'],
            scope: 'Namespaced',
          },
        ],
      },
    ],
  });
}

async function applyAll(ns: string, gate: Gate): Promise<number> {
  const fleet = stage.fleet(ns);
  const mode = gate === 'on' ? 'enforce' : 'off';
  const configuration = stage.configuration(ns, [{ url: fleet.url, namespaces: [ns], mode, interval: '30s' }]);
  const files: Record<string, string> = { 'clusters/production/ns.yaml': namespace(ns) };
  for (let i = 1; i < OBJECTS; i++) {
    const name = `app-${String(i).padStart(4, '0')}`;
    files[`clusters/production/${name}.yaml`] =
      i % 5 < 2
        ? deployment(ns, name)
        : i % 5 < 3
          ? serviceManifest(ns, name)
          : configMap(ns, name, { text: 'x'.repeat(600) });
  }
  await stage.change(fleet, 'all', files);
  const service = await stage.serve(configuration, ns, gate === 'on' ? ['--rescan', 'off'] : ['--webhook', 'off']);
  const result = await service.entry('apply.result', 'production', (e) => e.outcome === 'applied', 300_000);
  const [intent] = service.entries('apply.intent', 'production');
  const seconds = (Date.parse(result.entry.time) - Date.parse(intent?.entry.time ?? '')) / 1000;
  await stage.stopServices();
  const oncall = await stage.as('oncall');
  await oncall.request('DELETE', `${CONFIGURATIONS}/countersign`);
  // Left where it is, everything would be slower for whoever comes next.
  for (const path of [`/apis/apps/v1/namespaces/${ns}/deployments`, `/api/v1/namespaces/${ns}/configmaps`])
    await oncall.request('DELETE', path);
  const { items } = (await stage.get(`/api/v1/namespaces/${ns}/services`)).body as {
    items: { metadata: { name: string } }[];
  };
  for (const { metadata } of items)
    await oncall.request('DELETE', `/api/v1/namespaces/${ns}/services/${metadata.name}`);
  return seconds;
}
