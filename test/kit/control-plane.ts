import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startNodes } from './nodes.ts';

/** A real kube-apiserver on a real etcd, on loopback, thrown away at the end. */
export type ControlPlane = {
  readonly url: string;
  readonly directory: string;
  /** A kubeconfig for one of the people, such as `admin`, `dev`, `oncall`, `controller`, `nobody` or `node`. */
  readonly kubeconfig: (user: string) => string;
  /** Ends etcd as a crash would, and starts it again on what it wrote. */
  readonly crashEtcd: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

const AGGREGATOR = 'system:serviceaccount:kube-system:clusterrole-aggregation-controller';

const PEOPLE = [
  ['admin', 'system:masters'],
  ['countersign', 'countersign:service'],
  ['dev', 'developers'],
  ['oncall', 'oncall'],
  ['second', 'oncall'],
  // A controller that is not the cluster's own, but that environments of tests declare (`spec.admission.controllers`).
  ['controller', 'outside-controllers'],
  ['operator', 'operators'],
  // Machinery that is not at work in any namespace by itself.
  ['aggregator', 'system:serviceaccounts:kube-system', AGGREGATOR],
  ['nobody', 'nobodies'],
  ['manager', 'system:authenticated', 'system:kube-controller-manager'],
  ['scheduler', 'system:authenticated', 'system:kube-scheduler'],
  ['node', 'system:nodes', 'system:node:node-a'],
  ['node-b', 'system:nodes', 'system:node:node-b'],
] as const satisfies readonly (readonly [string, string, string?])[];

/** Where the API server sends its audit events, and the file it writes them into as well. */
export type AuditSink = { readonly url: string; readonly token: string; readonly log: string };

/**
 * The programs of a control plane. With a controller manager it lives: Deployments get pods, pods run on two nodes.
 * `qps`: the requests a second each controller may send, 200 unless told, so that tests need not wait; 20 is its default.
 */
export type Programs = {
  readonly etcd: string;
  readonly apiserver: string;
  readonly manager?: string;
  readonly qps?: number | undefined;
};

/** Starts the programs and waits until the API server is ready; about three seconds. `flags` are for the API server. */
export async function startControlPlane(
  programs: Programs,
  audit?: AuditSink,
  flags: readonly string[] = [],
): Promise<ControlPlane> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-cp-'));
  const [client, peer, secure, manage] = await freePorts(4);
  writeFileSync(
    join(directory, 'sa.key'),
    generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
  );
  writeFileSync(
    join(directory, 'tokens.csv'),
    PEOPLE.map(([user, group, name = user]) => `${user}-token,${name},${user},"${group}"`).join('\n'),
  );
  const etcdArguments = [
    '--data-dir',
    join(directory, 'etcd'),
    '--unsafe-no-fsync',
    '--listen-client-urls',
    `http://127.0.0.1:${client}`,
    '--advertise-client-urls',
    `http://127.0.0.1:${client}`,
    '--listen-peer-urls',
    `http://127.0.0.1:${peer}`,
    '--initial-advertise-peer-urls',
    `http://127.0.0.1:${peer}`,
    '--initial-cluster',
    `default=http://127.0.0.1:${peer}`,
  ];
  let etcd = start(directory, 'etcd', programs.etcd, etcdArguments);
  const apiserver = start(directory, 'kube-apiserver', programs.apiserver, [
    '--etcd-servers',
    `http://127.0.0.1:${client}`,
    '--bind-address',
    '127.0.0.1',
    '--advertise-address',
    '127.0.0.1',
    '--secure-port',
    String(secure),
    '--cert-dir',
    join(directory, 'certs'),
    '--service-account-issuer',
    'https://kubernetes.default.svc',
    '--service-account-key-file',
    join(directory, 'sa.key'),
    '--service-account-signing-key-file',
    join(directory, 'sa.key'),
    '--token-auth-file',
    join(directory, 'tokens.csv'),
    '--authorization-mode',
    'RBAC',
    '--service-cluster-ip-range',
    '10.0.0.0/16',
    '--allow-privileged',
    // Without a controller manager nobody makes the ServiceAccounts that pods need.
    ...(programs.manager === undefined ? ['--disable-admission-plugins', 'ServiceAccount'] : []),
    '--endpoint-reconciler-type',
    'none',
    ...(audit === undefined ? [] : auditFlags(directory, audit)),
    ...flags,
  ]);
  const url = `https://127.0.0.1:${secure}`;
  for (const [user] of PEOPLE) writeKubeconfig(directory, url, user, `${user}-token`);
  const kubeconfig = (user: string) => kubeconfigIn(directory, user);
  let manager: ChildProcess | undefined;
  let nodes: { readonly stop: () => Promise<void> } | undefined;
  const crashEtcd = async () => {
    await end(etcd, 'SIGKILL');
    etcd = start(directory, 'etcd', programs.etcd, etcdArguments);
  };
  const stop = async () => {
    await nodes?.stop();
    if (manager !== undefined) await end(manager, 'SIGKILL');
    await end(apiserver, 'SIGKILL'); // it would drain its watches for seconds, and nothing of it is kept
    await end(etcd, 'SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  };
  process.once('exit', () => {
    for (const child of [manager, apiserver, etcd]) child?.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  });
  try {
    await ready(url, [etcd, apiserver], directory);
    for (const object of rights()) await send(url, object);
    if (programs.manager !== undefined) {
      manager = start(
        directory,
        'kube-controller-manager',
        programs.manager,
        managerFlags(directory, manage ?? 0, programs.qps ?? 200),
      );
      nodes = await startNodes(url);
    }
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return { url, directory, kubeconfig, crashEtcd, stop };
}

function managerFlags(directory: string, port: number, qps: number): string[] {
  const kubeconfig = kubeconfigIn(directory, 'manager');
  return [
    `--kubeconfig=${kubeconfig}`,
    `--authentication-kubeconfig=${kubeconfig}`,
    `--authorization-kubeconfig=${kubeconfig}`,
    '--use-service-account-credentials',
    `--service-account-private-key-file=${join(directory, 'sa.key')}`,
    `--root-ca-file=${join(directory, 'certs', 'apiserver.crt')}`,
    `--cert-dir=${join(directory, 'manager')}`,
    '--bind-address=127.0.0.1',
    `--secure-port=${port}`,
    '--leader-elect=false',
    // On a busy machine heartbeats come late: no node is given up for that.
    '--node-monitor-grace-period=30m',
    `--kube-api-qps=${qps}`,
    `--kube-api-burst=${Math.ceil(qps * 1.5)}`,
  ];
}

function auditFlags(directory: string, { url, token, log }: AuditSink): string[] {
  const [policy, config] = [join(directory, 'audit-policy.yaml'), join(directory, 'audit-webhook.yaml')];
  writeFileSync(
    policy,
    JSON.stringify({
      apiVersion: 'audit.k8s.io/v1',
      kind: 'Policy',
      omitStages: ['RequestReceived'],
      rules: [{ level: 'Metadata' }],
    }),
  );
  writeFileSync(
    config,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'u', user: { token } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'c',
    }),
  );
  return [
    `--audit-policy-file=${policy}`,
    `--audit-webhook-config-file=${config}`,
    '--audit-webhook-batch-max-wait=500ms',
    '--audit-webhook-initial-backoff=500ms',
    `--audit-log-path=${log}`,
  ];
}

// Below the ports that a system gives to outgoing connections: one of those would take a port before its server does.
const [FIRST_PORT, PORTS] = [20_000, 12_000];

/** Ports that no one listens on just now. */
export async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  while (found.size < count) {
    const port = FIRST_PORT + Math.floor(Math.random() * PORTS);
    if (await isFree(port)) found.add(port);
  }
  return [...found];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

function start(directory: string, name: string, program: string, args: string[]): ChildProcess {
  const log = createWriteStream(join(directory, `${name}.log`));
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
  await gone;
  clearTimeout(timer);
}

async function ready(url: string, children: ChildProcess[], directory: string): Promise<void> {
  for (const until = Date.now() + 120_000; Date.now() < until; ) {
    const dead = children.find((c) => c.exitCode !== null);
    if (dead !== undefined)
      throw new Error(
        `${dead.spawnfile} ended: ${readFileSync(join(directory, `${dead.spawnfile.includes('etcd') ? 'etcd' : 'kube-apiserver'}.log`), 'utf8').slice(-2000)}`,
      );
    const status = await call(url, 'GET', '/readyz').catch(() => 0);
    if (status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the control plane was not ready within 120 s');
}

// The rights of docs/operations.md for the service, and what the people of the tests may do.
function rights(): object[] {
  const bind = (name: string, role: string, who: string, kind = 'Group') => ({
    path: '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
    body: {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind, name: who }],
    },
  });
  return [
    bind('test-countersign', 'cluster-admin', 'countersign:service'),
    bind('test-developers', 'cluster-admin', 'developers'),
    bind('test-operators', 'cluster-admin', 'operators'),
    bind('test-oncall', 'cluster-admin', 'oncall'),
    bind('test-controllers', 'cluster-admin', 'outside-controllers'),
    bind('test-aggregator', 'cluster-admin', AGGREGATOR, 'User'),
    bind('test-nodes', 'system:node', 'system:nodes'),
    bind('test-nodes-view', 'view', 'system:nodes'),
  ];
}

async function send(url: string, { path, body }: { path?: string; body?: unknown }): Promise<void> {
  const status = await call(url, 'POST', path ?? '', body);
  if (status !== 201 && status !== 409) throw new Error(`${path} answered ${status}`);
}

const agent = new Agent({ rejectUnauthorized: false, keepAlive: false });

function call(url: string, method: string, path: string, body?: unknown): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(
      url + path,
      { method, agent, headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json' } },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    sent.on('error', reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function kubeconfigIn(directory: string, user: string): string {
  return join(directory, 'kube', `${user}.yaml`);
}

/** Writes the kubeconfig of a user who has a token. */
export function writeKubeconfig(directory: string, url: string, user: string, token: string): void {
  mkdirSync(join(directory, 'kube'), { recursive: true });
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'test',
    clusters: [
      { name: 'test', cluster: { server: url, 'certificate-authority': join(directory, 'certs', 'apiserver.crt') } },
    ],
    users: [{ name: user, user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user } }],
  };
  writeFileSync(kubeconfigIn(directory, user), JSON.stringify(config));
}
