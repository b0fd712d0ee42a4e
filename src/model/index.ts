/**
 * The words every room shares: types, tiny constructors and the one schema of our documents. It has no input and does
 * no I/O; it refuses only values without a canonical form.
 */
export * from './address.ts';
export * from './admitted.ts';
export * from './allowed-revision.ts';
export * from './change.ts';
export {
  type ClusterScope,
  clusterScopes,
  isInScope,
  isOfKind,
  isOfNamespaces,
  scopesOverlap,
  scopeText,
} from './cluster-scope.ts';
export { collectLeftovers } from './collect-leftovers.ts';
export * from './commit.ts';
export * from './count.ts';
export { cronOf } from './cron.ts';
export * from './digest.ts';
export * from './disk-full.ts';
export * from './entry.ts';
export * from './error.ts';
export { field, interpreted, type Mark } from './field.ts';
export * from './glob.ts';
export * from './image-evidence.ts';
export { imageMatches } from './image-pattern.ts';
export * from './in-parallel.ts';
export { type Injection, injectionSchema } from './injection.ts';
export {
  INSTALLED,
  INSTALLED_DEFINITIONS,
  INSTALLED_IN_NAMESPACES,
  isInstallation,
  isOwnBinding,
  policyNames,
} from './installation.ts';
export * from './inventory.ts';
export { builtInScope, type KindScope, readableKinds, stableKinds } from './kind-scope.ts';
export * from './kubernetes.ts';
export * from './limited-command.ts';
export { LocalClock } from './local-clock.ts';
export { markedTexts } from './marked-texts.ts';
export { type Operator, operatorIdentities, operatorsOf, type WrittenOperator } from './operators.ts';
export * from './ordered-value.ts';
export * from './place.ts';
export * from './placement.ts';
export * from './pointer.ts';
export * from './recent.ts';
export * from './schema.ts';
export { similar } from './similar.ts';
export { standingUses } from './standing-uses.ts';
export * from './stated.ts';
export * from './substitute-text.ts';
export { type MinorOf, SUPPORTED, supportedRange, type Versioned, versionTrouble } from './supported-versions.ts';
export * from './target-cluster.ts';
export * from './thread-answer.ts';
export { TOKEN_PATH, TOKEN_SOURCE, TOKEN_VOLUME } from './token-volume.ts';
export * from './told.ts';
export * from './trace.ts';
export { sayTrouble, type TroubleSeen } from './trouble-seen.ts';
export * from './turns.ts';
export * from './verdict.ts';
export { type CommitCode, isViolationCode, VIOLATIONS, type ViolationCode } from './violation-code.ts';
export * from './within.ts';
