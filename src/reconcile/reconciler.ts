import { allowNothing, assess, type EnvironmentState, type Gate, recall } from '../gate/index.ts';
import {
  type AllowedRevision,
  type Comparison,
  CountersignError,
  durationMs,
  type EntryOf,
  type Environment,
  inParallel,
  isNoRevision,
  messageOf,
  NO_REVISION,
  type ObjectRef,
  type OwnedObject,
  type Recorded,
  type RenderedObject,
  refKey,
  refText,
  type Told,
  type Verdict,
} from '../model/index.ts';
import { type Applied, applyRevision, named } from './apply-revision.ts';
import { DriftGuard } from './drift-guard.ts';
import type { ReconcilePorts } from './ports.ts';
import { promotable } from './promotion.ts';
import { closedBy } from './windows.ts';

/** How many of an environment's objects are in which health, and what the first few unhealthy ones say. */
export type HealthCount = {
  readonly current: number;
  readonly progressing: number;
  readonly failed: number;
  readonly missing: number;
  readonly trouble: readonly string[];
};

/** Where an environment's loop stands, for people and for readiness. */
export type ReconcilerStatus = {
  readonly environment: string;
  /** The last revision that was applied whole. */
  readonly revision: string;
  /** Where the branch was at the last look; empty before the first. */
  readonly tip: string;
  readonly state:
    | 'starting'
    | 'applying'
    | 'applied'
    | 'denied'
    | 'refused'
    | 'held'
    | 'waiting'
    | 'blocked'
    | 'suspended'
    | 'drifted'
    | 'standby';
  readonly message: string;
  readonly at: string;
  /** When it last looked, and will look next; ISO 8601. */
  readonly looked: string;
  readonly next: string;
  readonly health: HealthCount;
};

/** What other environments of the same service say; `dependsOn` asks. */
export type Peers = (environment: string) => ReconcilerStatus | undefined;

type BreakGlassUses = { readonly held: ReadonlySet<string>; readonly over: ReadonlySet<string> };
type Drifted = { readonly owned: OwnedObject; readonly found: Comparison };
type Reason = 'tick' | 'look' | 'drift';

const MAX_BACKOFF_MS = 60_000;
const GATHER_MS = 20; // a moment in which further events of the same mishap come in
const DETAILED = 20;
const TROUBLE = 5; // looks in a row that came to nothing: no passing trouble any more
const NO_HEALTH: HealthCount = { current: 0, progressing: 0, failed: 0, missing: 0, trouble: [] };

/** One environment's loop. `pass` looks once; `run` looks until it is stopped, and puts drift right as it is told of it. */
export class Reconciler {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #peers: Peers;
  readonly #guard = new DriftGuard();
  #judged: { key: string; allowed: AllowedRevision | undefined } | undefined;
  #current: AllowedRevision | undefined;
  #status: ReconcilerStatus;
  #wake: ((reason: Reason) => void) | undefined;
  #pending: Reason | undefined;
  #stopped = false;
  #failures = 0;
  #tip: { readonly id: string; readonly since: number } | undefined;
  #watched = '';
  // Live digests that differ from what was recorded only in fields others own.
  readonly #foreign = new Map<string, string>();
  #reported = '';
  // One thing at a time: a look, drift, or what somebody asks for.
  #busy: Promise<unknown> = Promise.resolve();
  #interrupt = false;
  #pokedAt = 0;

  constructor(gate: Gate, ports: ReconcilePorts, peers: Peers = () => undefined) {
    this.#gate = gate;
    this.#ports = ports;
    this.#peers = peers;
    closedBy(this.#spec.windows, ports.clock()); // a schedule that cannot be read is told at the start
    const at = ports.clock().toISOString();
    this.#status = {
      environment: this.name,
      revision: NO_REVISION,
      tip: '',
      state: 'starting',
      message: 'has not looked yet',
      at,
      looked: '',
      next: at,
      health: NO_HEALTH,
    };
  }

  get name(): string {
    return this.#gate.environment.metadata.name;
  }

  /** Whether everything that is ours is being watched just now. */
  get connected(): boolean {
    return this.#ports.cluster.connected;
  }

  get status(): ReconcilerStatus {
    return { ...this.#status, health: this.#health() };
  }

  get #spec(): Environment['spec'] {
    return this.#gate.environment.spec;
  }

