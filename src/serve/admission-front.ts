import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { availableParallelism } from 'node:os';
import { extname, join, resolve } from 'node:path';
import type { EventLoopUtilization } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { type BirpcReturn, createBirpc } from 'birpc';
import type { Logger } from 'pino';
import { connect, type WebhookPlace } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import type { AdmissionRecords, AdmissionScope, BreakGlass, ClusterFacts, Grant, LoadRules } from '../gate/index.ts';
import type { Metrics } from '../http/index.ts';
import type { Ledger } from '../ledger/index.ts';
import { CountersignError, type Environment, messageOf, Recent, resultOf, within } from '../model/index.ts';
import { readSecret } from '../open/index.ts';
import type { PolicyPool } from '../policy/index.ts';
import { CertificateKeeper, type CertificateSource, Demand, fromFiles, selfMade } from '../webhook/index.ts';
import type { AdmissionThreadData, DecideBy, ServiceCalls, ThreadCalls } from './admission-calls.ts';
import { listen, listenAddress } from './listen.ts';
import type { ServeOptions } from './options.ts';
import type { RulesAtHand } from './rules-at-hand.ts';
import { sharedCertificate } from './shared-certificate.ts';

/** Options of `countersign serve` that the front uses. */
export type FrontOptions = Pick<
  ServeOptions,
  | 'listen'
  | 'data'
  | 'auditTokenFile'
  | 'traces'
  | 'kubeconfig'
  | 'context'
  | 'webhookUrl'
  | 'webhookService'
  | 'webhookTls'
  | 'webhookClientCa'
  | 'webhookThreads'
>;

/** The parts that decide in an environment, on this side of the threads. */
export type ServedScope = {
  readonly environment: Environment;
  readonly applier: string;
  readonly isShared: boolean;
  readonly records: AdmissionRecords;
  readonly breakGlass: BreakGlass;
  readonly facts: ClusterFacts;
  readonly prove: AdmissionScope['prove'];
  readonly loadRules: LoadRules;
};

type Thread = {
  readonly worker: Worker;
  readonly calls: BirpcReturn<ThreadCalls, ServiceCalls>;
  /** Odd while rules run on the thread. */
  readonly pulse: Int32Array;
  seen: number;
  /** How often it was found unchanged while rules ran. */
  stood: number;
  /** How long it was active until the last look. */
  used: EventLoopUtilization;
  /** How often in a row it was busy. */
  busy: number;
};

const AGAIN_MS = 500; // delay before a thread that ended is restarted
const CLOSE_MS = 5000; // a thread waits two seconds for pending answers
const WATCH_MS = 100;
const KEPT_POOLS = 8;
// rules that work on one small object for this long never finish; counted in checks, because a machine may be paused
const RUNAWAY_LOOKS = 10;
const HELP_LOOKS = 2; // rules that run for this long keep other requests waiting
const BUSY = 0.75; // of the time between two looks
const BUSY_LOOKS = 10;
const NOTHING: EventLoopUtilization = { idle: 0, active: 0, utilization: 0 };
const YOUNG_MIB = 12; // reviews are short-lived; without a limit this space grows to four times that
const HEAP_MIB = 2048; // for one thread; the requests it may be sent at once take a third of it

/**
 * The webhook's address, its certificate, and the scopes that currently decide, for as long as the process lives.
 * Requests are answered by threads that share the address; this class serves their calls. One thread is started at
 * first, and another whenever all are busy, up to the number in the options: a thread takes 45 MiB.
 */
