import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { connect } from '../src/cluster/index.ts';
import { SUPPORTED } from '../src/model/index.ts';
import { startControlPlane } from '../test/kit/control-plane.ts';
import { admissionPage, minorOf, type Pair, pairsOf } from './admission-matrix.ts';
import { tool } from './tools.ts';
import { named } from './versions.ts';

// Beside `npm run docs`, which needs no API server.
const byVersion = new Map<string, readonly Pair[]>();
for (const minor of Object.keys(SUPPORTED.Kubernetes)) {
  const apiserver = await tool(named('Kubernetes', 'kube-apiserver', minor), { pinned: true });
  const plane = await startControlPlane({ etcd: await tool('etcd'), apiserver });
  const kubeconfig = plane.kubeconfig('admin');
  const { server } = await connect({ kubeconfig, context: undefined, namedBy: 'operator' });
  byVersion.set(await minorOf(server), await pairsOf(server));
  server.close();
  await plane.stop();
}
writeFileSync(fileURLToPath(new URL('../docs/admission-resources.md', import.meta.url)), admissionPage(byVersion));
