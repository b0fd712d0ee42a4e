import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pino, { type Logger } from 'pino';
import { type ApiServer, Cluster, type ClusterAddress, connect, healthExpressions, registerWebhook, stages } from '../cluster/index.ts';
import type { Configuration, ProcessSettings } from '../config/index.ts';
import { type AdmissionScope, AuditAccount, type Gate, type KnownFile, rememberedState } from '../gate/index.ts';
import { APPROVALS_REF, openRepository, type Repository, redactUrl, sourceRef, sourceRepository } from '../git/index.ts';
import { AnchorKeeper, evidenceRef, LEDGER_FILES, type Ledger, type LedgerKey, ledgerName, openLedger } from '../ledger/index.ts';
import { CountersignError, digestOf, type Environment, messageOf, parseDuration, Recent, sha256 } from '../model/index.ts';
import { type ReconcilePorts, Reconciler, type Step } from '../reconcile/index.ts';
import { KnownHistory } from '../trust/index.ts';
import { type AdmissionScopes, addAuditEndpoint, type Certificates, createWebhook, makeCertificates } from '../webhook/index.ts';
import { type AnchorParts, openAnchor } from './anchors.ts';
import { EXIT, type Io } from './io.ts';
import { gitProgram, openConfiguration, openGate } from './open.ts';
import { sourceAccess } from './source-access.ts';
import { version } from './version.ts';

export type ServeOptions = {
  config: string[];
  data: string;
  kubeconfig?: string;
  context?: string;
  listen: string;
  webhookUrl?: string;
  origin?: string;
  ledger?: string;
  ledgerKey?: string[];
  ledgerKeyCommand?: string;
  ledgerKeyPublic?: string;
  anchor?: string[];
  anchorEvery: string;
  auditTokenFile?: string;
  heartbeat: string;
};

/** What the outside may hear of a running service: each step of each change (tests stop the process there). */
export type ServeHooks = { readonly onStep?: (step: Step, environment: string) => void };

type ClusterLink = { readonly server: ApiServer; readonly user: string; cluster?: Cluster };

