import {
  CountersignError,
  type EntryOf,
  type Inventory,
  NO_REVISION,
  type ObjectRef,
  type OwnedObject,
  type Plan,
  type Recorded,
  refKey,
} from '../model/index.ts';
import type { LedgerView } from './ports.ts';

/** Where an environment stands, read from the ledger alone. */
export type EnvironmentState = {
  /** The last revision that was applied whole, and the verdict that allowed it; `NO_REVISION` and -1 before the first. */
  readonly revision: string;
  readonly verdict: number;
  /** What that revision owns. */
  readonly inventory: Inventory;
  /** Everything that may be in the cluster by our hand: that, and whatever later intents may have written. */
  readonly owned: ReadonlyMap<string, OwnedObject>;
  /** An intent that has no result, or whose result is a failure that was not yet put right. */
  readonly open: { readonly intent: Recorded<EntryOf<'apply.intent'>>; readonly plan: Plan; readonly failed: boolean } | undefined;
};

const EMPTY: Inventory = { objects: [] };

/** Folds the intents and results of an environment into its present state. */
export function environmentState(ledger: LedgerView, environment: string): EnvironmentState {
  const result = lastApplied(ledger, environment);
  const inventory = result === undefined ? EMPTY : (ledger.evidence(result.entry.evidence) as Inventory);
  const base = {
    revision: result?.entry.revision ?? NO_REVISION,
    verdict: result === undefined ? -1 : verdictOf(ledger, result),
    inventory,
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

/** What requests may make of the objects just now: the digests that are allowed, and what may be removed. */
export type Admissible = { readonly digests: ReadonlyMap<string, readonly string[]>; readonly removable: ReadonlySet<string> };

const known = new WeakMap<EnvironmentState, Admissible>();

/** What a state admits; computed once for each state. */
export function admissible(state: EnvironmentState): Admissible {
  const cached = known.get(state) ?? computeAdmissible(state);
  known.set(state, cached);
  return cached;
}

function computeAdmissible(state: EnvironmentState): Admissible {
  const digests = new Map<string, string[]>();
  const objects = [...state.inventory.objects, ...(state.open?.failed === false ? state.open.plan.objects : [])];
  for (const { ref, admitted } of objects) {
    if (admitted !== undefined) digests.set(refKey(ref), [...(digests.get(refKey(ref)) ?? []), admitted]);
  }
  const prune: readonly ObjectRef[] = state.open?.failed === false ? state.open.plan.prune : [];
  return { digests, removable: new Set(prune.map(refKey)) };
}

function lastApplied(ledger: LedgerView, environment: string): Recorded<EntryOf<'apply.result'>> | undefined {
  let result = ledger.latest(['apply.result'], environment);
  while (result !== undefined && result.entry.outcome !== 'applied') result = ledger.latest(['apply.result'], environment, result.index);
  return result;
}

function verdictOf(ledger: LedgerView, result: Recorded<EntryOf<'apply.result'>>): number {
  const intent = ledger.entry(result.entry.intent);
  if (intent?.entry.type !== 'apply.intent')
    throw new CountersignError('ledger-inconsistent', `entry ${result.index} names no intent`, { recover: 'halt' });
  return intent.entry.verdict;
}

function* intentsSince(ledger: LedgerView, environment: string, index: number): Generator<Recorded<EntryOf<'apply.intent'>>> {
  let intent = ledger.latest(['apply.intent'], environment);
  while (intent !== undefined && intent.index > index) {
    yield intent;
    intent = ledger.latest(['apply.intent'], environment, intent.index);
  }
}
