import type { ViolationCode } from '../model/index.ts';
import {
  type Approval,
  type Change,
  type CommitFacts,
  type CommitVerdict,
  type Moment,
  NO_REVISION,
  type PathChange,
  type VerifiedChange,
  type Violation,
} from '../model/index.ts';
import { type ApprovalStep, judgeApprovals } from './judge-approvals.ts';
import { aboutCommit, judgeCommit, type RuleScope, rulesForAnyPath } from './judge-commit.ts';
import { readStatements, type Statements, type StoredEnvelope } from './read-statements.ts';
import type { TrustStore } from './trust-store.ts';

/** Returns the paths that differ between two commits. */
type DiffTrees = (from: string, to: string) => Promise<readonly PathChange[]>;

/**
 * Returns the content of a merge that an automatic merge of its parents does not produce; nothing for an honest merge.
 */
type MergeAdds = (merge: Pick<CommitFacts, 'id' | 'tree' | 'parents'>) => Promise<readonly string[]>;

/**
 * A TrustPolicy kept in the repository: its version at a commit as an opened store, or undefined if the file is absent.
 * `begun` means that it is already in force.
 */
type TrustLine = {
  readonly path: string;
  readonly begun: boolean;
  readonly at: (commit: string) => Promise<TrustStore | undefined>;
};

/** Inputs for verifying a change, besides its commits and the TrustPolicy in force at its start. */
export type ChangeSources = {
  readonly diff: DiffTrees;
  readonly mergeAdds: MergeAdds;
  readonly isAncestor: (ancestor: string, descendant: string) => Promise<boolean>;
  /** Returns stored approvals filed for a tree that the filter accepts. */
  readonly approvals: (wanted: (tree: string) => boolean) => Promise<readonly StoredEnvelope[]>;
  /** Returns when a commit was first seen. */
  readonly moment: (facts: CommitFacts) => Moment;
  /** Examines commits again with other keys. */
  readonly examine: (ids: readonly string[], store: TrustStore) => Promise<readonly CommitFacts[]>;
  readonly trustLine?: TrustLine | undefined;
  /** Committer time of the start of the change, seconds since 1970. */
  readonly startedAt?: number | undefined;
  /** Stop at the first commit without a trusted signature, instead of collecting every reason. */
  readonly onlyTrusted?: boolean;
  readonly now: number;
};

/**
 * The outcome: a change that may be judged further, or the reasons against it. Either way it has the verdict on every
 * commit.
 */
export type ChangeVerification = {
  readonly commits: readonly CommitVerdict[];
  readonly warnings: readonly Violation[];
} & (
  | { readonly kind: 'verified'; readonly change: VerifiedChange; readonly trustAfter: TrustStore }
  | { readonly kind: 'refused'; readonly violations: readonly Violation[]; readonly approvals: readonly Approval[] }
);

/**
 * The first-parent line of a change. Position 0 is its start; every other commit belongs to the position that brought
 * it in.
 */
type Line = {
  readonly ids: readonly string[];
  readonly trees: readonly string[];
  readonly members: readonly (readonly CommitFacts[])[];
  /** The TrustPolicy in force from a position on. */
  readonly stores: readonly TrustStore[];
};

const MAX_TOLD = 100; // refused commits listed individually; the verdict has the total count

/**
 * Verifies every commit of the change, then that enough people who did not make it approved each step. With
 * `onlyTrusted`, it stops at the first step with a commit that has no trusted signature. That step's TrustPolicy and
 * approvals are then not read.
 */
