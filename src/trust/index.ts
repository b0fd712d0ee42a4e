/**
 * Takes raw commits, a TrustPolicy's keys and signed approvals. Returns a `VerifiedChange`, or the violations that
 * forbid it. Every commit needs a valid signature by a principal who could sign those paths when the commit was first
 * seen. Every change needs enough approvals by people who did not make it.
 */
export {
  type ApprovalStatement,
  approvalPath,
  approvalStatement,
  changeDigest,
  encodeEnvelope,
  preAuthEncoding,
  readApproval,
  repositoryUri,
} from './approval.ts';
export { describeKeys, type KeyDescription } from './describe-keys.ts';
export { signedBytes, verifyDetached } from './detached.ts';
export {
  examineCommits,
  examineHistory,
  type HistoryItem,
  type HistorySource,
  KnownHistory,
} from './examine-history.ts';
export { FORGE_REVIEW, type ForgeReview } from './forge-review.ts';
export type { ImageVerifier } from './image-evidence.ts';
export { importKeys } from './import-keys.ts';
export { judgeCommit } from './judge-commit.ts';
export { type LintFinding, lintPolicy } from './lint-policy.ts';
export type { StoredEnvelope } from './read-statements.ts';
export type { Decision } from './statement.ts';
export { openTrustStore, type TrustStore } from './trust-store.ts';
export { malformedVerdict, verifyChange } from './verify-change.ts';
export { verifyTag } from './verify-tag.ts';
export { verifyWaiver, waiverStatement } from './waiver.ts';
