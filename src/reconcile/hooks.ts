import { isAsMade } from '../gate/index.ts';
import {
  ANNOTATION,
  CountersignError,
  type EntryOf,
  HOOK_PHASES,
  type HookPhase,
  type HookRemoval,
  type Irreversible,
  isBuiltIn,
  type KubernetesObject,
  LABEL,
  messageOf,
  type ObjectRef,
  type Occasion,
  type OwnedObject,
  type Placement,
  type Recorded,
  type RenderedObject,
  refKey,
  refText,
} from '../model/index.ts';
import type { ReconcilePorts } from './ports.ts';

/** A hook of a revision. `owned` changes when it is dry-run. */
export type HookItem = {
  readonly ref: ObjectRef;
  readonly rendered: RenderedObject;
  readonly placement: Placement;
  readonly owned: OwnedObject;
};

/** A hook in one phase of a change. */
export type HookRun<T> = { readonly item: T; readonly phase: HookPhase };

/** Operations of a change that its hooks need. */
export type HookActions<T> = {
  /** Dry-runs the object as it can be made now, and puts that on the ledger. */
  readonly prepare: (item: T) => Promise<void>;
  readonly write: (item: T) => Promise<void>;
  readonly makeWay: (ref: ObjectRef) => Promise<void>;
  /** Waits for its health. Returns false if the change is to stop here. Throws `not-healthy`. */
  readonly awaited: (item: T, uid: string) => Promise<boolean>;
  /** Index of the newest intent. */
  readonly intent: () => number;
};

/**
 * Tests whether an object does something once, when it is made: a Job, a Pod, or an object of a kind that is not of
 * Kubernetes itself, such as a Workflow. Others can be written again without harm.
 */
export function runsOnce(ref: ObjectRef): boolean {
  return !isBuiltIn(ref) || (ref.kind === 'Job' && ref.apiVersion.startsWith('batch/')) || isPod(ref);
}

/** Tests whether an object is a pod of its own. */
export function isPod({ apiVersion, kind }: ObjectRef): boolean {
  return kind === 'Pod' && apiVersion === 'v1';
}

/**
 * Returns the hooks that run on an occasion, in the order in which they do: by phase, order, kind and name. `stages`
 * groups objects by kind.
 */
export function hooksOf<T extends HookItem>(
  items: readonly T[],
  occasion: Occasion,
  stages: (items: readonly T[]) => readonly (readonly T[])[],
): readonly HookRun<T>[] {
  return HOOK_PHASES.flatMap((phase) => {
    const runs = items.filter((i) =>
      i.placement.hook?.runs.some((run) => run.phase === phase && run.on.includes(occasion)),
    );
    const byOrder = Map.groupBy(runs, (i) => i.placement.order);
    return [...byOrder.keys()]
      .sort((a, b) => a - b)
      .flatMap((order) => stages(byOrder.get(order) ?? []).flatMap((stage) => stage.toSorted(byName)))
      .map((item) => ({ item, phase }));
  });
}

function byName(a: HookItem, b: HookItem): number {
  const [one, two] = [a, b].map(({ ref }) => `${ref.kind}/${ref.name}/${ref.namespace}`) as [string, string];
  return one < two ? -1 : 1;
}

/**
 * Runs the hooks of one change, each at most once: what was made or ended is on the ledger, and a change that was
 * interrupted finds in the cluster what it had made.
 */
export class Hooks<T extends HookItem> {
  readonly runs: readonly HookRun<T>[];
  readonly #ports: ReconcilePorts;
  readonly #actions: HookActions<T>;
  readonly #verdict: number;
  /** Whether an interrupted run of the same change came before. */
  readonly #isResumed: boolean;
  /** Runs that are over, and whose delete policies were not carried out. */
  #over: { readonly run: HookRun<T>; readonly outcome: HookRemoval }[] = [];
  /** Keys of objects that a delete policy removed. */
  readonly #removed = new Set<string>();
  failed: T | undefined;

  constructor(
    runs: readonly HookRun<T>[],
    ports: ReconcilePorts,
    actions: HookActions<T>,
    change: { readonly verdict: number; readonly isResumed: boolean },
  ) {
    this.runs = runs;
    this.#ports = ports;
    this.#actions = actions;
    this.#verdict = change.verdict;
    this.#isResumed = change.isResumed;
  }

  /** The hooks of a phase, and of one order if that is given. */
  of(phase: HookPhase, order?: number): readonly HookRun<T>[] {
    return this.runs.filter((r) => r.phase === phase && (order === undefined || r.item.placement.order === order));
  }