  /** Looks again now instead of at the end of the interval. */
  poke(): void {
    this.#pokedAt = Date.now();
    this.#notify('look');
  }

  /** Another replica does this environment's work. */
  standBy(message: string): void {
    this.#report('standby', message);
  }

  /** Something of ours in the cluster is not as it was. */
  stir(): void {
    this.#notify('drift');
  }

  stop(): void {
    this.#stopped = true;
    this.#notify('look');
  }

  /** Looks until stopped. Passing trouble is retried with growing pauses; an inconsistent ledger ends the loop and is thrown. */
  async run(): Promise<void> {
    const interval = durationMs(this.#spec.source.interval);
    let reason: Reason = 'look';
    let nextLook = 0;
    while (!this.#stopped) {
      const looks = reason !== 'drift' || this.#failures > 0 || Date.now() >= nextLook;
      const begun = performance.now();
      try {
        await (looks ? this.pass() : this.defend());
        this.#ports.took?.(looks ? 'look' : 'drift', (performance.now() - begun) / 1000);
        if (looks) this.#failures = 0;
      } catch (thrown) {
        const error = thrown instanceof CountersignError ? thrown : undefined;
        if (error?.recover === 'halt') throw error;
        this.#failures++;
        this.#report('waiting', messageOf(thrown));
        if (this.#failures === TROUBLE) this.#tellOf('trouble', messageOf(thrown));
        this.#ports.log.warn({ environment: this.name, code: error?.code, hint: error?.hint, failures: this.#failures }, messageOf(thrown));
      }
      const backoff = Math.min(MAX_BACKOFF_MS, Math.min(interval, 1000) * 2 ** Math.min(this.#failures - 1, 10));
      // Up to a tenth more, so that many environments on one repository do not all look at the same moment.
      const jitter = 1 + Math.random() / 10;
      if (this.#failures > 0) nextLook = Date.now() + backoff * jitter;
      else if (looks) nextLook = Date.now() + interval * jitter;
      const pause = Math.max(0, Math.min(nextLook - Date.now(), this.#untilNextCorrection()));
      this.#status = { ...this.#status, next: new Date(nextLook).toISOString() };
      reason = await this.#pause(pause);
      if (reason === 'drift') await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
    }
  }

  /** Looks once: finishes what was interrupted, judges a new tip, applies what is allowed, puts drift right. */
  pass(): Promise<void> {
    return this.#alone(() => this.#pass());
  }

  async #pass(): Promise<void> {
    let trouble: unknown;
    const looked = await this.#look().catch((thrown: unknown) => {
      trouble = thrown; // the last good state is defended all the same
      return undefined;
    });
    this.#ports.onStep?.('fetched', this.name);
    if (looked !== undefined) {
      this.#status = { ...this.#status, tip: looked.tip, looked: this.#ports.clock().toISOString() };
      await this.#tellIfMoved(looked.tip);
      await this.#tellIfStale(looked.tip);
    }
    const suspended = this.#suspension();
    if (suspended !== undefined) {
      this.#report('suspended', `suspended: ${suspended.entry.reason}`);
      if (trouble !== undefined) throw trouble;
      return;
    }
    await this.#watch();
    const advanced = looked === undefined ? false : await this.#overtake(looked.tip, looked.approvals);
    if (!advanced) await this.#finishInterrupted();
    const target = looked === undefined ? undefined : await this.#target(looked.tip);
    if (!advanced && target !== undefined && target !== this.#state().revision) await this.#advance(target, looked?.approvals ?? '');
    await this.#putDriftRight();
    if (trouble !== undefined) throw trouble;
    if (target !== undefined && target === this.#state().revision && this.#state().open === undefined && this.#reported === '')
      this.#atRest();
  }

  /** Puts right what the watches told of; the repository is not asked. */
  defend(): Promise<void> {
    return this.#alone(async () => {
      if (this.#suspension() === undefined) await this.#putDriftRight();
    });
  }

  #alone<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#busy.then(task);
    this.#busy = done.catch(() => {});
    return done;
  }

  // Somebody waits: what is waiting for health is left where it is, and taken over by what they ask for.
  async #atOnce<T>(task: () => Promise<T>): Promise<T> {
    this.#interrupt = true;
    return this.#alone(() => {
      this.#interrupt = false;
      return task();
    });
  }

  /** Applies an earlier revision that this environment was at, after the same checks as ever, and stays there until a new commit comes. */
  rollBack(to: string, by: { readonly user: string; readonly reason: string }): Promise<Applied> {
    return this.#atOnce(() => this.#rollBack(to, by));
  }

  /** Writes every object of the last good revision again, as into a cluster that lost them; the ledger says that it is a restore. */
  restoreAll(): Promise<Applied> {
    return this.#atOnce(async () => {
      const state = this.#state();
      if (state.revision === NO_REVISION)
        throw new CountersignError('usage', `\`${this.name}\` was never at any revision`, {
          hint: '`countersign apply` applies a first one',
        });
      await this.#watch();
      const good = await recall(this.#gate, this.#ports.ledger, state.verdict);
      const applied = await applyRevision(good, 'restore', this.#ports, { force: new Set(good.objects.map((o) => refKey(o.ref))) });
      this.#current = good;
      if (applied.outcome === 'applied') {
        this.#tellOf('restored', `${applied.applied} objects written again`);
        this.#atRest();
      }
      return applied;
    });
  }

  async #rollBack(to: string, by: { readonly user: string; readonly reason: string }): Promise<Applied> {
    const { ledger } = this.#ports;
    const good = this.#goodBefore(to);
    const from = this.#state().revision;
    const tip = this.#status.tip === '' ? from : this.#status.tip;
    await ledger.record(
      {
        type: 'rollback.requested',
        environment: this.name,
        from,
        to: good.entry.revision,
        tip,
        user: ledger.subject(by.user),
        reason: by.reason,
      },
      [],
    );
    const intent = ledger.entry(good.entry.intent)?.entry as EntryOf<'apply.intent'>;
    const judged = ledger.entry(intent.verdict)?.entry as EntryOf<'change.judged'>;
    const { verdict, recorded, allowed } = await assess(this.#gate, judged.from, judged.to);
    this.#tell(verdict, recorded?.index);
    if (allowed === undefined)
      return { outcome: 'refused', applied: 0, pruned: 0, error: verdict.violations[0]?.message ?? 'it is not allowed any more' };
    await this.#watch();
    const applied = await applyRevision(allowed, 'rollback', this.#ports);
    if (applied.outcome === 'applied') {
      this.#current = allowed;
      this.#tellOf('rolled-back', `rolled back to ${good.entry.revision.slice(0, 12)}: ${by.reason}`);
      this.#report('held', `rolled back to ${good.entry.revision.slice(0, 12)} until a new commit: ${by.reason}`);
    } else if (applied.outcome === 'failed') await this.#restore();
    return applied;
  }

  #goodBefore(to: string): Recorded<EntryOf<'apply.result'>> {
    const { ledger } = this.#ports;
    for (let at = ledger.latest(['apply.result'], this.name); at !== undefined; at = ledger.latest(['apply.result'], this.name, at.index))
      if (at.entry.outcome === 'applied' && at.entry.revision.startsWith(to)) return at;
    throw new CountersignError('usage', `\`${this.name}\` was never at the revision \`${to.slice(0, 40)}\``, {
      hint: '`countersign ledger show --type apply.result` lists what it was at',
    });
  }

  // What another environment on the same branch fetched a moment ago will do, unless somebody says that there is news.
  #look(): ReturnType<ReconcilePorts['look']> {
    return this.#ports.look(Math.max(this.#pokedAt, Date.now() - durationMs(this.#spec.source.interval) / 2));
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
    if (forward) return;
    this.#ports.log.warn({ environment: this.name, before, after: tip }, 'the branch was rewritten');
    this.#tellOf('rewritten', `the branch went from ${before.slice(0, 12)} to ${tip.slice(0, 12)}, which does not descend from it`);
  }

