import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { createBirpc } from 'birpc';
import type { PolicyBundle } from '../bundle/index.ts';
import {
  type AdmissionScope,
  AdmissionScopes,
  type ClusterFacts,
  type LedgerView,
  type LoadRules,
  mayUseBreakGlass,
  RulesInForce,
  rememberedState,
  viewOf,
} from '../gate/index.ts';
import { LedgerReader } from '../ledger/index.ts';
import {
  answerOf,
  collectLeftovers,
  durationMs,
  messageOf,
  Recent,
  rulesMode,
  type Trace,
  tooLate,
  untraced,
  within,
} from '../model/index.ts';
import { type NearWatch, PolicyPool, SharedPools } from '../policy/index.ts';
import {
  addAuditEndpoint,
  CurrentScopes,
  createWebhook,
  type Doors,
  showIdentity,
  webhookServer,
} from '../webhook/index.ts';
import type { AdmissionThreadData, DecideBy, Decided, ServiceCalls, ThreadCalls } from './admission-calls.ts';
import { closeServer, listen } from './listen.ts';

// Answers the API server. Decisions are based on its own reading of the ledger; records are written by the service.

const LOAD_MS = 30_000;
const TIME_EVERY_MS = 5000;
const TELL_MS = 10; // counters are reported in batches
const LABELS_MS = 1000;
const KEPT_RULES = 2; // the rules in force, and those of the revision being applied
const LAST_MS = 4000; // the time limit of a decision

const { host, port, shares, identity, auditToken, traces, isDebug, pulse, ruleThreads } =
  workerData as AdmissionThreadData;
const scopes = new CurrentScopes();
const pools = new SharedPools();
// by digest; loaded bundles are held by their threads
const coming = new Map<string, Promise<readonly PolicyBundle[]>>();
const deciding = new Set<Promise<unknown>>();
const beat = pulse && new Int32Array(pulse);
let near: NearWatch | undefined = beat && {
  begin: () => void Atomics.add(beat, 0, 1),
  end: () => void Atomics.add(beat, 0, 1),
};
let forget: () => Promise<void> = () => Promise.resolve();
let turn: Promise<void> = Promise.resolve();

const threadCalls: ThreadCalls = {
  listen: () => answerOf(() => listen(server, host, port, '--webhook', shares)),
  // One after the other: the last call wins.
  decideBy: (by) => {
    turn = turn.then(
      () => decideBy(by),
      () => decideBy(by),
    );
    return turn;
  },
  askAside: () => {
    near = undefined;
  },
  show: (newest) => showIdentity(server, newest),
  close: async () => {
    await closeServer(server);
    await endTracing();
  },
};
const { trace, close: endTracing } = await traceTo(traces);
const told = telling();
const app = createWebhook(scopes, {
  log: {
    error: (fields, message) => void service.said.asEvent('error', fields, message),
    debug: (fields, message) => (isDebug ? void service.said.asEvent('debug', fields, message) : undefined),
  },
  heard: told.heard,
  decided: told.decided,
  trace,
});
if (auditToken !== undefined)
  addAuditEndpoint(
    app,
    auditToken,
    (events) => service.takeEvents(events),
    (message) => void service.said.asEvent('warn', {}, message),
  );
const server = webhookServer(app, identity);
collectLeftovers();
// Last: the first call arrives as soon as the service listens.
const service = createBirpc<ServiceCalls, ThreadCalls>(threadCalls, {
  post: (message) => (parentPort as MessagePort).postMessage(message),
  on: (hear) => void parentPort?.on('message', hear),
  timeout: -1, // the caller has its own deadline
});

// The service hears what time it is elsewhere.
let offset = 0;
const now = () => new Date(Date.now() + offset);
const hearTime = async () => {
  offset = await service.clockOffset();
};
setInterval(() => void hearTime().catch(() => {}), TIME_EVERY_MS).unref();

async function decideBy(by: DecideBy | undefined): Promise<void> {
  const before = forget;
  await hearTime();
  if (by === undefined) {
    forget = () => Promise.resolve();
    scopes.set(undefined);
  } else {
    const opened = await openScopes(by);
    forget = opened.close;
    scopes.set(opened.doors);
  }
  await within(LAST_MS, Promise.allSettled([...deciding]), () => {});
  await before();
}

async function openScopes({
  scopes: served,
  ledger,
}: DecideBy): Promise<{ readonly doors: Doors; readonly close: () => Promise<void> }> {
  const reader = ledger === undefined ? undefined : new LedgerReader(ledger.file);
  const size = new BigInt64Array(ledger?.size ?? new ArrayBuffer(8));
  const view: LedgerView | undefined = reader && { ...viewOf(reader), recorded: () => Number(Atomics.load(size, 0)) };
  const opened = view === undefined ? [] : served.map((one) => openScope(one, view));
  await Promise.all(opened.map((o) => o.warm()));
  const inner = new AdmissionScopes(opened.map((o) => o.scope));
  return {
    doors: {
      find: (request) => {
        const door = inner.find(request);
        return door === undefined ? undefined : { ...door, decide: (asked) => counted(door.decide(asked)) };
      },
    },
    close: async () => {
      await Promise.all(opened.map((o) => o.close()));
      reader?.close();
    },
  };
}

