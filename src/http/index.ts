/**
 * What a running service answers beside admission: probes and metrics, calls of forges that something was pushed, the
 * commands of people on this machine, and a page to look at. Refuses calls that do not prove themselves; what they say
 * is not believed, they only make an environment look.
 */

export { type Control, type ControlAnswer, listenForCommands, sendCommand } from './control.ts';
export { createDashboard, type DashboardView, dashboardPage } from './dashboard.ts';
export { Metrics } from './metrics.ts';
export { createServiceApp, createStartingApp, type ServiceParts } from './probes.ts';
export type { Receiver } from './receivers.ts';
export { openTracing } from './tracing.ts';
