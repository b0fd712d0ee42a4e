/**
 * Takes an `AllowedRevision` and its plan. Returns the API server's results: dry run, apply, removal, live state.
 * Refuses to send anything without a ledger entry, and never reveals the content of Secrets.
 */
export { type AppliedKind, accountRights, type Grants } from './account-rights.ts';
export { adoptionChanges } from './adoption.ts';
export { type Answer, ApiServer, connect } from './api-server.ts';
export { CheckpointMap } from './checkpoint-map.ts';
export { Cluster } from './cluster.ts';
export type { ClusterAddress } from './cluster-address.ts';
export { type Condition, ConfigurationObjects } from './configuration-objects.ts';
export { differences, lastWriter } from './fields.ts';

export { healthExpressions } from './health-expressions.ts';
export { Lease } from './lease.ts';

export { NamespaceWatch } from './namespace-watch.ts';
export { putReport, type ReportResult } from './open-reports.ts';
export { stages } from './order.ts';
export { foreignOwner, LAST_APPLIED } from './owners.ts';
export { namespacedKinds, objectsIn } from './scan.ts';
export { serverVersionTrouble } from './server-version.ts';
export { staticProblems } from './static-loader.ts';
export { type StaticPlan, staticPolicies, staticProbe } from './static-policies.ts';
export type { WebhookPlace, WebhookPlan } from './webhook-objects.ts';
export { type Tampering, WebhookRegistration } from './webhook-registration.ts';
