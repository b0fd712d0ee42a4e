import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tool } from '../../scripts/tools.ts';
import { runCli } from '../../src/cli/index.ts';
import { type ApiServer, connect } from '../../src/cluster/index.ts';
import { type AuditSink, type ControlPlane, startControlPlane, writeKubeconfig } from './control-plane.ts';
import { runDirectory } from './run-directory.ts';

/** Where `countersign manifests` puts the service. */
const NAMESPACE = 'countersign';
/** Who the service is then. */
export const SERVICE_USER = `system:serviceaccount:${NAMESPACE}:countersign`;
const TOKEN_SECONDS = 12 * 3600;

/** The control plane that all files of a run share; one of its own for a file that runs by itself. */
export async function sharedPlane(): Promise<ControlPlane> {
  const run = runDirectory();
  if (run === undefined) return livingPlane();
  const { url, directory } = JSON.parse(readFileSync(planeFile(run), 'utf8')) as { url: string; directory: string };
  return {
    url,
    directory,
    kubeconfig: (user) => join(directory, 'kube', `${user}.yaml`),
    crashEtcd: () => Promise.reject(new Error('others are in this control plane: open the stage with `own`')),
    stop: () => Promise.resolve(),
  };
}

/** Says to the files of a run which control plane they share. */
export function sharePlane(run: string, { url, directory }: ControlPlane): void {
  writeFileSync(planeFile(run), JSON.stringify({ url, directory }));
}

/** A control plane with controllers and nodes, and the service's account in it as `countersign manifests` makes it. */
export async function livingPlane(
  audit?: AuditSink,
  qps?: number,
  flags: readonly string[] = [],
  grantRoles = false,
): Promise<ControlPlane> {
  const [etcd, apiserver, manager] = await Promise.all([
    tool('etcd'),
    tool('kube-apiserver'),
    tool('kube-controller-manager'),
  ]);
  const plane = await startControlPlane({ etcd, apiserver, manager, qps }, audit, flags);
  const { server } = await connect({ kubeconfig: plane.kubeconfig('admin'), context: undefined, namedBy: 'operator' });
  try {
    for (const object of await manifests(grantRoles)) await apply(server, object);
    writeKubeconfig(plane.directory, plane.url, 'countersign', await tokenOf(server));
  } catch (thrown) {
    await plane.stop();
    throw thrown;
  } finally {
    server.close();
  }
  return plane;
}

type Manifest = { readonly kind: string; readonly apiVersion: string; readonly metadata: Record<string, string> };

async function manifests(grantRoles: boolean): Promise<readonly Manifest[]> {
  let out = '';
  const io = {
    out: (text: string) => {
      out += text;
    },
    err: (text: string) => void process.stderr.write(text),
    ...{ terminal: false, colour: false, signal: new AbortController().signal },
  };
  const image = 'registry.example.test/countersign:0.1.0';
  const more = grantRoles ? ['--grant-roles'] : [];
  const code = await runCli(['manifests', '--namespace', NAMESPACE, '--image', image, ...more], io);
  if (code !== 0) throw new Error(`countersign manifests ended with ${code}`);
  return (JSON.parse(out) as { items: Manifest[] }).items;
}

async function apply(server: ApiServer, { apiVersion, kind, metadata, ...rest }: Manifest): Promise<void> {
  const group = apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`;
  const within = metadata['namespace'] === undefined ? '' : `/namespaces/${metadata['namespace']}`;
  const plural = kind
    .toLowerCase()
    .replace(/(ss?)$/, '$1e')
    .replace(/y$/, 'ie');
  const path = `${group}${within}/${plural}s/${metadata['name']}?fieldManager=kubectl`;
  const object = { apiVersion, kind, metadata, ...rest };
  const { status, body } = await server.request('PATCH', path, object, 'application/apply-patch+yaml');
  if (status >= 300) throw new Error(`${kind} ${metadata['name']} is refused: ${JSON.stringify(body)}`);
}

async function tokenOf(server: ApiServer): Promise<string> {
  const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/countersign/token`;
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} };
  const { status, body } = await server.request('POST', path, {
    ...request,
    spec: { expirationSeconds: TOKEN_SECONDS },
  });
  if (status !== 201) throw new Error(`the service gets no token: ${JSON.stringify(body)}`);
  return (body['status'] as { token: string }).token;
}

function planeFile(run: string): string {
  return join(run, 'plane.json');
}
