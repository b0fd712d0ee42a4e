import { allowNothing, assess, type EnvironmentState, environmentState, type Gate, recall } from '../gate/index.ts';
import {
  type AllowedRevision,
  CountersignError,
  durationMs,
  type EntryOf,
  isNoRevision,
  messageOf,
  NO_REVISION,
  type ObjectRef,
  type Recorded,
  refKey,
  type Verdict,
} from '../model/index.ts';
import { applyRevision, named } from './apply-revision.ts';
import type { ReconcilePorts } from './ports.ts';

/** Where an environment's loop stands, for people and for readiness. */
export type ReconcilerStatus = {
  readonly environment: string;
  readonly revision: string;
  readonly state: 'starting' | 'applied' | 'denied' | 'refused' | 'held' | 'waiting';
  readonly message: string;
  readonly at: string;
};

/** Objects that break-glass changed: those whose time still runs, and those whose time is over and that were not put right yet. */
type BreakGlassUses = { readonly held: ReadonlySet<string>; readonly over: ReadonlySet<string> };

const MAX_BACKOFF_MS = 60_000;

/** One environment's loop. `pass` looks once; `run` looks until it is stopped. */
export class Reconciler {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  #judged: { key: string; allowed: AllowedRevision | undefined } | undefined;
  #current: AllowedRevision | undefined;
  #status: ReconcilerStatus;
  #wake: (() => void) | undefined;
  #stopped = false;
  #failures = 0;
  #tip: { readonly id: string; readonly since: number } | undefined;
  // Live digests that differ from what was recorded only in fields others own.
  readonly #foreign = new Map<string, string>();

