import { setTimeout as wait } from 'node:timers/promises';
import { type EnvironmentState, placementOf, recordOf } from '../gate/index.ts';
import {
  type AllowedRevision,
  CountersignError,
  durationMs,
  type EntryOf,
  type Irreversible,
  inParallel,
  isNoRevision,
  LABEL,
  messageOf,
  type ObjectRef,
  type Occasion,
  type OwnedObject,
  type Placement,
  type Plan,
  type Recorded,
  type RenderedObject,
  refKey,
  refText,
  sayTrouble,
  type TroubleSeen,
  type Writing,
} from '../model/index.ts';
import { effectOnPods, podOfOthers, unadopted } from './adopt.ts';
import { awaitHealth, type Written } from './await-health.ts';
import { isExact, type Scaled, scaledBy } from './exact.ts';
import { type HookRun, Hooks, hooksOf, isPod, notMade, remainsOf, runsOnce } from './hooks.ts';
import { irreversible, leaves, refuseUnmeant } from './irreversible.ts';
import { brings, waitsForRole } from './needs.ts';
import { approvalOf, approvedOf, latestOf, own, stillApproved } from './planned-objects.ts';
import type { ReconcilePorts, Step } from './ports.ts';
import { waveOf, wavesOf } from './waves.ts';

type Purpose = EntryOf<'apply.intent'>['purpose'];
type Item = {
  readonly ref: ObjectRef;
  readonly rendered: RenderedObject;
  readonly placement: Placement;
  readonly isNew: boolean;
  owned: OwnedObject;
  replace: boolean;
  /** Whether it existed before this change; undefined until that was asked. */
  existed: boolean | undefined;
  /** Others wrote to it, so it is replaced as a whole. */
  exact: boolean;
  /** Others wrote to it, and it cannot be replaced as a whole. */
  isDoubted: boolean;
  /** Of a hook: the digest that its dry run gave is that of its creation. */
  isRehearsed: boolean;
};
type Intent = Recorded<EntryOf<'apply.intent'>>;
type RunDeed = {
  readonly state: EnvironmentState;
  readonly items: readonly Item[];
  readonly changed: readonly Item[];
  readonly prune: readonly ObjectRef[];
  /** Hooks that this change may run. */
  readonly hooks: readonly Item[];
  readonly settled: ReadonlyMap<string, OwnedObject>;
};

/**
 * Result of a run. `failed`: something was written, then the cluster refused or an object did not become healthy; the
 * last good revision must be restored. `superseded`: a newer revision must be applied before this one became healthy.
 */
export type Applied = {
  readonly outcome: 'applied' | 'refused' | 'failed' | 'superseded';
  readonly applied: number;
  readonly pruned: number;
  readonly error?: string;
};

export type ApplyOptions = {
  /** Objects to write even if their rendered content is what was applied last (drift). */
  readonly force?: ReadonlySet<string>;
  /** Whether to stop waiting, because something newer must be applied. */
  readonly superseded?: () => boolean;
  /** Whether to stop waiting also for a hook: the process ends, or someone asks for something else. */
  readonly stopping?: () => boolean;
  readonly progress?: (message: string) => void;
  /** Runs what writes nothing while other work on the environment goes on. */
  readonly aside?: <T>(task: () => Promise<T>) => Promise<T>;
};

// how long to wait for each stage of removals; objects with finalizers may take longer, and are remembered
const GONE_MS = 5000;
const REPLACED_MS = 30_000;
const POLL_MS = 100;
const REFUSALS = 20; // that are compared with a new one
const EXPLAINED = 5; // objects whose trouble is recorded with a failure

/**
 * Brings the cluster to an allowed revision, completely or not at all. The steps are ownership, dry run of all changes,
 * irreversible actions, intent on the ledger, writes in order, health, removals, result on the ledger. Throws temporary
 * errors (`recover: retry`) and then leaves the intent open: the next pass takes it over.
 */
export async function applyRevision(
  revision: AllowedRevision,
  purpose: Purpose,
  ports: ReconcilePorts,
  options: ApplyOptions = {},
): Promise<Applied> {
  const attributes = { environment: revision.environment, revision: revision.revision, purpose };
  return ports.trace('apply', attributes, async (note) => {
    const run = await Run.of(revision, purpose, ports, options);
    const applied = await run.run();
    note({ outcome: applied.outcome, written: applied.applied, deleted: applied.pruned });
    return applied;
  });
}

class Run {
  readonly #revision: AllowedRevision;
  readonly #purpose: Purpose;
  readonly #ports: ReconcilePorts;
  readonly #options: ApplyOptions;
  readonly #state: EnvironmentState;
  readonly #items: readonly Item[];
  readonly #changed: readonly Item[];
  #prune: readonly ObjectRef[];
  readonly #scaled: ReadonlyMap<string, Scaled>;
  readonly #hookItems: readonly Item[];
  readonly #settled: ReadonlyMap<string, OwnedObject>;
  #hooks: Hooks<Item>;
  #occasion: Occasion | undefined;
  #intent: Intent | undefined;
  #irreversible: readonly Irreversible[] = [];
  #first = true;
  #createdBefore: readonly ObjectRef[] = [];

  private constructor(
    revision: AllowedRevision,
    purpose: Purpose,
    ports: ReconcilePorts,
    options: ApplyOptions,
    deed: RunDeed,
  ) {
    this.#revision = revision;
    this.#purpose = purpose;
    this.#ports = ports;
    this.#options = options;
    this.#state = deed.state;
    this.#items = deed.items;
    this.#changed = deed.changed;
    this.#prune = deed.prune;
    this.#hookItems = deed.hooks;
    this.#settled = deed.settled;
    this.#hooks = this.#hooksOf([]);
    this.#scaled = scaledBy(revision.objects);
  }

