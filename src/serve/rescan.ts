import { type ApiServer, NamespaceWatch, objectsIn, putReport, type ReportResult } from '../cluster/index.ts';
import {
  asSubject,
  belonging,
  type ContentAccount,
  type EnvironmentState,
  type LedgerView,
  ofScan,
  type Recorder,
  type RulesInForce,
  type Scan,
  type Scanned,
  scanned,
} from '../gate/index.ts';
import { isEndpoints } from '../machinery/index.ts';
import {
  type Environment,
  isOwnBinding,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  objectDigest,
  refKey,
  refText,
} from '../model/index.ts';

export type RescanParts = {
  readonly environment: Environment;
  readonly server: ApiServer;
  /** The service's user in this cluster. */
  readonly user: string;
  readonly state: () => EnvironmentState;
  readonly rules: Pick<RulesInForce, 'basis' | 'judge'>;
  readonly ledger: LedgerView & Recorder;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly clock: () => Date;
  /** Whether the environment is run here; others are checked by another replica or service. */
  readonly isHere: () => boolean;
  /** Proves pods and what makes them; undefined if that is not checked. */
  readonly content?: ContentAccount;
  /**
   * Tests, once for each, whether a request to make the object with this uid was proven. It is read a little later
   * then, because many may be made at once. It is read all the same: a request can be forged.
   */
  readonly wasProven?: (uid: string) => boolean;
};

// an unchanged result is recorded once a day: the check itself is evidence too
const AGAIN_MS = 24 * 3_600_000;
const READ_AT_ONCE = 8;
const CACHE_MS = 5000; // maximum age of the API server's cache
const MAX_WATCHES = 400; // open connections; kinds beyond the limit are only read in full scans
const SINGLY = 300; // objects read individually per round; more wait for the next
// How often to process changes, and the pause after recording a result; longer after a large one: a kilobyte per
// second.
const TIMES = { lookMs: 2000, spacedMs: 60_000, laterMs: 2500 };

type Found = Scan['violations'][number];

/**
 * Judges everything in an environment's namespaces by the rules for changes, and finds out who owns it. Differences
 * from the last result go on the ledger, and into the cluster as Reports.
 */
class Rescan {
  readonly parts: RescanParts;
  readonly #watch: Pick<NamespaceWatch, 'read' | 'complete'>;
  #seen = new Map<string, Scanned>();
  #found = new Map<string, Found[]>();
  #bundles = new Set<string>();
  #unread: readonly string[] = [];
  readonly #changed = new Map<string, { readonly ref: ObjectRef; readonly at: number; readonly due: number }>();
  // Time, revision and rules of the last full scan, time of the last record, and the minimum pause after it.
  #whole: { readonly revision: string; readonly at: number; readonly basis: string } | undefined;
  #recorded = Number.NEGATIVE_INFINITY;
  #spacedMs: number;
  readonly #times: typeof TIMES;
  #isOther = false;
  #isMissed = false;

  constructor(parts: RescanParts, watch: Pick<NamespaceWatch, 'read' | 'complete'>, times: typeof TIMES) {
    this.parts = parts;
    this.#watch = watch;
    this.#times = times;
    this.#spacedMs = times.spacedMs;
  }

  changed(ref: ObjectRef, uid: string): void {
    const at = performance.now();
    const isLater = ref.kind === 'Pod' && uid !== '' && this.parts.wasProven?.(uid) === true;
    this.#changed.set(refKey(ref), { ref, at, due: isLater ? at + this.#times.laterMs : at });
  }

