import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Logger } from 'pino';
import { type ApiServer, Cluster, type ClusterAddress, connect } from '../cluster/index.ts';
import type { Configuration, ProcessSettings } from '../config/index.ts';
import { version } from '../config/index.ts';
import type { LedgerView, SureRecorder } from '../gate/index.ts';
import { Metrics, openTracing } from '../http/index.ts';
import {
  type Ledger,
  ledgerName,
  newInstance,
  openLedger,
  openSeal,
  placeWriteAhead,
  WriteAhead,
} from '../ledger/index.ts';
import { CountersignError, digestOf, durationMs, type Environment, type Trace, untraced } from '../model/index.ts';
import { Notifications } from '../notify/index.ts';
import { ledgerKey, type PassOptions, recorderOf } from '../open/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import { behindLedger, ClockWitness } from './clock-witness.ts';
import { sayProgress } from './say-progress.ts';
import { SigningLease, type SigningParts } from './signing-lease.ts';
import { VersionWatch } from './version-watch.ts';

/** An account in a cluster, and our objects there. Environments with the same account share one. */
export type ClusterLink = { readonly server: ApiServer; readonly user: string; readonly hasCredentialId: boolean };

/** How records get onto the ledger, for people. */
export type LedgerStanding = {
  readonly backlog: number;
  readonly isAvailable: boolean;
  readonly sequences: boolean;
  /** Ids of this replica and of the one that sequences, if replicas share the ledger. */
  readonly replica?: string;
  readonly sequencer?: string;
};

/** Passed to the parts of a running service; each adds its cleanup to `closing`. */
export type Serving<O extends PassOptions = PassOptions> = {
  readonly configuration: Configuration;
  readonly options: O;
  readonly settings: ProcessSettings;
  readonly log: Logger;
  readonly links: ReadonlyMap<string, ClusterLink>;
  readonly ledger: Ledger;
  readonly recorder: LedgerView & SureRecorder;
  readonly metrics: Metrics;
  /** Receives events of environments, for people. */
  readonly notifications: Notifications;
  /** Traces steps if `--traces` is given. */
  readonly trace: Trace;
  readonly closing: (() => void | Promise<void>)[];
  /** Ensures that no other service signs the ledger; undefined if replicas share it. */
  readonly signing: SigningLease | undefined;
  readonly ledgerStanding: () => LedgerStanding;
  /** Compares this machine's clock with others. */
  readonly clock: ClockWitness;
  /** Knows which API servers are outside of the supported versions. */
  readonly versions: VersionWatch;
};

/**
 * Connects to the clusters and opens the ledger and notifications. `running` is called for metrics. The caller closes
 * everything by calling the functions in `closing`, last first.
 */
export async function openServing<O extends PassOptions>(
  options: O,
  settings: ProcessSettings,
  configuration: Configuration,
  log: Logger,
  running: () => readonly Reconciler[],
  signal: AbortSignal = new AbortController().signal,
): Promise<Serving<O>> {
  const closing: Serving['closing'] = [];
  try {
    return await open({ options, settings, configuration, log, running, signal, closing });
  } catch (thrown) {
    // Close everything opened before the failure: a ledger that stays locked could not be opened by the next attempt.
    for (const close of closing.reverse()) await close();
    throw thrown;
  }
}

type Opening<O extends PassOptions> = Pick<Serving<O>, 'options' | 'settings' | 'configuration' | 'log' | 'closing'> & {
  readonly running: () => readonly Reconciler[];
  readonly signal: AbortSignal;
};

async function open<O extends PassOptions>(opening: Opening<O>): Promise<Serving<O>> {
  const { options, settings, configuration, log, running, signal, closing } = opening;
  const links = await connectAll(configuration, options, settings);
  const origin = options.origin ?? ledgerName(options.data) ?? (await originOf([...links.values()][0] as ClusterLink));
  const instance = newInstance(new Date());
  const data = resolve(options.data);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  // Replicas that share a database are distinguished there.
  const signing =
    options.ledger === undefined
      ? new SigningLease({
          ...signingPlace(configuration, links, options, settings),
          data,
          origin,
          key: ledgerKey(options),
          instance,
          log,
          signal,
        })
      : undefined;
  closing.push(() => signing?.release());
  await signing?.take();
  const ledger = await openLedger(data, origin, {
    instance,
    warn: (message) => log.warn({}, message),
    progress: sayProgress(log),
    postgres: options.ledger,
    key: ledgerKey(options),
    holdFor: Object.fromEntries(
      configuration.environments.map(({ metadata, spec }) => [
        metadata.name,
        durationMs(spec.admission.breakGlass.holdFor),
      ]),
    ),
  });
  closing.push(() => ledger.close());
  await signing?.take(ledger.verifier.publicKey);
  const notifications = new Notifications(configuration.notifiers, log);
  const warn = (message: string) => log.warn({}, message);
  const ahead = new WriteAhead(placeWriteAhead(data, options.writeAhead), recorderOf(ledger), {
    warn,
    seal: openSeal(resolve(options.data), ledger.verifier.name, ledgerKey(options), warn),
    clock: () => new Date(),
  });
  closing.push(
    () => ahead.close(),
    () => notifications.close(LAST_WORDS_MS),
  );
  const trace = await traceTo(options.traces, closing);
  const clock = new ClockWitness();
  clock.follow(([...links.values()][0] as ClusterLink).server);
  closing.push(clock.watch(ledger, log));
  const versions = new VersionWatch(
    [...links.values()].map(({ server }) => server),
    log,
  );
  closing.push(versions.watch());
  const metrics = new Metrics(() => ({
    environments: running().map((l) => l.status),
    entries: ledger.size,
    ...standingOf(ledger, ahead),
    connected: running().every((l) => l.connected),
    clockOffsetSeconds: -(clock.offset(ledger)?.behindMs ?? 0) / 1000,
    clockBehindLedgerSeconds: behindLedger(ledger) / 1000,
  }));
  // Otherwise each loop would wait for its own back-off, up to a minute.
  ledger.onBack = () => {
    void ahead.merge().catch(() => {});
    for (const loop of running()) loop.poke();
  };
  const recorder: Serving['recorder'] = {
    ...recorderOf(ledger),
    record: (body, evidence) => ahead.record(body, evidence),
    recordSurely: (body, evidence) => ahead.recordSurely(body, evidence),
    subject: (text) => ahead.subject(text),
  };
  return {
    configuration,
    options,
    settings,
    log,
    links,
    ledger,
    recorder,
    metrics,
    notifications,
    trace,
    closing,
    signing,
    ledgerStanding: () => standingOf(ledger, ahead),
    clock,
    versions,
  };
}

