/**
 * Takes raw commits, a TrustPolicy's keys and signed approvals; gives a `VerifiedChange`, or the violations that forbid it.
 * Refuses every commit without a good signature by a principal who may sign those paths, and every change without
 * enough approvals by people who did not make it.
 */
export { type ApprovalStatement, approvalPath, approvalStatement, encodeEnvelope, preAuthEncoding } from './approval.ts';
export { openTrustStore, type TrustStore } from './trust-store.ts';
export { type ChangeVerification, type DiffTrees, type StoredEnvelope, verifyChange } from './verify-change.ts';
export { verifyCommit } from './verify-commit.ts';
