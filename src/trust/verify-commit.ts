import { type Commit, type CommitVerdict, globMatches, type PathChange, subjectOf, type TrustPolicy } from '../model/index.ts';
import type { TrustStore } from './trust-store.ts';
import { verifySignature } from './verify-signature.ts';

const SKEW_SECONDS = 300;

/**
 * The verdict on one commit: whose signature it bears, and whether they may sign what it touches on that branch.
 * `at` is the moment it is seen, in milliseconds; the times written in the commit are claims.
 */
export async function verifyCommit(
  commit: Commit,
  store: TrustStore,
  scope: { branch: string; paths: readonly PathChange[] | undefined; at: number },
): Promise<CommitVerdict> {
  const about = {
    commit: commit.id,
    subject: subjectOf(commit),
    author: `${commit.author.name} <${commit.author.email}>`,
    committer: `${commit.committer.name} <${commit.committer.email}>`,
    committedAt: commit.committer.time,
  };
  const refused = (code: string, reason: string, more: Partial<CommitVerdict> = {}): CommitVerdict => ({
    ...about,
    ...more,
    outcome: 'refused',
    code,
    reason,
  });
  if (commit.signature === undefined)
    return refused('unsigned', 'it is not signed', { hint: 'sign it: `git commit --amend --no-edit -S`, then push again' });
  const verdict = await verifySignature(store, commit.payload, commit.signature, scope.at);
  if (verdict.kind === 'bad') {
    const { kind: _, code, reason, ...more } = verdict;
    return refused(code, reason, more);
  }
  const proven = { format: verdict.format, key: verdict.signer.key, signer: verdict.signer };
  if (commit.committer.time > scope.at / 1000 + SKEW_SECONDS)
    return refused('commit-from-the-future', 'its time lies more than five minutes ahead', {
      ...proven,
      hint: 'correct the clock of the machine it was made on',
    });
  const forbidden = scope.paths === undefined ? undefined : pathNotSignable(verdict.signer.principal, store, scope.branch, scope.paths);
  if (forbidden !== undefined) return refused(forbidden.code, forbidden.reason, { ...proven, hint: 'see the rules of the TrustPolicy' });
  return { ...about, ...proven, outcome: 'verified', code: 'verified', reason: `signed by \`${verdict.signer.principal}\`` };
}

/** The rules that speak for a path on a branch; all of them must hold. */
export function rulesFor(policy: TrustPolicy, branch: string, path: string): TrustPolicy['spec']['rules'] {
  return policy.spec.rules.filter(
    (rule) => rule.refs.some((ref) => globMatches(ref, branch)) && rule.paths.some((glob) => globMatches(glob, path)),
  );
}

function pathNotSignable(
  principal: string,
  store: TrustStore,
  branch: string,
  paths: readonly PathChange[],
): { code: string; reason: string } | undefined {
  for (const { path } of paths) {
    const rules = rulesFor(store.policy, branch, path);
    if (rules.length === 0) return { code: 'path-not-covered', reason: `no rule covers \`${path}\` on \`${branch}\`` };
    const rule = rules.find((r) => !store.members(r.signers).has(principal));
    if (rule !== undefined)
      return { code: 'signer-not-allowed', reason: `the rule \`${rule.name}\` does not let \`${principal}\` sign \`${path}\`` };
  }
  return undefined;
}
