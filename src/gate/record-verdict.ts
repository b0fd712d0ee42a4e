import { type EntryBody, isNoRevision, type Recorded, type Verdict } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';
import { withoutNames } from './without-names.ts';

/**
 * Records a verdict, and everything new since the previous verdict: commits verified or refused, approvals, changed
 * rules, waivers used. Returns the entry of the verdict itself.
 */
export async function recordVerdict(
  ledger: Recorder & LedgerView,
  verdict: Verdict,
  violations: number,
): Promise<Recorded> {
  const { environment, from, to, tree, outcome } = verdict;
  const last = ledger.latest(['change.judged'], environment);
  const before = last === undefined ? undefined : (ledger.evidence(last.entry.evidence) as Verdict);
  const details = [...newCommits(verdict, before), ...newApprovals(verdict, before), ...newRules(verdict, before)];
  const evidence = ledger.asEvidence(withoutNames(verdict, ledger));
  const judged: EntryBody = {
    type: 'change.judged',
    environment,
    from,
    to,
    tree,
    outcome,
    violations,
    evidence: evidence.ref,
  };
  // Submitted together, they share a commit: either all are recorded, or none.
  const detailed = details.map((body) => ledger.record(body, []));
  const [recorded] = await Promise.all([ledger.record(judged, [evidence]), ...detailed]);
  const after = [...newWaivers(verdict, before, recorded.index), ...rollback(verdict, recorded.index)];
  await Promise.all(after.map((body) => ledger.record(body, [])));
  return recorded;
}

function newCommits({ environment, commits }: Verdict, before: Verdict | undefined): EntryBody[] {
  const known = new Map((before?.commits ?? []).map((c) => [c.commit, c.code]));
  return commits
    .filter((c) => known.get(c.commit) !== c.code)
    .map(
      ({ commit, outcome, code, payload, signer, key, format }): EntryBody =>
        outcome === 'verified' && signer !== undefined
          ? {
              type: 'commit.verified',
              environment,
              commit,
              principal: signer.principal,
              key: key ?? signer.key,
              format: format ?? '',
              payload,
            }
          : { type: 'commit.refused', environment, commit, code, payload },
    );
}

function newApprovals({ environment, approvals }: Verdict, before: Verdict | undefined): EntryBody[] {
  const known = new Set((before?.approvals ?? []).map((a) => a.envelope));
  return approvals
    .filter((a) => !known.has(a.envelope))
    .map(
      ({ commit, tree, principal, key, class: evidenceClass, envelope }): EntryBody => ({
        type: 'approval.recorded',
        environment,
        commit,
        tree,
        principal,
        key,
        class: evidenceClass,
        envelope,
      }),
    );
}

function newRules({ environment, consulted }: Verdict, before: Verdict | undefined): EntryBody[] {
  const was = before?.consulted.bundleDigest ?? '';
  const is = consulted.bundleDigest;
  return was === is || is === '' ? [] : [{ type: 'policy.changed', environment, before: was, after: is }];
}

function newWaivers({ environment, waived = [] }: Verdict, before: Verdict | undefined, verdict: number): EntryBody[] {
  const key = (rule: string | undefined, waiver: string) => `${rule} ${waiver}`;
  const known = new Set(
    (before?.waived ?? []).flatMap((v) => (v.waived === undefined ? [] : [key(v.rule, v.waived.waiver)])),
  );
  return waived.flatMap(({ rule = '', waived: by }): EntryBody[] => {
    if (by === undefined || known.has(key(rule, by.waiver))) return [];
    known.add(key(rule, by.waiver));
    return [
      { type: 'waiver.used', environment, verdict, rule, waiver: by.waiver, approver: by.approver, until: by.until },
    ];
  });
}

function rollback({ environment, from, to, outcome, rollback: isRollback }: Verdict, verdict: number): EntryBody[] {
  return isRollback === true && outcome === 'allowed' && !isNoRevision(from)
    ? [{ type: 'rollback.allowed', environment, from, to, verdict }]
    : [];
}
