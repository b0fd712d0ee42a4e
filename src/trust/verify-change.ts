import {
  type Approval,
  type Change,
  type Commit,
  type CommitVerdict,
  NO_REVISION,
  type PathChange,
  type Step,
  type TrustPolicy,
  type VerifiedChange,
  type Violation,
} from '../model/index.ts';
import { type ApprovalStatement, changeDigest, readApproval, repositoryUri } from './approval.ts';
import type { TrustStore } from './trust-store.ts';
import { rulesFor, verifyCommit } from './verify-commit.ts';

/** An approval as it was found in the repository. */
export type StoredEnvelope = { readonly path: string; readonly text: string };

/** The paths that differ between two commits. */
export type DiffTrees = (from: string, to: string) => Promise<readonly PathChange[]>;

/** The outcome: a change that may be judged further, or the reasons it may not; with the verdict on every commit either way. */
export type ChangeVerification =
  | { readonly kind: 'verified'; readonly change: VerifiedChange; readonly commits: readonly CommitVerdict[] }
  | {
      readonly kind: 'refused';
      readonly violations: readonly Violation[];
      readonly commits: readonly CommitVerdict[];
      readonly approvals: readonly Approval[];
    };

type Counted = { readonly path: string; readonly approval: Approval; readonly statement: ApprovalStatement };
type Discarded = { readonly path: string; readonly code: string; readonly message: string };

/** Verifies every commit of the change, then that each step of it was approved by enough people who did not make it. */
export async function verifyChange(
  change: Change,
  store: TrustStore,
  envelopes: readonly StoredEnvelope[],
  diff: DiffTrees,
  at: number,
): Promise<ChangeVerification> {
  const branch = change.ref.replace(/^refs\/heads\//, '');
  const commits: CommitVerdict[] = [];
  for (const commit of change.commits) {
    commits.push(await verifyCommit(commit, store, { branch, paths: await diff(commit.parents[0] ?? NO_REVISION, commit.id), at }));
  }
  const violations: Violation[] = commits
    .filter((v) => v.outcome === 'refused')
    .map((v) => ({
      code: v.code,
      message: `commit ${v.commit.slice(0, 12)} \`${v.subject}\`: ${v.reason}`,
      commit: v.commit,
      ...(v.hint === undefined ? {} : { hint: v.hint }),
    }));
  const { counted, discarded } = await readApprovals(change, store, envelopes, at);
  const approved = await verifyApprovals(change, branch, store, counted, discarded, diff, commits);
  violations.push(...approved.violations);
  if (violations.length > 0)
    return {
      kind: 'refused',
      violations,
      commits,
      approvals: counted.map((c) => c.approval).filter((a) => change.commits.some((c) => c.id === a.commit || c.tree === a.tree)),
    };
  return { kind: 'verified', change: { ...change, approvals: approved.used } as unknown as VerifiedChange, commits };
}

// Approvals made for this repository, ref and environment; others are somebody else's and not worth a word.
async function readApprovals(
  change: Change,
  store: TrustStore,
  envelopes: readonly StoredEnvelope[],
  at: number,
): Promise<{ counted: Counted[]; discarded: Discarded[] }> {
  const counted: Counted[] = [];
  const discarded: Discarded[] = [];
  for (const envelope of envelopes) {
    const read = await readApproval(envelope.text, store, at);
    if (read.kind === 'refused') {
      discarded.push({
        path: envelope.path,
        code: read.code,
        message: `an approval (${envelope.path.split('/').at(-1)?.slice(0, 12)}) does not count: ${read.reason}`,
      });
      continue;
    }
    const { predicate, subject } = read.statement;
    const elsewhere =
      subject[0]?.uri !== repositoryUri(change.repository) ||
      predicate.targetRef !== change.ref ||
      (predicate.environments.length > 0 && !predicate.environments.includes(change.environment));
    if (elsewhere)
      discarded.push({
        path: envelope.path,
        code: 'approval-elsewhere',
        message: `\`${read.approval.principal}\`’s approval is for another repository, branch or environment`,
      });
    else counted.push({ ...read, path: envelope.path });
  }
  return { counted, discarded };
}

type Approved = { readonly used: readonly Approval[]; readonly violations: readonly Violation[] };

// A change of several pushes is approved when some chain of approved steps leads from its start to its end.
async function verifyApprovals(
  change: Change,
  branch: string,
  store: TrustStore,
  counted: readonly Counted[],
  discarded: readonly Discarded[],
  diff: DiffTrees,
  verdicts: readonly CommitVerdict[],
): Promise<Approved> {
  const line = firstParentLine(change);
  const reached = new Map<string, readonly Approval[]>([[change.from, []]]);
  let furthest = change.from;
  for (const [j, to] of line.entries()) {
    if (j === 0) continue;
    const starts = new Set([line[j - 1]?.id ?? '', ...counted.filter((c) => c.approval.tree === to.tree).map((c) => c.approval.from)]);
    for (const from of starts) {
      const before = reached.get(from);
      if (before === undefined) continue;
      const step: Step = { from, to: to.id, tree: to.tree, paths: await diff(from, to.id) };
      const { used, violations } = judgeStep(step, change, branch, store, counted, discarded, verdicts);
      if (violations.length > 0) continue;
      reached.set(to.id, [...before, ...used]);
      furthest = to.id;
      break;
    }
  }
  const used = reached.get(change.to);
  if (used !== undefined) return { used, violations: [] };
  const end = line.at(-1) as { id: string; tree: string };
  return {
    used: [],
    violations: judgeStep(
      { from: furthest, to: end.id, tree: end.tree, paths: await diff(furthest, end.id) },
      change,
      branch,
      store,
      counted,
      discarded,
      verdicts,
    ).violations,
  };
}

function judgeStep(
  step: Step,
  change: Change,
  branch: string,
  store: TrustStore,
  counted: readonly Counted[],
  discarded: readonly Discarded[],
  verdicts: readonly CommitVerdict[],
): Approved {
  const makers = makersOf(commitsBetween(change, step.from, step.to), store, verdicts);
  const fitting = counted.filter(
    (c) =>
      c.approval.from === step.from &&
      c.approval.tree === step.tree &&
      c.statement.predicate.changeDigest.sha256 === changeDigest(step.paths),
  );
  const others = fitting.filter((c) => !makers.has(c.approval.principal));
  const violations: Violation[] = [];
  const rules = new Set<TrustPolicy['spec']['rules'][number]>();
  for (const { path } of step.paths) {
    const covering = rulesFor(store.policy, branch, path);
    for (const rule of covering) rules.add(rule);
    if (covering.length === 0)
      violations.push({
        code: 'path-not-covered',
        message: `no rule of the TrustPolicy covers \`${path}\` on \`${branch}\``,
        hint: 'add a rule whose `paths` match it',
      });
  }
  for (const rule of rules) {
    const entitled = store.members(rule.approvals.from);
    const people = new Set(others.map((c) => c.approval.principal).filter((p) => entitled.has(p)));
    if (people.size >= rule.approvals.required) continue;
    violations.push(shortOfApprovals(rule, people, step, makers, fitting, counted, discarded));
  }
  return { used: others.map((c) => c.approval), violations };
}

function shortOfApprovals(
  rule: TrustPolicy['spec']['rules'][number],
  people: ReadonlySet<string>,
  step: Step,
  makers: ReadonlySet<string>,
  fitting: readonly Counted[],
  counted: readonly Counted[],
  discarded: readonly Discarded[],
): Violation {
  const { required, from } = rule.approvals;
  // Approvals of other changes stay in the repository for ever; only what was filed for this one, or names its commit, is worth a word.
  const here = `/${step.from}-${step.tree}/`;
  const own = fitting.find((c) => makers.has(c.approval.principal));
  const stale = counted.find((c) => !fitting.includes(c) && (c.approval.commit === step.to || c.path.includes(here)));
  const unheard = discarded.filter((d) => d.path.includes(here));
  const notes = [
    own === undefined ? '' : `\`${own.approval.principal}\` made this change and cannot approve it`,
    stale === undefined ? '' : `\`${stale.approval.principal}\` approved something else: another base, tree or content`,
    ...unheard.map((d) => d.message),
  ].filter((note) => note !== '');
  const code = own !== undefined ? 'self-approval' : stale !== undefined ? 'approval-stale' : (unheard[0]?.code ?? 'approval-missing');
  const has = people.size === 0 ? 'none' : [...people].map((p) => `\`${p}\``).join(', ');
  const message = `rule \`${rule.name}\` needs ${required} approval(s) from ${from.map((g) => `\`${g}\``).join(', ')} for ${step.to.slice(0, 12)}; it has ${has}${notes.length === 0 ? '' : ` (${notes.slice(0, 3).join('; ')})`}`;
  const base = step.from === NO_REVISION ? '' : ` --base ${step.from.slice(0, 12)}`;
  return {
    code,
    message,
    commit: step.to,
    hint: `someone who did not make it runs \`countersign approve ${step.to.slice(0, 12)}${base}\``,
  };
}

