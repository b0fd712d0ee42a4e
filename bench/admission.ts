import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { tool } from '../scripts/tools.ts';
import { buildBundle } from '../src/bundle/index.ts';
import { findOnPath } from '../src/tools/index.ts';
import { makeCertificates } from '../src/webhook/index.ts';
import { freePorts } from '../test/kit/control-plane.ts';
import { median } from './kit/figures.ts';
import { startGatekeeper } from './kit/gatekeeper.ts';

// The webhook against a bare express server over TLS and against OPA's own server behind TLS with the same ten rules,
// turn by turn in one run. `wrk` makes the load (apt-get install wrk). `threads=1`: how many of ours answer.
const ROUNDS = Number(process.argv.find((a) => /^rounds=\d+$/.test(a))?.slice(7) ?? 5);
const SECONDS = 6;
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);
const wrk = findOnPath('wrk', process.env['PATH'] ?? '');
if (wrk === undefined) throw new Error('there is no `wrk` on the PATH');
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const servers: ChildProcess[] = [];
const closing: (() => Promise<void>)[] = [];
try {
  const opa = await tool('opa');
  const tls = join(directory, 'tls');
  const { ca } = await makeCertificates(tls, '127.0.0.1', new Date());
  const rules = tenRules(join(directory, 'rules'));
  const bundle = join(directory, 'ten.tar.gz');
  writeFileSync(bundle, (await buildBundle({ opa, roots: [rules] })).archive);
  const body = review();
  const script = join(directory, 'post.lua');
  writeFileSync(
    script,
    `wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[${body}]==]\n`,
  );
  const [bare, ours, peer] = (await freePorts(3)) as [number, number, number];
  const data = join(directory, 'data');
  mkdirSync(data);
  await start(process.execPath, [join(ROOT, 'bench/kit/admission-server.ts'), 'bare', String(bare), tls]);
  await start(process.execPath, [
    join(ROOT, 'bench/kit/admission-server.ts'),
    'ours',
    String(ours),
    tls,
    bundle,
    data,
    process.argv.find((a) => a.startsWith('threads='))?.slice(8) ?? '2',
  ]);
  servers.push(
    spawn(
      opa,
      [
        'run',
        '--server',
        '--addr',
        `127.0.0.1:${peer}`,
        '--tls-cert-file',
        join(tls, 'tls.crt'),
        '--tls-private-key-file',
        join(tls, 'tls.key'),
        '--log-level',
        'error',
        opaMain(rules),
      ],
      { stdio: 'ignore' },
    ),
  );
  const targets: Record<string, string> = {
    'bare express': `https://127.0.0.1:${bare}/validate`,
    countersign: `https://127.0.0.1:${ours}/validate`,
    'OPA server': `https://127.0.0.1:${peer}/`,
  };
  const gatekeeper = findOnPath('gatekeeper', process.env['PATH'] ?? '');
  const manifest = process.env['GATEKEEPER_MANIFEST'];
  if (gatekeeper !== undefined && manifest !== undefined) {
    const peer = await startGatekeeper(
      gatekeeper,
      manifest,
      readFileSync(join(rules, 'rules.rego'), 'utf8'),
      tls,
      directory,
    );
    closing.push(peer.stop);
    targets['Gatekeeper'] = peer.url;
  } else
    process.stderr.write(
      'Gatekeeper is left out: no `gatekeeper` on the PATH, or GATEKEEPER_MANIFEST does not name its deploy/gatekeeper.yaml\n',
    );
  for (const [name, url] of Object.entries(targets)) await sameAnswer(name, url, body, ca);
  process.stdout.write(
    `a review of ${Buffer.byteLength(body)} bytes, ten rules, 16 connections, ${SECONDS} s each, median of ${ROUNDS} rounds\n`,
  );
  const figures = new Map<string, { rate: number[]; p50: number[]; p99: number[] }>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, url] of Object.entries(targets)) {
      const measured = await load(url, script, 16);
      const kept = figures.get(name) ?? { rate: [], p50: [], p99: [] };
      for (const key of ['rate', 'p50', 'p99'] as const) kept[key].push(measured[key]);
      figures.set(name, kept);
    }
  }
  for (const [name, { rate, p50, p99 }] of figures)
    process.stdout.write(
      `  ${name.padEnd(14)} ${median(rate).toFixed(0).padStart(7)}/s (${Math.min(...rate).toFixed(0)} to ${Math.max(...rate).toFixed(0)})   p50 ${median(p50).toFixed(2)} ms   p99 ${median(p99).toFixed(2)} ms\n`,
    );
  const rate = (name: string) => median(figures.get(name)?.rate ?? []);
  const ratio = (name: string) => (rate('countersign') / rate(name)).toFixed(name === 'bare express' ? 2 : 1);
  process.stdout.write(
    `  countersign to bare express: ${ratio('bare express')} (bar 0.40); to OPA’s server: ${ratio('OPA server')}\n`,
  );
  if (figures.has('Gatekeeper')) process.stdout.write(`  countersign to Gatekeeper: ${ratio('Gatekeeper')} (bar 10)\n`);
} finally {
  for (const server of servers) server.kill();
  for (const close of closing) await close();
  rmSync(directory, { recursive: true, force: true });
}