/** `countersign serve`: ledger first, then the webhook, then the loops. Returns when it was told to stop. */
export async function serve(options: ServeOptions, settings: ProcessSettings, io: Io, hooks: ServeHooks = {}): Promise<number> {
  const log = pino(
    { level: settings.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (level) => ({ level }) } },
    { write: io.err },
  );
  const configuration = openConfiguration(options);
  if (configuration.environments.length === 0)
    throw new CountersignError('config-invalid', 'there is no Environment in the configuration', {
      hint: '`countersign init` writes a first one',
    });
  refuseSharedNamespaces(configuration.environments);
  const links = await connectAll(configuration, options, settings);
  const origin = options.origin ?? ledgerName(options.data) ?? (await originOf([...links.values()][0] as ClusterLink));
  const ledger = await openLedger(resolve(options.data), origin, {
    warn: (message) => log.warn({}, message),
    progress: sayProgress(log),
    postgres: options.ledger,
    key: ledgerKey(options),
  });
  const closing: (() => void | Promise<void>)[] = [() => ledger.close()];
  try {
    closing.push(await keepAnchors(configuration, links, ledger, options, settings, log));
    await recordStart(configuration, ledger, log);
    const loops = await openLoops(configuration, links, ledger, options, settings, log, hooks, closing);
    await openWebhook(configuration, links, ledger, options, log, closing);
    log.info({ environments: loops.map((l) => l.name), ledger: ledger.verifier.name, entries: ledger.size }, 'countersign is running');
    closing.push(beat(loops, ledger, interval(options.heartbeat, '--heartbeat'), log));
    await runUntilStopped(loops, io.signal);
    await ledger.record({ type: 'service.stopped', reason: io.signal.aborted ? 'told to stop' : 'its loops ended' });
    return EXIT.yes;
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

function ledgerKey({ ledgerKey: files, ledgerKeyCommand: command, ledgerKeyPublic: publicKey }: ServeOptions): LedgerKey | undefined {
  if (command === undefined) return files === undefined ? undefined : { files };
  if (publicKey === undefined || files !== undefined)
    throw new CountersignError('usage', '--ledger-key-command goes with --ledger-key-public, and not with --ledger-key', {
      hint: 'give the public key as `ledger.pub` has it',
    });
  return { command: command.split(/\s+/), publicKey };
}

// A long ledger takes a while to be read back: ten seconds for a million entries.
function sayProgress(log: Logger): (done: number) => void {
  let told = Date.now();
  return (done) => {
    if (Date.now() - told < 5000) return;
    told = Date.now();
    log.info({ entries: done }, 'reading the ledger back');
  };
}

// What was kept elsewhere is looked at before anything is signed; from then on the newest checkpoint goes there.
async function keepAnchors(
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  ledger: Ledger,
  options: ServeOptions,
  settings: ProcessSettings,
  log: Logger,
): Promise<() => Promise<void>> {
  const every = interval(options.anchorEvery, '--anchor-every');
  const data = resolve(options.data);
  const parts: AnchorParts = {
    data,
    ledger,
    key: ledgerKey(options),
    server: ([...links.values()][0] as ClusterLink).server,
    git: gitProgram(settings),
    access: (url) => sourceAccess(configuration.environments.find((e) => e.spec.source.url === url)?.spec.source.credentials),
  };
  const keeper = new AnchorKeeper({
    ledger,
    keyText: readFileSync(join(data, LEDGER_FILES.verifier), 'utf8'),
    anchors: (options.anchor ?? []).map((text) => openAnchor(text, parts)),
    clock: () => new Date(),
    warn: (message) => log.warn({}, message),
    onConflict: (note) => {
      const file = join(data, 'newer-checkpoint');
      writeFileSync(file, note);
      log.error({ file }, 'the checkpoint that the ledger does not extend');
    },
  });
  await keeper.check();
  const timer = setInterval(() => void keeper.keep(), every);
  const first = setTimeout(() => void keeper.keep(), Math.min(every, 5000)); // once the start is on record
  return async () => {
    clearInterval(timer);
    clearTimeout(first);
    // The last one goes there too, where that does not hold up the end.
    const patience = new AbortController();
    await Promise.race([keeper.keep(), wait(LAST_ANCHOR_MS, undefined, { signal: patience.signal }).catch(() => {})]);
    patience.abort();
  };
}

const LAST_ANCHOR_MS = 5000;

// What was there, what is different since the last start, and that this is a start.
async function recordStart(configuration: Configuration, ledger: Ledger, log: Logger): Promise<void> {
  const before = ledger.read.latest(['service.started'], '')?.entry.configuration;
  const { entries, unanchored, lastTime } = ledger.found;
  if (Date.parse(lastTime) > Date.now() + 60_000)
    log.warn({ newest: lastTime }, 'the newest entry is of a later time than the clock: entries bear that time until the clock is past it');
  if (unanchored > 0 && entries > unanchored)
    log.warn({ entries, unanchored }, 'the ledger holds entries that were committed as it was last interrupted');
  await ledger.record({
    type: 'service.started',
    version: version(),
    environments: configuration.environments.map((e) => e.metadata.name),
    configuration: configuration.digest,
    found: { entries, unanchored },
  });
  if (before !== undefined && before !== configuration.digest)
    await ledger.record({ type: 'config.changed', before, after: configuration.digest });
}

function interval(text: string, option: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= 1000) return ms;
  throw new CountersignError('usage', `\`${text}\` is no time for ${option}`, { hint: 'a second or more, for example 10m' });
}

// Says that the service is alive; where no such entry stands, it was away, and a report can tell for how long.
function beat(loops: readonly Reconciler[], ledger: Ledger, every: number, log: Logger): () => void {
  const timer = setInterval(() => {
    const environments = loops.map(({ status: { environment, revision, state } }) => ({ name: environment, revision, state }));
    ledger
      .record({ type: 'heartbeat', everySeconds: Math.round(every / 1000), environments })
      .catch((thrown) => log.error({}, `the heartbeat could not be recorded: ${messageOf(thrown)}`));
  }, every);
  return () => clearInterval(timer);
}

