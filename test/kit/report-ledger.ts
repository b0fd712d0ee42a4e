import { evidenceRef, type Ledger } from '../../src/ledger/index.ts';
import { NO_REVISION, type Recorded, sha256, type Verdict, type Violation } from '../../src/model/index.ts';

export type ChangeOptions = {
  readonly environment?: string;
  readonly outcome?: 'allowed' | 'denied';
  readonly subject?: string;
  readonly author?: string;
  readonly violations?: readonly Violation[];
  readonly waived?: readonly Violation[];
  readonly approvals?: Verdict['approvals'];
  /** Only the verdict, no deployment. */
  readonly applied?: boolean;
  readonly from?: string;
};

/** A commit id for a number. */
export function commitId(n: number | string): string {
  return sha256(`commit ${n}`).slice(0, 40);
}

/** Records a change as the service does: verdict, intent and result. Gives the entry of the verdict. */
export async function recordChange(ledger: Ledger, to: string, o: ChangeOptions = {}): Promise<Recorded> {
  const {
    environment = 'production',
    outcome = 'allowed',
    author = ledger.subject('Dana Example <dana@example.com>'),
    from = NO_REVISION,
  } = o;
  const verdict: Verdict = {
    outcome,
    environment,
    from,
    to,
    tree: sha256(`tree ${to}`).slice(0, 40),
    commits: [
      {
        commit: to,
        subject: o.subject ?? `web: change ${to.slice(0, 6)} (CHG-${Number.parseInt(to.slice(0, 4), 16)})`,
        author,
        committer: author,
        committedAt: Math.floor(Date.now() / 1000) - 7200,
        ...outcomeOf(outcome === 'allowed' ? undefined : o.violations?.find((v) => v.commit === to)),
        reason: '',
        format: 'ssh',
        key: 'SHA256:uZ1qmSbVb9xW5yqj2q8XcT0E6QcN0aWbq2dQz1mYw3o',
        signer: { principal: 'dana', kind: 'person', key: 'SHA256:uZ1qmSbVb9xW5yqj2q8XcT0E6QcN0aWbq2dQz1mYw3o' },
        seen: new Date(Date.now() - 3_600_000).toISOString(),
        basis: 'ledger',
        payload: sha256(to),
      },
    ],
    approvals:
      o.approvals ??
      (outcome === 'denied'
        ? []
        : [
            {
              principal: 'lee',
              key: 'SHA256:3bV0fJ8m1mYw3oq2dQz1uZ1qmSbVb9xW5yqj2q8XcT0',
              from,
              commit: to,
              tree: '',
              issuedAt: new Date(Date.now() - 1_800_000).toISOString(),
              reason: 'reviewed',
              envelope: sha256(`envelope ${to}`),
              class: 'A',
              match: 'exact',
            },
          ]),
    violations: o.violations ?? [],
    warnings: [],
    ...(o.waived === undefined ? {} : { waived: o.waived }),
    objects: 12,
    consulted: { trustDigest: sha256('trust'), bundleDigest: sha256('bundle'), time: 'ledger' },
  };
  const evidence = evidenceRef(verdict);
  const judged = await ledger.record(
    {
      type: 'change.judged',
      environment,
      from,
      to,
      tree: verdict.tree,
      outcome,
      violations: verdict.violations.length,
      evidence: evidence.ref,
    },
    [evidence],
  );
  if (outcome === 'denied' || o.applied === false) return judged;
  const plan = evidenceRef({ objects: [], prune: [], to });
  const intent = await ledger.record(
    {
      type: 'apply.intent',
      environment,
      revision: to,
      previous: from,
      verdict: judged.index,
      purpose: 'apply',
      evidence: plan.ref,
    },
    [plan],
  );
  await ledger.record(
    {
      type: 'apply.result',
      environment,
      intent: intent.index,
      revision: to,
      outcome: 'applied',
      applied: 3,
      pruned: 0,
      healthy: true,
      evidence: plan.ref,
    },
    [],
  );
  return judged;
}

function outcomeOf(violation: Violation | undefined) {
  return violation === undefined
    ? ({ outcome: 'verified', code: 'verified' } as const)
    : ({ outcome: 'refused', code: violation.code } as const);
}
