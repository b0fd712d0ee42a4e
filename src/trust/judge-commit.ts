import {
  type CommitFacts,
  type CommitVerdict,
  durationMs,
  globMatches,
  type Moment,
  type PathChange,
  type SignatureFact,
  type TrustPolicy,
} from '../model/index.ts';
import { judgeSignature, type Refusal } from './judge-signature.ts';
import type { TrustStore } from './trust-store.ts';

/** Selects the rules of a policy that apply: those of an environment and a branch. */
export type RuleScope = { readonly environment: string; readonly branch: string };

/** Where and when a commit is judged. */
export type CommitScope = RuleScope & {
  /** Changes against its first parent; undefined checks only the signature. */
  readonly paths: readonly PathChange[] | undefined;
  readonly moment: Moment;
  /** The latest committer time of its parents, seconds since 1970, as claimed; undefined if they are unknown. */
  readonly notBefore: number | undefined;
};

/**
 * Judges one commit: who signed it, whether the signature counted when the commit was first seen, and whether the
 * signer may sign the changed paths on that branch. The times written in the commit are claims; they can only restrict.
 */
export async function judgeCommit(facts: CommitFacts, store: TrustStore, scope: CommitScope): Promise<CommitVerdict> {
  const about = aboutCommit(facts, scope.moment);
  const refused = (refusal: Refusal, more: Partial<CommitVerdict> = {}): CommitVerdict => ({
    ...about,
    ...more,
    outcome: 'refused',
    ...refusal,
  });
  const blocked = store.blocked.get(facts.payload);
  if (blocked !== undefined)
    return refused({
      code: 'blocked',
      reason: `the policy blocks it: ${blocked}`,
      hint: 'make the change again in a separate commit',
    });
  const { signature } = facts;
  if (signature.kind === 'none')
    return refused({
      code: 'unsigned',
      reason: 'it is not signed',
      hint: 'sign it: `git commit --amend --no-edit -S`, then push again',
    });
  if (signature.kind === 'bad') {
    const { kind: _, ...rest } = signature;
    return { ...about, outcome: 'refused', ...rest };
  }
  const proven = provenBy(signature, store);
  const refusal =
    judgeTimes(facts, store, scope) ??
    (await judgeSignature(signature, store, scope.moment, facts.committer.time * 1000)) ??
    (await judgeTags(facts, store, scope.moment)) ??
    (scope.paths === undefined ? undefined : pathNotSignable(signature.principal, store, scope, scope.paths));
  if (refusal !== undefined) return refused(refusal, proven);
  return { ...about, ...proven, outcome: 'verified', code: 'verified', reason: `signed by \`${signature.principal}\`` };
}

/** Returns the part of a verdict that identifies the commit. */
export function aboutCommit(facts: CommitFacts, moment: Moment): Omit<CommitVerdict, 'outcome' | 'code' | 'reason'> {
  return {
    commit: facts.id,
    subject: facts.subject,
    author: `${facts.author.name} <${facts.author.email}>`,
    committer: `${facts.committer.name} <${facts.committer.email}>`,
    committedAt: facts.committer.time,
    seen: new Date(moment.at).toISOString(),
    basis: moment.basis,
    payload: facts.payload,
    ...(facts.mergeTags.length === 0
      ? {}
      : {
          tags: facts.mergeTags.map(({ name, signature: s }) =>
            s.kind === 'good'
              ? { name, signer: s.principal, code: 'verified' }
              : { name, code: s.kind === 'none' ? 'unsigned' : s.code },
          ),
        }),
  };
}

/** Returns the rules that apply to a path; all of them must hold. */
export function rulesFor(policy: TrustPolicy, scope: RuleScope, path: string): TrustPolicy['spec']['rules'] {
  return rulesOf(policy, scope).filter((rule) => rule.paths.some((glob) => globMatches(glob, path)));
}

function rulesOf(policy: TrustPolicy, { environment, branch }: RuleScope): TrustPolicy['spec']['rules'] {
  return policy.spec.rules.filter(
    (rule) =>
      rule.environments.some((glob) => globMatches(glob, environment)) &&
      rule.refs.some((ref) => globMatches(ref, branch)),
  );
}

