import { assess, type EnvironmentState, type Gate, recall, renderedBy } from '../gate/index.ts';
import {
  type AllowedRevision,
  CountersignError,
  digestOf,
  durationMs,
  type EntryOf,
  type Environment,
  inParallel,
  isNoRevision,
  messageOf,
  NO_REVISION,
  type ObjectRef,
  type Recorded,
  refKey,
  type Verdict,
} from '../model/index.ts';
import { type Applied, type ApplyOptions, applyRevision } from './apply-revision.ts';
import { BranchRecord } from './branch-record.ts';
import { Drift } from './drift.ts';
import { HoldBack, type MayGo } from './hold-back.ts';
import { isHookOpen } from './hooks.ts';
import { LastGood } from './last-good.ts';
import { OneAtATime } from './one-at-a-time.ts';
import type { ReconcilePorts } from './ports.ts';
import { observedBefore } from './promotion.ts';
import { attempted, rendersTheSame } from './same-content.ts';
import { type Peers, type ReconcilerStatus, Standing } from './standing.ts';
import { type Reason, Wake } from './wake.ts';

const MAX_BACKOFF_MS = 60_000;
const GATHER_MS = 20; // time in which further events of the same incident arrive
const AHEAD_MS = 20_000;
const OBSERVED_EVERY_MS = 5000;
const OBSERVED_TOGETHER_MS = 250;
const TROUBLE = 5; // consecutive failed checks after which trouble no longer counts as temporary

/** One environment's loop. `pass` checks once; `run` checks until stopped, and reverts drift when it is reported. */
export class Reconciler {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #standing: Standing;
  readonly #branch: BranchRecord;
  readonly #holdBack: HoldBack;
  readonly #lastGood: LastGood;
  readonly #drift: Drift;
  readonly #wake = new Wake();
  #judged: { key: string; allowed: AllowedRevision | undefined; until: number } | undefined;
  #rendered: { readonly verdict: number; readonly otherwise: boolean } | undefined;
  #stopped = false;
  #paused = false;
  #fetching = false;
  #stirred = false;
  #observing = false;
  #hurries = false;
  #runs = false;
  #failures = 0;
  #failing: { readonly code: string; readonly since: number } | undefined;
  #watched = '';
  // A check, drift, or a user's request.
  readonly #turns = new OneAtATime();
  #interrupt = false;
  #pokedAt = 0;

  constructor(gate: Gate, ports: ReconcilePorts, peers: Peers = () => undefined) {
    this.#gate = gate;
    this.#ports = ports;
    this.#standing = new Standing(this.name, ports);
    this.#branch = new BranchRecord(gate, ports, this.#standing);
    this.#holdBack = new HoldBack(gate, ports, peers, this.#standing);
    this.#lastGood = new LastGood(gate, ports, this.#standing);
    this.#drift = new Drift(gate, ports, this.#standing, this.#lastGood);
  }

  get name(): string {
    return this.#gate.environment.metadata.name;
  }

  /** Whether all our objects are currently being watched. */
  get connected(): boolean {
    return this.#ports.cluster.connected;
  }

  get status(): ReconcilerStatus {
    return this.#standing.status;
  }

  /** Why its checks fail, and since when for this reason, by `performance.now()`; undefined if they do not. */
  get failing(): { readonly code: string; readonly since: number } | undefined {
    return this.#failing;
  }

  #fails(code: string): void {
    if (this.#failing?.code !== code) this.#failing = { code, since: performance.now() };
  }

