import { count, type TrustPolicy } from '../model/index.ts';
import type { KeyDescription } from './describe-keys.ts';

/** Something in a policy that is valid but surprising. */
export type LintFinding = {
  readonly severity: 'error' | 'warning';
  readonly code: string;
  readonly message: string;
  readonly hint: string;
};

const SOON_MS = 30 * 86_400_000;

/**
 * Returns findings a reviewer of the policy should look at. Errors are rules that can never be met, or that one person
 * can meet alone.
 */
export function lintPolicy(
  { spec }: TrustPolicy,
  keys: readonly KeyDescription[],
  now: number,
): readonly LintFinding[] {
  const groups = new Map(spec.groups.map((g) => [g.name, g.members]));
  const kinds = new Map(spec.principals.map((p) => [p.name, p.kind]));
  const members = (names: readonly string[]) => [...new Set(names.flatMap((n) => groups.get(n) ?? [n]))];
  const findings: LintFinding[] = [];
  const find = (severity: LintFinding['severity'], code: string, message: string, hint: string) =>
    findings.push({ severity, code, message, hint });
  for (const rule of spec.rules) {
    const { required, from } = rule.approvals;
    const people = members(from).filter((p) => kinds.get(p) === 'person');
    const signers = members(rule.signers);
    if (required > people.length)
      find(
        'error',
        'approvals-out-of-reach',
        `rule \`${rule.name}\` needs ${count(required, 'approval')}, ` +
          `but only ${people.length} of those named are people`,
        'name more people, or lower `required`',
      );
    else if (required > 0 && signers.every((s) => people.filter((p) => p !== s).length < required))
      find(
        'error',
        'approvals-out-of-reach',
        `rule \`${rule.name}\`: for any signer, too few other people are left to approve`,
        'no one approves their own change: name one more person',
      );
    else if (signers.some((s) => people.includes(s) && people.length - 1 < required))
      find(
        'warning',
        'approvals-tight',
        `rule \`${rule.name}\`: changes by ${signers
          .filter((s) => people.includes(s))
          .map((s) => `\`${s}\``)
          .join(', ')} need everyone else`,
        'name one approver more than required',
      );
    if (required === 0)
      find(
        'warning',
        'no-approval',
        `rule \`${rule.name}\` lets one person make changes alone`,
        'set `approvals.required` to 1 or more',
      );
    for (const p of signers.filter((s) => kinds.get(s) === 'platform'))
      find(
        'warning',
        'platform-signs',
        `rule \`${rule.name}\` accepts commits signed by the platform \`${p}\`, which signs for any of its users`,
        'its merges are checked; anything else should need an approval',
      );
    for (const p of members(from).filter((m) => kinds.get(m) !== 'person' && kinds.has(m)))
      find(
        'warning',
        'approver-no-person',
        `rule \`${rule.name}\` names \`${p}\` as approver, which is not a person and never counts`,
        'take it out',
      );
    if (rule.approvals.forgeReviews === 'whole')
      find(
        'warning',
        'forge-reviews-whole',
        `rule \`${rule.name}\` counts a forge review like a person’s signature`,
        'set `forgeReviews: half`',
      );
  }
  const { roots } = spec;
  if (roots !== undefined && members(roots.members).length <= roots.threshold)
    find(
      'warning',
      'roots-tight',
      `a root who changes the policy leaves only ${members(roots.members).length - 1} to approve, ` +
        `but ${roots.threshold} must`,
      'name one more root',
    );
  const byNumber = keys.filter((k) => k.role !== 'authority');
  for (const p of spec.principals) {
    const own = byNumber.filter((k) => k.principal === p.name);
    if (
      own.length === 0 &&
      spec.certificateAuthorities.length === 0 &&
      spec.allowedSigners === undefined &&
      p.forgeAccounts.length === 0
    )
      find(
        'warning',
        'no-key',
        `\`${p.name}\` has no key, so nothing can be attributed to them`,
        'add a key, or remove the principal',
      );
    if (p.kind === 'person' && p.emails.length === 0)
      find(
        'warning',
        'no-address',
        `\`${p.name}\` has no \`emails\`, so commits written under their name do not stop them from approving`,
        'list every address they commit under',
      );
  }
  for (const k of keys) {
    const what = `the ${k.role} ${k.fingerprint || '(unreadable)'} of \`${k.principal}\``;
    if (k.problem !== undefined)
      find(
        k.role === 'allowed signer' ? 'warning' : 'error',
        'key-problem',
        `${what}: ${k.problem}`,
        'correct the key',
      );
    const ends = k.validBefore === undefined ? undefined : Date.parse(k.validBefore);
    if (k.revoked === undefined && ends !== undefined && ends <= now)
      find(
        'warning',
        'key-ended',
        `${what} expired ${k.validBefore ?? ''}`,
        'renew it; keep it listed for commits seen before',
      );
    else if (ends !== undefined && ends - now < SOON_MS)
      find('warning', 'key-ends-soon', `${what} expires ${k.validBefore ?? ''}`, 'renew it now');
    if (k.type === 'ssh-rsa' && (k.bits ?? 0) < spec.algorithms.minimumRsaBits)
      find(
        'error',
        'key-weak',
        `${what} has ${k.bits ?? 0} bits; the policy requires ${spec.algorithms.minimumRsaBits}`,
        'create an ed25519 key',
      );
  }
  return findings;
}
