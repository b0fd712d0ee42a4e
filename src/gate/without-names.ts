import type { CommitVerdict, Verdict, Violation } from '../model/index.ts';
import type { Recorder } from './ports.ts';

/**
 * Returns a verdict with commitments in place of names and addresses of people: commit authors, and those in messages.
 * Principals stay, because we chose their names. The ledger keeps the texts where they can be erased, and restores them
 * when it is read.
 */
export function withoutNames(verdict: Verdict, { subject }: Pick<Recorder, 'subject'>): Verdict {
  const hide = (text: string) => text.replaceAll(ADDRESS, (address) => subject(address));
  const ofViolation = (v: Violation): Violation => ({
    ...v,
    message: hide(v.message),
    ...(v.hint === undefined ? {} : { hint: hide(v.hint) }),
  });
  const ofCommit = (c: CommitVerdict): CommitVerdict => ({
    ...c,
    author: subject(c.author),
    committer: subject(c.committer),
    reason: hide(c.reason),
    ...(c.hint === undefined ? {} : { hint: hide(c.hint) }),
    ...(c.certificate === undefined ? {} : { certificate: { ...c.certificate, name: subject(c.certificate.name) } }),
  });
  return {
    ...verdict,
    commits: verdict.commits.map(ofCommit),
    violations: verdict.violations.map(ofViolation),
    warnings: verdict.warnings.map(ofViolation),
    ...(verdict.waived === undefined ? {} : { waived: verdict.waived.map(ofViolation) }),
  };
}

const ADDRESS = /[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+/gu;

/** Does the same with the addresses of a TrustPolicy's principals. */
export function withoutAddresses<
  T extends { readonly spec: { readonly principals: readonly { readonly emails: readonly string[] }[] } },
>(policy: T, { subject }: Pick<Recorder, 'subject'>): T {
  return {
    ...policy,
    spec: { ...policy.spec, principals: policy.spec.principals.map((p) => ({ ...p, emails: p.emails.map(subject) })) },
  };
}
