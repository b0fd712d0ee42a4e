/**
 * The sentence itself. `assess`: a change in, a recorded verdict out and, where it allows, an `AllowedRevision`;
 * `admit`: a request in, and whether a recorded verdict allows exactly that object.
 * Refuses on any doubt; reaches Git, ledger and clock only through the small interfaces in `ports.ts`.
 */
export type { AuditedWrite } from './account-for.ts';
export { type AdmissionDecision, type AdmissionRequest, type AdmissionScope, admit } from './admit.ts';
export {
  type Assessment,
  allowNothing,
  assess,
  assessTrust,
  type Gate,
  type KnownFile,
  recall,
  renderedAt,
  renderedBy,
  ruledAt,
} from './assess.ts';
export { AuditAccount, type AuditScope, type Unmatched } from './audit-account.ts';
export { type EnvironmentState, recordOf, rememberedState } from './environment-state.ts';
export { momentsOf } from './first-seen.ts';
export type { LedgerView, Maker, OpenPolicy, OpenRules, OpenWaiver, Recorder, SourceRepository } from './ports.ts';
