import { resolve } from 'node:path';
import pino from 'pino';
import type { ProcessSettings } from '../config/index.ts';
import { ledgerName, openLedger } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { Notifications } from '../notify/index.ts';
import type { Reconciler, Step } from '../reconcile/index.ts';
import { Metrics } from '../service/index.ts';
import { EXIT, type Io } from './io.ts';
import { openConfiguration } from './open.ts';
import { recorderOf } from './read-ledger.ts';
import { openWebhook } from './serve-admission.ts';
import { openControl, openHttp } from './serve-http.ts';
import { beat, keepAnchors, ledgerKey, recordStart, sayProgress } from './serve-ledger.ts';
import { openLoops, refuseSharedNamespaces } from './serve-loops.ts';
import { type ClusterLink, connectAll, originOf, type Serving } from './serving.ts';

export type ServeOptions = {
  config: string[];
  data: string;
  kubeconfig?: string;
  context?: string;
  listen: string;
  webhookUrl?: string;
  http: string;
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
  const closing: Serving['closing'] = [() => ledger.close()];
  const loops: Reconciler[] = [];
  const metrics = new Metrics(() => ({
    environments: loops.map((l) => l.status),
    entries: ledger.size,
    connected: loops.every((l) => l.connected),
  }));
  const notifications = new Notifications(configuration.notifiers, log);
  closing.push(() => notifications.close(LAST_WORDS_MS));
  const serving: Serving = {
    configuration,
    options,
    settings,
    log,
    links,
    ledger,
    recorder: recorderOf(ledger),
    metrics,
    notifications,
    closing,
  };
  try {
    await keepAnchors(serving);
    await recordStart(serving);
    loops.push(...(await openLoops(serving, hooks)));
    await openWebhook(serving);
    await openHttp(loops, serving);
    await openControl(loops, serving);
    log.info({ environments: loops.map((l) => l.name), ledger: ledger.verifier.name, entries: ledger.size }, 'countersign is running');
    beat(loops, serving);
    await runUntilStopped(loops, io.signal);
    await ledger.record({ type: 'service.stopped', reason: io.signal.aborted ? 'told to stop' : 'its loops ended' });
    return EXIT.yes;
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

const LAST_WORDS_MS = 3000;

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