export class AdmissionFront {
  readonly place: WebhookPlace;
  /** Current rate of requests by others. */
  readonly demand = new Demand();
  /** Takes the API server's audit events; set by the owner of the ledger. */
  takeEvents: ((events: readonly unknown[]) => Promise<void>) | undefined;
  /** Break-glass open in an environment; set by the part that decides requests. */
  grants: ((environment: string) => readonly Grant[]) | undefined;
  /** The rules of an environment on this replica; set by the part that decides requests. */
  rules: (environment: string) => Pick<RulesAtHand, 'missing' | 'holdsBack'> | undefined = () => undefined;
  metrics: Metrics | undefined;
  /** Called with a new authority before its certificate is served. */
  renewed: () => Promise<void> = () => Promise.resolve();
  readonly #data: Omit<AdmissionThreadData, 'identity' | 'pulse'>;
  readonly #log: Logger;
  readonly #threads = new Set<Thread>();
  #keeper: CertificateKeeper | undefined;
  #clock = () => new Date();
  #ca = '';
  #by: DecideBy | undefined;
  #scopes: ReadonlyMap<string, ServedScope> = new Map();
  // The service's own pools of the rules that the threads asked for, by digest.
  readonly #pools = new Recent<PolicyPool>(KEPT_POOLS);
  #ready = false;
  // Whether rules may run on the threads themselves; false once one had to be ended for that.
  #isNear = true;
  #most = 1;
  #isStarted = false;
  #starting = 0;
  #watch: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(place: WebhookPlace, data: Omit<AdmissionThreadData, 'identity' | 'pulse'>, log: Logger) {
    this.place = place;
    this.#data = data;
    this.#log = log;
  }

  /**
   * Returns undefined if the webhook is off. Throws `usage`, `port-in-use`, or the reason why the certificate cannot be
   * used.
   */
  static async open(
    options: FrontOptions,
    settings: ProcessSettings,
    log: Logger,
  ): Promise<AdmissionFront | undefined> {
    if (options.listen === 'off') {
      if (options.auditTokenFile !== undefined)
        throw new CountersignError('usage', 'audit events are received by the webhook, which is off', {
          hint: 'use --webhook HOST:PORT',
        });
      log.warn({}, 'the admission webhook is off: only Countersign’s own writes are judged');
      return undefined;
    }
    const { host, port } = listenAddress(options.listen);
    const place = placeOf(options, host, port);
    const threads = threadsOf(options.webhookThreads, log);
    const auditToken =
      options.auditTokenFile === undefined
        ? undefined
        : readSecret(
            options.auditTokenFile,
            'token',
            'put the same token into the API server’s audit webhook kubeconfig',
          );
    const front = new AdmissionFront(
      place,
      {
        host,
        port,
        shares: threads > 1,
        auditToken,
        traces: options.traces,
        isDebug: log.isLevelEnabled('debug'),
        ruleThreads: Math.max(1, Math.floor(Math.min(MAX_THREADS, availableParallelism()) / threads)),
      },
      log,
    );
    try {
      await front.#open(await sourceOf(options, settings, hostOf(place)), options.webhookClientCa, threads);
      return front;
    } catch (thrown) {
      await front.close();
      throw thrown;
    }
  }

  async #open(source: CertificateSource, clientCa: string | undefined, threads: number): Promise<void> {
    this.#keeper = await CertificateKeeper.open(source, {
      clientCa: clientCa === undefined ? undefined : () => readFile(clientCa),
      log: this.#log,
      clock: () => this.#clock(),
      renewed: ({ ca }) => {
        this.#ca = ca;
        return this.renewed();
      },
      serve: async (identity) => void (await Promise.all([...this.#threads].map(({ calls }) => calls.show(identity)))),
    });
    this.#ca = this.#keeper.ca;
    this.#most = threads;
    await refuseInUse(this.#data);
    if (this.#data.auditToken !== undefined) await this.#startFirst();
  }

  /** Judges certificates by this clock from now on, and makes one again that it does not accept. */
  async takeTime(clock: () => Date): Promise<void> {
    this.#clock = clock;
    await this.#keeper?.look();
  }

  /** Certificates by which the API server trusts the webhook. */
  get ca(): string {
    return this.#ca;
  }

  /** Whether requests are currently decided. */
  get ready(): boolean {
    return this.#ready && (this.#threads.size > 0 || !this.#isStarted);
  }

  /**
   * Resolves when requests are decided by these scopes, with their current ledger state, and none by the previous ones.
   * Undefined makes requests wait for the next call.
   */
  async decideBy(
    scopes: readonly ServedScope[] | undefined,
    ledger?: Pick<Ledger, 'file' | 'sizeCell'>,
  ): Promise<void> {
    this.#by = scopes && {
      scopes: scopes.map(({ environment, applier, isShared }) => ({ environment, applier, isShared })),
      ledger: ledger && { file: ledger.file, size: ledger.sizeCell },
    };
    // Requests being decided by the previous scopes may still need them.
    if (scopes !== undefined) this.#scopes = new Map(scopes.map((s) => [s.environment.metadata.name, s]));
    else this.#ready = false;
    const by = this.#by;
    const told = [...this.#threads].map((thread) =>
      thread.calls.decideBy(by).catch((thrown) => {
        if (this.#threads.has(thread)) throw thrown; // a thread that ended gets it when it is restarted
      }),
    );
    // If admission is off everywhere, the API server is not registered to ask, and there is nothing to answer.
    const isAsked = scopes?.some((s) => s.environment.spec.admission.mode !== 'off') === true;
    await Promise.all([...told, ...(isAsked ? [this.#startFirst()] : [])]);
    if (scopes !== undefined) this.#ready = true;
  }

  /** Finishes pending answers and accepts no more. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#keeper?.close();
    clearInterval(this.#watch);
    await Promise.all(
      [...this.#threads].map(async ({ worker, calls }) => {
        await within(CLOSE_MS, calls.close(), () => {}).catch(() => {}); // it may have ended already
        calls.$close();
        await worker.terminate();
      }),
    );
  }

  async #startFirst(): Promise<void> {
    if (this.#isStarted) return;
    if (this.#threads.size === 0) await this.#start(); // a thread that failed to start is started again by itself
    this.#isStarted = true;
  }

  async #start(): Promise<void> {
    this.#starting++;
    try {
      await this.#startOne();
    } finally {
      this.#starting--;
    }
  }

  async #startOne(): Promise<void> {
    const { identity } = this.#keeper as CertificateKeeper;
    const pulse = new SharedArrayBuffer(4);
    const worker = new Worker(new URL(`./admission-thread${extname(import.meta.url)}`, import.meta.url), {
      workerData: { ...this.#data, identity, pulse: this.#isNear ? pulse : undefined } satisfies AdmissionThreadData,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB, maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    const calls = createBirpc<ThreadCalls, ServiceCalls>(this.#serviceCalls(), {
      post: (message) => worker.postMessage(message),
      on: (hear) => void worker.on('message', hear),
      timeout: -1,
    });
    const thread: Thread = { worker, calls, pulse: new Int32Array(pulse), seen: 0, stood: 0, used: NOTHING, busy: 0 };
    this.#watch ??= setInterval(() => this.#look(), WATCH_MS).unref();
    this.#threads.add(thread);
    worker.on('error', (thrown) => this.#log.error({}, `a webhook thread failed: ${messageOf(thrown)}`));
    worker.on('exit', () => this.#ended(thread));
    try {
      resultOf(await calls.listen());
      // Changes that arrived while it was being started.
      await calls.show((this.#keeper as CertificateKeeper).identity);
      if (this.#by !== undefined) await calls.decideBy(this.#by);
    } catch (thrown) {
      await worker.terminate();
      throw thrown;
    }
  }

  #ended(thread: Thread): void {
    this.#threads.delete(thread);
    if (isInRules(thread)) this.#askAside();
    thread.calls.$close(new Error('a webhook thread ended'));
    if (this.#closed) return;
    const again = () => {
      if (this.#closed || this.#threads.size >= this.#most) return;
      this.#start().catch((thrown) => this.#log.error({}, `cannot restart a webhook thread: ${messageOf(thrown)}`));
    };
    setTimeout(again, AGAIN_MS).unref();
  }

  // A rule that does not end blocks the whole thread. Its pending answers are lost, so the API server refuses those
  // requests.
  #look(): void {
    const isLoaded = this.#isStarted && this.#starting === 0; // loading is work too
    for (const thread of this.#threads) {
      const beat = Atomics.load(thread.pulse, 0);
      thread.stood = beat === thread.seen && isInRules(thread) ? thread.stood + 1 : 0;
      thread.seen = beat;
      if (thread.stood === RUNAWAY_LOOKS) void thread.worker.terminate();
      const used = thread.worker.performance.eventLoopUtilization();
      thread.busy = isLoaded && shareOf(used, thread.used) > BUSY ? thread.busy + 1 : 0;
      thread.used = used;
    }
    const areBusy = [...this.#threads].every((t) => t.stood >= HELP_LOOKS || t.busy >= BUSY_LOOKS);
    if (isLoaded && this.#threads.size > 0 && areBusy) this.#help();
  }

  #help(): void {
    if (this.#threads.size >= this.#most || this.#closed) return;
    this.#log.info({ threads: this.#threads.size + 1 }, 'the webhook is busy: one more thread answers');
    this.#start().catch((thrown) => this.#log.error({}, `cannot start a webhook thread: ${messageOf(thrown)}`));
  }

  #askAside(): void {
    if (!this.#isNear || this.#closed) return;
    this.#isNear = false;
    this.#log.error(
      {},
      'a rule took a second, or all memory, on a webhook thread: rules run on separate threads from now on',
    );
    for (const { calls } of this.#threads) void calls.askAside.asEvent();
  }

  #serviceCalls(): ServiceCalls {
    const scope = (environment: string): ServedScope => {
      const found = this.#scopes.get(environment);
      if (found === undefined) throw new Error('the service is starting');
      return found;
    };
    return {
      allowed: (environment, request, as) => scope(environment).records.allowed(request, as),
      intended: (environment, request) => scope(environment).records.intended(request),
      proven: (environment, request) => scope(environment).records.proven(request),
      refused: (environment, ...refusal) => scope(environment).records.refused(...refusal),
      decideGrant: (environment, request) => scope(environment).breakGlass.decideGrant(request),
      decideByGrant: (environment, request) => scope(environment).breakGlass.decide(request),
      refuseUse: (environment, request, use) => scope(environment).breakGlass.refuse(request, use),
      clockOffset: async () => this.#clock().getTime() - Date.now(),
      prove: (environment, request) => scope(environment).prove(request),
      owner: (environment, ...asked) => scope(environment).facts.owner(...asked),
      labelsOf: (environment, namespace) => scope(environment).facts.labelsOf(namespace),
      rules: async (environment, revision) => {
        const { pool, ...rules } = await scope(environment).loadRules(revision);
        this.#pools.set(rules.bundle, pool);
        return rules;
      },
      quick: async (bundle) => this.#pools.get(bundle)?.quick ?? 0,
      bundles: async (environment, revision) => (await scope(environment).loadRules(revision)).pool.bundles,
      takeEvents: (events) =>
        this.takeEvents === undefined ? Promise.reject(new Error('the service is starting')) : this.takeEvents(events),
      told: (heard, decided) => {
        for (const user of heard) this.demand.heard(user);
        for (const one of decided) this.metrics?.decided(...one);
      },
      said: (level, fields, message) => this.#log[level](fields, message),
    };
  }
}

// The shares of time that `eventLoopUtilization` keeps are of its whole life.
function shareOf(now: EventLoopUtilization, before: EventLoopUtilization): number {
  const active = now.active - before.active;
  const idle = now.idle - before.idle;
  return active + idle > 0 ? active / (active + idle) : 0;
}

function isInRules({ pulse }: Thread): boolean {
  return Atomics.load(pulse, 0) % 2 === 1;
}

// platforms that support `reusePort` of server.listen
const SHARING: readonly string[] = ['linux', 'freebsd', 'sunos', 'aix'];
const MAX_THREADS = 4; // the cores that rules are worth

// If the kernel does not allow two sockets with one address, a single thread answers.
function threadsOf(text: string, log: Logger): number {
  const threads = Number(text);
  if (Number.isInteger(threads) && threads >= 1 && threads <= 64) {
    if (threads === 1 || SHARING.includes(process.platform)) return threads;
    log.info({}, 'a single thread answers the webhook: this platform does not allow threads to share an address');
    return 1;
  }
  throw new CountersignError('usage', `\`${text}\` is not a number of threads`, {
    hint: 'give a number, for example --webhook-threads 2',
  });
}

// Threads share the address, and another process with the same option would too: check that it is free.
async function refuseInUse({ host, port }: Pick<AdmissionThreadData, 'host' | 'port'>): Promise<void> {
  const probe = createServer();
  await listen(probe, host, port);
  await new Promise((done) => probe.close(done));
}

function placeOf({ webhookUrl, webhookService }: FrontOptions, host: string, port: number): WebhookPlace {
  if (webhookService === undefined) return { url: webhookUrl ?? `https://${host}:${port}/validate` };
  const match = /^([a-z0-9-]+)\/([a-z0-9-]+)(?::(\d{1,5}))?$/.exec(webhookService);
  if (match === null || webhookUrl !== undefined)
    throw new CountersignError(
      'usage',
      `\`${webhookService}\` names no Service for the ` +
        `webhook${webhookUrl === undefined ? '' : ', beside --webhook-url'}`,
      {
        hint: 'use --webhook-service NAMESPACE/NAME or NAMESPACE/NAME:PORT',
      },
    );
  return { service: { namespace: match[1] ?? '', name: match[2] ?? '', port: Number(match[3] ?? 443) } };
}

function hostOf(place: WebhookPlace): string {
  return 'url' in place
    ? new URL(place.url).hostname.replace(/^\[|\]$/g, '')
    : `${place.service.name}.${place.service.namespace}.svc`;
}

async function sourceOf(options: FrontOptions, settings: ProcessSettings, host: string): Promise<CertificateSource> {
  const { webhookTls, data } = options;
  if (webhookTls === undefined) return selfMade(join(resolve(data), 'tls'), host);
  if (!webhookTls.startsWith('secret:')) return fromFiles(webhookTls, host);
  const [namespace, name, ...more] = webhookTls.slice('secret:'.length).split('/');
  if (namespace === undefined || name === undefined || name === '' || more.length > 0)
    throw new CountersignError('usage', `\`${webhookTls}\` does not name a Secret`, {
      hint: 'use --webhook-tls secret:NAMESPACE/NAME, or a directory',
    });
  const { server } = await connect(
    { kubeconfig: options.kubeconfig ?? settings.kubeconfig, context: options.context, namedBy: 'operator' },
    { aside: true },
  );
  return sharedCertificate(server, namespace, name, host);
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('config-invalid', `\`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      hint: 'give certificates (PEM) of the authority that issued the API server’s client certificate',
    });
  }
}
