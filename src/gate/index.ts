/**
 * The core decisions. `assess` takes a change and returns a recorded verdict and, if it allows, an `AllowedRevision`.
 * `admit` takes a request and decides whether a recorded verdict allows exactly that object. Refuses in case of doubt.
 * Reaches Git, ledger and clock only through the small interfaces in `ports.ts`.
 */

export { AdmissionRecords } from './admission-records.ts';
export type { AdmissionDecision, AdmissionRequest, RequestOnRecord } from './admission-request.ts';
export { AdmissionScopes, type Door } from './admission-scopes.ts';
export { type AdmissionScope, admit } from './admit.ts';
export { allowNothing } from './allow.ts';
export { assess } from './assess.ts';
export { assessTrust } from './assess-trust.ts';
export { AuditAccount, type Unmatched } from './audit-account.ts';
export { BreakGlass, type Grant, mayUseBreakGlass, usesOf } from './break-glass.ts';
export { type BreakGlassNow, breakGlassNow } from './break-glass-now.ts';
export { ContentAccount } from './content-account.ts';
export { type EnvironmentState, inventoryBefore, recordOf, rememberedState } from './environment-state.ts';
export { momentsOf } from './first-seen.ts';
export type { Gate, KnownFile } from './gate.ts';
export { viewOf } from './ledger-view.ts';
export { ignoredNamespace, placeObject, scopesOf, withoutNamespace } from './place-objects.ts';
export { misplaced, placementOf } from './placement.ts';
export type {
  ClockOffset,
  ClusterFacts,
  LedgerView,
  LiveGrants,
  LiveReason,
  Maker,
  OpenPolicy,
  OpenRules,
  ReadManifests,
  Recorder,
  SourceRepository,
  SureRecorder,
} from './ports.ts';
export { type Previewed, previewFromAudit, previewFromLedger } from './preview-admission.ts';
export { isAsMade, proveContent, proveMachinery } from './prove-machinery.ts';
export { recall, renderedAt, ruledAt, servedThen } from './recall.ts';
export { type Recheck, recheckVerdict } from './recheck.ts';
export { limitsOf, renderedBy } from './render-tree.ts';
export { asSubject, belonging, ofScan, type Scan, type Scanned, scanned } from './rescan.ts';
export { type LoadRules, type RulesAt, RulesInForce, rulesOf } from './rules-in-force.ts';
export { outOfScope } from './scope.ts';
export { SealedSecrets } from './sealed-secrets.ts';
export { type BreakGlassStanding, breakGlassStanding, settleUses } from './settle-break-glass.ts';
export { withoutAddresses } from './without-names.ts';
