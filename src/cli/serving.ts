import type { Logger } from 'pino';
import { type ApiServer, Cluster, type ClusterAddress, connect } from '../cluster/index.ts';
import type { Configuration, ProcessSettings } from '../config/index.ts';
import type { LedgerView, Recorder } from '../gate/index.ts';
import type { Ledger } from '../ledger/index.ts';
import { CountersignError, digestOf } from '../model/index.ts';
import type { Notifications } from '../notify/index.ts';
import type { Metrics } from '../service/index.ts';
import type { ServeOptions } from './serve.ts';

/** An account in a cluster, and its objects of ours. Environments with the same account share one. */
export type ClusterLink = { readonly server: ApiServer; readonly user: string };

/** What the parts of a running service are handed; each adds to `closing` what ends it. */
export type Serving = {
  readonly configuration: Configuration;
  readonly options: ServeOptions;
  readonly settings: ProcessSettings;
  readonly log: Logger;
  readonly links: ReadonlyMap<string, ClusterLink>;
  readonly ledger: Ledger;
  readonly recorder: LedgerView & Recorder;
  readonly metrics: Metrics;
  /** Hears what happened in environments, for people. */
  readonly notifications: Notifications;
  readonly closing: (() => void | Promise<void>)[];
};

/** The link of an environment. */
export function linkOf(links: ReadonlyMap<string, ClusterLink>, environment: string): ClusterLink {
  return links.get(environment) as ClusterLink;
}

/** One connection per cluster and account, found by the environment's name. */
export async function connectAll(
  configuration: Configuration,
  options: ServeOptions,
  settings: ProcessSettings,
): Promise<ReadonlyMap<string, ClusterLink>> {
  const byAddress = new Map<string, ClusterLink>();
  const byEnvironment = new Map<string, ClusterLink>();
  for (const { metadata, spec } of configuration.environments) {
    const address = {
      kubeconfig: spec.target.kubeconfig ?? options.kubeconfig ?? settings.kubeconfig,
      context: spec.target.context ?? options.context,
      serviceAccount: spec.target.serviceAccount,
    };
    const key = JSON.stringify(address);
    const link = byAddress.get(key) ?? (await openLink(address));
    byAddress.set(key, link);
    byEnvironment.set(metadata.name, link);
  }
  return byEnvironment;
}

async function openLink(address: ClusterAddress): Promise<ClusterLink> {
  const { server, user } = await connect(address);
  return { server, user };
}

/** The kube-system namespace's id: stable for the cluster's life, and nobody has to think of a name. */
export async function originOf({ server, user }: ClusterLink): Promise<string> {
  const answer = await server.request('GET', '/api/v1/namespaces/kube-system');
  const uid = (answer.body as { metadata?: { uid?: string } }).metadata?.uid;
  if (uid === undefined)
    throw new CountersignError('cluster-forbidden', `\`${user}\` may not read the namespace kube-system, whose id names the ledger`, {
      hint: 'grant `get` on namespaces, or name the ledger with --origin',
    });
  return `countersign.dev/cluster/${uid}`;
}

/** The digest of the first entry: the same through every change of key or epoch, and another for any other ledger. */
function ledgerId(ledger: Ledger): string {
  return digestOf(ledger.read.entry(0)?.entry ?? {}).slice(0, 16);
}

/** The clusters, one for each link. */
export function openClusters(links: ReadonlyMap<string, ClusterLink>, ledger: Ledger, log: Logger): ReadonlyMap<ClusterLink, Cluster> {
  return new Map([...new Set(links.values())].map((link) => [link, new Cluster(link.server, link.user, ledgerId(ledger), log)]));
}