async function start(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_ENV: 'production' },
  });
  servers.push(child);
  await once(child.stdout as NodeJS.ReadableStream, 'data');
}

async function load(
  url: string,
  script: string,
  connections: number,
): Promise<{ rate: number; p50: number; p99: number }> {
  const { stdout } = await run(wrk as string, [
    '-t1',
    `-c${connections}`,
    `-d${SECONDS}s`,
    '--latency',
    '-s',
    script,
    url,
  ]);
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(stdout);
  const ms = (text: string | undefined) => {
    const match = /^([\d.]+)(us|ms|s)$/.exec(text ?? '') ?? [];
    return Number(match[1]) * { us: 0.001, ms: 1, s: 1000 }[match[2] as 'us' | 'ms' | 's'];
  };
  return {
    rate: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]),
    p50: ms(/^\s+50%\s+(\S+)/m.exec(stdout)?.[1]),
    p99: ms(/^\s+99%\s+(\S+)/m.exec(stdout)?.[1]),
  };
}

// Every server lets this review through and refuses one with a privileged container: only then is it the same work.
async function sameAnswer(name: string, url: string, body: string, ca: string): Promise<void> {
  let last = '';
  const ask = (text: string) =>
    new Promise<boolean>((resolve, reject) => {
      const sent = request(url, { method: 'POST', ca, headers: { 'content-type': 'application/json' } }, (response) => {
        let answer = '';
        response.on('data', (d) => (answer += d));
        response.on('end', () => {
          last = answer;
          resolve((JSON.parse(answer) as { response: { allowed: boolean } }).response.allowed);
        });
      });
      sent.on('error', reject);
      sent.end(text);
    });
  for (let attempt = 0; ; attempt++) {
    try {
      const [good, bad] = [await ask(body), await ask(body.replace('"privileged":false', '"privileged":true'))];
      if (!good || (bad && name !== 'bare express'))
        throw new Error(`${name} answers otherwise: ${good} ${bad} ${last}`);
      return;
    } catch (thrown) {
      if (attempt === 50 || !/ECONNREFUSED/.test(String(thrown))) throw thrown;
      await new Promise((done) => setTimeout(done, 100));
    }
  }
}

function tenRules(to: string): string {
  const rego = readFileSync(join(ROOT, 'bench/kit/conftest/rules.rego'), 'utf8');
  const [head = '', ...blocks] = rego.split(/\n(?=deny_)/);
  mkdirSync(to);
  writeFileSync(join(to, 'rules.rego'), `${[head, ...blocks.slice(0, 10)].join('\n')}\n`);
  return to;
}

// What OPA's server is asked at `/`: the same rules on the object of the review, answered as a review.
function opaMain(rules: string): string {
  const rego = readFileSync(join(rules, 'rules.rego'), 'utf8');
  const names = [...rego.matchAll(/^(deny_\w+)/gm)].map((m) => m[1]);
  const file = join(directory, 'main.rego');
  writeFileSync(
    file,
    `package system\nimport rego.v1\n${rego.replace(/^package main\n+import rego.v1\n/, '').replaceAll(/\binput\./g, 'input.request.object.')}
reasons := ${[...new Set(names)].join(' | ')}
main := {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": input.request.uid, "allowed": count(reasons) == 0, "status": {"message": concat("; ", reasons)}}}
`,
  );
  return file;
}

function review(): string {
  const container = (name: string) => ({
    name,
    image: `registry.example.com/${name}:1.4.2`,
    env: Array.from({ length: 24 }, (_, i) => ({ name: `SETTING_${i}`, value: `value-${i}-${'x'.repeat(24)}` })),
    resources: { limits: { memory: '256Mi', cpu: '500m' }, requests: { memory: '128Mi', cpu: '100m' } },
    securityContext: {
      privileged: false,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ['ALL'] },
    },
    livenessProbe: { httpGet: { path: '/live', port: 8080 } },
    readinessProbe: { httpGet: { path: '/ready', port: 8080 } },
  });
  const labels = { app: 'web', team: 'a' };
  const object = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'team-a', labels },
    spec: {
      replicas: 3,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { securityContext: { runAsNonRoot: true }, containers: [container('web'), container('proxy')] },
      },
    },
  };
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      operation: 'CREATE',
      namespace: 'team-a',
      name: 'web',
      kind: { group: 'apps', version: 'v1', kind: 'Deployment' },
      resource: { group: 'apps', version: 'v1', resource: 'deployments' },
      userInfo: { username: 'dev@example.com', groups: ['developers', 'system:authenticated'] },
      object,
    },
  });
}
