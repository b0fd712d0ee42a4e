/**
 * The running service: opens the loops, the webhook threads, the control socket and the schedules, connects them and
 * closes them again. Only this room starts work that goes on after a call returns. Refuses to start with flags that
 * contradict each other, and to sign a ledger that another service signs.
 */
export { keepStated, recordStart } from './ledger.ts';
export { openGates, openLoops } from './loops.ts';
export { openClusters, openServing } from './open-serving.ts';
export type { ServeHooks, ServeOptions } from './options.ts';
export { openScheduledReports } from './reports.ts';
export { serve } from './serve.ts';
