import type { RequestOptions } from 'node:https';
import { parentPort, workerData } from 'node:worker_threads';
import { answerOf } from '../model/index.ts';
import type { ClusterAddress } from './cluster-address.ts';
import { type ReadAside, stateOf } from './credentials.ts';
import { loadKubeConfig } from './load-kubeconfig.ts';

// Reads one kubeconfig and ends.
parentPort?.postMessage(await answerOf(() => read(workerData as ClusterAddress)));

async function read(address: ClusterAddress): Promise<ReadAside> {
  const config = loadKubeConfig(address);
  const user = config.getCurrentUser();
  const cluster = config.getCurrentCluster();
  const { name, config: settings } = user?.authProvider ?? {};
  if (user?.exec != null || (name !== undefined && name !== 'tokenFile')) return { kind: 'program' };
  const { tokenFile } = (settings ?? {}) as { readonly tokenFile?: string };
  const files = [cluster?.caFile, user?.certFile, user?.keyFile, tokenFile].flatMap((f) =>
    f === undefined || f === '' ? [] : [f],
  );
  const state = stateOf(files);
  const options: RequestOptions = {};
  await config.applyToHTTPSOptions(options);
  const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized, auth, headers } = options;
  return {
    kind: 'read',
    url: cluster?.server ?? '',
    context:
      address.kubeconfig === undefined || address.namedBy !== 'operator' ? address.context : config.getCurrentContext(),
    options: given({ ca, cert, key, pfx, passphrase, servername, rejectUnauthorized, auth, headers }),
    files,
    state,
  };
}

function given<T extends object>(fields: T): { [k in keyof T]: Exclude<T[k], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}
