/**
 * The loop of each environment: look, judge, record, apply, record; defend what was applied; finish what was
 * interrupted. Takes a gate, a cluster and a ledger through the ports it declares; refuses to write anything to a
 * cluster before its intent is on the ledger.
 */

export type { ClusterPort, LiveState, LogPort, ReconcilePorts, Step } from './ports.ts';
export { Reconciler } from './reconciler.ts';
export type { HealthCount, Peers, ReconcilerStatus } from './standing.ts';