  constructor(gate: Gate, ports: ReconcilePorts) {
    this.#gate = gate;
    this.#ports = ports;
    this.#status = {
      environment: this.name,
      revision: NO_REVISION,
      state: 'starting',
      message: 'has not looked yet',
      at: ports.clock().toISOString(),
    };
  }

  get name(): string {
    return this.#gate.environment.metadata.name;
  }

  get status(): ReconcilerStatus {
    return this.#status;
  }

  /** Looks again now instead of at the end of the interval. */
  poke(): void {
    this.#wake?.();
  }

  stop(): void {
    this.#stopped = true;
    this.#wake?.();
  }

  /** Looks until stopped. Passing trouble is retried with growing pauses; an inconsistent ledger ends the loop and is thrown. */
  async run(): Promise<void> {
    const interval = durationMs(this.#gate.environment.spec.source.interval);
    while (!this.#stopped) {
      try {
        await this.pass();
        this.#failures = 0;
      } catch (thrown) {
        const error = thrown instanceof CountersignError ? thrown : undefined;
        if (error?.recover === 'halt') throw error;
        this.#failures++;
        this.#report('waiting', messageOf(thrown));
        this.#ports.log.warn({ environment: this.name, code: error?.code, hint: error?.hint, failures: this.#failures }, messageOf(thrown));
      }
      const pause =
        this.#failures === 0 ? interval : Math.min(MAX_BACKOFF_MS, Math.min(interval, 1000) * 2 ** Math.min(this.#failures - 1, 10));
      // Up to a tenth more, so that many environments on one repository do not all look at the same moment.
      await this.#pause(pause * (1 + Math.random() / 10));
    }
  }

  /** Looks once: finishes what was interrupted, judges a new tip, applies what is allowed, puts drift right. */
  async pass(): Promise<void> {
    let trouble: unknown;
    const looked = await this.#ports.look().catch((thrown: unknown) => {
      trouble = thrown; // the last good state is defended all the same
      return undefined;
    });
    this.#ports.onStep?.('fetched', this.name);
    await this.#finishInterrupted();
    if (looked !== undefined) {
      await this.#tellIfMoved(looked.tip);
      await this.#tellIfStale(looked.tip);
    }
    if (looked !== undefined && looked.tip !== this.#state().revision) await this.#advance(looked.tip, looked.approvals);
    await this.#putDriftRight();
    if (trouble !== undefined) throw trouble;
    if (looked !== undefined && looked.tip === this.#state().revision) this.#report('applied', `at ${looked.tip.slice(0, 12)}`);
  }

  // Every move of the branch is on record, whatever comes of it; one that is no step forward is told as such.
  async #tellIfMoved(tip: string): Promise<void> {
    const before = this.#ports.ledger.latest(['ref.advanced', 'ref.rewound'], this.name)?.entry.after ?? NO_REVISION;
    if (before === tip) return;
    const { repository, environment } = this.#gate;
    const forward = isNoRevision(before) || (await repository.isAncestor(before, tip).catch(() => false));
    const ref = `refs/heads/${environment.spec.source.branch}`;
    await this.#ports.ledger.record(
      { type: forward ? 'ref.advanced' : 'ref.rewound', environment: this.name, ref, before, after: tip },
      [],
    );
    if (!forward) this.#ports.log.warn({ environment: this.name, before, after: tip }, 'the branch was rewritten');
  }

  // A mirror or remote that holds commits back looks like a team on holiday. Somebody has to be told which it is.
  async #tellIfStale(tip: string): Promise<void> {
    const { staleAfter } = this.#gate.environment.spec.source;
    const since = this.#firstLookAt(tip);
    if (staleAfter === undefined || this.#ports.clock().getTime() - since < durationMs(staleAfter)) return;
    const told = this.#ports.ledger.latest(['source.stale'], this.name)?.entry;
    if (told?.tip === tip) return;
    await this.#ports.ledger.record({ type: 'source.stale', environment: this.name, tip, since: new Date(since).toISOString() }, []);
    this.#ports.log.warn(
      { environment: this.name, tip, since: new Date(since).toISOString() },
      `the branch has not moved for ${staleAfter}: is the remote holding commits back?`,
    );
  }

  #firstLookAt(tip: string): number {
    const now = this.#ports.clock().getTime();
    if (this.#tip?.id !== tip) {
      const seen = this.#ports.ledger.all('commits.seen', this.name).find((r) => r.entry.tip === tip);
      this.#tip = { id: tip, since: seen === undefined ? now : Date.parse(seen.entry.time) };
    }
    return this.#tip.since;
  }

  #state(): EnvironmentState {
    return environmentState(this.#ports.ledger, this.name);
  }

  // An intent without a result is carried through; if the cluster will not have it, the last good revision comes back.
  async #finishInterrupted(): Promise<void> {
    const { open } = this.#state();
    if (open === undefined) return;
    const { entry, index } = open.intent;
    this.#ports.log.warn(
      { environment: this.name, entry: index, revision: entry.revision },
      open.failed ? 'restoring after a failure' : 'finishing an interrupted change',
    );
    if (!open.failed) {
      const revision = await recall(this.#gate, this.#ports.ledger, entry.verdict);
      const applied = await applyRevision(revision, entry.purpose, this.#ports);
      if (applied.outcome === 'applied') {
        this.#current = revision;
        return;
      }
    }
    await this.#restore();
  }

  async #advance(tip: string, approvals: string): Promise<void> {
    const state = this.#state();
    const held = this.#failedBefore(tip);
    if (held !== undefined) {
      this.#report(
        'held',
        `${tip.slice(0, 12)} could not be applied (entry ${held.index}); held at ${state.revision.slice(0, 12)} until a new commit`,
      );
      return;
    }
    const allowed = await this.#judge(state, tip, approvals);
    this.#ports.onStep?.('judged', this.name);
    if (allowed === undefined) return;
    const applied = await applyRevision(allowed, 'apply', this.#ports);
    if (applied.outcome === 'applied') {
      this.#current = allowed;
      this.#foreign.clear();
      this.#report('applied', `at ${tip.slice(0, 12)}`);
      this.#ports.log.info({ environment: this.name, revision: tip, applied: applied.applied, pruned: applied.pruned }, 'applied');
    } else if (applied.outcome === 'refused') {
      this.#report('refused', `${tip.slice(0, 12)}: ${applied.error ?? ''}`);
    } else await this.#restore();
  }

  // One verdict per tip, approvals and day: looking again at the same costs nothing and records nothing. A new day is looked at
  // anew, because rules may ask for it and waivers end on it.
  async #judge(state: EnvironmentState, tip: string, approvals: string): Promise<AllowedRevision | undefined> {
    const from = state.revision === NO_REVISION ? (this.#gate.environment.spec.source.baseline ?? NO_REVISION) : state.revision;
    const key = [from, tip, approvals, this.#gate.trust.digest, this.#gate.clock().toISOString().slice(0, 10)].join(' ');
    if (this.#judged?.key !== key) {
      const { verdict, recorded, allowed } = await assess(this.#gate, from, tip);
      this.#judged = { key, allowed };
      this.#tell(verdict, recorded?.index);
    }
    return this.#judged.allowed;
  }

  #tell(verdict: Verdict, entry: number | undefined): void {
    const fields = {
      environment: this.name,
      revision: verdict.to,
      entry,
      outcome: verdict.outcome,
      commits: verdict.commits.length,
      objects: verdict.objects,
    };
    if (verdict.outcome === 'allowed') {
      this.#ports.log.info(fields, 'allowed');
      return;
    }
    this.#ports.log.warn({ ...fields, violations: verdict.violations.slice(0, 10).map((v) => `${v.code}: ${v.message}`) }, 'denied');
    this.#report(
      'denied',
      `${verdict.to.slice(0, 12)}: ${verdict.violations[0]?.message ?? ''}${verdict.violations.length > 1 ? ` (and ${verdict.violations.length - 1} more)` : ''}`,
    );
  }

  async #restore(): Promise<void> {
    const state = this.#state();
    if (state.revision === NO_REVISION) return this.#removeFirst(state);
    const good = await recall(this.#gate, this.#ports.ledger, state.verdict);
    const restored = await applyRevision(good, 'restore', this.#ports);
    this.#current = good;
    this.#report(
      'held',
      restored.outcome === 'applied'
        ? `restored ${state.revision.slice(0, 12)}`
        : `cannot restore ${state.revision.slice(0, 12)}: ${restored.error ?? ''}`,
    );
    this.#ports.log.warn(
      { environment: this.name, revision: state.revision, outcome: restored.outcome },
      'restored the last good revision',
    );
  }

  // There is no good revision to go back to: what the failed first one wrote is taken away again.
  async #removeFirst(state: EnvironmentState): Promise<void> {
    await applyRevision(allowNothing(this.#gate.environment, state.open?.intent.entry.verdict ?? -1), 'restore', this.#ports);
    this.#report('held', 'the first revision could not be applied; what it wrote was removed');
  }

  #failedBefore(tip: string): Recorded<EntryOf<'apply.result'>> | undefined {
    for (
      let result = this.#ports.ledger.latest(['apply.result'], this.name);
      result !== undefined;
      result = this.#ports.ledger.latest(['apply.result'], this.name, result.index)
    ) {
      const intent = this.#ports.ledger.entry(result.entry.intent)?.entry as EntryOf<'apply.intent'> | undefined;
      if (intent?.purpose === 'apply') return result.entry.outcome === 'failed' && intent.revision === tip ? result : undefined;
    }
    return undefined;
  }

  async #putDriftRight(): Promise<void> {
    const state = this.#state();
    if (state.open !== undefined || state.inventory.objects.length === 0) return;
    const glass = this.#breakGlass();
    const drifted = await this.#drift(state, glass);
    if (drifted.length === 0) return;
    if (!this.#isKnownDrift(drifted)) {
      await this.#ports.ledger.record(
        { type: 'drift.found', environment: this.name, revision: state.revision, objects: drifted.slice(0, 100) },
        [],
      );
      this.#ports.log.warn({ environment: this.name, objects: named(drifted) }, 'drift found');
    }
    const revision = await this.#currentRevision(state);
    for (const ref of drifted) if (glass.over.has(refKey(ref))) await this.#ports.cluster.takeOver(ref);
    const applied = await applyRevision(revision, 'correct', this.#ports, new Set(drifted.map(refKey)));
    if (applied.outcome !== 'applied') return;
    const result = this.#ports.ledger.latest(['apply.result'], this.name)?.index ?? 0;
    await this.#ports.ledger.record(
      { type: 'drift.corrected', environment: this.name, revision: state.revision, result, objects: drifted.slice(0, 100) },
      [],
    );
    this.#ports.log.info({ environment: this.name, objects: named(drifted) }, 'drift put right');
  }

  // Drift that could not be put right at the last look is on the ledger already, and is not written again at every look.
  #isKnownDrift(drifted: readonly ObjectRef[]): boolean {
    const last = this.#ports.ledger.latest(['drift.found', 'apply.result'], this.name);
    return last?.entry.type === 'drift.found' && last.entry.objects.map(refKey).join() === drifted.slice(0, 100).map(refKey).join();
  }

  // Cheap first: one list per kind. Only what differs from what was recorded is asked about more closely.
  async #drift(state: EnvironmentState, { held, over }: BreakGlassUses): Promise<ObjectRef[]> {
    const live = await this.#ports.cluster.liveDigests(state.inventory.objects.map((o) => o.ref));
    const suspects = state.inventory.objects.filter((o) => {
      const key = refKey(o.ref);
      const digest = live.get(key);
      return !held.has(key) && (over.has(key) || (digest !== o.live && (digest === undefined || digest !== this.#foreign.get(key))));
    });
    if (suspects.length === 0) return [];
    const revision = await this.#currentRevision(state);
    const drifted: ObjectRef[] = [];
    for (const owned of suspects) {
      const key = refKey(owned.ref);
      const rendered = revision.objects.find((o) => refKey(o.ref) === key);
      const digest = live.get(key);
      if (rendered === undefined) continue;
      const wanted =
        digest === undefined || over.has(key) ? undefined : (await this.#ports.cluster.dryRun(rendered, owned, this.name)).live;
      if (digest !== undefined && wanted === digest) this.#foreign.set(key, digest);
      else drifted.push(owned.ref);
    }
    return drifted;
  }

  // What was done under break-glass stands until its time is over. Then the whole object is put right, with whatever was
  // added beside our fields; that it was is known by the `drift.found` that followed, and the result after that.
  #breakGlass(): BreakGlassUses {
    const now = this.#ports.clock().toISOString();
    const uses = this.#ports.ledger.all('breakglass.used', this.name);
    const held = new Set(uses.filter((r) => r.entry.until > now).map((r) => refKey(r.entry.object)));
    const over = new Map(uses.map((r) => [refKey(r.entry.object), r.index]));
    const settled = this.#ports.ledger.latest(['apply.result'], this.name)?.index ?? -1;
    for (const found of over.size === 0 ? [] : this.#ports.ledger.all('drift.found', this.name).filter((r) => r.index < settled)) {
      for (const key of found.entry.objects.map(refKey)) if ((over.get(key) ?? found.index) < found.index) over.delete(key);
    }
    return { held, over: new Set([...over.keys()].filter((key) => !held.has(key))) };
  }

  async #currentRevision(state: EnvironmentState): Promise<AllowedRevision> {
    if (this.#current?.revision !== state.revision) this.#current = await recall(this.#gate, this.#ports.ledger, state.verdict);
    return this.#current;
  }

  #report(state: ReconcilerStatus['state'], message: string): void {
    this.#status = { environment: this.name, revision: this.#state().revision, state, message, at: this.#ports.clock().toISOString() };
  }

  #pause(ms: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms);
      const self = this;
      function done() {
        clearTimeout(timer);
        self.#wake = undefined;
        resolve();
      }
      this.#wake = done;
    });
  }
}
