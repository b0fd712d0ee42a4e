/**
 * The loop of each environment: check, judge, record, apply, record; revert drift; finish interrupted runs. Takes a
 * gate, a cluster and a ledger through the ports it declares. Refuses to write to a cluster before the intent is on the
 * ledger.
 */

export { effectOnPods, podOfOthers } from './adopt.ts';
export { isExact, scaledBy } from './exact.ts';
export { isPod } from './hooks.ts';
export type { ClusterPort, LiveState, ReconcilePorts, Step } from './ports.ts';
export { Reconciler } from './reconciler.ts';
export type { Peers, ReconcilerStatus } from './standing.ts';
