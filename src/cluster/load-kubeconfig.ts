import { existsSync } from 'node:fs';
import { KubeConfig } from '@kubernetes/client-node';
import { CountersignError, messageOf } from '../model/index.ts';
import type { ClusterAddress } from './cluster-address.ts';
import { documentKubeconfig } from './kubeconfig.ts';

/** Reads the kubeconfig of an address, or the pod's own account. Throws `config-invalid`. */
export function loadKubeConfig({ kubeconfig, context, namedBy }: ClusterAddress): KubeConfig {
  if (kubeconfig !== undefined && namedBy !== 'operator') return documentKubeconfig(kubeconfig, context);
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) loadOwnAccount(config);
    else config.loadFromFile(kubeconfig);
    if (context !== undefined) config.setCurrentContext(context);
    if (config.getCurrentCluster() === null)
      throw new Error(context === undefined ? 'it has no current context' : `it has no context \`${context}\``);
    return config;
  } catch (cause) {
    const what =
      kubeconfig === undefined
        ? 'there is no kubeconfig: `KUBECONFIG` is not set and this is not a pod'
        : `the kubeconfig \`${kubeconfig}\` cannot be used: ${messageOf(cause)}`;
    throw new CountersignError('config-invalid', what, {
      cause,
      hint:
        kubeconfig === undefined
          ? 'name one with --kubeconfig'
          : 'name one with --kubeconfig, `KUBECONFIG`, or `spec.target.kubeconfig`',
    });
  }
}

// Outside a pod, the library would silently use an empty address.
function loadOwnAccount(config: KubeConfig): void {
  config.loadFromCluster();
  const { server = '' } = config.getCurrentCluster() ?? {};
  const { tokenFile } = (config.getCurrentUser()?.authProvider?.config ?? {}) as { tokenFile?: string };
  const isAddress = URL.canParse(server) && new URL(server).hostname !== 'undefined';
  if (!isAddress || tokenFile === undefined || !existsSync(tokenFile))
    throw new Error('this is not a pod with a service account');
}
