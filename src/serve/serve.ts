import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import pino, { type Logger } from 'pino';
import { Lease } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { type AnchorKeeper, isDiskShort } from '../ledger/index.ts';
import { CountersignError, messageOf, Turns } from '../model/index.ts';
import { gitProgram, ledgerKey } from '../open/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import type { ScheduledReports } from '../schedule/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import { openAdmission } from './admission.ts';
import { AdmissionFront } from './admission-front.ts';
import { checkServeOptions } from './check-options.ts';
import { openDashboard } from './dashboard.ts';
import { type Documents, ServedDocuments } from './documents.ts';
import { Hold, LeaseLost } from './hold.ts';
import { openControl, openHttp } from './http.ts';
import { beat, heartbeat, interval, keepAnchors, keepStated, recordStart } from './ledger.ts';
import { LedgerPauses } from './ledger-pauses.ts';
import { openGates, openLoops } from './loops.ts';
import { type ClusterLink, openClusters, openServing, type Serving } from './open-serving.ts';
import type { ServeHooks, ServeOptions } from './options.ts';
import { ProbeServer } from './probe-server.ts';
import { openScheduledReports } from './reports.ts';
import { runWhileHeld, type Tenant } from './tenure.ts';
import { whileAway } from './while-away.ts';

/**
 * Implements `countersign serve`: first the ledger, then the webhook, then the loops. Returns after it was told to
 * stop.
 */