function counted<T>(decision: Promise<T>): Promise<T> {
  deciding.add(decision);
  const over = () => void deciding.delete(decision);
  decision.then(over, over);
  return decision;
}

type Opened = {
  readonly scope: AdmissionScope;
  readonly warm: () => Promise<void>;
  readonly close: () => Promise<void>;
};

function openScope({ environment, applier, isShared }: DecideBy['scopes'][number], ledger: LedgerView): Opened {
  const { name } = environment.metadata;
  const { admission, policies } = environment.spec;
  const state = rememberedState(ledger, name);
  const lent = lentRules(name, durationMs(policies.deadline));
  const rules = new RulesInForce(environment, state, lent.load, now);
  const mayUse: AdmissionScope['breakGlass']['mayUse'] = (request) => mayUseBreakGlass(environment, request);
  const scope: AdmissionScope = {
    environment,
    state,
    applier,
    isShared,
    records: {
      allowed: (request, as) => (request.dryRun ? Promise.resolve() : service.allowed(name, request, as)),
      proven: (request) => (request.dryRun ? undefined : void service.proven.asEvent(name, request)),
      intended: (request) => (request.dryRun ? undefined : void service.intended.asEvent(name, request)),
      refused: (...refusal) => service.refused(name, ...refusal),
    },
    // Few users are in its groups; the answer for everyone else needs no call.
    breakGlass: {
      mayUse,
      decideGrant: async (request) => (mayUse(request) ? service.decideGrant(name, request) : undefined),
      decide: async (request) => (mayUse(request) ? service.decideByGrant(name, request) : undefined),
      refuse: (request, use) => service.refuseUse(name, request, use),
    },
    facts: factsOf(name),
    prove: (request) => service.prove(name, request),
    rules,
  };
  // Runs before the first request. Rules that cannot be loaded now are loaded by the next request that needs them,
  // which is refused if that fails.
  const warm = async () => {
    if (admission.mode === 'off' || rulesMode(environment) === 'off') return;
    await within(LOAD_MS, rules.warm(), tooLate).catch((thrown) => {
      void service.said.asEvent(
        'warn',
        { environment: name },
        `its rules cannot be evaluated at admission yet: ${messageOf(thrown)}`,
      );
    });
  };
  return { scope, warm, close: lent.close };
}

function lentRules(environment: string, deadline: number): { load: LoadRules; close: () => Promise<void> } {
  const user = {};
  const held = new Set<string>();
  const letGo = async (keys: readonly string[]) => {
    for (const key of keys) held.delete(key);
    await Promise.all(keys.map((key) => pools.give(key, user)));
  };
  const load: LoadRules = async (revision) => {
    const rules = await service.rules(environment, revision);
    const key = `${deadline} ${rules.bundle}`;
    const bundles = pools.get(key)?.bundles ?? (await bundlesOf(rules.bundle, environment, revision));
    const pool = pools.take(
      key,
      user,
      () =>
        new PolicyPool(bundles, {
          deadline,
          threads: ruleThreads,
          near: () => near,
          elsewhere: () => service.quick(rules.bundle),
        }),
    );
    held.delete(key);
    held.add(key);
    void letGo([...held].slice(0, -KEPT_RULES));
    return { ...rules, pool };
  };
  return { load, close: () => letGo([...held]) };
}

// Environments with the same rules wait for one copy.
function bundlesOf(digest: string, environment: string, revision: string): Promise<readonly PolicyBundle[]> {
  const known = coming.get(digest) ?? service.bundles(environment, revision).finally(() => coming.delete(digest));
  coming.set(digest, known);
  return known;
}

function factsOf(environment: string): ClusterFacts {
  const known = new Recent<{ readonly at: number; readonly labels: ReturnType<ClusterFacts['labelsOf']> }>(1000);
  return {
    owner: (...asked) => service.owner(environment, ...asked),
    labelsOf: (namespace) => {
      const now = performance.now();
      const found = known.get(namespace);
      if (found !== undefined && now - found.at < LABELS_MS) return found.labels;
      const labels = service.labelsOf(environment, namespace);
      known.set(namespace, { at: now, labels });
      labels.catch(() => known.delete(namespace));
      return labels;
    },
  };
}

function telling(): { heard: (user: string) => void; decided: (...decided: Decided) => void } {
  let [heard, decided]: [string[], Decided[]] = [[], []];
  let isSoon = false;
  const soon = () => {
    if (isSoon) return;
    isSoon = true;
    setTimeout(() => {
      isSoon = false;
      void service.told.asEvent(heard, decided);
      [heard, decided] = [[], []];
    }, TELL_MS);
  };
  return {
    heard: (user) => {
      heard.push(user);
      soon();
    },
    decided: (...one) => {
      decided.push(one);
      soon();
    },
  };
}

async function traceTo(
  endpoint: string | undefined,
): Promise<{ readonly trace: Trace; readonly close: () => Promise<void> }> {
  if (endpoint === undefined) return { trace: untraced, close: () => Promise.resolve() };
  // loaded on demand: tracing is half as large as everything else
  const [{ openTracing }, { version }] = await Promise.all([import('../http/index.ts'), import('../config/index.ts')]);
  return openTracing(endpoint, version());
}