async function runUntilStopped(loops: readonly Reconciler[], signal: AbortSignal): Promise<void> {
  const stop = () => {
    for (const loop of loops) loop.stop();
  };
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  const ended = await Promise.allSettled(
    loops.map((loop) =>
      loop.run().catch((thrown) => {
        stop(); // one loop that cannot trust the ledger ends all of them
        throw thrown;
      }),
    ),
  );
  const failed = ended.find((e) => e.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

// One connection per cluster, found by the environment's name.
async function connectAll(
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

// The kube-system namespace's id: stable for the cluster's life, and nobody has to think of a name.
async function originOf({ server, user }: ClusterLink): Promise<string> {
  const answer = await server.request('GET', '/api/v1/namespaces/kube-system');
  const uid = (answer.body as { metadata?: { uid?: string } }).metadata?.uid;
  if (uid === undefined)
    throw new CountersignError('cluster-forbidden', `\`${user}\` may not read the namespace kube-system, whose id names the ledger`, {
      hint: 'grant `get` on namespaces, or name the ledger with --origin',
    });
  return `countersign.dev/cluster/${uid}`;
}

// The digest of the first entry: the same through every change of key or epoch, and another for any other ledger.
function ledgerId(ledger: Ledger): string {
  return digestOf(ledger.read.entry(0)?.entry ?? {}).slice(0, 16);
}

async function openLoops(
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  ledger: Ledger,
  options: ServeOptions,
  settings: ProcessSettings,
  log: Logger,
  hooks: ServeHooks,
  closing: (() => void | Promise<void>)[],
): Promise<Reconciler[]> {
  const recorder = recorderOf(ledger);
  const repositories = new Map<string, Repository>();
  const once = sharing();
  const loops = new Map<string, Reconciler>();
  const opened = await Promise.all(
    configuration.environments.map(async (environment) => {
      const { url, branch } = environment.spec.source;
      const directory = join(resolve(options.data), 'git', sha256(`${url} ${branch}`).slice(0, 16));
      const repository = repositories.get(directory) ?? openRepository(directory, gitProgram(settings));
      if (!repositories.has(directory)) closing.push(() => repository.close());
      repositories.set(directory, repository);
      const opened = await openGate(configuration, environment, sourceRepository(repository), () => new Date(), {
        git: gitProgram(settings),
      });
      closing.push(opened.close);
      const gate: Gate = {
        ...opened.gate,
        recorder,
        known: new KnownHistory(),
        rendered: new Recent<KnownFile>(1000),
        findings: new Recent(1000),
      };
      const access = sourceAccess(environment.spec.source.credentials);
      const link = links.get(environment.metadata.name) as ClusterLink;
      link.cluster ??= new Cluster(link.server, link.user, ledgerId(ledger), log);
      const { cluster } = link;
      const ports: ReconcilePorts = {
        environment,
        cluster: Object.assign(cluster, { stages }),
        ledger: recorder,
        state: rememberedState(recorder, environment.metadata.name),
        log,
        clock: () => new Date(),
        look: async () => {
          await once(directory, async () => repository.fetch(url, branch, await access()));
          const tip = await repository.resolve(sourceRef(branch));
          if (tip === undefined)
            throw new CountersignError('git-ref-missing', `\`${redactUrl(url)}\` has no branch \`${branch}\``, { recover: 'retry' });
          return { tip, approvals: (await repository.resolve(APPROVALS_REF)) ?? '' };
        },
        ...(hooks.onStep === undefined ? {} : { onStep: hooks.onStep }),
      };
      const loop = new Reconciler(gate, ports, (name) => loops.get(name)?.status);
      cluster.listen(environment.metadata.name, () => loop.stir(), healthExpressions(environment.spec.health.expressions));
      loops.set(environment.metadata.name, loop);
      return loop;
    }),
  );
  closing.push(() => {
    for (const link of links.values()) link.cluster?.view.close();
  });
  return opened;
}

async function openWebhook(
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  ledger: Ledger,
  options: ServeOptions,
  log: Logger,
  closing: (() => void | Promise<void>)[],
): Promise<void> {
  if (options.listen === 'off') {
    if (options.auditTokenFile !== undefined)
      throw new CountersignError('usage', 'audit events are taken where the webhook listens, and that is off', {
        hint: 'use --webhook HOST:PORT',
      });
    return log.warn({}, 'the admission webhook is off: only Countersign’s own writes are judged');
  }
  const { host, port } = listenAddress(options.listen);
  const url = options.webhookUrl ?? `https://${host}:${port}/validate`;
  const certificates = await makeCertificates(join(options.data, 'tls'), new URL(url).hostname.replace(/^\[|\]$/g, ''), new Date());
  const app = createWebhook(scopesOf(configuration, links, ledger), () => true, log);
  if (options.auditTokenFile !== undefined) closing.push(takeAuditEvents(app, options.auditTokenFile, configuration, links, ledger, log));
  const server = createServer({ cert: certificates.cert, key: certificates.key, minVersion: 'TLSv1.3' }, app);
  await listen(server, host, port);
  closing.push(() => closeServer(server));
  await registerAll(configuration, links, url, certificates);
  log.info({ url }, 'the admission webhook is in place');
}

const COVERED_EVERY_MS = 60_000;

// The API server's own audit log, as a second witness of what was written: what the ledger does not account for goes on it.
function takeAuditEvents(
  app: Parameters<typeof addAuditEndpoint>[0],
  tokenFile: string,
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  ledger: Ledger,
  log: Logger,
): () => Promise<void> {
  const scopes = configuration.environments.map((environment) => ({
    environment,
    applier: (links.get(environment.metadata.name) as ClusterLink).user,
  }));
  const account = new AuditAccount(scopes, recorderOf(ledger));
  const take = async (events: readonly unknown[]) => {
    for (const { environment, write } of await account.take(events))
      log.warn({ environment, write }, 'the API server’s audit log shows a write that nothing on the ledger accounts for');
  };
  addAuditEndpoint(app, readToken(tokenFile), take, (message) => log.warn({}, message));
  const settle = () =>
    account.settle().catch((thrown) => log.error({}, `what the audit log covers could not be recorded: ${messageOf(thrown)}`));
  const timer = setInterval(() => void settle(), COVERED_EVERY_MS);
  return async () => {
    clearInterval(timer);
    await settle();
  };
}

function readToken(file: string): string {
  try {
    const token = readFileSync(file, 'utf8').trim();
    if (token.length < 16) throw new Error('it is shorter than 16 characters');
    return token;
  } catch (cause) {
    throw new CountersignError('key-missing', `the token in \`${file}\` cannot be used: ${messageOf(cause)}`, {
      cause,
      hint: '`openssl rand -hex 32` makes one; the API server is given the same in its audit webhook’s kubeconfig',
    });
  }
}

async function registerAll(
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  url: string,
  certificates: Certificates,
): Promise<void> {
  for (const link of new Set(links.values())) {
    const governed = configuration.environments.filter((e) => e.spec.admission.mode !== 'off' && links.get(e.metadata.name) === link);
    const namespaces = governed.flatMap((e) => e.spec.target.namespaces);
    if (namespaces.length === 0) continue;
    refuseUnreachable(url, link.server.url);
    await registerWebhook(link.server, { url, caBundle: certificates.ca }, namespaces);
  }
}

// Registered all the same, it would close the governed namespaces: the API server would call itself and hear nothing.
function refuseUnreachable(webhook: string, apiServer: string): void {
  const isLoopback = (url: string) => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
  if (!isLoopback(webhook) || isLoopback(apiServer)) return;
  throw new CountersignError('usage', `the API server at \`${apiServer}\` cannot reach a webhook at \`${webhook}\``, {
    hint: 'use --webhook with an address of this machine that the cluster reaches, or --webhook-url; --webhook off runs without admission',
  });
}

function scopesOf(configuration: Configuration, links: ReadonlyMap<string, ClusterLink>, ledger: Ledger): AdmissionScopes {
  const recorder = recorderOf(ledger);
  const scopes = new Map<string, AdmissionScope>();
  for (const environment of configuration.environments) {
    const { user } = links.get(environment.metadata.name) as ClusterLink;
    const scope: AdmissionScope = {
      environment,
      state: rememberedState(recorder, environment.metadata.name),
      applier: user,
      recorder,
      clock: () => new Date(),
    };
    for (const namespace of environment.spec.target.namespaces) scopes.set(namespace, scope);
  }
  return (namespace) => scopes.get(namespace);
}

// Environments on one repository that look at the same moment share one fetch.
function sharing(): (key: string, task: () => Promise<void>) => Promise<void> {
  const running = new Map<string, Promise<void>>();
  return (key, task) => {
    const shared = running.get(key) ?? task().finally(() => running.delete(key));
    running.set(key, shared);
    return shared;
  };
}

// The ledger as the rooms ask for it: reading and recording behind one face.
function recorderOf(ledger: Ledger): ReconcilePorts['ledger'] {
  const { read } = ledger;
  return {
    record: (body, evidence) => ledger.record(body, evidence),
    asEvidence: evidenceRef,
    subject: (text) => ledger.subject(text),
    evidence: (ref) => read.evidence(ref),
    latest: (types, environment, before) => read.latest(types, environment, before),
    all: (type, environment) => read.all(type, environment),
    entry: (index) => read.entry(index),
  };
}

function refuseSharedNamespaces(environments: readonly Environment[]): void {
  const owners = new Map<string, string>();
  for (const environment of environments) {
    for (const namespace of environment.spec.target.namespaces) {
      const key = `${environment.spec.target.kubeconfig ?? ''} ${environment.spec.target.context ?? ''} ${namespace}`;
      const owner = owners.get(key);
      if (owner !== undefined)
        throw new CountersignError(
          'config-invalid',
          `the namespace \`${namespace}\` is governed by both \`${owner}\` and \`${environment.metadata.name}\``,
          { hint: 'give each environment namespaces of its own' },
        );
      owners.set(key, environment.metadata.name);
    }
  }
}

function listenAddress(text: string): { host: string; port: number } {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  if (match === null)
    throw new CountersignError('usage', `\`${text}\` is not an address to listen on`, {
      hint: 'for example --webhook 127.0.0.1:9443, or --webhook off',
    });
  return { host: match[1] ?? '', port: Number(match[2]) };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((done, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === 'EADDRINUSE';
      reject(
        new CountersignError(
          taken ? 'port-in-use' : 'usage',
          taken ? `the port ${port} on ${host} is in use` : `cannot listen on ${host}:${port}: ${messageOf(cause)}`,
          { cause, hint: 'choose another address with --webhook HOST:PORT' },
        ),
      );
    });
    server.listen(port, host, () => done());
  });
}

function closeServer(server: Server): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeIdleConnections();
    setTimeout(() => server.closeAllConnections(), 2000).unref();
  });
}
