import {
  CountersignError,
  type EntryOf,
  type Inventory,
  type InventoryRecord,
  NO_REVISION,
  type ObjectRef,
  type OwnedObject,
  type Plan,
  type Recorded,
  refKey,
} from '../model/index.ts';
import type { LedgerView } from './ports.ts';

/** State of an environment, derived from the ledger alone. */
export type EnvironmentState = {
  /** The last completely applied revision, and the verdict that allowed it; `NO_REVISION` and -1 before the first. */
  readonly revision: string;
  readonly verdict: number;
  /** Objects owned by that revision. */
  readonly inventory: Inventory;
  /** Index of its result; -1 before the first. */
  readonly settled: number;
  /** Number of records the inventory consists of. */
  readonly chain: number;
  /** Everything we may have created in the cluster: that inventory, and objects that later intents may have written. */
  readonly owned: ReadonlyMap<string, OwnedObject>;
  /** An intent without a result, or whose result is a failure that has not been repaired yet. */
  readonly open:
    | { readonly intent: Recorded<EntryOf<'apply.intent'>>; readonly plan: Plan; readonly failed: boolean }
    | undefined;
};

const EMPTY: Inventory = { objects: [], leaving: [] };

/**
 * Folds the intents and results of an environment into its current state. `known` is an earlier state from which
 * inventories are reused.
 */
function environmentState(ledger: LedgerView, environment: string, known?: EnvironmentState): EnvironmentState {
  const result = lastApplied(ledger, environment);
  const { inventory, chain } =
    result === undefined ? { inventory: EMPTY, chain: 0 } : inventoryAt(ledger, result, known);
  const base = {
    revision: result?.entry.revision ?? NO_REVISION,
    verdict: result === undefined ? -1 : (intentOf(ledger, result)?.verdict ?? -1),
    inventory,
    settled: result?.index ?? -1,
    chain,
  };
  const owned = new Map(inventory.objects.map((o) => [refKey(o.ref), o]));
  const later = ledger.latest(['apply.intent'], environment);
  if (later === undefined || later.index < (result?.index ?? -1)) return { ...base, owned, open: undefined };
  const plan = ledger.evidence(later.entry.evidence) as Plan;
  for (const intent of intentsSince(ledger, environment, result?.index ?? -1)) {
    for (const object of (ledger.evidence(intent.entry.evidence) as Plan).objects)
      if (!owned.has(refKey(object.ref))) owned.set(refKey(object.ref), object);
  }
  const failed = (ledger.latest(['apply.result'], environment)?.index ?? -1) > later.index;
  return { ...base, owned, open: { intent: later, plan, failed } };
}

const FRESH_MS = 5; // an entry by another replica takes longer than that to arrive here

/** Returns a function for the state as of the newest intent or result: computed once, however often it is called. */
export function rememberedState(ledger: LedgerView, environment: string): () => EnvironmentState {
  let known: { readonly index: number; readonly state: EnvironmentState } | undefined;
  let asked = { recorded: -1, at: 0 };
  return () => {
    // Called for every admission request; the ledger is only read if something was recorded here, or after a moment.
    const recorded = ledger.recorded?.() ?? Number.NaN;
    const now = performance.now();
    if (known !== undefined && asked.recorded === recorded && now - asked.at < FRESH_MS) return known.state;
    asked = { recorded, at: now };
    const index = ledger.latest(['apply.intent', 'apply.result'], environment)?.index ?? -1;
    if (known?.index !== index) known = { index, state: environmentState(ledger, environment, known?.state) };
    return known.state;
  };
}

const WHOLE_EVERY = 16; // results; in between, only differences are recorded

/** Returns an inventory in recorded form: as the difference from a settled state, or complete at intervals. */
export function recordOf(state: EnvironmentState, { objects, leaving }: Inventory): InventoryRecord {
  const whole: InventoryRecord = { objects, ...(leaving.length === 0 ? {} : { leaving }) };
  if (state.settled < 0 || state.chain >= WHOLE_EVERY) return whole;
  const before = new Map(state.inventory.objects.map((o) => [refKey(o.ref), o]));
  const changed = objects.filter((o) => !sameObject(before.get(refKey(o.ref)), o));
  if (changed.length * 2 > objects.length) return whole;
  const kept = new Set(objects.map((o) => refKey(o.ref)));
  const removed = [...before.values()].filter((o) => !kept.has(refKey(o.ref))).map((o) => o.ref);
  return { ...whole, base: state.settled, objects: changed, ...(removed.length === 0 ? {} : { removed }) };
}

// Digests and numbers; an object that only moved within its file counts as changed, so that messages name its line.
function sameObject(a: OwnedObject | undefined, b: OwnedObject): boolean {
  return (
    a !== undefined &&
    a.rendered === b.rendered &&
    a.admitted === b.admitted &&
    a.live === b.live &&
    a.templates?.join() === b.templates?.join() &&
    a.entry === b.entry &&
    a.revision === b.revision &&
    a.file === b.file &&
    a.line === b.line &&
    a.hook === b.hook &&
    a.uid === b.uid &&
    a.ref.apiVersion === b.ref.apiVersion
  );
}