function standingOf(ledger: Ledger, ahead: WriteAhead): LedgerStanding {
  const { sharing } = ledger;
  return {
    backlog: ledger.backlog + ahead.waiting,
    isAvailable: sharing?.isAvailable !== false,
    sequences: sharing === undefined || sharing.sequencer === sharing.replica,
    ...(sharing === undefined ? {} : { replica: sharing.replica, sequencer: sharing.sequencer }),
  };
}

// In the first environment's cluster, with the service's own account if one is used.
function signingPlace(
  { environments }: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  { lease }: PassOptions & { readonly lease?: string },
  { podNamespace }: ProcessSettings,
): Pick<SigningParts, 'server' | 'namespace'> {
  const own = environments.find((e) => e.spec.target.serviceAccount === undefined) ?? environments[0];
  return { server: linkOf(links, own?.metadata.name ?? '').server, namespace: lease ?? podNamespace ?? 'default' };
}

async function traceTo(endpoint: string | undefined, closing: Serving['closing']): Promise<Trace> {
  if (endpoint === undefined) return untraced;
  const { trace, close } = await openTracing(endpoint, version());
  closing.push(close);
  return trace;
}

const LAST_WORDS_MS = 5000;

/** Returns the link of an environment. */
export function linkOf(links: ReadonlyMap<string, ClusterLink>, environment: string): ClusterLink {
  return links.get(environment) as ClusterLink;
}

// One connection per cluster and account, found by the environment's name.
async function connectAll(
  configuration: Configuration,
  options: PassOptions,
  settings: ProcessSettings,
): Promise<ReadonlyMap<string, ClusterLink>> {
  const byAddress = new Map<string, ClusterLink>();
  const byEnvironment = new Map<string, ClusterLink>();
  const addresses = configuration.environments.map(({ metadata, spec }) => ({
    name: metadata.name,
    address: addressOf(spec.target, options.kubeconfig ?? settings.kubeconfig, options.context),
  }));
  const aside = new Set(addresses.map(({ address }) => JSON.stringify(address))).size <= FEW;
  for (const { name, address } of addresses) {
    const key = JSON.stringify(address);
    const link = byAddress.get(key) ?? (await connect(address, { aside }));
    byAddress.set(key, link);
    byEnvironment.set(name, link);
  }
  return byEnvironment;
}

const FEW = 4; // a thread that reads a kubeconfig takes half a second of a core

function addressOf(
  target: Environment['spec']['target'],
  kubeconfig: string | undefined,
  context: string | undefined,
): ClusterAddress {
  return {
    kubeconfig: target.kubeconfig ?? kubeconfig,
    context: target.context ?? context,
    serviceAccount: target.serviceAccount,
    namedBy: target.kubeconfig === undefined ? 'operator' : 'document',
  };
}

// The id of the kube-system namespace: stable for the cluster's life, and no name has to be chosen.
async function originOf({ server, user }: ClusterLink): Promise<string> {
  const answer = await server.request('GET', '/api/v1/namespaces/kube-system');
  const uid = (answer.body as { metadata?: { uid?: string } }).metadata?.uid;
  if (uid === undefined)
    throw new CountersignError(
      'cluster-forbidden',
      `\`${user}\` may not read the namespace kube-system, whose id is the name of the ledger`,
      {
        hint: 'grant `get` on namespaces, or name the ledger with --origin',
      },
    );
  return `countersign.dev/cluster/${uid}`;
}

/** Returns the digest of the first entry: constant across changes of key or epoch, and unique to this ledger. */
export function ledgerId(ledger: Ledger): string {
  return digestOf(ledger.read.entry(0)?.entry ?? {}).slice(0, 16);
}

/** Returns the clusters, one per link. */
export function openClusters(
  links: ReadonlyMap<string, ClusterLink>,
  ledger: Ledger,
  log: Logger,
): ReadonlyMap<ClusterLink, Cluster> {
  return new Map(
    [...new Set(links.values())].map((link) => [link, new Cluster(link.server, link.user, ledgerId(ledger), log)]),
  );
}
