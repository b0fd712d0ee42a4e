/**
 * The running service: opens the loops, the webhook threads, the control socket and the schedules, connects them and
 * closes them again. Only this room starts work that continues after a call returns. Refuses to start with
 * contradictory flags, and to sign a ledger that another service signs.
 */
export { keepStated, recordStart } from './ledger.ts';
export { openGates, openLoops } from './loops.ts';
export { ofCluster } from './of-cluster.ts';
export { type LedgerStanding, openClusters, openServing } from './open-serving.ts';
export type { ServeHooks, ServeOptions } from './options.ts';
export { openScheduledReports } from './reports.ts';
export { serve } from './serve.ts';
