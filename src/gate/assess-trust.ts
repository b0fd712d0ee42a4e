import {
  type Change,
  type CommitVerdict,
  isNoRevision,
  type Verdict,
  type VerifiedChange,
  type Violation,
  type ViolationCode,
} from '../model/index.ts';
import {
  examineCommits,
  examineHistory,
  type HistorySource,
  malformedVerdict,
  type TrustStore,
  verifyChange,
} from '../trust/index.ts';
import { momentsOf, recordSeen } from './first-seen.ts';
import type { Gate } from './gate.ts';
import type { LedgerView, Recorder } from './ports.ts';
import { trustInForce } from './trust-in-force.ts';
import { withoutAddresses } from './without-names.ts';

const MAX_COMMITS = 100_000; // per change; each is kept in some hundred bytes, and named on the ledger

/** Returns the ledger to judge with: the one that is written, or a past state of it. */
export function ledgerOf(gate: Pick<Gate, 'recorder' | 'past'>): LedgerView | undefined {
  return gate.recorder ?? gate.past;
}

/** Result of checking the signatures and approvals of a change, before anything is rendered. */
export type TrustAssessment = {
  /** Set only if there are no violations. */
  readonly change: VerifiedChange | undefined;
  readonly commits: readonly CommitVerdict[];
  readonly approvals: Verdict['approvals'];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly rollback: boolean;
  /** The TrustPolicy in force at the start of the change, and at its end. */
  readonly store: TrustStore;
  readonly storeAfter: TrustStore;
};

/** The parts of a gate used before anything is rendered. */
type TrustParts = Omit<Gate, 'rules' | 'openWaiver' | 'make' | 'read' | 'turns'>;

/**
 * Judges every commit and approval of `from..to`; commits seen for the first time are recorded on the ledger before
 * that.
 */
export async function assessTrust(gate: TrustParts, from: string, to: string, tree: string): Promise<TrustAssessment> {
  const { environment, repository, recorder } = gate;
  const started = !isNoRevision(from);
  const { store, line } = await trustInForce({ ...gate, ledger: ledgerOf(gate) }, from, started);
  const descends = !started || (await repository.isAncestor(from, to));
  const source: HistorySource = { ids: repository.commitIds, read: repository.commits };
  const ref = `refs/heads/${environment.spec.source.branch}`;
  const { facts, malformed, isTooLong } = await examineAll(gate, source, from, to, store);
  if (isTooLong)
    return {
      change: undefined,
      commits: [],
      approvals: [],
      violations: [tooLong(from, to)],
      warnings: [],
      rollback: false,
      store,
      storeAfter: store,
    };
  if (recorder !== undefined)
    await see(
      gate,
      recorder,
      ref,
      { from, to },
      [...facts, ...malformed].map((c) => c.id),
    );
  const now = gate.clock().getTime();
  const moment = momentsOf(ledgerOf(gate), environment.metadata.name, now);
  const about = { environment: environment.metadata.name, repository: environment.spec.source.url, ref };
  const change: Change = { ...about, from, to, tree, commits: facts, rollback: !descends };
  const result = await verifyChange(change, store, {
    diff: repository.diff,
    mergeAdds: repository.mergeAdds,
    isAncestor: repository.isAncestor,
    approvals: (wanted) => repository.approvals(ref, wanted),
    moment,
    examine: async (ids, other) =>
      (await examineCommits(source, ids, other)).flatMap((e) => (e.kind === 'facts' ? e.facts : [])),
    trustLine: line,
    startedAt: await repository.time(from),
    onlyTrusted: gate.untrusted === 'refused',
    now,
  });
  const refused = result.kind === 'refused' ? result.violations : [];
  const violations = [
    ...malformed.map(malformedViolation),
    ...(descends ? refused : refusedRollback(from, to, refused)),
  ];
  return {
    change: result.kind === 'verified' && malformed.length === 0 ? result.change : undefined,
    commits: [...result.commits, ...malformed.map((m) => malformedVerdict(m, moment(m)))],
    approvals: result.kind === 'verified' ? result.change.approvals : result.approvals,
    violations,
    warnings: result.warnings,
    rollback: !descends && result.kind === 'verified',
    store,
    storeAfter: result.kind === 'verified' ? result.trustAfter : store,
  };
}