export async function verifyChange(
  change: Change,
  store: TrustStore,
  sources: ChangeSources,
): Promise<ChangeVerification> {
  const violations: Violation[] = [];
  const { line, commits, isTrusted } = await followLine(layOut(change), change, store, sources, violations);
  const refused = commits.filter((v) => v.outcome === 'refused');
  violations.push(...refused.slice(0, MAX_TOLD).map(toViolation));
  const warnings = commits.flatMap(mergeWarning);
  if (sources.onlyTrusted === true && !isTrusted)
    return { kind: 'refused', violations, commits, warnings, approvals: [] };
  const envelopes = await sources.approvals(wantedTrees(line, store));
  const statements = new Map<TrustStore, Statements>();
  for (const inForce of new Set(line.stores))
    statements.set(inForce, await readStatements(change, inForce, envelopes, sources.now));
  const verdicts = new Map(commits.map((v) => [v.commit, v]));
  const approved = await judgeApprovals(stepsOf(change, line, verdicts, statements, sources), sources);
  violations.push(...approved.violations);
  if (violations.length > 0) {
    const here = new Set([...line.ids, ...line.trees]);
    const heard = (statements.get(store)?.heard ?? []).filter(
      (s) => s.decision === 'approve' && (here.has(s.binding.headID) || here.has(s.binding.targetID)),
    );
    return {
      kind: 'refused',
      violations,
      commits,
      warnings,
      approvals: heard.map((s) => ({ ...s.approval, match: 'exact' })),
    };
  }
  return {
    kind: 'verified',
    change: { ...change, approvals: approved.used } as unknown as VerifiedChange,
    trustAfter: line.stores.at(-1) ?? store,
    commits,
    warnings,
  };
}

// Only start and end, if they are not on one first-parent line, as after an approved rollback.
function layOut(change: Change): Line {
  const byId = new Map(change.commits.map((c) => [c.id, c]));
  const line: { id: string; tree: string }[] = [];
  let at: string | undefined = change.to;
  while (at !== undefined && byId.has(at)) {
    const facts = byId.get(at) as CommitFacts;
    line.push({ id: facts.id, tree: facts.tree });
    at = facts.parents[0];
  }
  line.reverse();
  const onLine = (at ?? NO_REVISION) === change.from;
  const steps = onLine && !change.rollback ? line : [{ id: change.to, tree: line.at(-1)?.tree ?? change.tree }];
  const position = new Map<string, number>();
  for (const [i, { id }] of steps.entries()) {
    const stack = [id];
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const facts = byId.get(next);
      if (facts === undefined || position.has(next)) continue;
      position.set(next, i + 1);
      stack.push(...facts.parents);
    }
  }
  const members: CommitFacts[][] = Array.from({ length: steps.length + 1 }, () => []);
  // oldest first, as received
  for (const facts of change.commits) members[position.get(facts.id) ?? steps.length]?.push(facts);
  return {
    ids: [change.from, ...steps.map((s) => s.id)],
    trees: ['', ...steps.map((s) => s.tree)],
    members,
    stores: [],
  };
}

type Followed = {
  readonly line: Line;
  readonly commits: readonly CommitVerdict[];
  /** Every examined commit has a trusted signature. */
  readonly isTrusted: boolean;
};

// The policy at a position judges the commits after it. If it changed, later commits are examined again with the new
// keys. A position's policy is read once its commits are verified.
async function followLine(
  line: Line,
  change: Change,
  store: TrustStore,
  sources: ChangeSources,
  violations: Violation[],
): Promise<Followed> {
  const stores = [store];
  const members: (readonly CommitFacts[])[] = [];
  const commits: CommitVerdict[] = [];
  const times = new Map(change.commits.map((c) => [c.id, c.committer.time]));
  if (sources.startedAt !== undefined) times.set(change.from, sources.startedAt);
  let hasPolicy = sources.trustLine?.begun === true;
  let isTrusted = true;
  for (const [position, brought] of line.members.entries()) {
    const id = line.ids[position] ?? '';
    const inForce = stores[position - 1] ?? store;
    const ids = brought.map((c) => c.id);
    const examined = inForce.digest === store.digest ? brought : await sources.examine(ids, inForce);
    members.push(examined);
    const first = commits.length;
    for (const facts of examined) {
      const verdict = await verifyOne(facts, change, inForce, sources, times, id === facts.id);
      commits.push(line.ids.length > 2 ? { ...verdict, step: position } : verdict);
    }
    acceptMerged(id, examined, commits, inForce);
    isTrusted &&= commits.slice(first).every((v) => v.outcome === 'verified');
    if (!isTrusted && sources.onlyTrusted === true) break;
    if (position === 0 || sources.trustLine === undefined) {
      if (position > 0) stores.push(inForce);
      continue;
    }
    const brings = await policyAt(id, sources.trustLine);
    if (brings.kind === 'unusable') violations.push(brings.violation);
    if (brings.kind === 'none' && hasPolicy) violations.push(removedAt(id, sources.trustLine));
    hasPolicy ||= brings.kind === 'policy';
    stores.push(brings.kind === 'policy' && brings.store.digest !== inForce.digest ? brings.store : inForce);
  }
  return { line: { ...line, members, stores }, commits, isTrusted };
}