/**
 * Returns the applicable rules if each of them covers every path, so that the paths of commits need not be compared.
 */
export function rulesForAnyPath(policy: TrustPolicy, scope: RuleScope): TrustPolicy['spec']['rules'] | undefined {
  const rules = rulesOf(policy, scope);
  return rules.length > 0 && rules.every((rule) => rule.paths.includes('**')) ? rules : undefined;
}

function provenBy(fact: Extract<SignatureFact, { kind: 'good' }>, store: TrustStore): Partial<CommitVerdict> {
  const { certificate } = fact;
  return {
    format: fact.format,
    key: fact.key,
    algorithm: fact.algorithm,
    signer: { principal: fact.principal, kind: store.kindOf(fact.principal), key: fact.key },
    ...(fact.subkey === undefined ? {} : { subkey: fact.subkey.fingerprint }),
    ...(fact.signedAt === undefined ? {} : { signedAt: fact.signedAt / 1000 }),
    ...(fact.hardware === undefined ? {} : { hardware: fact.hardware }),
    ...(certificate === undefined
      ? {}
      : {
          certificate: {
            authority: certificate.authority,
            name: certificate.name,
            keyId: certificate.keyId,
            serial: certificate.serial,
          },
        }),
  };
}

function judgeTimes(facts: CommitFacts, store: TrustStore, { moment, notBefore }: CommitScope): Refusal | undefined {
  const { skew, maximumAge } = store.policy.spec.times;
  const claimed = facts.committer.time * 1000;
  if (claimed > moment.at + durationMs(skew))
    return {
      code: 'commit-from-the-future',
      reason: `its time is more than ${skew} in the future`,
      hint: 'correct the clock of the machine that made it',
    };
  if (notBefore !== undefined && claimed < notBefore * 1000 - durationMs(skew))
    return {
      code: 'backdated',
      reason:
        `its time is ${new Date(claimed).toISOString()}, ` +
        `but the time of the commit it builds on is ${new Date(notBefore * 1000).toISOString()}`,
      hint: 'commit again with a correct clock: `git commit --amend --no-edit -S`',
    };
  if (maximumAge !== undefined && claimed < moment.at - durationMs(maximumAge))
    return {
      code: 'commit-too-old',
      reason: `it claims to be older than ${maximumAge}, but was not seen before`,
      hint: 'rebase it, so that it is committed and signed again',
    };
  return undefined;
}

// A tag in a merge is evidence besides the merge's own signature. It may be unknown, but not forged.
async function judgeTags(facts: CommitFacts, store: TrustStore, moment: Moment): Promise<Refusal | undefined> {
  for (const { name, signature } of facts.mergeTags) {
    if (signature.kind === 'bad' && signature.code === 'bad-signature')
      return {
        code: 'mergetag-bad',
        reason: `the merged tag \`${name}\` has a forged signature`,
        hint: 'merge it again',
      };
    const refusal =
      signature.kind === 'good'
        ? await judgeSignature(signature, store, moment, signature.signedAt ?? moment.at)
        : undefined;
    if (refusal?.code === 'key-compromised')
      return { ...refusal, code: 'mergetag-bad', reason: `the merged tag \`${name}\`: ${refusal.reason}` };
  }
  return undefined;
}

function pathNotSignable(
  principal: string,
  store: TrustStore,
  scope: RuleScope,
  paths: readonly PathChange[],
): Refusal | undefined {
  const hint = 'see the rules of the TrustPolicy';
  for (const { path } of paths) {
    const rules = rulesFor(store.policy, scope, path);
    if (rules.length === 0)
      return {
        code: 'path-not-covered',
        reason: `no rule covers \`${path}\` on \`${scope.branch}\` for \`${scope.environment}\``,
        hint,
      };
    const rule = rules.find((r) => !store.members(r.signers).has(principal));
    if (rule !== undefined)
      return {
        code: 'signer-not-allowed',
        reason: `the rule \`${rule.name}\` does not let \`${principal}\` sign \`${path}\``,
        hint,
      };
  }
  return undefined;
}