// Everyone who had a hand in it, by key and by every address written in the commits.
function makersOf(commits: readonly Commit[], store: TrustStore, verdicts: readonly CommitVerdict[]): ReadonlySet<string> {
  const makers = new Set<string>();
  for (const commit of commits) {
    const signer = verdicts.find((v) => v.commit === commit.id)?.signer;
    if (signer !== undefined) makers.add(signer.principal);
    const coAuthors = [...commit.message.matchAll(/^co-authored-by:.*<([^>\n]*)>/gim)].map((m) => m[1] ?? '');
    for (const email of [commit.author.email, commit.committer.email, ...coAuthors]) {
      const principal = store.byEmail.get(email.toLowerCase());
      if (principal !== undefined) makers.add(principal);
    }
  }
  return makers;
}

// From the start of the change to its end along first parents, the start included; only start and end when they are not on one line.
function firstParentLine(change: Change): readonly { readonly id: string; readonly tree: string }[] {
  const byId = new Map(change.commits.map((c) => [c.id, c]));
  const line: { id: string; tree: string }[] = [];
  let at: string | undefined = change.to;
  while (at !== undefined && byId.has(at)) {
    const commit = byId.get(at) as Commit;
    line.unshift({ id: commit.id, tree: commit.tree });
    at = commit.parents[0];
  }
  const start = { id: change.from, tree: '' };
  if ((at ?? NO_REVISION) === change.from) return [start, ...line];
  return [start, ...line.slice(-1)];
}

function commitsBetween(change: Change, from: string, to: string): readonly Commit[] {
  const byId = new Map(change.commits.map((c) => [c.id, c]));
  const reach = (start: string) => {
    const found = new Set<string>();
    const stack = [start];
    for (let id = stack.pop(); id !== undefined; id = stack.pop()) {
      const commit = byId.get(id);
      if (commit === undefined || found.has(id)) continue;
      found.add(id);
      stack.push(...commit.parents);
    }
    return found;
  };
  const before = reach(from);
  return [...reach(to)].filter((id) => !before.has(id)).map((id) => byId.get(id) as Commit);
}