type Brought =
  | { readonly kind: 'policy'; readonly store: TrustStore }
  | { readonly kind: 'none' }
  | { readonly kind: 'unusable'; readonly violation: Violation };

// Returns the TrustPolicy at a commit of the line.
async function policyAt(id: string, { path, at }: TrustLine): Promise<Brought> {
  try {
    const store = await at(id);
    return store === undefined ? { kind: 'none' } : { kind: 'policy', store };
  } catch (thrown) {
    return {
      kind: 'unusable',
      violation: {
        code: 'trust-unusable',
        message: `the TrustPolicy at \`${path}\` of ${id.slice(0, 12)} cannot be used: ${(thrown as Error).message}`,
        commit: id,
        hint: 'check it with `countersign trust lint`',
      },
    };
  }
}

function removedAt(id: string, { path }: TrustLine): Violation {
  return {
    code: 'trust-removed',
    message: `${id.slice(0, 12)} removes the TrustPolicy at \`${path}\`, which is in force`,
    commit: id,
    hint: 'restore it; to keep it elsewhere, change `spec.trustPath` of the Environment',
  };
}

async function verifyOne(
  facts: CommitFacts,
  change: Change,
  store: TrustStore,
  sources: ChangeSources,
  times: ReadonlyMap<string, number>,
  onLine: boolean,
): Promise<CommitVerdict> {
  const scope = scopeOf(change);
  const parents = facts.parents.map((p) => times.get(p)).filter((t) => t !== undefined);
  const verdict = await judgeCommit(facts, store, {
    ...scope,
    paths:
      rulesForAnyPath(store.policy, scope) === undefined
        ? await sources.diff(facts.parents[0] ?? NO_REVISION, facts.id)
        : ANY_PATH,
    moment: sources.moment(facts),
    notBefore: parents.length === 0 ? undefined : Math.max(...parents),
  });
  return verdict.outcome === 'verified' && facts.parents.length > 1
    ? judgeMerge(facts, verdict, sources, onLine)
    : verdict;
}

// Every rule of the branch applies to all paths, so the paths of a commit do not matter.
const ANY_PATH: readonly PathChange[] = [{ path: '**', before: undefined, after: undefined }];

// A forge merges for anyone who presses the button, so its merge must contain nothing that the parents lack.
async function judgeMerge(
  facts: CommitFacts,
  verdict: CommitVerdict,
  sources: ChangeSources,
  onLine: boolean,
): Promise<CommitVerdict> {
  const adds = await sources.mergeAdds(facts);
  if (adds.length === 0) return verdict;
  const mergeAdds = adds.slice(0, 50);
  if (verdict.signer?.kind !== 'platform') return { ...verdict, mergeAdds };
  return {
    ...verdict,
    mergeAdds,
    outcome: 'refused',
    code: 'evil-merge',
    reason: `\`${verdict.signer.principal}\` signed a merge with content that neither parent has, in ${adds
      .slice(0, 3)
      .map((p) => `\`${p}\``)
      .join(', ')}`,
    hint: onLine
      ? 'resolve conflicts in a commit that a person signs, then merge that'
      : 'have a person sign the merge again',
  };
}

// Under `history: merged`, a person's signed merge vouches for unsigned commits that only it brought in. The approval
// of the merge's tree is required below. An invalid signature is never accepted this way.
function acceptMerged(
  mergeId: string,
  members: readonly CommitFacts[],
  commits: CommitVerdict[],
  store: TrustStore,
): void {
  if (store.policy.spec.history !== 'merged') return;
  const from = commits.length - members.length;
  const merge = commits.slice(from).find((v) => v.commit === mergeId);
  if (merge?.outcome !== 'verified' || merge.signer?.kind !== 'person') return;
  for (let i = from; i < commits.length; i++) {
    const verdict = commits[i] as CommitVerdict;
    if (verdict.code !== 'unsigned' || verdict.commit === mergeId) continue;
    const { hint: _, ...rest } = verdict;
    commits[i] = {
      ...rest,
      outcome: 'verified',
      code: 'merged',
      reason: `unsigned; \`${merge.signer.principal}\` answers for it by the merge ${mergeId.slice(0, 12)}`,
    };
  }
}