  /**
   * Runs hooks one after the other. Returns false if the change is to stop here; a later one of the same change goes
   * on. Throws `not-healthy` for the first that fails, and temporary errors.
   */
  async run(runs: readonly HookRun<T>[]): Promise<boolean> {
    for (const run of runs) {
      const isDone = await this.#runOne(run).catch((thrown: unknown) => {
        if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
        this.failed = run.item;
        this.#over.push({ run, outcome: 'failed' });
        throw failure(run, thrown);
      });
      if (!isDone) return false;
      this.#over.push({ run, outcome: 'succeeded' });
    }
    return true;
  }

  /**
   * Removes the objects of hooks that are over, as their delete policies say, in reverse order. Returns what the
   * cluster refused to remove: that stays. Throws temporary errors.
   */
  async sweep(): Promise<readonly string[]> {
    const refused: string[] = [];
    for (const { run, outcome } of this.#over.splice(0).reverse()) {
      const { ref, placement } = run.item;
      if (placement.hook?.remove.includes(outcome) !== true || KEPT.has(ref.kind)) continue;
      try {
        await this.#ports.cluster.remove(ref, this.#environment, { foreground: true });
        this.#removed.add(refKey(ref));
      } catch (thrown) {
        if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
        refused.push(`${refText(ref)} is not removed as its delete policy says: ${messageOf(thrown)}`);
      }
    }
    return refused;
  }

  /** Runs the hooks for a failure. Returns why one of them failed, or false if the change is to stop here. */
  async onFailure(): Promise<string | undefined | false> {
    const failed = this.failed;
    try {
      return (await this.run(this.of('failure'))) ? undefined : false;
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
      this.failed = failed ?? this.failed;
      return messageOf(thrown);
    }
  }

  /** Returns what the inventory says of a hook that was due. */
  stateOf(item: T): 'stays' | 'ran' {
    const isMade = this.runs.some((r) => r.item === item && r.phase !== 'failure');
    return isMade && !runsOnce(item.ref) && !this.#removed.has(refKey(item.ref)) ? 'stays' : 'ran';
  }

  // Index of the result before this change.
  get #since(): number {
    return this.#ports.ledger.latest(['apply.result'], this.#environment)?.index ?? -1;
  }

  get #environment(): string {
    return this.#ports.environment.metadata.name;
  }

  async #runOne(run: HookRun<T>): Promise<boolean> {
    const { item, phase } = run;
    if (!runsOnce(item.ref)) {
      await this.#actions.write(item);
      return this.#actions.awaited(item, await this.#uidOf(item.ref));
    }
    const started = this.#startedBefore(run) ?? (await this.#start(run));
    const ended = this.#ports.ledger
      .all('hook.ended', this.#environment)
      .findLast(({ entry }) => entry.started === started.index);
    if (ended?.entry.outcome === 'succeeded') return true;
    if (ended !== undefined) throw new CountersignError('not-healthy', ended.entry.error ?? refText(item.ref), HINT);
    const about = { environment: this.#environment, started: started.index, object: item.ref, phase } as const;
    try {
      if (!(await this.#isThere(item, started.entry.uid))) throw this.#gone(item);
      if (!(await this.#actions.awaited(item, started.entry.uid))) return false;
      // The wait goes by the name. One that removed itself after its end is no other.
      const uid = await this.#uidOf(item.ref);
      if (uid !== '' && uid !== started.entry.uid) throw this.#gone(item);
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
      const error = messageOf(thrown).slice(0, 1000).toWellFormed();
      await this.#ports.ledger.record({ type: 'hook.ended', ...about, outcome: 'failed', error }, []);
      throw thrown;
    }
    await this.#ports.ledger.record({ type: 'hook.ended', ...about, outcome: 'succeeded' }, []);
    return true;
  }

  async #start({ item, phase }: HookRun<T>): Promise<Recorded<EntryOf<'hook.started'>>> {
    const { cluster, ledger } = this.#ports;
    const live = await cluster.read(item.ref);
    if (!this.#isMade(live, item)) {
      if (live === undefined && this.#mayHaveRun(item)) throw this.#gone(item);
      if (live !== undefined) await this.#makeWay(item.ref);
      await this.#actions.prepare(item);
      await this.#actions.write(item);
      this.#ports.onStep?.('hook-made', this.#environment);
    }
    const uid = await this.#uidOf(item.ref);
    const intent = this.#actions.intent();
    const { revision } = item.owned;
    const entry = { environment: this.#environment, intent, revision, object: item.ref, phase, uid };
    const recorded = await ledger.record({ type: 'hook.started', ...entry }, []);
    this.#ports.onStep?.('hook', this.#environment);
    return recorded as Recorded<EntryOf<'hook.started'>>;
  }

  async #makeWay(ref: ObjectRef): Promise<void> {
    await this.#actions.makeWay(ref);
    if ((await this.#ports.cluster.read(ref)) === undefined) return;
    throw notMade(ref);
  }

  // An earlier run of this very change may have made it, and ended before it could record that.
  #isMade(live: KubernetesObject | undefined, { ref, owned }: T): boolean {
    if (live === undefined || !this.#isResumed) return false;
    const { annotations = {}, labels = {}, uid } = live.metadata;
    return (
      labels[LABEL] === this.#environment &&
      isAsMade(live, owned) &&
      annotations[ANNOTATION.revision] === owned.revision &&
      annotations[ANNOTATION.entry] === String(owned.entry) &&
      !this.#started().some(({ entry }) => refKey(entry.object) === refKey(ref) && entry.uid === uid)
    );
  }

  // Kubernetes may have removed it by itself since then.
  #mayHaveRun({ rendered }: T): boolean {
    const { ttlSecondsAfterFinished: ttl } = (rendered.object['spec'] ?? {}) as { ttlSecondsAfterFinished?: unknown };
    if (!this.#isResumed || typeof ttl !== 'number') return false;
    const first = this.#ports.ledger
      .all('apply.intent', this.#environment)
      .find(({ index, entry }) => index > this.#since && entry.verdict === this.#verdict);
    const since = Date.parse(first?.entry.time ?? '');
    return !(this.#ports.clock().getTime() < since + ttl * 1000);
  }

  #gone({ ref }: T): CountersignError {
    const message = `${refText(ref)} is gone before its end was seen, so that it is not known whether it ran`;
    return new CountersignError('not-healthy', message, {
      hint:
        `find out what it did, then \`countersign resume ${this.#environment}\` runs it again; ` +
        'a `ttlSecondsAfterFinished` of some minutes keeps it for long enough',
    });
  }

  // One that removed itself counts if it was seen to end well.
  async #isThere({ ref }: T, uid: string): Promise<boolean> {
    const now = await this.#uidOf(ref);
    return now === uid || (now === '' && uid !== '' && this.#ports.cluster.endedWell(ref) === uid);
  }

  #startedBefore({ item, phase }: HookRun<T>): Recorded<EntryOf<'hook.started'>> | undefined {
    const { ledger } = this.#ports;
    return this.#started().findLast(({ index, entry }) => {
      const intent = index > this.#since ? ledger.entry(entry.intent)?.entry : undefined;
      return (
        intent?.type === 'apply.intent' &&
        intent.verdict === this.#verdict &&
        entry.phase === phase &&
        refKey(entry.object) === refKey(item.ref)
      );
    });
  }

  #started(): readonly Recorded<EntryOf<'hook.started'>>[] {
    return this.#ports.ledger.all('hook.started', this.#environment);
  }

  async #uidOf(ref: ObjectRef): Promise<string> {
    return String((await this.#ports.cluster.read(ref))?.metadata['uid'] ?? '');
  }
}

/** Returns the effects of the open change that no restore undoes: the hooks and Jobs that ran. */
export function remainsOf({ ledger, environment, state }: ReconcilePorts): readonly Irreversible[] {
  const { open, settled } = state();
  const made = ledger.all('hook.started', environment.metadata.name).filter((r) => r.index > settled);
  const isHook = new Set((open?.plan.hooks ?? []).map((h) => refKey(h.object)));
  const jobs = (open?.plan.irreversible ?? []).flatMap(({ action, object }) =>
    action === 'run' && object !== undefined && !isHook.has(refKey(object)) ? [object] : [],
  );
  const all = [...made.map(({ entry }) => entry.object), ...jobs];
  return [...new Map(all.map((object) => [refKey(object), { action: 'run' as const, object }])).values()];
}

/** Returns the error for an object that has the name of a hook, and that is not ours to remove. */
export function notMade(ref: ObjectRef): CountersignError {
  return new CountersignError('cluster-conflict', `${refText(ref)} is there, and this environment did not make it`, {
    hint: 'delete it: the hook makes it again',
  });
}

/** Says what a restore does not undo; an empty text if that is nothing. */
export function notUndone(remains: readonly Irreversible[]): string {
  const ran = remains.flatMap(({ object }) => (object === undefined ? [] : [refText(object)]));
  const names = `${ran.slice(0, NAMED).join(', ')}${ran.length > NAMED ? ` and ${ran.length - NAMED} more` : ''}`;
  return ran.length === 0 ? '' : `, but what ${names} did is not undone`;
}

const NAMED = 5;

/** Tests whether a hook of the open change was made whose end is not on the ledger. */
export function isHookOpen(ports: ReconcilePorts): boolean {
  const { ledger, environment, state } = ports;
  const { name } = environment.metadata;
  const started = ledger.latest(['hook.started'], name);
  if (started === undefined || started.index < state().settled) return false;
  return (ledger.latest(['hook.ended'], name)?.index ?? -1) < started.index;
}

// Their content would go with them.
const KEPT: ReadonlySet<string> = new Set([
  'CustomResourceDefinition',
  'Namespace',
  'PersistentVolume',
  'PersistentVolumeClaim',
]);
const HINT = { hint: 'fix it with a new commit' };
const WHEN = {
  before: 'that runs before the objects',
  main: 'that runs with the objects',
  after: 'that runs after the objects',
  failure: 'that runs after a failure',
} as const;

function failure({ item, phase }: HookRun<HookItem>, { code, message, hint = HINT.hint, cause }: CountersignError) {
  const { file, line } = item.rendered.source;
  const text = `${file}:${line}: the hook ${refText(item.ref)} ${WHEN[phase]} failed: ${message}`;
  return new CountersignError(code, text, { hint, cause });
}