  get #spec(): Environment['spec'] {
    return this.#gate.environment.spec;
  }

  /** Checks again now instead of at the end of the interval. */
  poke(): void {
    this.#pokedAt = performance.now();
    this.#wake.notify('look');
  }

  /** Checks now, and is judged before other environments: a commit changes its directory. */
  hurry(): void {
    this.#hurries = true;
    this.#wake.notify('look');
  }

  /** Notes that another replica runs this environment. */
  standBy(message: string): void {
    this.#standing.endObserving();
    this.#standing.report('standby', message);
  }

  /** Notes that one of our objects in the cluster changed. */
  stir(): void {
    this.#observeSoon();
    if (this.#fetching) this.#defendSoon();
    else this.#wake.notify('drift');
  }

  // Many objects may change at once, and each observation goes through all of them.
  #observeSoon(): void {
    if (this.#observing || !this.#runs) return;
    this.#observing = true;
    setTimeout(() => {
      this.#observing = false;
      this.#observe();
    }, OBSERVED_TOGETHER_MS).unref();
  }

  stop(): void {
    this.#stopped = true;
    this.#wake.notify('look');
  }

  /** Ends `run` after its current step; it may be run again. */
  pause(): void {
    this.#paused = true;
    this.#wake.notify('look');
  }

  get #isEnding(): boolean {
    return this.#stopped || this.#paused;
  }

  /**
   * Checks until stopped. Temporary trouble is retried with growing pauses; an inconsistent ledger ends the loop and is
   * thrown.
   */
  async run(): Promise<void> {
    this.#paused = false;
    this.#failing = undefined;
    this.#drift.forget(); // another replica may have run it since
    this.#standing.beginObserving(observedBefore(this.#ports.ledger, this.name, this.#state().revision));
    const observing = setInterval(() => this.#observe(), OBSERVED_EVERY_MS);
    this.#runs = true;
    try {
      await this.#goRound();
    } finally {
      this.#runs = false;
      clearInterval(observing);
    }
  }

  // Timers outlive the loop, and with it the ledger. Trouble with the ledger is found by the next check.
  #observe(): void {
    if (!this.#runs) return;
    try {
      this.#standing.observe();
    } catch (thrown) {
      this.#ports.log.warn({ environment: this.name }, messageOf(thrown));
    }
  }

  async #goRound(): Promise<void> {
    const interval = durationMs(this.#spec.source.interval);
    let reason: Reason = 'look';
    let nextLook = 0; // monotonic time, which clock changes do not affect
    while (!this.#isEnding) {
      const looks = reason !== 'drift' || performance.now() >= nextLook;
      const begun = performance.now();
      try {
        await this.#ports.trace(looks ? 'look' : 'drift', { environment: this.name }, () =>
          looks ? this.pass() : this.defend(),
        );
        this.#ports.took?.(looks ? 'look' : 'drift', (performance.now() - begun) / 1000);
        if (looks) [this.#failures, this.#failing] = [0, undefined];
      } catch (thrown) {
        const error = thrown instanceof CountersignError ? thrown : undefined;
        if (error?.recover === 'halt') throw error;
        this.#failures++;
        this.#fails(error?.code ?? '');
        this.#standing.report('waiting', messageOf(thrown));
        if (this.#failures === TROUBLE) this.#standing.tell('trouble', messageOf(thrown));
        this.#ports.log.warn(
          { environment: this.name, code: error?.code, hint: error?.hint, failures: this.#failures },
          messageOf(thrown),
        );
      }
      const backoff = Math.min(MAX_BACKOFF_MS, Math.min(interval, 1000) * 2 ** Math.min(this.#failures - 1, 10));
      // Up to a tenth more, so that environments on one repository do not all check at the same moment.
      const jitter = 1 + Math.random() / 10;
      if (this.#failures > 0) nextLook = performance.now() + backoff * jitter;
      else if (looks) nextLook = performance.now() + interval * jitter;
      const untilLook = nextLook - performance.now();
      const pause = Math.max(0, Math.min(untilLook, this.#drift.msUntilNext()));
      this.#standing.looksAt(Date.now() + untilLook);
      reason = this.#isEnding ? 'look' : await this.#wake.pause(pause);
      if (reason === 'drift') await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
    }
  }

  /** Checks once: finishes interrupted runs, judges a new tip, applies what is allowed, reverts drift. */
  async pass(): Promise<void> {
    let trouble: unknown;
    this.#fetching = true;
    const looked = await this.#look().catch((thrown: unknown) => {
      trouble = thrown; // the last good state is defended anyway
      return undefined;
    });
    this.#fetching = false;
    return this.#turns.alone(() => this.#pass(looked, trouble));
  }

  async #pass(looked: Awaited<ReturnType<ReconcilePorts['look']>> | undefined, trouble: unknown): Promise<void> {
    this.#ports.onStep?.('fetched', this.name);
    if (looked !== undefined) {
      this.#standing.looked(looked.tip);
      await this.#branch.seen(looked.tip);
    }
    const suspended = this.#suspension();
    if (suspended !== undefined) {
      this.#standing.report('suspended', `suspended: ${suspended.entry.reason}`);
      if (trouble !== undefined) throw trouble;
      return;
    }
    await this.#watch();
    const target = await this.#goOn(looked).catch((thrown: unknown) => {
      trouble ??= thrown; // as above
      return undefined;
    });
    if (trouble === undefined || isTemporary(trouble)) await this.#drift.putRight();
    if (trouble !== undefined) throw trouble;
    if (
      target !== undefined &&
      target === this.#state().revision &&
      this.#state().open === undefined &&
      !this.#drift.stands &&
      !this.#isRenderedOtherwise()
    )
      this.#standing.atRest();
  }

  // Finishes what was begun, and advances to where the branch is. Returns the commit that should be applied now.
  async #goOn(looked: Awaited<ReturnType<ReconcilePorts['look']>> | undefined): Promise<string | undefined> {
    const advanced = looked === undefined ? false : await this.#overtake(looked.tip, looked.approvals);
    if (!advanced) await this.#finishInterrupted();
    const target = looked === undefined ? undefined : await this.#holdBack.target(looked.tip);
    if (!advanced && target !== undefined && (target !== this.#state().revision || this.#isRenderedOtherwise()))
      await this.#advance(target, looked?.approvals ?? '');
    return target;
  }

  /** Reverts changes reported by the watches, without asking the repository. */
  defend(): Promise<void> {
    return this.#turns.alone(async () => {
      if (this.#suspension() === undefined) await this.#drift.putRight();
    });
  }

  // Judging and the dry run write nothing to the cluster, and may take minutes: a program that renders, a webhook that
  // does not answer. Drift is reverted meanwhile.
  async #aside<T>(task: () => Promise<T>): Promise<T> {
    const before = this.#fetching;
    this.#fetching = true;
    try {
      return await this.#turns.aside(task);
    } finally {
      this.#fetching = before;
    }
  }

  // A Git server that does not answer must not stop drift correction.
  #defendSoon(): void {
    if (this.#stirred) return;
    this.#stirred = true;
    setTimeout(() => {
      this.#stirred = false;
      this.defend().catch((thrown) => this.#ports.log.warn({ environment: this.name }, messageOf(thrown)));
    }, GATHER_MS);
  }

  // A user waits: a run waiting for health is interrupted and taken over by the request.
  async #atOnce<T>(task: () => Promise<T>): Promise<T> {
    this.#interrupt = true;
    return this.#turns.alone(() => {
      this.#interrupt = false;
      return task();
    });
  }

  /**
   * Applies an earlier revision of this environment, after the usual checks, and stays there until a commit changes
   * what it renders.
   */
  rollBack(to: string, by: { readonly user: string; readonly reason: string }): Promise<Applied> {
    return this.#atOnce(() => this.#rollBack(to, by));
  }

  /** Tests whether an object matches the applied revision: the same content, or absent in both. */
  async isAsGit(ref: ObjectRef): Promise<boolean> {
    const { cluster, state } = this.#ports;
    const owned = state().owned.get(refKey(ref));
    if (owned?.hook === 'ran' && cluster.live(ref) === undefined) return true;
    return owned === undefined ? cluster.isGone(ref) : cluster.live(ref)?.digest === owned.live;
  }

  /**
   * Writes every object of the last good revision again, for example into a cluster that lost them; recorded as a
   * restore.
   */
  restoreAll(): Promise<Applied> {
    return this.#atOnce(async () => {
      const state = this.#state();
      if (state.revision === NO_REVISION)
        throw new CountersignError('usage', `\`${this.name}\` never had a revision`, {
          hint: '`countersign apply` applies a first one',
        });
      await this.#watch();
      const good = await recall(this.#gate, this.#ports.ledger, state.verdict);
      const applied = await applyRevision(good, 'restore', this.#ports, {
        force: new Set(good.objects.map((o) => refKey(o.ref))),
      });
      this.#lastGood.is(good);
      if (applied.outcome === 'applied') {
        this.#standing.tell('restored', `wrote ${applied.applied} objects again`);
        this.#standing.atRest();
      }
      return applied;
    });
  }

  async #rollBack(to: string, by: { readonly user: string; readonly reason: string }): Promise<Applied> {
    const { ledger } = this.#ports;
    const good = this.#goodBefore(to);
    const from = this.#state().revision;
    const tip = this.#standing.tip === '' ? from : this.#standing.tip;
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
    let denied = '';
    const answer = await this.#holdBack.mayGo(judged.to, 'person', async () => {
      const { verdict, recorded, allowed } = await assess(this.#gate, judged.from, judged.to);
      this.#tell(verdict, recorded?.index);
      denied = verdict.violations[0]?.message ?? 'the gate no longer allows it';
      return allowed;
    });
    if (answer.kind !== 'go')
      return {
        outcome: 'refused',
        applied: 0,
        pruned: 0,
        error:
          answer.kind === 'denied'
            ? denied
            : `${answer.message}; someone in \`spec.windowOverride\` lets it through with ` +
              `\`countersign approve ${judged.to.slice(0, 12)} --base ${judged.from.slice(0, 12)} --override\``,
      };
    const { allowed } = answer;
    await this.#watch();
    const applied = await applyRevision(allowed, 'rollback', this.#ports);
    if (applied.outcome === 'applied') {
      this.#lastGood.is(allowed);
      this.#standing.tell('rolled-back', `rolled back to ${good.entry.revision.slice(0, 12)}: ${by.reason}`);
      this.#standing.report(
        'held',
        `rolled back to ${good.entry.revision.slice(0, 12)} until its objects change: ${by.reason}`,
      );
    } else if (applied.outcome === 'failed') await this.#restore();
    return applied;
  }

  #goodBefore(to: string): Recorded<EntryOf<'apply.result'>> {
    const { ledger } = this.#ports;
    for (
      let at = ledger.latest(['apply.result'], this.name);
      at !== undefined;
      at = ledger.latest(['apply.result'], this.name, at.index)
    )
      if (at.entry.outcome === 'applied' && at.entry.revision.startsWith(to)) return at;
    throw new CountersignError('usage', `\`${this.name}\` was never at the revision \`${to.slice(0, 40)}\``, {
      hint: '`countersign ledger show --type apply.result` lists its earlier revisions',
    });
  }

  // A recent fetch by another environment on the same branch will do, unless there is known news.
  #look(): ReturnType<ReconcilePorts['look']> {
    const since = Math.max(this.#pokedAt, performance.now() - durationMs(this.#spec.source.interval) / 2);
    return this.#ports.trace('fetch', { environment: this.name }, () => this.#ports.look(since));
  }

  #state(): EnvironmentState {
    return this.#ports.state();
  }

  #suspension(): Recorded<EntryOf<'environment.suspended'>> | undefined {
    const last = this.#ports.ledger.latest(['environment.suspended', 'environment.resumed'], this.name);
    return last?.entry.type === 'environment.suspended'
      ? (last as Recorded<EntryOf<'environment.suspended'>>)
      : undefined;
  }

  // The kinds currently owned; more are added with what is applied.
  async #watch(): Promise<void> {
    const { owned } = this.#state();
    const kinds = new Map([...owned.values()].map(({ ref }) => [`${ref.apiVersion} ${ref.kind}`, ref]));
    const key = [...kinds.keys()].sort().join();
    if (key === this.#watched) return;
    let all = true;
    // Each separately: a kind whose conversion webhook is down must not stop drift correction for the others (Argo CD
    // 25305).
    await inParallel([...kinds.values()], async (ref) => {
      await this.#ports.cluster.watch([ref], this.#spec.target.namespaces).catch((thrown) => {
        all = false;
        this.#ports.log.warn({ environment: this.name, kind: ref.kind }, `cannot be watched: ${messageOf(thrown)}`);
      });
    });
    if (all) this.#watched = key;
  }

  // An intent without a result is completed; if the cluster refuses, the last good revision is restored.
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
      if (applied.outcome === 'applied') this.#lastGood.is(revision);
      if (applied.outcome === 'applied' || applied.outcome === 'superseded') return;
    }
    await this.#restore();
  }

  // A newer allowed commit replaces one that has begun but not finished: a bad commit must not block a good one.
  async #overtake(tip: string, approvals: string): Promise<boolean> {
    const { open } = this.#state();
    if (
      open === undefined ||
      open.failed ||
      open.intent.entry.purpose !== 'apply' ||
      open.intent.entry.revision === tip ||
      isHookOpen(this.#ports) // it is not ended half-way
    )
      return false;
    // A tip that cannot be judged now must not keep what was begun from being finished.
    const answer = await this.#mayGo(tip, approvals, open.intent.entry.revision).catch((thrown: unknown) => {
      if (!isTemporary(thrown)) throw thrown;
      this.#ports.log.warn({ environment: this.name, revision: tip }, messageOf(thrown));
      return undefined;
    });
    if (answer?.kind !== 'go') return false;
    await this.#carryOut(answer.allowed);
    return true;
  }

  async #advance(target: string, approvals: string): Promise<void> {
    const state = this.#state();
    const answer = await this.#holdBack.mayGo(target, 'branch', () =>
      this.#aside(() => this.#judge(state, target, approvals)),
    );
    if (answer.kind !== 'held') this.#ports.onStep?.('judged', this.name);
    // Meanwhile someone may have rolled back, also to where it is, or suspended.
    if (this.#state() !== state || this.#suspension() !== undefined) this.#wake.notify('look');
    else if (answer.kind === 'go') await this.#carryOut(answer.allowed, (task) => this.#aside(task));
    else if (answer.kind !== 'denied') this.#standing.report(answer.kind, answer.message);
  }

  // Returns the newest commit that could replace `begun`; undefined if there is none.
  async #mayGo(tip: string, approvals: string, begun: string): Promise<MayGo | undefined> {
    const target = await this.#holdBack.target(tip);
    if (target === undefined || target === begun) return undefined;
    return this.#holdBack.mayGo(target, 'branch', () => this.#judge(this.#state(), target, approvals));
  }

  async #carryOut(allowed: AllowedRevision, aside?: ApplyOptions['aside']): Promise<void> {
    const tip = allowed.revision;
    const applied = await this.#apply(allowed, 'apply', aside);
    if (applied.outcome === 'applied') {
      this.#lastGood.is(allowed);
      this.#drift.forget();
      this.#standing.atRest();
      this.#ports.log.info(
        { environment: this.name, revision: tip, applied: applied.applied, pruned: applied.pruned },
        'applied',
      );
      this.#standing.tell('applied', `wrote ${applied.applied} objects, deleted ${applied.pruned}`);
    } else if (applied.outcome === 'refused') {
      this.#standing.tell('refused', applied.error ?? '', tip);
      this.#standing.report('refused', `${tip.slice(0, 12)}: ${applied.error ?? ''}`);
    } else if (applied.outcome === 'superseded') {
      this.#ports.log.warn(
        { environment: this.name, revision: tip },
        applied.error ?? 'a newer commit replaces this one before it became healthy',
      );
      this.#wake.notify('look');
    } else {
      this.#standing.tell('failed', applied.error ?? '', tip);
      await this.#restore();
    }
  }

  // While objects become healthy, the branch is still checked.
  async #apply(
    revision: AllowedRevision,
    purpose: EntryOf<'apply.intent'>['purpose'],
    aside?: ApplyOptions['aside'],
  ): Promise<Applied> {
    if (purpose !== 'apply') return applyRevision(revision, purpose, this.#ports);
    this.#standing.report('applying', `applying ${revision.revision.slice(0, 12)}`);
    this.#standing.tell('applying', `applying ${revision.objects.length} objects`, revision.revision);
    let newer = false;
    let done = false;
    const interval = durationMs(this.#spec.source.interval);
    const looking = (async () => {
      for (let at = performance.now() + interval; !done && !newer; ) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (this.#isEnding || this.#interrupt) newer = true;
        const asked = !done && this.#wake.takeLook();
        if (done || (performance.now() < at && !asked)) continue;
        at = performance.now() + interval;
        newer = await this.#hasNewer(revision.revision).catch(() => false);
      }
    })();
    try {
      return await applyRevision(revision, purpose, this.#ports, {
        superseded: () => newer,
        stopping: () => this.#isEnding || this.#interrupt,
        ...(aside === undefined ? {} : { aside }),
        progress: (message) => {
          this.#standing.report('applying', message);
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
    const answer = await this.#mayGo(tip, approvals, revision);
    const state = this.#state();
    // The same objects would only begin to wait for health again.
    return (
      answer?.kind === 'go' &&
      (state.open === undefined || !rendersTheSame(answer.allowed, attempted(state.inventory, state.open.plan)))
    );
  }

  // The environment's directory or rendering changed since the last verdict.
  #isRenderedOtherwise(): boolean {
    const { verdict, revision, open } = this.#state();
    if (isNoRevision(revision) || open !== undefined) return false;
    if (this.#rendered?.verdict !== verdict) {
      const judged = this.#ports.ledger.entry(verdict)?.entry as EntryOf<'change.judged'>;
      const { rendered } = (this.#ports.ledger.evidence(judged.evidence) as Verdict).consulted;
      this.#rendered = {
        verdict,
        otherwise: rendered !== undefined && digestOf(rendered) !== digestOf(renderedBy(this.#gate.environment)),
      };
    }
    return this.#rendered.otherwise;
  }

  // One verdict per tip, approvals and day: checking the same state again costs nothing and records nothing. Each day
  // is judged again, because rules may read the date and waivers expire.
  async #judge(state: EnvironmentState, tip: string, approvals: string): Promise<AllowedRevision | undefined> {
    const from = state.revision === NO_REVISION ? (this.#spec.source.baseline ?? NO_REVISION) : state.revision;
    const key = [from, tip, approvals, this.#gate.trust.digest, this.#gate.clock().toISOString().slice(0, 10)].join(
      ' ',
    );
    if (this.#judged?.key !== key || performance.now() > this.#judged.until) {
      const turn = this.#ports.turn ?? ((task) => task());
      const first = this.#hurries;
      this.#hurries = false;
      const { verdict, recorded, allowed } = await this.#ports.trace(
        'judge',
        { environment: this.name, revision: tip },
        async (note) => {
          const assessed = await turn(() => assess(this.#gate, from, tip), first);
          note({
            outcome: assessed.verdict.outcome,
            commits: assessed.verdict.commits.length,
            objects: assessed.verdict.objects,
          });
          return assessed;
        },
      );
      // A future date is not permanently wrong: one of the two clocks may be corrected.
      const isAhead =
        verdict.violations.some((v) => v.code.endsWith('-from-the-future')) ||
        verdict.warnings.some((v) => v.code.endsWith('-from-the-future'));
      this.#judged = {
        key,
        allowed,
        until: allowed === undefined && isAhead ? performance.now() + AHEAD_MS : Number.POSITIVE_INFINITY,
      };
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
    this.#ports.log.warn(
      { ...fields, violations: verdict.violations.slice(0, 10).map((v) => `${v.code}: ${v.message}`) },
      'denied',
    );
    this.#standing.tell('denied', verdict.violations[0]?.message ?? '', verdict.to);
    this.#standing.report(
      'denied',
      `${verdict.to.slice(0, 12)}: ` +
        `${verdict.violations[0]?.message ?? ''}` +
        `${verdict.violations.length > 1 ? ` (and ${verdict.violations.length - 1} more)` : ''}`,
    );
  }

  async #restore(): Promise<void> {
    await this.#lastGood.restore();
    this.#drift.restored();
  }
}

// Tests whether a failure may pass. Errors that are not understood end the check.
function isTemporary(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.recover !== 'halt';
}
