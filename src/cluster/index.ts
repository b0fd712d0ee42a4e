/**
 * Takes an `AllowedRevision` and its plan, gives what the API server made of it: dry run, apply, removal, what is there
 * now. Refuses to send anything that does not carry a ledger entry; tells nothing of what Secrets hold.
 */
export { type Answer, ApiServer, type ClusterAddress, connect } from './api-server.ts';
export { CheckpointMap } from './checkpoint-map.ts';
export { type AppliedObject, Cluster } from './cluster.ts';
export { type Condition, ConfigurationObjects } from './configuration-objects.ts';
export { differences } from './fields.ts';
export type { Health, HealthRule } from './health.ts';
export { healthExpressions } from './health-expressions.ts';
export { Lease } from './lease.ts';
export type { LiveObject } from './live-view.ts';
export { NamespaceWatch } from './namespace-watch.ts';
export { putReport, type ReportResult } from './open-reports.ts';
export { stages } from './order.ts';
export { objectsIn } from './scan.ts';
export type { WebhookPlace, WebhookPlan } from './webhook-objects.ts';
export { type Tampering, WebhookRegistration } from './webhook-registration.ts';
