/**
 * HTTP interface of a running service, apart from admission: probes and metrics, push notifications from forges,
 * commands of people on this machine, and the dashboard. Refuses calls that are not authenticated. The payload of a
 * call is not trusted; it only triggers a fetch.
 */

export { type Control, type ControlAnswer, listenForCommands, sendCommand } from './control.ts';
export { createDashboard, type DashboardView, dashboardPage } from './dashboard.ts';
export { Metrics } from './metrics.ts';
export { createServiceApp, createStartingApp } from './probes.ts';
export type { Receiver } from './receivers.ts';
export { openTracing } from './tracing.ts';