/** Returns the objects of the revision that was applied last before an entry; undefined if there was none. */
export function inventoryBefore(ledger: LedgerView, environment: string, index: number): Inventory | undefined {
  const result = lastApplied(ledger, environment, index);
  return result && inventoryAt(ledger, result).inventory;
}

type Result = Recorded<EntryOf<'apply.result'>>;

function inventoryAt(
  ledger: LedgerView,
  result: Result,
  known?: EnvironmentState,
): { inventory: Inventory; chain: number } {
  if (known?.settled === result.index) return { inventory: known.inventory, chain: known.chain };
  const records: InventoryRecord[] = [];
  let start: EnvironmentState | undefined;
  for (let at: Result = result; start === undefined; ) {
    const record = ledger.evidence(at.entry.evidence) as InventoryRecord;
    records.unshift(record);
    if (record.base === undefined) break;
    const base = ledger.entry(record.base);
    if (base?.entry.type !== 'apply.result' || base.index >= at.index)
      throw new CountersignError(
        'ledger-inconsistent',
        `entry ${at.index} builds on entry ${record.base}, which is not an earlier result`,
        {
          recover: 'halt',
        },
      );
    at = base as Result;
    if (known !== undefined && known.settled === at.index) start = known;
  }
  const objects = new Map((start?.inventory.objects ?? []).map((o) => [refKey(o.ref), o]));
  for (const record of records) {
    for (const ref of record.removed ?? []) objects.delete(refKey(ref));
    for (const object of record.objects) objects.set(refKey(object.ref), object);
  }
  return {
    inventory: { objects: [...objects.values()], leaving: records.at(-1)?.leaving ?? [] },
    chain: (start?.chain ?? 0) + records.length,
  };
}

/** Current permissions of requests: the allowed digests, and the objects that may be removed. */
export type Admissible = {
  readonly digests: ReadonlyMap<string, readonly string[]>;
  readonly removable: ReadonlySet<string>;
  /** Objects written by an open intent, by key. */
  readonly planned: ReadonlyMap<string, OwnedObject>;
  /** Hooks that an open intent runs, by key: only the applier writes them, because anyone else would run them again. */
  readonly ours: ReadonlySet<string>;
};

const known = new WeakMap<EnvironmentState, Admissible>();

/** Returns what a state admits; computed once per state. */
export function admissible(state: EnvironmentState): Admissible {
  const cached = known.get(state) ?? computeAdmissible(state);
  known.set(state, cached);
  return cached;
}

function computeAdmissible(state: EnvironmentState): Admissible {
  const digests = new Map<string, string[]>();
  const lasting = state.inventory.objects.filter((o) => o.hook !== 'ran'); // made again, a hook would run again
  const written = state.open?.failed === false ? state.open.plan.objects.filter((o) => o.hook !== 'ran') : [];
  const objects = [...lasting, ...written];
  for (const { ref, admitted } of objects) {
    if (admitted !== undefined) digests.set(refKey(ref), [...(digests.get(refKey(ref)) ?? []), admitted]);
  }
  const removed: readonly ObjectRef[] = state.open?.failed === false ? removedBy(state.open.plan) : [];
  const planned = new Map((state.open?.plan.objects ?? []).map((o) => [refKey(o.ref), o]));
  const ours = new Set((state.open?.plan.hooks ?? []).map((h) => refKey(h.object)));
  return { digests, removable: new Set(removed.map(refKey)), planned, ours };
}

function removedBy({ prune, replace = [], hooks = [] }: Plan): readonly ObjectRef[] {
  return [...prune, ...replace, ...hooks.map((h) => h.object)];
}

function lastApplied(
  ledger: LedgerView,
  environment: string,
  before?: number,
): Recorded<EntryOf<'apply.result'>> | undefined {
  let result = ledger.latest(['apply.result'], environment, before);
  while (result !== undefined && !(result.entry.outcome === 'applied' && intentOf(ledger, result) !== undefined))
    result = ledger.latest(['apply.result'], environment, result.index);
  return result;
}

// A result without an intent is ignored: older versions let one onto the ledger. `ledger verify` reports it.
function intentOf(
  ledger: LedgerView,
  { entry }: Recorded<EntryOf<'apply.result'>>,
): EntryOf<'apply.intent'> | undefined {
  const intent = ledger.entry(entry.intent)?.entry;
  return intent?.type === 'apply.intent' && intent.environment === entry.environment ? intent : undefined;
}

function* intentsSince(
  ledger: LedgerView,
  environment: string,
  index: number,
): Generator<Recorded<EntryOf<'apply.intent'>>> {
  let intent = ledger.latest(['apply.intent'], environment);
  while (intent !== undefined && intent.index > index) {
    yield intent;
    intent = ledger.latest(['apply.intent'], environment, intent.index);
  }
}
