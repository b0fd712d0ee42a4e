import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A real kube-apiserver on a real etcd, on loopback, thrown away at the end. */
export type ControlPlane = {
  readonly url: string;
  readonly directory: string;
  /** A kubeconfig for one of the people: `admin`, `countersign`, `dev`, `oncall`, `controller`, `nobody`. */
  readonly kubeconfig: (user: string) => string;
  /** Ends etcd as a crash would, and starts it again on what it wrote. */
  readonly crashEtcd: () => Promise<void>;
  readonly stop: () => Promise<void>;
};

const PEOPLE = [
  ['admin', 'system:masters'],
  ['countersign', 'countersign:service'],
  ['dev', 'developers'],
  ['oncall', 'oncall'],
  ['controller', 'system:serviceaccounts:kube-system', 'system:serviceaccount:kube-system:deployment-controller'],
  ['operator', 'operators'],
  ['nobody', 'nobodies'],
] as const satisfies readonly (readonly [string, string, string?])[];

/** Where the API server sends its audit events, and the file it writes them into as well. */
export type AuditSink = { readonly url: string; readonly token: string; readonly log: string };

/** Starts both programs and waits until the API server is ready; about three seconds. */
export async function startControlPlane(
  programs: { etcd: string; apiserver: string },
  audit?: AuditSink,
): Promise<ControlPlane> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-cp-'));
  const [client, peer, secure] = await freePorts(3);
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
    '--disable-admission-plugins',
    'ServiceAccount',
    '--endpoint-reconciler-type',
    'none',
    ...(audit === undefined ? [] : auditFlags(directory, audit)),
  ]);
  const url = `https://127.0.0.1:${secure}`;
  const kubeconfig = (user: string) => writeKubeconfig(directory, url, user);
  const crashEtcd = async () => {
    await end(etcd, 'SIGKILL');
    etcd = start(directory, 'etcd', programs.etcd, etcdArguments);
  };
  const stop = async () => {
    await end(apiserver);
    await end(etcd);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await ready(url, [etcd, apiserver], directory);
    for (const object of rights()) await send(url, object);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return { url, directory, kubeconfig, crashEtcd, stop };
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

/** Ports nobody listens on just now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((s) => (s.address() as { port: number }).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
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
  for (const until = Date.now() + 60_000; Date.now() < until; ) {
    const dead = children.find((c) => c.exitCode !== null);
    if (dead !== undefined)
      throw new Error(
        `${dead.spawnfile} ended: ${readFileSync(join(directory, `${dead.spawnfile.includes('etcd') ? 'etcd' : 'kube-apiserver'}.log`), 'utf8').slice(-2000)}`,
      );
    const status = await call(url, 'GET', '/readyz').catch(() => 0);
    if (status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the control plane was not ready within 60 s');
}

// The rights of docs/operations.md for the service, and what the people of the tests may do.
function rights(): object[] {
  const bind = (name: string, role: string, group: string) => ({
    path: '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
    body: {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: group }],
    },
  });
  return [
    bind('test-countersign', 'cluster-admin', 'countersign:service'),
    bind('test-developers', 'cluster-admin', 'developers'),
    bind('test-operators', 'cluster-admin', 'operators'),
    bind('test-oncall', 'cluster-admin', 'oncall'),
    bind('test-controllers', 'cluster-admin', 'system:serviceaccounts:kube-system'),
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

function writeKubeconfig(directory: string, url: string, user: string): string {
  mkdirSync(join(directory, 'kube'), { recursive: true });
  const file = join(directory, 'kube', `${user}.yaml`);
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'test',
    clusters: [
      { name: 'test', cluster: { server: url, 'certificate-authority': join(directory, 'certs', 'apiserver.crt') } },
    ],
    users: [{ name: user, user: { token: `${user}-token` } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user } }],
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}