  /**
   * Whether a full scan is due: at the start, at the interval, at a revision with other rules, and after missed events.
   * A revision with the same rules changes only what the watches report. Throws if the rules cannot be loaded.
   */
  async isDue(everyMs: number): Promise<boolean> {
    const whole = this.#whole;
    if (whole === undefined) return true;
    const since = performance.now() - whole.at;
    if (since >= everyMs || (this.#isMissed && since >= this.#times.spacedMs)) return true;
    const { revision } = this.parts.state();
    if (revision === whole.revision) return false;
    if (!this.#watch.complete || (await this.parts.rules.basis()) !== whole.basis) return true;
    this.#whole = { ...whole, revision };
    this.#isOther = true; // whom each object belongs to
    return false;
  }

  forget(): void {
    this.#whole = undefined;
    this.#changed.clear();
    this.parts.content?.forget();
  }

  /** Reads and judges everything; `follow` begins the watches. Throws the errors of cluster, rules and ledger. */
  async all(follow: () => Promise<void>): Promise<void> {
    const { environment, server, state } = this.parts;
    const now = state();
    const basis = await this.parts.rules.basis();
    this.#whole = { revision: now.revision, at: performance.now(), basis };
    this.#isMissed = true; // until it is complete
    await follow(); // first, so that changes during the scan are reported
    // Keep events newer than the API server cache that the scan reads; applied objects are checked elsewhere.
    for (const [key, { at }] of this.#changed)
      if (now.owned.has(key) || performance.now() - at > CACHE_MS) this.#changed.delete(key);
    [this.#seen, this.#found, this.#bundles] = [new Map(), new Map(), new Set()];
    this.parts.content?.begin();
    const pages = objectsIn(server, environment.spec.target.namespaces);
    for (let page = await pages.next(); ; page = await pages.next()) {
      if (page.done === true) {
        this.#sayUnread([...page.value].sort());
        break;
      }
      await this.#judge(page.value, now);
    }
    await this.#settle();
    await this.#record(now);
    this.#isMissed = false;
  }

  // An object of a kind that was not read may be anything.
  #sayUnread(kinds: readonly string[]): void {
    const { log, environment } = this.parts;
    if (kinds.length > 0 && kinds.join() !== this.#unread.join())
      log.warn(
        { environment: environment.metadata.name, kinds, hint: HOW_TO_READ },
        `objects of ${kinds.join(', ')} in its namespaces cannot be read, so no one knows what they are`,
      );
    this.#unread = kinds;
  }

  /**
   * Reads and judges the objects reported as changed. Objects being applied wait until that is done; after missed
   * events, all wait for a full scan. Throws like `all`.
   */
  async some(everyMs: number): Promise<void> {
    if (this.#isMissed) return;
    try {
      await this.#some(everyMs);
    } catch (thrown) {
      this.#isMissed = true;
      throw thrown;
    }
  }

  async #some(everyMs: number): Promise<void> {
    const now = this.parts.state();
    const isWritten = (key: string) => now.open !== undefined && !now.open.failed && now.owned.has(key);
    const moment = performance.now();
    const taken = [...this.#changed].filter(([key, { due }]) => due <= moment && !isWritten(key)).slice(0, SINGLY);
    for (const [key] of taken) this.#changed.delete(key);
    const read: KubernetesObject[] = [];
    for (let i = 0; i < taken.length; i += READ_AT_ONCE)
      await Promise.all(
        taken.slice(i, i + READ_AT_ONCE).map(async ([key, { ref }]) => {
          const object = await this.#watch.read(ref);
          if (object === undefined) {
            this.#seen.delete(key);
            this.#found.delete(key);
            this.parts.content?.gone(ref);
          } else read.push(object);
        }),
      );
    if (read.length > 0) await this.#judge(read, now);
    if (taken.length > 0) await this.#settle();
    if (taken.some(([, { ref }]) => !isEndpoints(ref))) this.#isOther = true;
    // Otherwise flapping objects would fill the ledger.
    if (!this.#isOther || performance.now() - this.#recorded < Math.min(everyMs, this.#spacedMs)) return;
    if (await this.#record(now)) this.#recorded = performance.now();
  }

  // At once, not with the next result: what runs here is not what was approved.
  async #settle(): Promise<void> {
    const { environment, content, log } = this.parts;
    for (const { ref, reason } of (await content?.settle()) ?? [])
      log.warn({ environment: environment.metadata.name }, `${refText(ref)} is not what was approved: ${reason}`);
    const at = performance.now();
    for (const ref of content?.doubted() ?? [])
      if (!this.#changed.has(refKey(ref))) this.#changed.set(refKey(ref), { ref, at, due: at + this.#times.laterMs });
  }

  async #judge(all: readonly KubernetesObject[], now: EnvironmentState): Promise<void> {
    await this.parts.content?.see(all);
    const objects = all.filter((o) => !isEndpoints(o)); // they are written all the time, and hold nothing to rule on
    if (objects.length === 0) return;
    const digests = new Map(objects.map((o) => [o, objectDigest(o)] as const));
    const ruled = await this.parts.rules.judge([...digests].map(([o, digest]) => asSubject(o, now, digest)));
    this.#bundles.add(ruled.bundle);
    for (const [object, digest] of digests) {
      const one = { ...scanned(object), digest, isOwnBinding: isOwnBinding(object, this.parts.user) };
      this.#seen.set(refKey(one.ref), one);
      this.#found.delete(refKey(one.ref));
    }
    for (const violation of [...ruled.violations, ...ruled.waived].map(ofScan)) {
      const key = refKey(violation.object);
      const known = this.#found.get(key);
      if (known === undefined) this.#found.set(key, [violation]);
      else known.push(violation);
    }
  }

  async #record(now: EnvironmentState): Promise<boolean> {
    const { environment, server, ledger, log, clock } = this.parts;
    const name = environment.metadata.name;
    const all = [...this.#seen.values()];
    const violations = [...this.#found.values()].flat();
    const whose = belonging(all, now);
    const unmanaged = all.filter((_, i) => whose[i] === 'unmanaged');
    const byKey = (a: { object: ObjectRef }, b: { object: ObjectRef }) =>
      refKey(a.object) < refKey(b.object) ? -1 : 1;
    const scan: Scan = {
      unmanaged: unmanaged.map(({ ref, manager, since }) => ({ object: ref, manager, since })).sort(byKey),
      violations: violations.sort((a, b) => byKey(a, b) || (a.rule < b.rule ? -1 : 1)),
      unread: this.#unread,
    };
    const evidence = ledger.asEvidence(scan);
    const last = ledger.latest(['cluster.scanned'], name)?.entry;
    const isNew =
      last?.evidence.sha256 !== evidence.ref.sha256 ||
      last.revision !== now.revision ||
      clock().getTime() - Date.parse(last.time) > AGAIN_MS;
    if (isNew) {
      const standing = violations.filter((v) => v.waived === undefined).length;
      const counts = {
        objects: all.length,
        unmanaged: unmanaged.length,
        violations: standing,
        waived: violations.length - standing,
      };
      await ledger.record(
        {
          type: 'cluster.scanned',
          environment: name,
          revision: now.revision,
          bundle: [...this.#bundles].join(' '),
          ...counts,
          evidence: evidence.ref,
        },
        [evidence],
      );
      this.#spacedMs = Math.max(this.#times.spacedMs, evidence.bytes.length);
      log.info({ environment: name, ...counts }, 'judged everything in its namespaces');
      await publish(environment, server, all, scan, clock()).catch((thrown) =>
        log.warn({ environment: name }, messageOf(thrown)),
      );
    }
    this.#isOther = false;
    return isNew;
  }
}

const HOW_TO_READ =
  'grant the service’s account `get`, `list` and `watch` on these kinds there: ' +
  '`countersign manifests --rights derived --kubeconfig FILE` does for every kind that the cluster serves';

async function publish(
  { metadata, spec }: Environment,
  server: ApiServer,
  all: readonly Scanned[],
  scan: Scan,
  at: Date,
): Promise<void> {
  const bad = new Set(scan.violations.map((v) => refKey(v.object)));
  for (const namespace of spec.target.namespaces) {
    const here = ({ object }: { object: { namespace: string } }) => object.namespace === namespace;
    const results: ReportResult[] = [
      ...scan.unread.map(
        (kind): ReportResult => ({ rule: 'unread', result: 'error', message: `objects of ${kind} cannot be read` }),
      ),
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
          message: `no commit has it; written by ${u.manager || 'an unknown manager'} at ${u.since}`,
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

/**
 * Runs a full scan at an interval and whenever an environment has a new revision, and processes reported changes in
 * between. Returns a function that stops it.
 */
export function keepRescanning(parts: readonly RescanParts[], everyMs: number, times = TIMES): () => Promise<void> {
  const stopped = new AbortController();
  const mayOpen = () => watched.reduce((sum, { watch }) => sum + watch.connections, 0) < MAX_WATCHES;
  const watched = [...Map.groupBy(parts, (p) => p.server)].map(([server, here]) => {
    const rescans: Rescan[] = [];
    const changed = (ref: ObjectRef, uid: string) => {
      for (const one of rescans)
        if (one.parts.environment.spec.target.namespaces.includes(ref.namespace)) one.changed(ref, uid);
    };
    const namespaces = here.flatMap((p) => p.environment.spec.target.namespaces);
    const warn = (message: string) => (here[0] as RescanParts).log.warn({}, message);
    const watch = new NamespaceWatch(server, namespaces, { changed, mayOpen, warn });
    rescans.push(...here.map((p) => new Rescan(p, watch, times)));
    return { watch, rescans };
  });
  const look = async () => {
    for (const { watch, rescans } of watched) {
      let following: Promise<void> | undefined; // shared by all scans of this round
      const follow = () => {
        following ??= watch.follow();
        return following;
      };
      for (const one of rescans) {
        if (stopped.signal.aborted) return;
        const { log, environment, isHere } = one.parts;
        try {
          if (!isHere()) one.forget();
          else if (await one.isDue(everyMs)) await one.all(follow);
          else await one.some(everyMs);
        } catch (thrown) {
          if (!stopped.signal.aborted)
            log.warn({ environment: environment.metadata.name }, `cannot judge its namespaces: ${messageOf(thrown)}`);
        }
      }
    }
  };
  let turn = Promise.resolve();
  let isLooking = false;
  const timer = setInterval(
    () => {
      if (isLooking) return;
      isLooking = true;
      turn = look().finally(() => {
        isLooking = false;
      });
    },
    Math.min(times.lookMs, everyMs),
  ).unref();
  return async () => {
    stopped.abort();
    clearInterval(timer);
    for (const { watch } of watched) watch.close();
    await turn;
  };
}