export async function serve(
  options: ServeOptions,
  settings: ProcessSettings,
  io: Io,
  hooks: ServeHooks = {},
): Promise<number> {
  const log = pino(
    {
      level: settings.logLevel,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    { write: io.err },
  );
  checkServeOptions(options);
  io.signal.addEventListener('abort', () => log.info({}, 'told to stop'), { once: true });
  const probes = await ProbeServer.open(options.http);
  const away = { log, waitsFor: (why: string) => probes?.waitsFor(why) };
  const pauses = new LedgerPauses();
  let documents: ServedDocuments | undefined;
  let before: Documents | undefined;
  let front: AdmissionFront | undefined;
  try {
    documents = await whileAway(() => ServedDocuments.open(options, settings, log), { ...away, signal: io.signal });
    front = await whileAway(() => AdmissionFront.open(options, settings, log), { ...away, signal: io.signal });
    if (documents === undefined || io.signal.aborted) return EXIT.yes;
    const process: Process = { options, settings, log, hooks, io, front, probes, pauses };
    for (;;) {
      const { current } = documents;
      const ending = AbortSignal.any([io.signal, current.changed, pauses.asked]);
      const serveAs = (served: Documents) => serveWith(served, ending, process);
      if (current.configuration.environments.length > 0) {
        let served = current;
        const serveSome = () =>
          serveAs(current).catch((thrown: unknown) => {
            // A document may be valid and still unusable (a kubeconfig that does not exist): the others must not
            // suffer.
            if (
              before === undefined ||
              ending.aborted ||
              (thrown instanceof CountersignError && thrown.recover === 'halt')
            )
              throw thrown;
            log.error({}, `cannot run the new configuration, continuing with the previous one: ${messageOf(thrown)}`);
            served = before;
            return serveAs(served);
          });
        await whileAway(serveSome, { ...away, signal: ending });
        before = served;
      } else if (documents.follows) {
        await front?.decideBy([]); // nothing is governed: requests that still arrive here are not ours to refuse
        await firstDocuments(ending, log);
      } else throw noEnvironment(options.cluster);
      if (io.signal.aborted) return EXIT.yes;
      const reasons = await pauses.run();
      for (const why of reasons) log.info({}, `${why}, beginning again`);
      if (reasons.length > 0) continue;
      if (!current.changed.aborted) return EXIT.yes;
      log.info({}, 'configuration changed, restarting with it');
    }
  } finally {
    pauses.close();
    await front?.close();
    await documents?.close();
    await probes?.close();
    log.info({}, 'ended');
  }
}

function noEnvironment(cluster: string | undefined): CountersignError {
  return cluster === undefined
    ? new CountersignError('config-invalid', 'there is no Environment in the configuration', {
        hint: '`countersign init` creates a first one',
      })
    : new CountersignError('config-invalid', `there is no Environment of the cluster \`${cluster}\``, {
        hint: 'compare --cluster with `spec.target.cluster` of the documents',
      });
}

/** Parts that persist across configurations. */
type Process = {
  readonly options: ServeOptions;
  readonly settings: ProcessSettings;
  readonly log: Logger;
  readonly hooks: ServeHooks;
  readonly io: Io;
  readonly front: AdmissionFront | undefined;
  readonly probes: ProbeServer | undefined;
  readonly pauses: LedgerPauses;
};

async function firstDocuments(ending: AbortSignal, log: Logger): Promise<void> {
  log.info({}, 'there is no valid Environment yet');
  if (!ending.aborted) await once(ending, 'abort');
}

async function serveWith({ configuration, tellOf }: Documents, ending: AbortSignal, process: Process): Promise<void> {
  const { options, settings, log, hooks, io, front, probes, pauses } = process;
  const loops: Reconciler[] = [];
  const serving = await openServing(options, settings, configuration, log, () => loops, ending);
  const { ledger, closing, links } = serving;
  try {
    await front?.takeTime(() => serving.clock.now());
    const canRecord = () => ledger.sharing?.isAvailable !== false;
    const isAway = !canRecord();
    const begun: Begun = { anchors: undefined };
    const beginning = isAway ? beginLater(serving, begun, canRecord, ending) : begin(serving, begun);
    if (isAway)
      beginning.catch(() => {}); // thrown below
    else await beginning;
    const clusters = openClusters(links, ledger, log);
    // The gate's own work can wait; requests to the webhook cannot, and both share this process and the API server.
    const isAsked = () => front?.demand.isBusy === true;
    const turns = new Turns(isAsked);
    const gates = await openGates(serving, turns);
    const atOnce = () => (isAsked() ? AT_ONCE.beside : AT_ONCE.alone);
    const holds = holdsOf(serving);
    loops.push(...openLoops(serving, gates, clusters, hooks, { atOnce, holds }));
    await openAdmission(serving, front, gates, clusters, loops);
    openHttp(loops, serving, front, probes);
    await openDashboard(loops, serving, front);
    const reports = reportsOf(serving);
    await openControl(loops, serving, { reports, front, pauses, anchors: () => begun.anchors });
    if (isAway) {
      for (const loop of loops) loop.standBy('waits for the ledger');
      log.warn({}, 'answers admission by its copy of the ledger; everything else waits until the ledger is back');
    }
    const tenants = [...loops, ...(reports === undefined ? [] : [reports])];
    const leases = leasesOf(tenants, holds, serving);
    if (isAway) await lookUntil(beginning, leases);
    else await beginning;
    log.info(
      { environments: loops.map((l) => l.name), ledger: ledger.verifier.name, entries: ledger.size },
      'countersign is running',
    );
    hooks.onRunning?.();
    beat(loops, serving);
    tellOf(loops);
    const lacks = () => {
      if (!canRecord()) return 'the ledger takes no records from this replica';
      return isDiskShort(options.data) ? `the disk of \`${options.data}\` is full` : undefined;
    };
    const onLost = () => {
      for (const hold of holds.values()) hold.lose();
      hooks.onLeaseLost?.();
    };
    await runUntilStopped(tenants, serving.signing?.keep(ledger), ending, {
      leases,
      log,
      onLost,
      lacks: options.ledger === undefined ? undefined : lacks,
    });
    // finish pending requests while everything they need is still open
    if (io.signal.aborted) await front?.close();
    const reason = io.signal.aborted
      ? 'told to stop'
      : ending.aborted
        ? pauses.asked.aborted
          ? 'its ledger is changed'
          : 'its configuration changed'
        : 'its loops ended';
    // The next start goes on from what was observed. During a change of the ledger, which newest entries it has counts.
    if (!pauses.asked.aborted) await ledger.record(heartbeat(loops, interval(options.heartbeat, '--heartbeat')));
    await ledger.record({ type: 'service.stopped', reason });
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

// Before anything else is recorded: what is kept elsewhere is compared, and the start is recorded.
type Begun = { anchors: AnchorKeeper | undefined };
const BEGINNING: readonly ((serving: Serving<ServeOptions>, begun: Begun) => Promise<void>)[] = [
  async (serving, begun) => {
    begun.anchors = await keepAnchors(serving);
  },
  recordStart,
  keepStated,
];

async function begin(serving: Serving<ServeOptions>, begun: Begun): Promise<void> {
  for (const step of BEGINNING) await step(serving, begun);
}

// Resolves without having begun if it is told to end first.
async function beginLater(
  serving: Serving<ServeOptions>,
  begun: Begun,
  canRecord: () => boolean,
  ending: AbortSignal,
): Promise<void> {
  for (const steps = [...BEGINNING]; steps[0] !== undefined && !ending.aborted; ) {
    if (!canRecord()) await wait(BEGIN_EVERY_MS, undefined, { signal: ending }).catch(() => {});
    if (ending.aborted || !canRecord()) continue;
    try {
      await steps[0](serving, begun);
      steps.shift();
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'retry') throw thrown;
      await wait(BEGIN_EVERY_MS, undefined, { signal: ending }).catch(() => {});
    }
  }
}

const BEGIN_EVERY_MS = 500;
const LOOK_EVERY_MS = 2000;

// Looks at the Leases meanwhile: a holder that is gone need not be waited for again afterwards.
async function lookUntil(beginning: Promise<void>, leases: ReadonlyMap<string, Held>): Promise<void> {
  const over = new AbortController();
  const looking = (async () => {
    for (; !over.signal.aborted; await wait(LOOK_EVERY_MS, undefined, { signal: over.signal }).catch(() => {}))
      for (const { lease } of leases.values()) if (!over.signal.aborted) await lease.look();
  })();
  await beginning.finally(() => over.abort());
  await looking;
}

const AT_ONCE = { alone: 16, beside: 1 }; // requests to the API server

function reportsOf({
  configuration,
  options,
  settings,
  recorder,
  log,
  links,
}: Serving<ServeOptions>): ScheduledReports | undefined {
  const schedules = configuration.reportSchedules;
  if (schedules.length === 0) return undefined;
  const [{ server } = { server: undefined }] = links.values();
  return openScheduledReports({
    data: options.data,
    key: ledgerKey(options),
    git: gitProgram(settings),
    schedules,
    ledger: recorder,
    log,
    server,
  });
}

const LEASE_MS = 15_000;

type Held = { readonly lease: Lease; readonly hold: Hold };

function holdsOf({ options, configuration }: Serving<ServeOptions>): ReadonlyMap<string, Hold> {
  if (options.lease === undefined) return new Map();
  return new Map(configuration.environments.map(({ metadata: { name } }) => [name, new Hold(name)]));
}

// One Lease per environment, in the cluster of the first environment: replicas share the work as they start.
function leasesOf(
  loops: readonly Tenant[],
  holds: ReadonlyMap<string, Hold>,
  { options, links }: Serving<ServeOptions>,
): ReadonlyMap<string, Held> {
  if (options.lease === undefined) return new Map();
  const { server } = [...links.values()][0] as ClusterLink;
  const identity = `${hostname()}-${randomBytes(4).toString('hex')}`;
  return new Map(
    loops.map((l) => {
      const lease = new Lease(server, options.lease as string, `countersign-${l.name}`, identity, LEASE_MS);
      return [l.name, { lease, hold: holds.get(l.name) ?? new Hold(l.name) }];
    }),
  );
}

type Tenure = {
  readonly leases: ReadonlyMap<string, Held>;
  readonly log: Logger;
  readonly onLost: () => void;
  /** Says what this replica lacks for its work; undefined if no other replica can have it. */
  readonly lacks: (() => string | undefined) | undefined;
};

async function runUntilStopped(
  loops: readonly Tenant[],
  signing: Tenant | undefined,
  signal: AbortSignal,
  { leases, log, onLost, lacks }: Tenure,
): Promise<void> {
  const ending = new AbortController();
  const stop = () => {
    ending.abort();
    for (const loop of loops) loop.stop();
    signing?.stop();
  };
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  const endAll = (thrown: unknown) => {
    if (thrown instanceof LeaseLost) {
      onLost();
      log.error({ hint: thrown.hint }, thrown.message); // the process may end before its last words
    }
    stop(); // a loop that cannot trust the ledger, or lost its Lease, ends all loops
    throw thrown;
  };
  const kept = signing?.run().catch(endAll);
  const work = Promise.allSettled(
    loops.map((loop) => {
      const held = leases.get(loop.name);
      if (held === undefined) return loop.run().catch(endAll);
      return runWhileHeld(loop, held.lease, held.hold, ending.signal, log, lacks).catch(endAll);
    }),
  ).finally(stop);
  const ended = [...(await Promise.allSettled([kept])), ...(await work)];
  const failed = ended.find((e) => e.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