  /** Determines what must be done. */
  static async of(
    revision: AllowedRevision,
    purpose: Purpose,
    ports: ReconcilePorts,
    options: ApplyOptions,
  ): Promise<Run> {
    const state = ports.state();
    const { owned, inventory, open } = state;
    const settled = new Map(await ports.turns.map(inventory.objects, (o) => [refKey(o.ref), o] as const));
    const items = await ports.turns.map(revision.objects, (rendered): Item => {
      const isNew = !owned.has(refKey(rendered.ref));
      const placement = placementOf(rendered);
      return {
        ref: rendered.ref,
        rendered,
        placement,
        isNew,
        owned: own({ rendered, placement }, revision, settled),
        ...UNSEEN,
      };
    });
    // The state of objects that an interrupted or failed run may have written is unknown.
    const touched = open === undefined ? [] : [...open.plan.objects.map((o) => o.ref), ...open.plan.prune];
    const doubtful = new Set(await ports.turns.map(touched, refKey));
    const isDoubtful = (key: string) => open !== undefined && (doubtful.has(key) || !settled.has(key));
    const differs = await ports.turns.map(items, ({ ref, rendered }) => {
      const key = refKey(ref);
      return settled.get(key)?.rendered !== rendered.digest || options.force?.has(key) === true || isDoubtful(key);
    });
    const kept = new Set(await ports.turns.map(items, (i) => refKey(i.ref)));
    const isForward = goesForward(purpose);
    // Otherwise a hook that stays is an object like any other, and one that ran is left alone.
    const isHook = ({ ref, placement }: Item) =>
      placement.hook !== undefined && (isForward || settled.get(refKey(ref))?.hook !== 'stays');
    const changed = items.filter((item, i) => differs[i] && !isHook(item));
    const gone = [...[...owned.values()].map((o) => o.ref), ...inventory.leaving].filter(
      (ref) => !kept.has(refKey(ref)),
    );
    const created = new Set(purpose === 'restore' ? (open?.plan.created ?? []).map(refKey) : []);
    // Objects that existed before a failed change stay, even if it wrote them.
    const existed = new Set(purpose === 'restore' ? (open?.plan.existed ?? []).map(refKey) : []);
    const prune = [...new Map(gone.map((ref) => [refKey(ref), ref])).values()].filter(
      (ref) => (mayRemove(ref, revision) || created.has(refKey(ref))) && !existed.has(refKey(ref)),
    );
    const isDue = isForward && (changed.length > 0 || prune.length > 0 || items.some((_, i) => differs[i]));
    const hooks = items.filter((item) => isDue && isHook(item));
    return new Run(revision, purpose, ports, options, { state, items, changed, prune, hooks, settled });
  }

