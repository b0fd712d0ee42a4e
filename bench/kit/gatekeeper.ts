import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { tool } from '../../scripts/tools.ts';
import { type ControlPlane, freePorts, startControlPlane } from '../../test/kit/control-plane.ts';
import { writeTemplates } from './gatekeeper-rules.ts';

/**
 * Gatekeeper's webhook with the same rules as templates and constraints, on a control plane of its own. `program` and
 * `manifest` (its `deploy/gatekeeper.yaml`) come from its Go module: `go install
 * github.com/open-policy-agent/gatekeeper/v3@v3.23.1`.
 */
export async function startGatekeeper(
  program: string,
  manifest: string,
  rego: string,
  tls: string,
  directory: string,
): Promise<{ readonly url: string; readonly stop: () => Promise<void> }> {
  const controlPlane: ControlPlane = await startControlPlane({
    etcd: await tool('etcd'),
    apiserver: await tool('kube-apiserver'),
  });
  const kubectl = await tool('kubectl');
  const apply = (file: string) =>
    execFileSync(kubectl, ['--kubeconfig', controlPlane.kubeconfig('admin'), 'apply', '--server-side', '-f', file], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  const parts = readFileSync(manifest, 'utf8').split(/^---$/m);
  const wanted = parts.filter((p) => /^kind: CustomResourceDefinition$/m.test(p));
  writeFileSync(join(directory, 'gatekeeper.yaml'), wanted.join('\n---\n'));
  apply(join(directory, 'gatekeeper.yaml'));
  // It owns its status objects by its own Pod, and makes no kind of a constraint without one.
  writeFileSync(
    join(directory, 'pod.yaml'),
    'apiVersion: v1\nkind: Namespace\nmetadata: {name: gatekeeper-system}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team-a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: bench, namespace: gatekeeper-system}\nspec: {containers: [{name: c, image: none}]}\n',
  );
  apply(join(directory, 'pod.yaml'));
  const certs = join(directory, 'gatekeeper-tls');
  mkdirSync(certs);
  for (const name of ['tls.crt', 'tls.key', 'ca.crt']) copyFileSync(join(tls, name), join(certs, name));
  const [port, health, metrics] = (await freePorts(3)) as [number, number, number];
  const child: ChildProcess = spawn(
    program,
    [
      ...[
        '--kubeconfig',
        controlPlane.kubeconfig('admin'),
        '--port',
        String(port),
        '--cert-dir',
        certs,
        '--disable-cert-rotation',
      ],
      ...[
        '--operation',
        'webhook',
        '--operation',
        'status',
        '--operation',
        'generate',
        '--health-addr',
        `127.0.0.1:${health}`,
        '--prometheus-port',
        String(metrics),
        '--log-level',
        'ERROR',
      ],
    ],
    {
      stdio: ['ignore', 'ignore', 'ignore'],
      env: { ...process.env, POD_NAME: 'bench', POD_NAMESPACE: 'gatekeeper-system' },
    },
  );
  const stop = async () => {
    child.kill();
    await controlPlane.stop();
  };
  const templates = join(directory, 'templates');
  writeTemplates(rego, templates);
  for (const file of readdirSync(templates)) {
    const [template = '', constraint = ''] = readFileSync(join(templates, file), 'utf8').split(/^---$/m);
    writeFileSync(join(directory, 'one.yaml'), template);
    apply(join(directory, 'one.yaml'));
    writeFileSync(join(directory, 'one.yaml'), constraint);
    for (let attempt = 0; ; attempt++) {
      try {
        apply(join(directory, 'one.yaml'));
        break;
      } catch (thrown) {
        if (attempt > 60) throw thrown;
        await wait(500); // its kind is defined by Gatekeeper, once it has compiled the template
      }
    }
  }
  await wait(5000);
  return { url: `https://127.0.0.1:${port}/v1/admit`, stop };
}