// Records the seal, if history begins with one, and every commit by its id, before anything is judged.
async function see(
  gate: TrustParts,
  recorder: Recorder & LedgerView,
  ref: string,
  { from, to }: { from: string; to: string },
  ids: readonly string[],
): Promise<void> {
  const environment = gate.environment.metadata.name;
  const { baseline } = gate.environment.spec.source;
  if (baseline === from && recorder.latest(['history.sealed'], environment)?.entry.commit !== from)
    await recorder.record(
      { type: 'history.sealed', environment, ref, commit: from, tree: await gate.repository.tree(from) },
      [],
    );
  await recordSeen(recorder, { environment, ref, tip: to }, ids);
}

// The history of the last check is reused if this one only continues it.
async function examineAll(
  { repository, known }: TrustParts,
  source: HistorySource,
  from: string,
  to: string,
  store: TrustStore,
) {
  const last = known?.last(store, from);
  const goesOn = last !== undefined && (await repository.isAncestor(last.to, to));
  const examined = goesOn ? [...last.examined] : [];
  for await (const one of examineHistory(source, { from: goesOn ? last.to : from, to }, store)) {
    examined.push(one);
    if (examined.length > MAX_COMMITS) return { facts: [], malformed: [], isTooLong: true };
  }
  known?.keep(store, { from, to }, examined);
  return {
    facts: examined.flatMap((e) => (e.kind === 'facts' ? e.facts : [])),
    malformed: examined.flatMap((e) => (e.kind === 'malformed' ? e : [])),
    isTooLong: false,
  };
}

function tooLong(from: string, to: string): Violation {
  return {
    code: 'change-too-long',
    message:
      `more than ${MAX_COMMITS} commits lie between ${from.slice(0, 12)} ` +
      `and ${to.slice(0, 12)}, the limit for one change`,
    commit: to,
    hint:
      'for a repository with a long history, ' +
      'set `spec.source.baseline` to the first commit that the gate should judge',
  };
}

// Going back is a change like any other, but no one signed it: only approvals that say so allow it.
function refusedRollback(from: string, to: string, refused: readonly Violation[]): readonly Violation[] {
  if (refused.length === 0) return [];
  return [
    {
      code: 'not-a-descendant',
      message:
        `${to.slice(0, 12)} does not descend from ${from.slice(0, 12)}, ` +
        'which is applied: the branch was rewritten, and no rollback was approved',
      commit: to,
      hint:
        'restore the branch and undo changes with `git revert`; or approve going back: ' +
        `\`countersign approve ${to.slice(0, 12)} --base ${from.slice(0, 12)} --rollback\``,
    },
    ...refused.filter((v) => v.code !== 'approval-missing' && v.code !== 'approval-stale'),
  ];
}

export async function recordTrust(
  recorder: Recorder,
  verdict: Verdict,
  after: TrustStore,
  index: number,
): Promise<void> {
  const evidence = recorder.asEvidence(withoutAddresses(after.policy, recorder));
  await recorder.record(
    {
      type: 'trust.changed',
      environment: verdict.environment,
      revision: verdict.to,
      before: verdict.consulted.trustDigest,
      after: after.digest,
      verdict: index,
      evidence: evidence.ref,
    },
    [evidence],
  );
}

/** Returns the violation for a commit whose bytes are refused. */
export function malformedViolation(m: { id: string; code: ViolationCode; reason: string }): Violation {
  return {
    code: m.code,
    message: `commit ${m.id.slice(0, 12)} is refused: ${m.reason}`,
    commit: m.id,
    hint: 'rewrite it with standard git',
  };
}
