/**
 * What a running service answers beside admission: probes and metrics, calls of forges that something was pushed, and the
 * commands of people on this machine. Refuses calls that do not prove themselves; what they say is not believed, they only
 * make an environment look.
 */

export { type Control, type ControlAnswer, listenForCommands, sendCommand } from './control.ts';
export { Metrics } from './metrics.ts';
export { createServiceApp, type ServiceParts } from './probes.ts';
export type { Receiver } from './receivers.ts';
export { openTracing } from './tracing.ts';
