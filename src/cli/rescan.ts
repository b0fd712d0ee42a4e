import { type ApiServer, objectsIn, putReport, type ReportResult } from '../cluster/index.ts';
import {
  asSubject,
  belonging,
  type EnvironmentState,
  type LedgerView,
  ofScan,
  type Recorder,
  type RulesInForce,
  type Scan,
  type Scanned,
  scanned,
} from '../gate/index.ts';
import { CountersignError, type Environment, messageOf, objectDigest, refKey } from '../model/index.ts';

export type RescanParts = {
  readonly environment: Environment;
  readonly server: ApiServer;
  readonly state: () => EnvironmentState;
  readonly rules: RulesInForce;
  readonly ledger: LedgerView & Recorder;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly clock: () => Date;
};

const AGAIN_MS = 24 * 3_600_000; // a result that stays the same is recorded once a day: that somebody looked is evidence too

/**
 * Judges everything that is in an environment's namespaces by the rules that judge changes, and tells whose it is. What is
 * different from the last result goes on the ledger, and into the cluster as Reports. Throws as cluster, rules and ledger do.
 */
async function rescan({ environment, server, state, rules, ledger, log, clock }: RescanParts): Promise<Scan> {
  const name = environment.metadata.name;
  const { namespaces } = environment.spec.target;
  const now = state();
  const all: Scanned[] = [];
  const violations: Scan['violations'][number][] = [];
  const bundles = new Set<string>();
  const pages = objectsIn(server, namespaces);
  let unread: readonly string[] = [];
  for (let page = await pages.next(); ; page = await pages.next()) {
    if (page.done === true) {
      unread = [...page.value].sort();
      break;
    }
    all.push(...page.value.map(scanned));
    const ruled = await rules.judge(page.value.map((o) => asSubject(o, now, objectDigest(o))));
    bundles.add(ruled.bundle);
    violations.push(...[...ruled.violations, ...ruled.waived].map(ofScan));
  }
  const whose = belonging(all, now);
  const unmanaged = all.filter((_, i) => whose[i] === 'unmanaged');
  const byKey = (a: { object: Scan['unmanaged'][number]['object'] }, b: { object: Scan['unmanaged'][number]['object'] }) =>
    refKey(a.object) < refKey(b.object) ? -1 : 1;
  const scan: Scan = {
    unmanaged: unmanaged.map(({ ref, manager, since }) => ({ object: ref, manager, since })).sort(byKey),
    violations: violations.sort((a, b) => byKey(a, b) || (a.rule < b.rule ? -1 : 1)),
    unread,
  };
  const evidence = ledger.asEvidence(scan);
  const last = ledger.latest(['cluster.scanned'], name)?.entry;
  const isNew =
    last?.evidence.sha256 !== evidence.ref.sha256 || last.revision !== now.revision || clock().getTime() - Date.parse(last.time) > AGAIN_MS;
  if (isNew) {
    const standing = violations.filter((v) => v.waived === undefined).length;
    const counts = { objects: all.length, unmanaged: unmanaged.length, violations: standing, waived: violations.length - standing };
    await ledger.record(
      {
        type: 'cluster.scanned',
        environment: name,
        revision: now.revision,
        bundle: [...bundles].join(' '),
        ...counts,
        evidence: evidence.ref,
      },
      [evidence],
    );
    log.info({ environment: name, ...counts }, 'everything in its namespaces was judged');
    await publish(environment, server, all, scan, clock()).catch((thrown) => log.warn({ environment: name }, messageOf(thrown)));
  }
  return scan;
}

async function publish({ metadata, spec }: Environment, server: ApiServer, all: readonly Scanned[], scan: Scan, at: Date): Promise<void> {
  const bad = new Set(scan.violations.map((v) => refKey(v.object)));
  for (const namespace of spec.target.namespaces) {
    const here = ({ object }: { object: { namespace: string } }) => object.namespace === namespace;
    const results: ReportResult[] = [
      ...scan.violations.filter(here).map(
        (v): ReportResult => ({
          rule: v.rule,
          result: v.waived === undefined ? 'fail' : 'skip',
          message: v.waived === undefined ? v.message : `${v.message} (waived by ${v.waived})`,
          severity: v.severity,
          object: v.object,
        }),
      ),
      ...scan.unmanaged.filter(here).map(
        (u): ReportResult => ({
          rule: 'unmanaged',
          result: 'warn',
          message: `no commit has it; written by ${u.manager || 'somebody'} at ${u.since}`,
          object: u.object,
        }),
      ),
      ...all
        .filter((s) => s.ref.namespace === namespace && !bad.has(refKey(s.ref)))
        .map((s): ReportResult => ({ rule: '', result: 'pass', message: '', object: s.ref })),
    ];
    if (!(await putReport(server, namespace, metadata.name, results, at))) return;
  }
}

/** Looks every so often, and as soon as an environment is at another revision. Gives what ends it. */
export function keepRescanning(parts: readonly RescanParts[], everyMs: number): () => Promise<void> {
  const stopped = new AbortController();
  const last = new Map<string, { revision: string; at: number }>();
  let turn = Promise.resolve();
  const look = async () => {
    for (const part of parts) {
      const { name } = part.environment.metadata;
      const { revision } = part.state();
      const before = last.get(name);
      if (stopped.signal.aborted || (before !== undefined && before.revision === revision && performance.now() - before.at < everyMs))
        continue;
      last.set(name, { revision, at: performance.now() });
      await rescan(part).catch((thrown) => {
        const trouble = thrown instanceof CountersignError ? thrown.message : messageOf(thrown);
        if (!stopped.signal.aborted) part.log.warn({ environment: name }, `its namespaces could not be judged: ${trouble}`);
      });
    }
  };
  const timer = setInterval(
    () => {
      turn = turn.then(look);
    },
    Math.min(LOOK_MS, everyMs),
  ).unref();
  return async () => {
    stopped.abort();
    clearInterval(timer);
    await turn;
  };
}

const LOOK_MS = 2000;