  // A mirror or remote that holds commits back looks like a team on holiday. Somebody has to be told which it is.
  async #tellIfStale(tip: string): Promise<void> {
    const { staleAfter } = this.#spec.source;
    const since = this.#firstLookAt(tip);
    if (staleAfter === undefined || this.#ports.clock().getTime() - since < durationMs(staleAfter)) return;
    const told = this.#ports.ledger.latest(['source.stale'], this.name)?.entry;
    if (told?.tip === tip) return;
    await this.#ports.ledger.record({ type: 'source.stale', environment: this.name, tip, since: new Date(since).toISOString() }, []);
    this.#ports.log.warn(
      { environment: this.name, tip, since: new Date(since).toISOString() },
      `the branch has not moved for ${staleAfter}: is the remote holding commits back?`,
    );
    this.#tellOf('stale', `the branch has not moved for ${staleAfter}`);
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
    return this.#ports.state();
  }

  #suspension(): Recorded<EntryOf<'environment.suspended'>> | undefined {
    const last = this.#ports.ledger.latest(['environment.suspended', 'environment.resumed'], this.name);
    return last?.entry.type === 'environment.suspended' ? (last as Recorded<EntryOf<'environment.suspended'>>) : undefined;
  }

  // The kinds that are owned now; more come with what is applied.
  async #watch(): Promise<void> {
    const { owned } = this.#state();
    const kinds = new Map([...owned.values()].map(({ ref }) => [`${ref.apiVersion} ${ref.kind}`, ref]));
    const key = [...kinds.keys()].sort().join();
    if (key === this.#watched) return;
    let all = true;
    // Each for itself: a kind whose conversion webhook is down must not keep the others from being defended (Argo CD 25305).
    await inParallel([...kinds.values()], async (ref) => {
      await this.#ports.cluster.watch([ref], this.#spec.target.namespaces).catch((thrown) => {
        all = false;
        this.#ports.log.warn({ environment: this.name, kind: ref.kind }, `cannot be watched: ${messageOf(thrown)}`);
      });
    });
    if (all) this.#watched = key;
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
      const applied = await this.#apply(revision, entry.purpose);
      if (applied.outcome === 'applied') this.#current = revision;
      if (applied.outcome === 'applied' || applied.outcome === 'superseded') return;
    }
    await this.#restore();
  }

  // A newer commit that is allowed goes before one that was begun and is not done: a bad one must not keep a good one waiting.
  async #overtake(tip: string, approvals: string): Promise<boolean> {
    const { open } = this.#state();
    if (open === undefined || open.failed || open.intent.entry.purpose !== 'apply' || open.intent.entry.revision === tip) return false;
    const target = await this.#target(tip);
    if (target === undefined || target === open.intent.entry.revision || this.#heldBack(target) !== undefined) return false;
    const allowed = await this.#judge(this.#state(), target, approvals);
    if (allowed === undefined) return false;
    await this.#carryOut(allowed);
    return true;
  }

  // The commit that is to be applied: the tip, or the newest that another environment has proven; undefined where there is none yet.
  async #target(tip: string): Promise<string | undefined> {
    const { promotion } = this.#spec;
    if (promotion === undefined) return tip;
    const { repository } = this.#gate;
    const now = this.#ports.clock().getTime();
    const { revision } = this.#state();
    for (const proven of promotable(this.#ports.ledger, promotion.from, durationMs(promotion.healthyFor), now)) {
      if (proven === revision) return revision;
      // What was healthy there and is not any more goes no further.
      const peer = this.#peers(promotion.from);
      if (peer?.revision === proven && peer.health.progressing + peer.health.failed + peer.health.missing > 0) continue;
      if (proven === tip || (await repository.isAncestor(proven, tip).catch(() => false))) return proven;
    }
    this.#report('blocked', `waits for a commit that was healthy in \`${promotion.from}\` for ${promotion.healthyFor}`);
    return undefined;
  }

  // What keeps a change back that is otherwise allowed: environments it depends on.
  #heldBack(target: string): string | undefined {
    for (const name of this.#spec.dependsOn) {
      const peer = this.#peers(name);
      if (peer === undefined) return `depends on \`${name}\`, which this service does not run`;
      const { progressing, failed, missing } = peer.health;
      if (peer.state !== 'applied') return `depends on \`${name}\`, which is ${peer.state}`;
      if (progressing + failed + missing > 0)
        return `depends on \`${name}\`, where ${peer.health.trouble[0] ?? 'not everything is healthy'}`;
      if (peer.tip === this.#status.tip && peer.revision !== target && peer.tip === target)
        return `depends on \`${name}\`, which is not at ${target.slice(0, 12)} yet`;
    }
    return undefined;
  }

  async #advance(target: string, approvals: string): Promise<void> {
    const state = this.#state();
    const failed = this.#failedBefore(target);
    if (failed !== undefined) {
      this.#report(
        'held',
        `${target.slice(0, 12)} could not be applied (entry ${failed.index}); held at ${state.revision.slice(0, 12)} until a new commit: ${failed.entry.error ?? ''}`,
      );
      return;
    }
    const rolledBack = this.#rolledBackFrom(target);
    if (rolledBack !== undefined) {
      this.#report('held', `rolled back to ${state.revision.slice(0, 12)} until a new commit: ${rolledBack.entry.reason}`);
      return;
    }
    const allowed = await this.#judge(state, target, approvals);
    this.#ports.onStep?.('judged', this.name);
    if (allowed === undefined) return;
    const blocked = this.#heldBack(target);
    if (blocked !== undefined) {
      this.#report('blocked', `${target.slice(0, 12)} ${blocked}`);
      return;
    }
    if (await this.#windowCloses(target)) return;
    await this.#carryOut(allowed);
  }

  // No change outside of the windows, whoever or whatever asks for it; that it waits is on record once.
  async #windowCloses(target: string): Promise<boolean> {
    const closed = closedBy(this.#spec.windows, this.#ports.clock());
    if (closed === undefined) return false;
    const { ledger, log } = this.#ports;
    const verdict = ledger.latest(['change.judged'], this.name);
    const approvals = verdict === undefined ? [] : (ledger.evidence(verdict.entry.evidence) as Verdict).approvals;
    const overriding = approvals.find((a) => a.override === true && this.#mayOverride(a.principal));
    if (overriding !== undefined) {
      const told = ledger.latest(['window.overridden'], this.name)?.entry;
      if (told?.revision !== target)
        await ledger.record(
          {
            type: 'window.overridden',
            environment: this.name,
            revision: target,
            window: closed.window,
            principal: overriding.principal,
            reason: overriding.reason,
          },
          [],
        );
      log.warn(
        { environment: this.name, revision: target, window: closed.window, by: overriding.principal },
        'a closed window is overridden',
      );
      return false;
    }
    const told = ledger.latest(['window.closed'], this.name)?.entry;
    if (told?.revision !== target || told.window !== closed.window)
      await ledger.record({ type: 'window.closed', environment: this.name, revision: target, ...closed }, []);
    this.#report('blocked', `${target.slice(0, 12)} waits for the window \`${closed.window}\` until ${closed.until}`);
    return true;
  }

  #mayOverride(principal: string): boolean {
    return this.#gate.trust.members(this.#spec.windowOverride).has(principal);
  }

  async #carryOut(allowed: AllowedRevision): Promise<void> {
    const tip = allowed.revision;
    const applied = await this.#apply(allowed, 'apply');
    if (applied.outcome === 'applied') {
      this.#current = allowed;
      this.#foreign.clear();
      this.#guard.forget();
      this.#atRest();
      this.#ports.log.info({ environment: this.name, revision: tip, applied: applied.applied, pruned: applied.pruned }, 'applied');
      this.#tellOf('applied', `${applied.applied} objects written, ${applied.pruned} deleted`);
    } else if (applied.outcome === 'refused') {
      this.#tellOf('refused', applied.error ?? '', tip);
      this.#report('refused', `${tip.slice(0, 12)}: ${applied.error ?? ''}`);
    } else if (applied.outcome === 'superseded') {
      this.#ports.log.warn({ environment: this.name, revision: tip }, 'a newer commit is applied before this one became healthy');
      this.#notify('look');
    } else {
      this.#tellOf('failed', applied.error ?? '', tip);
      await this.#restore();
    }
  }

  // While objects become healthy, the branch goes on being looked at.
  async #apply(revision: AllowedRevision, purpose: EntryOf<'apply.intent'>['purpose']): Promise<Applied> {
    if (purpose !== 'apply') return applyRevision(revision, purpose, this.#ports);
    this.#report('applying', `applying ${revision.revision.slice(0, 12)}`);
    this.#tellOf('applying', `applying ${revision.objects.length} objects`, revision.revision);
    let newer = false;
    let done = false;
    const interval = durationMs(this.#spec.source.interval);
    const looking = (async () => {
      for (let at = Date.now() + interval; !done && !newer; ) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (this.#stopped || this.#interrupt) newer = true;
        if (done || (Date.now() < at && this.#pending !== 'look')) continue;
        if (this.#pending === 'look') this.#pending = undefined;
        at = Date.now() + interval;
        newer = await this.#hasNewer(revision.revision).catch(() => false);
      }
    })();
    try {
      return await applyRevision(revision, purpose, this.#ports, {
        superseded: () => newer,
        progress: (message) => {
          this.#report('applying', message);
          this.#ports.log.info({ environment: this.name, revision: revision.revision }, message);
        },
      });
    } finally {
      done = true;
      await looking;
    }
  }

  async #hasNewer(revision: string): Promise<boolean> {
    const { tip, approvals } = await this.#look();
    const target = await this.#target(tip);
    if (target === undefined || target === revision || this.#heldBack(target) !== undefined) return false;
    return (await this.#judge(this.#state(), target, approvals)) !== undefined;
  }

  // One verdict per tip, approvals and day: looking again at the same costs nothing and records nothing. A new day is looked at
  // anew, because rules may ask for it and waivers end on it.
  async #judge(state: EnvironmentState, tip: string, approvals: string): Promise<AllowedRevision | undefined> {
    const from = state.revision === NO_REVISION ? (this.#spec.source.baseline ?? NO_REVISION) : state.revision;
    const key = [from, tip, approvals, this.#gate.trust.digest, this.#gate.clock().toISOString().slice(0, 10)].join(' ');
    if (this.#judged?.key !== key) {
      const turn = this.#ports.turn ?? ((task) => task());
      const { verdict, recorded, allowed } = await turn(() => assess(this.#gate, from, tip));
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
    this.#tellOf('denied', verdict.violations[0]?.message ?? '', verdict.to);
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
    this.#foreign.clear();
    this.#report(
      'held',
      restored.outcome === 'applied'
        ? `restored ${state.revision.slice(0, 12)}`
        : `cannot restore ${state.revision.slice(0, 12)}: ${restored.error ?? ''}`,
    );
    this.#tellOf(restored.outcome === 'applied' ? 'restored' : 'trouble', this.#status.message);
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

  // The tip that somebody rolled back from is not applied again; only a newer commit is.
  #rolledBackFrom(tip: string): Recorded<EntryOf<'rollback.requested'>> | undefined {
    const { ledger } = this.#ports;
    const asked = ledger.latest(['rollback.requested'], this.name);
    if (asked === undefined || asked.entry.tip !== tip) return undefined;
    const done = ledger.latest(['apply.intent'], this.name);
    return done !== undefined && done.index > asked.index && done.entry.purpose === 'rollback' ? asked : undefined;
  }

  async #putDriftRight(): Promise<void> {
    const state = this.#state();
    if (state.open !== undefined || state.inventory.objects.length === 0) return;
    const glass = this.#breakGlass();
    const drifted = await this.#drift(state, glass);
    if (drifted.length === 0) {
      if (this.#reported !== '') {
        this.#reported = '';
        this.#atRest();
      }
      return;
    }
    const refs = drifted.map((d) => d.owned.ref);
    const now = this.#ports.clock().getTime();
    if (!this.#isKnownDrift(refs)) await this.#recordDrift(state, drifted);
    if (this.#spec.drift.mode === 'report') {
      this.#reported = named(refs);
      this.#report('drifted', `not as in Git: ${this.#reported}`);
      return;
    }
    const free = drifted.filter(({ owned }) => this.#guard.allows(refKey(owned.ref), now) || glass.over.has(refKey(owned.ref)));
    if (free.length > 0) await this.#correct(state, free, glass, now);
    const heldBack = refs.filter((ref) => !free.some(({ owned }) => owned.ref === ref));
    if (heldBack.length === 0) return;
    this.#reported = named(heldBack);
    this.#report('drifted', `somebody keeps changing what Git has, and it is put right more seldom: ${this.#reported}`);
  }

  async #correct(state: EnvironmentState, drifted: readonly Drifted[], glass: BreakGlassUses, now: number): Promise<void> {
    const refs = drifted.map((d) => d.owned.ref);
    const revision = await this.#currentRevision(state);
    for (const ref of refs) if (glass.over.has(refKey(ref))) await this.#ports.cluster.takeOver(ref);
    const applied = await applyRevision(revision, 'correct', this.#ports, { force: new Set(refs.map(refKey)) });
    if (applied.outcome === 'failed') await this.#restore();
    if (applied.outcome !== 'applied') {
      this.#reported = named(refs);
      this.#report('drifted', `cannot be put right: ${applied.error ?? this.#reported}`);
      return;
    }
    this.#reported = '';
    const before = new Set(refs.filter((r) => this.#guard.isContested(refKey(r))).map(refKey));
    for (const ref of refs) this.#guard.corrected(refKey(ref), now);
    const result = this.#ports.ledger.latest(['apply.result'], this.name)?.index ?? 0;
    await this.#ports.ledger.record(
      { type: 'drift.corrected', environment: this.name, revision: state.revision, result, objects: refs.slice(0, 100) },
      [],
    );
    this.#ports.log.info({ environment: this.name, objects: named(refs) }, 'drift put right');
    this.#tellOf('corrected', named(refs), state.revision, refs);
    const contested = drifted.filter(({ owned: { ref } }) => this.#guard.isContested(refKey(ref)) && !before.has(refKey(ref)));
    if (contested.length > 0) await this.#tellContest(state, contested);
  }

  async #tellContest(state: EnvironmentState, contested: readonly Drifted[]): Promise<void> {
    const objects = contested.map((d) => d.owned.ref).slice(0, 100);
    const managers = [...new Set(contested.map(({ found }) => writerOf(found)?.manager ?? ''))].filter((m) => m !== '').slice(0, 20);
    await this.#ports.ledger.record({ type: 'drift.contested', environment: this.name, revision: state.revision, objects, managers }, []);
    this.#ports.log.error(
      { environment: this.name, objects: named(objects), managers },
      'somebody keeps changing what Git has: it is put right more and more seldom until that ends',
    );
    this.#tellOf('contested', `${named(objects)}, by ${managers.join(', ') || 'somebody'}`, state.revision, objects);
  }

  async #recordDrift(state: EnvironmentState, drifted: readonly Drifted[]): Promise<void> {
    const details = drifted.slice(0, DETAILED).map(({ owned, found }) => {
      const writer = writerOf(found);
      const fields = found.kind === 'different' ? found.fields : [];
      // Keys of a Secret are no secret; what is below them is not told by name either.
      return { object: owned.ref, fields: fields.map((f) => f.slice(0, 200)), manager: writer?.manager ?? '', at: writer?.time ?? '' };
    });
    const objects = drifted.map((d) => d.owned.ref);
    await this.#ports.ledger.record(
      { type: 'drift.found', environment: this.name, revision: state.revision, objects: objects.slice(0, 100), details },
      [],
    );
    const by = [...new Set(details.map((d) => d.manager))].filter((m) => m !== '');
    this.#ports.log.warn(
      { environment: this.name, objects: named(objects), fields: details[0]?.fields.slice(0, 5), ...(by.length === 0 ? {} : { by }) },
      'drift found',
    );
    this.#tellOf('drift', `${named(objects)}${by.length === 0 ? '' : `, by ${by.join(', ')}`}`, state.revision, objects);
  }

  // Drift that could not be put right at the last look is on the ledger already, and is not written again at every look.
  #isKnownDrift(drifted: readonly ObjectRef[]): boolean {
    const last = this.#ports.ledger.latest(['drift.found', 'apply.result'], this.name);
    return last?.entry.type === 'drift.found' && last.entry.objects.map(refKey).join() === drifted.slice(0, 100).map(refKey).join();
  }

  // The watches know the digest of everything; only what differs from what was recorded is asked about more closely.
  async #drift(state: EnvironmentState, { held, over }: BreakGlassUses): Promise<Drifted[]> {
    const { cluster } = this.#ports;
    const suspects = state.inventory.objects.filter((o) => {
      const key = refKey(o.ref);
      const digest = cluster.live(o.ref)?.digest;
      return (
        cluster.knows(o.ref) &&
        !held.has(key) &&
        (over.has(key) || (digest !== o.live && (digest === undefined || digest !== this.#foreign.get(key))))
      );
    });
    if (suspects.length === 0) return [];
    const revision = await this.#currentRevision(state);
    const rendered = new Map(revision.objects.map((o) => [refKey(o.ref), o]));
    const drifted: Drifted[] = [];
    await inParallel(suspects, async (owned) => {
      const key = refKey(owned.ref);
      const wanted = rendered.get(key);
      if (wanted === undefined) return;
      const found = await this.#compare(wanted, owned);
      const digest = cluster.live(owned.ref)?.digest;
      if (over.has(key)) drifted.push({ owned, found });
      else if (found.kind === 'same' && digest !== undefined) this.#foreign.set(key, digest);
      else if (found.kind !== 'same' && !(found.kind === 'missing' && goesByItself(wanted))) drifted.push({ owned, found });
    });
    return drifted.sort((a, b) => (refKey(a.owned.ref) < refKey(b.owned.ref) ? -1 : 1));
  }

  async #compare(rendered: RenderedObject, owned: OwnedObject): Promise<Comparison> {
    try {
      return await this.#ports.cluster.compare(rendered, owned, { environment: this.name, force: true, ignore: this.#spec.drift.ignore });
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
      return { kind: 'different', fields: [] }; // what the API server will not even take back is not as Git has it
    }
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

  #untilNextCorrection(): number {
    if (this.#reported === '') return Number.POSITIVE_INFINITY;
    const now = this.#ports.clock().getTime();
    const next = this.#guard.nextAt([...this.#state().owned.keys()], now);
    return next === undefined ? Number.POSITIVE_INFINITY : next - now;
  }

  #atRest(): void {
    const { revision, inventory } = this.#state();
    const { leaving } = inventory;
    this.#report('applied', `at ${revision.slice(0, 12)}${leaving.length === 0 ? '' : `; still being deleted: ${named(leaving)}`}`);
  }

  #health(): HealthCount {
    const count = { current: 0, progressing: 0, failed: 0, missing: 0 };
    const trouble: string[] = [];
    for (const { ref } of this.#state().inventory.objects) {
      const live = this.#ports.cluster.live(ref);
      const known = this.#ports.cluster.knows(ref);
      const state = live !== undefined ? live.health.state : known ? 'missing' : 'progressing';
      count[state]++;
      const why = live?.health.message ?? (known ? 'it is missing' : 'its kind cannot be watched');
      if (state !== 'current' && trouble.length < 5) trouble.push(`${refText(ref)}: ${why}`);
    }
    return { ...count, trouble };
  }

  #report(state: ReconcilerStatus['state'], message: string): void {
    const at = this.#ports.clock().toISOString();
    const isNew = state !== this.#status.state || message !== this.#status.message;
    this.#status = { ...this.#status, revision: this.#state().revision, state, message, at };
    if (isNew && (state === 'blocked' || state === 'suspended')) this.#tellOf(state, message);
  }

  #tellOf(event: Told['event'], message: string, revision = this.#state().revision, objects?: readonly ObjectRef[]): void {
    const at = this.#ports.clock().toISOString();
    this.#ports.tell?.({ environment: this.name, event, revision, message, at, ...(objects === undefined ? {} : { objects }) });
  }

  #notify(reason: Reason): void {
    if (this.#pending !== 'look') this.#pending = reason;
    this.#wake?.(reason);
  }

  // What came while it was at work ends the pause before it begins.
  #pause(ms: number): Promise<Reason> {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined || this.#stopped) return Promise.resolve(pending ?? 'look');
    return new Promise((resolve) => {
      const done = (reason: Reason) => {
        clearTimeout(timer);
        this.#wake = undefined;
        this.#pending = undefined;
        resolve(reason);
      };
      const timer = setTimeout(() => done('tick'), Math.min(ms, 2 ** 31 - 1));
      this.#wake = done;
    });
  }
}

function writerOf(found: Comparison): { readonly manager: string; readonly time: string } | undefined {
  return found.kind === 'different' ? found.writer : undefined;
}

// A Job that Kubernetes itself takes away when it is done is not missing; made again, it would run again.
function goesByItself({ object }: RenderedObject): boolean {
  return (
    object.kind === 'Job' && (object['spec'] as { ttlSecondsAfterFinished?: unknown } | undefined)?.ttlSecondsAfterFinished !== undefined
  );
}