  async run(): Promise<Applied> {
    const { trace } = this.#ports;
    const aside = this.#options.aside ?? ((task) => task());
    const dryRun = () => trace('dry-run', { objects: this.#changed.length }, () => this.#rehearse());
    const later = await aside(dryRun).catch((thrown) => this.#refuse(thrown));
    if ('outcome' in later) return later;
    if (this.#options.aside !== undefined && this.#ports.state() !== this.#state) {
      const error = 'the environment was written to during the dry run: looking again';
      return { outcome: 'superseded', applied: 0, pruned: 0, error };
    }
    this.#step('dry-run');
    await this.#recordIntent();
    this.#step('intended');
    try {
      if (!(await this.#writeAll(later.deferred))) return SUPERSEDED;
      this.#step('written');
      if (!(await this.#healthy(this.#changed))) return SUPERSEDED;
      this.#step('healthy');
      await this.#sweep();
      if (!(await this.#hooks.run(this.#hooks.of('after')))) return SUPERSEDED;
      await this.#sweep();
      const leaving = await trace('prune', { objects: this.#prune.length }, () => this.#removeAll());
      this.#step('pruned');
      return await this.#recordApplied(leaving);
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
      return await this.#fail(thrown);
    }
  }

  // Returns false if the change is to stop here.
  async #writeAll(deferred: ReadonlySet<string>): Promise<boolean> {
    const during = this.#hooks.of('main').map((r) => r.item);
    const waves = wavesOf([...this.#changed, ...during], this.#hooks.runs.length > 0);
    const ground = waves.filter((wave) => wave.every((i) => waveOf(i) === Number.NEGATIVE_INFINITY));
    const isFollowed = waves.length > 1 || this.#hooks.of('before').length > 0;
    for (const wave of ground) if (!(await this.#writeWave(wave, deferred, isFollowed))) return false;
    if (!(await this.#hooks.run(this.#hooks.of('before')))) return false;
    await this.#sweep();
    const rest = waves.slice(ground.length);
    for (const [i, wave] of rest.entries()) {
      const hooks = this.#hooks.of('main', wave[0]?.placement.order);
      if (!(await this.#writeWave(wave, deferred, i < rest.length - 1, hooks))) return false;
    }
    return true;
  }

  // Objects that needed others of the wave first are intended once those exist. Returns false if the change is to stop
  // here.
  async #writeWave(
    all: readonly Item[],
    deferred: ReadonlySet<string>,
    isFollowed: boolean,
    hooks: readonly HookRun<Item>[] = [],
  ): Promise<boolean> {
    const { cluster, environment } = this.#ports;
    const wave = all.filter((i) => !this.#hookItems.includes(i));
    await this.#write(wave.filter((i) => !deferred.has(refKey(i.ref))));
    for (let rest = wave.filter((i) => deferred.has(refKey(i.ref))); rest.length > 0; ) {
      await cluster.watch(
        rest.map((i) => i.ref),
        environment.spec.target.namespaces,
      );
      this.#refuseOtherOwners(rest);
      await this.#refuseUnlike(rest);
      const { now, still } = await this.#dryRunReady(rest);
      await this.#recordIntent();
      await this.#write(now);
      rest = still;
    }
    if (!(await this.#hooks.run(hooks))) return false;
    if (isFollowed && !(await this.#healthy(wave, true))) return false;
    if (isFollowed) this.#step('wave');
    return true;
  }

  #hooksOf(runs: readonly HookRun<Item>[]): Hooks<Item> {
    const actions = {
      prepare: (item: Item) => this.#prepareHook(item),
      write: (item: Item) => this.#writeHook(item),
      makeWay: (ref: ObjectRef) => this.#makeWay(ref),
      awaited: (item: Item, uid: string) => this.#awaitHook(item, uid),
      intent: () => this.#intent?.index ?? 0,
    };
    const isResumed = this.#resumed !== undefined;
    return new Hooks(runs, this.#ports, actions, { verdict: this.#revision.verdict, isResumed });
  }

  // An interrupted run of this very change.
  get #resumed(): EnvironmentState['open'] {
    const { open } = this.#state;
    return open?.failed === false && open.intent.entry.verdict === this.#revision.verdict ? open : undefined;
  }

  // Which hooks run depends on what the dry run found: without a revision and without any of its objects, it is an
  // installation.
  async #rehearseHooks(deferred: Set<string>): Promise<void> {
    if (this.#hookItems.length === 0) return;
    const { cluster, environment } = this.#ports;
    this.#occasion = this.#occasionNow();
    this.#hooks = this.#hooksOf(hooksOf(this.#hookItems, this.#occasion, (items) => cluster.stages(items)));
    const due = this.#due;
    const left = this.#hookItems.filter((item) => this.#isLeft(item)).map((i) => i.ref);
    this.#prune = [...this.#prune, ...left.filter((ref) => mayRemove(ref, this.#revision))];
    const begun = new Map((this.#resumed?.plan.objects ?? []).map((o) => [refKey(o.ref), o] as const));
    for (const item of due) item.owned = { ...own(item, this.#revision, new Map()), ...approvedOf(item, begun) };
    await cluster.watch([...due.map((i) => i.ref), ...left], environment.spec.target.namespaces);
    this.#refuseOtherOwners(due);
    const missing = await this.#deferred(due);
    this.#refuseBackwards(missing, due);
    for (const key of missing) deferred.add(key);
    const ready = due.filter((i) => !missing.has(refKey(i.ref)));
    await this.#refuseUnlike(ready.filter((i) => !runsOnce(i.ref)));
    await this.#inParallel(ready, (item) =>
      this.#rehearseHook(item).catch((thrown) => {
        if (!waitsForRole(item, thrown, [...this.#changed, ...due])) throw placed(thrown, item.rendered.source);
      }),
    );
  }

  // An object that is now a hook, and that this change does not make, goes as if Git no longer had it.
  #isLeft({ ref, placement }: Item): boolean {
    const before = this.#settled.get(refKey(ref));
    const isMade = this.#hooks.runs.some((r) => r.phase !== 'failure' && refKey(r.item.ref) === refKey(ref));
    if (before === undefined || before.hook === 'ran' || isMade) return false;
    return before.hook === undefined || placement.hook?.runs.every((r) => r.phase === 'failure') === true;
  }

  async #rehearseHook(item: Item): Promise<void> {
    const { cluster } = this.#ports;
    const live = runsOnce(item.ref) ? await cluster.read(item.ref) : undefined;
    if (live !== undefined && live.metadata.labels?.[LABEL] !== this.#revision.environment) throw notMade(item.ref);
    if (live !== undefined) return void (await cluster.dryRunAnew(item.rendered, item.owned, this.#writing(item)));
    await this.#dryRunOne(item);
    item.isRehearsed = true;
  }

  // Objects from before the first revision are those of an installation by someone else.
  #occasionNow(): Occasion {
    const { open, settled } = this.#state;
    if (this.#purpose === 'rollback') return 'rollback';
    if (settled >= 0) return 'upgrade';
    const isThere = this.#changed.some((i) => i.existed === true && waveOf(i) !== Number.NEGATIVE_INFINITY);
    return open?.plan.occasion ?? (isThere ? 'upgrade' : 'install');
  }

  // The object was not there, or could not be dry-run, when the change was planned.
  async #prepareHook(item: Item): Promise<void> {
    if (item.isRehearsed) return;
    const { cluster, environment } = this.#ports;
    await cluster.watch([item.ref], environment.spec.target.namespaces);
    this.#refuseOtherOwners([item]);
    if (!runsOnce(item.ref)) await this.#refuseUnlike([item]);
    await this.#dryRunEach([item]);
    item.isRehearsed = true;
    await this.#recordIntent();
  }

  async #writeHook(item: Item): Promise<void> {
    await this.#prepareHook(item);
    await this.#writeOne(item);
    item.isRehearsed = false; // in another phase, it is made again
  }

  // A newer commit does not end it half-way.
  #awaitHook({ ref }: Item, uid: string): Promise<boolean> {
    const { cluster, environment } = this.#ports;
    const { timeout } = environment.spec.health;
    const written = [{ ref, generation: cluster.live(ref)?.generation ?? 0 }];
    return this.#ports.trace('hook', { object: refText(ref) }, () =>
      awaitHealth(written, this.#ports, {
        timeoutMs: durationMs(timeout),
        superseded: this.#options.stopping ?? (() => false),
        progress: this.#options.progress ?? (() => {}),
        uid,
      }),
    );
  }

  // A clean-up that fails does not fail a change that is healthy.
  async #sweep(): Promise<void> {
    const { environment } = this.#revision;
    for (const refused of await this.#hooks.sweep()) this.#ports.log.warn({ environment }, refused);
  }

  // Hooks for a failure run before anything is undone: they are about what is there.
  async #fail(thrown: CountersignError): Promise<Applied> {
    const seen = thrown.code === 'not-healthy' ? await this.#seen() : [];
    const also = await this.#hooks.onFailure();
    if (also === false) return SUPERSEDED;
    const refused = await this.#hooks.sweep();
    return await this.#recordFailure(thrown, seen, [...(also === undefined ? [] : [also]), ...refused]);
  }

  #writing(item: Item): Writing {
    const { apply, drift } = this.#ports.environment.spec;
    const mine = !item.isNew && (drift.mode === 'revert' || this.#purpose !== 'apply');
    const scaled = this.#scaled.get(refKey(item.ref));
    return {
      environment: this.#revision.environment,
      force: apply.conflicts === 'takeOver' || (apply.conflicts === 'adopt' && item.isNew) || mine,
      ignore: drift.ignore,
      ...(item.exact ? { exact: true } : {}),
      ...(scaled === undefined ? {} : { scaled }),
    };
  }

  // Checks everything that can be checked before the first write. Returns the objects for which that is not possible
  // yet.
  async #rehearse(): Promise<{ deferred: ReadonlySet<string> }> {
    const { cluster, environment } = this.#ports;
    await cluster.watch([...this.#changed.map((i) => i.ref), ...this.#prune], environment.spec.target.namespaces);
    await this.#ports.turns.breathe();
    // Before our first write: someone else may have created it since the intent.
    this.#createdBefore = (this.#state.open?.plan.created ?? []).filter((ref) => this.#isOurs(ref));
    this.#refuseOtherOwners(this.#changed);
    const deferred = new Set(await this.#deferred(this.#changed));
    await this.#refuseUnlike(this.#changed.filter((i) => !deferred.has(refKey(i.ref))));
    this.#refuseBackwards(deferred, this.#changed);
    await this.#dryRunEach(
      this.#changed.filter((i) => !deferred.has(refKey(i.ref))),
      (item) => deferred.add(refKey(item.ref)),
    );
    await this.#rehearseHooks(deferred);
    const deed = { written: [...this.#changed, ...this.#due], prune: this.#prune, owned: this.#state.owned };
    this.#irreversible = await irreversible(deed, cluster);
    // Restoring an earlier state is always allowed; only going forward needs permission.
    if (this.#goesForward) {
      if (this.#items.length === 0 && this.#state.owned.size > 0)
        this.#irreversible = [...this.#irreversible, { action: 'empty' }];
      refuseUnmeant(this.#irreversible, this.#revision, deed.written, this.#state.owned.size);
    }
    await this.#inParallel(this.#prune, (ref) => cluster.remove(ref, this.#revision.environment, { dryRun: true }));
    return { deferred };
  }

  #isOurs(ref: ObjectRef): boolean {
    const { cluster } = this.#ports;
    return cluster.live(ref) !== undefined && cluster.otherOwner(ref, this.#revision.environment) === undefined;
  }

  #refuseOtherOwners(items: readonly Item[]): void {
    const { conflicts } = this.#ports.environment.spec.apply;
    if (conflicts === 'takeOver') return;
    const { environment } = this.#revision;
    for (const { ref } of items) {
      const owner = this.#ports.cluster.otherOwner(ref, environment, conflicts === 'adopt');
      if (owner === undefined) continue;
      throw new CountersignError('cluster-conflict', `${refText(ref)} belongs to ${owner}`, {
        hint: 'remove it from one of them, or set `spec.apply.conflicts: takeOver` to take ownership',
      });
    }
  }

  // Objects that exist are adopted as they are, or not at all.
  async #refuseUnlike(items: readonly Item[]): Promise<void> {
    const { cluster, environment } = this.#ports;
    if (environment.spec.apply.conflicts !== 'adopt' || !this.#goesForward) return;
    const unlike: { item: Item; fields: readonly string[] }[] = [];
    const severity = ({ item, fields }: (typeof unlike)[number]) =>
      effectOnPods(item.ref, fields) === undefined ? 0 : 1;
    await this.#inParallel(
      items.filter((i) => i.isNew),
      async (item) => {
        const writing = { ...this.#writing(item), ...(isExact(item.ref, environment) ? { exact: true } : {}) };
        const fields = await cluster.adoption(item.rendered, item.owned, writing).catch((thrown: unknown) => {
          throw placed(thrown, item.rendered.source);
        });
        if (fields.length > 0) unlike.push({ item, fields });
      },
    );
    const [first, ...others] = unlike.sort(
      (a, b) => severity(b) - severity(a) || (refKey(a.item.ref) < refKey(b.item.ref) ? -1 : 1),
    );
    if (first === undefined) return;
    const { ref, rendered } = first.item;
    throw placed(unadopted(ref, first.fields, others.length), rendered.source);
  }

  // A wave that needs what a later one brings would fail after the first write.
  #refuseBackwards(deferred: ReadonlySet<string>, items: readonly Item[]): void {
    const first = new Set(this.#hooks.of('before').map((r) => r.item));
    const at = (item: Item) => (first.has(item) ? -Number.MAX_VALUE : waveOf(item));
    for (const item of items.filter((i) => deferred.has(refKey(i.ref)))) {
      const later = this.#changed.find((other) => brings(other, item) && at(other) > at(item));
      if (later === undefined) continue;
      const message = `${refText(item.ref)} needs ${refText(later.ref)}, which has a higher order`;
      throw placed(
        new CountersignError('cluster-refused', message, {
          hint: `give ${refText(later.ref)} an order of at most ${item.placement.order}, or none`,
        }),
        item.rendered.source,
      );
    }
  }

  // Objects in namespaces or of kinds that this change creates cannot be dry-run yet: they are dry-run, together, once
  // those exist.
  async #deferred(items: readonly Item[]): Promise<ReadonlySet<string>> {
    await this.#ports.turns.breathe();
    const places = new Map(items.map((i) => [`${i.ref.apiVersion}/${i.ref.kind}/${i.ref.namespace}`, i]));
    const missing = new Set<string>();
    await this.#inParallel([...places], async ([place, item]) => {
      if (this.#changed.some((other) => brings(other, item)) && !(await this.#ports.cluster.isReadyFor(item.ref)))
        missing.add(place);
    });
    const isMissing = ({ ref }: Item) => missing.has(`${ref.apiVersion}/${ref.kind}/${ref.namespace}`);
    return new Set(items.filter(isMissing).map((i) => refKey(i.ref)));
  }

  // Splits deferred objects into those that can be written now and those that wait for them. Throws if all wait.
  async #dryRunReady(rest: readonly Item[]): Promise<{ now: readonly Item[]; still: Item[] }> {
    const waiting = new Set<Item>();
    await this.#dryRunEach(rest, (item) => waiting.add(item));
    if (waiting.size === rest.length) await this.#dryRunEach(rest);
    return { now: rest.filter((item) => !waiting.has(item)), still: rest.filter((item) => waiting.has(item)) };
  }

  // Passes those to `later` whose dry run can only succeed once the change has written something else.
  #dryRunEach(items: readonly Item[], later?: (item: Item) => void): Promise<void> {
    return this.#inParallel(items, (item) =>
      this.#dryRunOne(item).catch((thrown: unknown) => {
        if (later === undefined || !waitsForRole(item, thrown, this.#changed))
          throw placed(thrown, item.rendered.source);
        later(item);
      }),
    );
  }

  async #dryRunOne(item: Item): Promise<void> {
    const writing = this.#writing(item);
    const { cluster } = this.#ports;
    let made = await cluster.dryRun(item.rendered, item.owned, writing).catch(async (thrown) => {
      if (this.#isOursAltered(item, thrown)) {
        item.exact = true;
        return await cluster.dryRun(item.rendered, item.owned, this.#writing(item));
      }
      if (this.#mayReplace(item, thrown)) {
        item.replace = true;
        return await cluster.dryRunAnew(item.rendered, item.owned, writing);
      }
      if (!isRefused(thrown) || !writing.force || !isExact(item.ref, this.#ports.environment)) throw thrown;
      // An apply leaves fields that no one owns, such as defaults of a choice that Git no longer makes. They may not go
      // with what it makes now, and a replacement has none of them.
      item.exact = true;
      return await cluster.dryRun(item.rendered, item.owned, this.#writing(item)).catch((second: unknown) => {
        if (!(second instanceof CountersignError) || second.recover !== 'wait') throw second;
        item.exact = false;
        throw thrown;
      });
    });
    if (!item.replace && !item.exact && this.#isChangedByOthers(item, made.existed)) {
      item.exact = true;
      made = await cluster.dryRun(item.rendered, item.owned, this.#writing(item)).catch((thrown) => {
        // Some objects cannot be replaced as a whole. The comparison after the write tells what others added.
        if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait' || isAltered(thrown)) throw thrown;
        item.exact = false;
        item.isDoubted = true;
        return made;
      });
    }
    if (item.isNew && made.existed && isPod(item.ref)) throw podOfOthers(item.ref);
    item.existed ??= made.existed;
    const { admitted: _, templates: __, ...owned } = item.owned;
    const { templates = [] } = this.#state.owned.get(refKey(item.ref)) ?? {};
    item.owned = {
      ...owned,
      ...(made.admitted === undefined ? {} : { admitted: made.admitted }),
      ...(made.template === undefined
        ? {}
        : { templates: latestOf([made.template, made.left], templates, item.rendered) }),
    };
  }

  // An object that was written since we wrote it, or that existed before it was ours, may have more than Git's fields:
  // these must not become part of what is approved.
  #isChangedByOthers({ ref }: Item, existed: boolean): boolean {
    if (!isExact(ref, this.#ports.environment)) return false;
    const before = this.#state.owned.get(refKey(ref))?.live;
    const live = this.#ports.cluster.live(ref)?.digest;
    return before === undefined ? existed : live !== undefined && live !== before;
  }

  // Fields that others added to our object may look like an alteration of an apply. A replacement has none of them.
  #isOursAltered(item: Item, thrown: unknown): boolean {
    return isAltered(thrown) && !item.isNew && isExact(item.ref, this.#ports.environment);
  }

  // An object is only deleted and created again if Git says so; or, when a change that did that is undone, the same
  // objects again.
  #mayReplace({ ref, rendered, isNew }: Item, thrown: unknown): boolean {
    if (!(thrown instanceof CountersignError) || thrown.code !== 'cluster-immutable' || isNew) return false;
    const undone = this.#state.open?.plan.replace?.some((r) => refKey(r) === refKey(ref)) === true;
    return (
      leaves(rendered).has('replace') ||
      this.#revision.allows.includes(`replace ${refText(ref)}`) ||
      (this.#purpose !== 'apply' && undone)
    );
  }

  #write(items: readonly Item[]): Promise<void> {
    return this.#ports.trace('write', { objects: items.length }, () => this.#writeInStages(items));
  }

  async #writeInStages(items: readonly Item[]): Promise<void> {
    const { cluster } = this.#ports;
    for (const stage of cluster.stages(items)) {
      await this.#inParallel(stage, (item) => this.#writeOne(item));
      for (const { ref } of stage) if (ref.kind === 'CustomResourceDefinition') await cluster.established(ref);
    }
  }

  async #writeOne(item: Item): Promise<void> {
    if (item.replace) await this.#makeWay(item.ref);
    const { live } = await this.#ports.cluster
      .apply(item.rendered, item.owned, this.#writing(item))
      .catch((thrown: unknown) => {
        throw placed(thrown, item.rendered.source);
      });
    const { live: _, ...owned } = item.owned;
    // Without a digest, the next check for drift compares it.
    item.owned = { ...owned, ...(live === undefined || item.isDoubted ? {} : { live }) };
    if (this.#first) this.#step('first-write');
    this.#first = false;
  }

  async #makeWay(ref: ObjectRef): Promise<void> {
    await this.#ports.cluster.remove(ref, this.#revision.environment, { foreground: true });
    if (!(await this.#goneWithin([ref], REPLACED_MS)).has(refKey(ref)))
      throw new CountersignError(
        'cluster-refused',
        `${refText(ref)} was deleted to be created again, but still exists after ${REPLACED_MS / 1000} s`,
        {
          hint: 'check its finalizers',
        },
      );
  }

  // Only going forward waits: what is unhealthy may be why something is restored. `isOrdered`: an annotation asks for
  // the wait. Returns false if something newer came first.
  #healthy(items: readonly Item[], isOrdered = false): Promise<boolean> {
    const { wait: awaited, timeout } = this.#ports.environment.spec.health;
    if (!this.#goesForward || !(awaited || isOrdered)) return Promise.resolve(true);
    const written = items.map(
      ({ ref }): Written => ({ ref, generation: this.#ports.cluster.live(ref)?.generation ?? 0 }),
    );
    const wait = () =>
      awaitHealth(written, this.#ports, {
        timeoutMs: durationMs(timeout),
        superseded: this.#options.superseded ?? (() => false),
        progress: this.#options.progress ?? (() => {}),
      });
    return this.#ports.trace('health', {}, wait);
  }

  get #goesForward(): boolean {
    return goesForward(this.#purpose);
  }

  // In reverse order of applying. Returns the objects the API server still has; it is asked until they are gone.
  async #removeAll(): Promise<readonly ObjectRef[]> {
    const leaving: ObjectRef[] = [];
    // Before anything is deleted: what controllers made of our objects outlives them for a moment.
    const own = new Map<string, ReadonlySet<string>>();
    for (const ref of this.#prune) if (this.#isCreated(ref)) own.set(ref.name, (await this.#contents(ref.name)).own);
    for (const stage of this.#removals()) {
      const refs = await this.#removable(
        stage.map((s) => s.ref),
        own,
      );
      await this.#inParallel(refs, (ref) => this.#ports.cluster.remove(ref, this.#revision.environment));
      const gone = await this.#goneWithin(refs, GONE_MS);
      leaving.push(...refs.filter((ref) => !gone.has(refKey(ref))));
    }
    return leaving;
  }

  #removals(): readonly (readonly { readonly ref: ObjectRef }[])[] {
    const { owned } = this.#state;
    const placed = this.#prune.map((ref) => {
      const { order } = owned.get(refKey(ref)) ?? {};
      return { ref, placement: { order: order ?? 0, isStated: order !== undefined } };
    });
    return wavesOf(placed)
      .flatMap((wave) => this.#ports.cluster.stages(wave))
      .reverse();
  }

  // A namespace that a failed change had created goes again, but not with what others put there meanwhile.
  async #removable(
    refs: readonly ObjectRef[],
    own: ReadonlyMap<string, ReadonlySet<string>>,
  ): Promise<readonly ObjectRef[]> {
    const inUse = new Set<ObjectRef>();
    for (const ref of refs) {
      if (!this.#isCreated(ref)) continue;
      const { others } = await this.#contents(ref.name, own.get(ref.name));
      if (others.length === 0) continue;
      inUse.add(ref);
      this.#ports.log.warn(
        { environment: this.#revision.environment, namespace: ref.name, objects: named(others) },
        'the namespace that the failed change created is kept: it holds objects of others',
      );
    }
    return refs.filter((ref) => !inUse.has(ref));
  }

  #isCreated(ref: ObjectRef): boolean {
    return isNamespace(ref) && !mayRemove(ref, this.#revision);
  }

  #contents(namespace: string, known?: ReadonlySet<string>): ReturnType<ReconcilePorts['cluster']['contents']> {
    const { cluster } = this.#ports;
    return cluster.contents(namespace, this.#revision.environment, new Set(this.#state.owned.keys()), known);
  }

  async #goneWithin(refs: readonly ObjectRef[], ms: number): Promise<ReadonlySet<string>> {
    const gone = new Set<string>();
    for (const end = performance.now() + ms; ; ) {
      await this.#inParallel(
        refs.filter((ref) => !gone.has(refKey(ref))),
        async (ref) => {
          // An object that lost our label was left in place and is no longer ours.
          if (this.#ports.cluster.live(ref) === undefined || (await this.#ports.cluster.isGone(ref)))
            gone.add(refKey(ref));
        },
      );
      if (gone.size === refs.length || performance.now() > end) return gone;
      await wait(POLL_MS);
    }
  }

  // The first of a run, or the next one, which continues it.
  async #recordIntent(): Promise<void> {
    const { open, revision: previous } = this.#state;
    const continues = this.#intent?.index;
    const replace = this.#changed.filter((i) => i.replace).map((i) => i.ref);
    const created = this.#created();
    const existed = this.#existed();
    const plan: Plan = {
      // with hooks that do not run this time: a change is known by all that its revision has
      objects: [...this.#changed.map((i) => i.owned), ...this.#hookItems.map((i) => this.#plannedHook(i))],
      prune: this.#prune,
      ...(replace.length === 0 ? {} : { replace }),
      ...(this.#irreversible.length === 0 ? {} : { irreversible: this.#irreversible }),
      ...(created.length === 0 ? {} : { created }),
      ...(existed.length === 0 ? {} : { existed }),
      ...this.#hooksInPlan(),
    };
    const evidence = this.#ports.ledger.asEvidence(plan);
    this.#intent = (await this.#ports.ledger.record(
      {
        type: 'apply.intent',
        environment: this.#revision.environment,
        revision: this.#revision.revision,
        previous,
        verdict: this.#revision.verdict,
        purpose: this.#purpose,
        ...(continues === undefined ? {} : { continues }),
        ...(open === undefined || continues !== undefined ? {} : { takesOver: open.intent.index }),
        evidence: evidence.ref,
      },
      [evidence],
    )) as Intent;
  }

  // The hooks that run, each once.
  get #due(): readonly Item[] {
    return [...new Set(this.#hooks.runs.map((r) => r.item))];
  }

  // The digest of one that does not run would admit that anyone else runs it.
  #plannedHook(item: Item): OwnedObject {
    if (this.#due.includes(item)) return item.owned;
    const { admitted: _, ...owned } = item.owned;
    return { ...owned, hook: owned.hook ?? 'ran' };
  }

  #hooksInPlan(): Pick<Plan, 'hooks' | 'occasion' | 'remains'> {
    const hooks = this.#hooks.runs.map(({ item, phase }) => ({ object: item.ref, phase, order: item.placement.order }));
    const remains = this.#purpose === 'restore' ? remainsOf(this.#ports) : [];
    return {
      ...(hooks.length === 0 ? {} : { hooks }),
      ...(this.#occasion === undefined ? {} : { occasion: this.#occasion }),
      ...(remains.length === 0 ? {} : { remains }),
    };
  }

  // An interrupted attempt at the same change may have created them already.
  #created(): readonly ObjectRef[] {
    const isNew = (item: Item) => this.#purpose === 'apply' && isNamespace(item.ref) && item.existed === false;
    const now = this.#changed.filter(isNew).map((i) => i.ref);
    const before = this.#createdBefore;
    return [...new Map([...before, ...now].map((ref) => [refKey(ref), ref])).values()];
  }

  // An open intent has told of those that a change before this one found. A restore that is interrupted must find
  // them again.
  #existed(): readonly ObjectRef[] {
    const now = this.#changed.filter((i) => i.isNew && i.existed === true).map((i) => i.ref);
    const before = this.#state.open?.plan.existed ?? [];
    return [...new Map([...before, ...now].map((ref) => [refKey(ref), ref])).values()];
  }

  async #recordApplied(leaving: readonly ObjectRef[]): Promise<Applied> {
    const { environment, revision } = this.#revision;
    const started = this.#started();
    const objects = this.#items.map((i) => this.#ownedNow(i, started));
    const evidence = this.#ports.ledger.asEvidence(recordOf(this.#state, { objects, leaving }));
    const applied = this.#changed.length + this.#due.length;
    const awaited = this.#ports.environment.spec.health.wait && this.#goesForward;
    await this.#ports.ledger.record(
      {
        type: 'apply.result',
        environment,
        intent: this.#intent?.index ?? 0,
        revision,
        outcome: 'applied',
        applied,
        pruned: this.#prune.length,
        ...(awaited ? { healthy: true as const } : {}),
        evidence: evidence.ref,
      },
      [evidence],
    );
    this.#step('recorded');
    return { outcome: 'applied', applied, pruned: this.#prune.length };
  }

  #ownedNow(item: Item, started: ReadonlyMap<string, string>): OwnedObject {
    const { owned, ref } = item;
    if (item.placement.hook === undefined) return owned;
    const uid = started.get(refKey(ref));
    const ran = { hook: 'ran', ...(uid === undefined ? {} : { uid }) } as const;
    if (this.#due.includes(item)) {
      const hook = this.#hooks.stateOf(item);
      return { ...owned, ...(hook === 'ran' ? ran : { hook }) };
    }
    const before = this.#settled.get(refKey(ref));
    if (before?.rendered === owned.rendered && before.hook === 'stays') return { ...owned, hook: 'stays' };
    // Objects that an earlier revision made stay as it made them.
    if (this.#goesForward) return { ...owned, ...approvalOf(before), ...ran };
    return { ...owned, ...stillApproved(owned, this.#state), ...ran };
  }

  // The uid of the newest object of each hook, by `refKey`.
  #started(): ReadonlyMap<string, string> {
    if (this.#items.every((i) => i.placement.hook === undefined)) return new Map();
    const all = this.#ports.ledger.all('hook.started', this.#revision.environment);
    return new Map(all.map(({ entry }) => [refKey(entry.object), entry.uid] as const));
  }

  // Corrections of drift and restores bring nothing new; with a change, the same refusal is another one.
  #isOnRecord(error: string): boolean {
    const { environment, revision } = this.#revision;
    const { ledger } = this.#ports;
    let change = ledger.latest(['apply.intent'], environment);
    while (change !== undefined && change.entry.purpose !== 'apply' && change.entry.purpose !== 'rollback')
      change = ledger.latest(['apply.intent'], environment, change.index);
    const since = change?.index ?? -1;
    let at = ledger.latest(['apply.refused'], environment);
    for (let i = 0; at !== undefined && at.index > since && i < REFUSALS; i++) {
      if (at.entry.revision === revision && at.entry.error === error) return true;
      at = ledger.latest(['apply.refused'], environment, at.index);
    }
    return false;
  }

  // Before the first write, a refusal leaves the cluster unchanged. It is recorded once, not at every check.
  async #refuse(thrown: unknown): Promise<Applied> {
    if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
    const { environment, revision, verdict } = this.#revision;
    const error = messageOf(thrown);
    const hint = isWithoutRight(thrown) ? this.#howToPermit() : thrown.hint;
    if (!this.#isOnRecord(error)) {
      await this.#ports.ledger.record({ type: 'apply.refused', environment, revision, verdict, error }, []);
      this.#ports.log.warn(
        { environment, revision, purpose: this.#purpose, error, ...(hint === undefined ? {} : { hint }) },
        'the dry run was refused; nothing was written',
      );
    }
    return {
      outcome: 'refused',
      applied: 0,
      pruned: 0,
      error: hint === undefined ? error : `${error} (${hint})`,
    };
  }

  // Kinds that the new revision no longer has are still to be removed, and those of the last good one to be restored.
  #howToPermit(): string {
    const { revision: good } = this.#state;
    const also = [good, this.#revision.revision].filter((r, i, all) => !isNoRevision(r) && all.indexOf(r) === i);
    return (
      'grant the service’s account this right, for which the change waits: in a checkout, print its rights for this ' +
      `commit and apply them: countersign manifests --rights derived --rights-only --revision ${also.join(' ')} ` +
      '| kubectl apply -f -'
    );
  }

  async #recordFailure(
    thrown: CountersignError,
    seen: readonly TroubleSeen[],
    also: readonly string[],
  ): Promise<Applied> {
    const { environment, revision } = this.#revision;
    const { settled, inventory, revision: good } = this.#state;
    const before = new Set(inventory.objects.map((o) => refKey(o.ref)));
    const added = [...this.#changed, ...this.#hookItems].map((i) => i.owned).filter((o) => !before.has(refKey(o.ref)));
    const evidence = this.#ports.ledger.asEvidence({
      ...(settled < 0 ? {} : { base: settled }),
      objects: added,
      ...(seen.length === 0 ? {} : { seen }),
    });
    const why = seen.map(sayTrouble).find((one) => one !== undefined);
    // A message that was cut may end in half a character, which the ledger does not take.
    const more = [...(why === undefined ? [] : [why]), ...also].map((text) => `; ${text}`);
    const error = `${messageOf(thrown)}${more.join('')}`.toWellFormed();
    await this.#ports.ledger.record(
      {
        type: 'apply.result',
        environment,
        intent: this.#intent?.index ?? 0,
        revision: good,
        outcome: 'failed',
        applied: 0,
        pruned: 0,
        error,
        evidence: evidence.ref,
      },
      [evidence],
    );
    this.#ports.log.error({ environment, revision, error }, 'applying failed');
    return { outcome: 'failed', applied: 0, pruned: 0, error };
  }

  // Read before anything is undone: afterwards nothing of it is left.
  #seen(): Promise<readonly TroubleSeen[]> {
    const { cluster } = this.#ports;
    const { failed } = this.#hooks;
    const unhealthy = [...(failed === undefined ? [] : [failed]), ...this.#changed].filter(
      ({ ref }) => cluster.live(ref)?.health.state !== 'current',
    );
    return cluster.troubles(unhealthy.slice(0, EXPLAINED).map(({ ref }) => ref));
  }

  #inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>): Promise<void> {
    return inParallel(items, task, this.#ports.atOnce);
  }

  #step(name: Step): void {
    this.#ports.onStep?.(name, this.#revision.environment);
  }
}

function goesForward(purpose: Purpose): boolean {
  return purpose === 'apply' || purpose === 'rollback';
}

const PROTECTED = new Set(['kube-system', 'kube-public', 'kube-node-lease', 'default', 'countersign']);

// A namespace is only deleted if the commit says so, because other people's objects would be deleted with it. The
// gate's own and the system's namespaces never are.
function mayRemove(ref: ObjectRef, { allows }: AllowedRevision): boolean {
  if (!isNamespace(ref)) return true;
  return !PROTECTED.has(ref.name) && allows.includes(`delete ${refText(ref)}`);
}

function isNamespace(ref: ObjectRef): boolean {
  return ref.kind === 'Namespace' && ref.apiVersion === 'v1';
}

// Names the place in the repository, which the cluster does not know. A more exact one in the message stays.
function placed(thrown: unknown, { file, line }: RenderedObject['source']): unknown {
  if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait' || thrown.message.includes(`${file}:`))
    return thrown;
  const { code, message, hint, recover, cause } = thrown;
  return new CountersignError(code, `${file}:${line}: ${message}`, {
    recover,
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  });
}

function isRefused(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.code === 'cluster-refused';
}

// Credentials that are not accepted have the same code, and no rights would help.
function isWithoutRight({ code, message }: CountersignError): boolean {
  return code === 'cluster-forbidden' && /is forbidden: User|may not list and watch .*\(403\)/.test(message);
}

function isAltered(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.code === 'cluster-altered';
}

const SUPERSEDED: Applied = { outcome: 'superseded', applied: 0, pruned: 0 };
const UNSEEN = { replace: false, existed: undefined, exact: false, isDoubted: false, isRehearsed: false };
/** Describes a set of objects for people. */
export function named(refs: readonly ObjectRef[]): string {
  const names = refs.slice(0, 5).map(refText).join(', ');
  return refs.length > 5 ? `${names} and ${refs.length - 5} more` : names;
}