function stepsOf(
  change: Change,
  line: Line,
  verdicts: ReadonlyMap<string, CommitVerdict>,
  statements: ReadonlyMap<TrustStore, Statements>,
  sources: ChangeSources,
): ApprovalStep {
  const unsignedBy = (members: readonly CommitFacts[]): 'platform' | 'merged' | undefined => {
    const platform = members.some((m) => m.parents.length < 2 && verdicts.get(m.id)?.signer?.kind === 'platform');
    return platform ? 'platform' : members.some((m) => verdicts.get(m.id)?.code === 'merged') ? 'merged' : undefined;
  };
  return {
    change,
    scope: scopeOf(change),
    ids: line.ids,
    trees: line.trees,
    stores: line.stores,
    statements,
    trustPath: sources.trustLine?.path,
    unsignedBy: line.members.map(unsignedBy),
    makersAt: (position) =>
      makersOf(line.members[position] ?? [], line.stores[position - 1] ?? (line.stores[0] as TrustStore), verdicts),
  };
}

// Returns everyone who contributed, by key and by every address written in the commits.
function makersOf(
  commits: readonly CommitFacts[],
  store: TrustStore,
  verdicts: ReadonlyMap<string, CommitVerdict>,
): ReadonlySet<string> {
  const makers = new Set<string>();
  for (const facts of commits) {
    const signer = verdicts.get(facts.id)?.signer;
    if (signer !== undefined) makers.add(signer.principal);
    for (const email of [facts.author.email.toLowerCase(), facts.committer.email.toLowerCase(), ...facts.coAuthors]) {
      const principal = store.byEmail.get(email);
      if (principal !== undefined) makers.add(principal);
    }
  }
  return makers;
}

// An approval is filed under the tree it is for. If a rule accepts equivalent ones, any may be useful.
function wantedTrees(line: Line, store: TrustStore): (tree: string) => boolean {
  const trees = new Set(line.trees);
  const any = [store, ...line.stores].some((s) => s.policy.spec.rules.some((r) => r.approvals.equivalent));
  return (tree) => any || trees.has(tree);
}

function toViolation(v: CommitVerdict & { readonly outcome: 'refused' }): Violation {
  return {
    code: v.code,
    message: `commit ${v.commit.slice(0, 12)} \`${v.subject}\`: ${v.reason}`,
    commit: v.commit,
    ...(v.hint === undefined ? {} : { hint: v.hint }),
  };
}

function mergeWarning(v: CommitVerdict): Violation[] {
  if (v.mergeAdds === undefined || v.outcome === 'refused') return [];
  return [
    {
      code: 'merge-adds',
      message: `the merge ${v.commit.slice(0, 12)} has content that neither parent has, in ${v.mergeAdds
        .slice(0, 5)
        .map((p) => `\`${p}\``)
        .join(', ')}; \`${v.signer?.principal ?? ''}\` answers for it`,
      commit: v.commit,
      hint: 'review it like a separate change: `git show --remerge-diff`',
    },
  ];
}

function scopeOf(change: Change): RuleScope {
  return { environment: change.environment, branch: change.ref.replace(/^refs\/heads\//, '') };
}

/** Returns a verdict for a commit that cannot be parsed. */
export function malformedVerdict(
  item: { id: string; code: ViolationCode; reason: string },
  moment: Moment,
): CommitVerdict {
  const unknown = { name: '', email: '', time: 0 };
  const facts: CommitFacts = {
    id: item.id,
    tree: '',
    parents: [],
    author: unknown,
    committer: unknown,
    subject: '',
    coAuthors: [],
    allows: [],
    payload: '',
    signature: { kind: 'none' },
    mergeTags: [],
  };
  return {
    ...aboutCommit(facts, moment),
    author: '',
    committer: '',
    outcome: 'refused',
    code: item.code,
    reason: item.reason,
    hint: 'rewrite it with standard git',
  };
}
