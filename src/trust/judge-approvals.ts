import {
  type Approval,
  type Change,
  count,
  NO_REVISION,
  type PathChange,
  type TrustPolicy,
  type Violation,
} from '../model/index.ts';
import { changeDigest } from './approval.ts';
import { type RuleScope, rulesFor, rulesForAnyPath } from './judge-commit.ts';
import type { Statements } from './read-statements.ts';
import type { ReadStatement } from './statement.ts';
import type { TrustStore } from './trust-store.ts';

/** Steps of a change: positions along its line, starting at 0. */
export type ApprovalStep = {
  readonly change: Change;
  readonly scope: RuleScope;
  readonly ids: readonly string[];
  readonly trees: readonly string[];
  /** The TrustPolicy in force from a position on. */
  readonly stores: readonly TrustStore[];
  readonly trustPath: string | undefined;
  /** Whether a position brought in content that no person signed: a `platform` did, or it was `merged` by a person. */
  readonly unsignedBy: readonly ('platform' | 'merged' | undefined)[];
  readonly makersAt: (position: number) => ReadonlySet<string>;
  /**
   * The valid statements per TrustPolicy. INVARIANT: a step is judged by the statements of the policy in force at its
   * start.
   */
  readonly statements: ReadonlyMap<TrustStore, Statements>;
};

type Sources = {
  readonly diff: (from: string, to: string) => Promise<readonly PathChange[]>;
  readonly isAncestor: (ancestor: string, descendant: string) => Promise<boolean>;
};
type Rule = TrustPolicy['spec']['rules'][number];
type Outcome = { readonly used: readonly Approval[]; readonly violations: readonly Violation[] };
type Reached = { readonly before: Reached | undefined; readonly used: readonly Approval[] };

const WEIGHT = { half: 0.5, whole: 1, none: 0 } as const;

/**
 * Looks for a chain of approved steps from the start of the change to its end, and returns the approvals of that chain.
 */
export async function judgeApprovals(steps: ApprovalStep, sources: Sources): Promise<Outcome> {
  const last = steps.ids.length - 1;
  const reached: (Reached | undefined)[] = [{ before: undefined, used: [] }];
  let furthest = 0;
  for (let to = 1; to <= last; to++) {
    for (const from of startsFor(to, steps)) {
      const before = reached[from];
      if (before === undefined) continue;
      const { used, violations } = await judgeStep(from, to, steps, sources);
      if (violations.length > 0) continue;
      reached[to] = { before, used };
      furthest = to;
      break;
    }
  }
  const end = reached[last];
  if (end === undefined || last === 0)
    return { used: [], violations: last === 0 ? [] : (await judgeStep(furthest, last, steps, sources)).violations };
  const used: Approval[] = [];
  for (let at: Reached | undefined = end; at !== undefined; at = at.before) used.unshift(...at.used);
  return { used, violations: [] };
}

function startsFor(to: number, steps: ApprovalStep): ReadonlySet<number> {
  const starts = new Set([to - 1]);
  for (const { heard } of steps.statements.values()) {
    for (const { binding } of heard) {
      const at = binding.targetID === steps.trees[to] ? steps.ids.indexOf(binding.fromID) : -1;
      if (at >= 0 && at < to) starts.add(at);
    }
  }
  return starts;
}

async function judgeStep(from: number, to: number, steps: ApprovalStep, sources: Sources): Promise<Outcome> {
  const store = steps.stores[from] as TrustStore;
  const statements = steps.statements.get(store) ?? { heard: [], discarded: [] };
  const [base, head] = [steps.ids[from] ?? '', steps.ids[to] ?? ''];
  let known: readonly PathChange[] | undefined;
  const paths = async () => {
    known ??= await sources.diff(base, head);
    return known;
  };
  const violations: Violation[] = [];
  const rules =
    rulesForAnyPath(store.policy, steps.scope) ?? rulesCovering(await paths(), store, steps.scope, violations);
  const fitting = await fittingStatements(from, to, steps, statements, paths, sources);
  const makers = new Set<string>();
  for (let at = from + 1; at <= to; at++) for (const maker of steps.makersAt(at)) makers.add(maker);
  for (const { statement } of fitting) for (const maker of statement.makers) makers.add(maker);
  const standing = standingOf(fitting);
  const others = standing.approvals.filter((a) => !makers.has(a.principal));
  const context: StepContext = { from, to, steps, store, makers, fitting, others, statements };
  for (const rule of rules) {
    const rejected = standing.rejections.find((s) => store.members(rule.approvals.from).has(s.approval.principal));
    if (rejected !== undefined) violations.push(rejectedBy(rejected, context));
    const required = requiredBy(rule, context);
    const people = entitledTo(rule, others, store);
    if (sum(people) < required) violations.push(shortOfApprovals(rule, required, people, context));
  }
  violations.push(...judgeRoots(context));
  return { used: others, violations: unique(violations) };
}

type Fitting = { readonly statement: ReadStatement & { readonly path: string }; readonly match: Approval['match'] };
type StepContext = {
  readonly from: number;
  readonly to: number;
  readonly steps: ApprovalStep;
  readonly store: TrustStore;
  readonly makers: ReadonlySet<string>;
  readonly fitting: readonly Fitting[];
  readonly others: readonly Approval[];
  readonly statements: Statements;
};

function rulesCovering(
  paths: readonly PathChange[],
  store: TrustStore,
  scope: RuleScope,
  violations: Violation[],
): readonly Rule[] {
  const rules = new Set<Rule>();
  for (const { path } of paths) {
    const covering = rulesFor(store.policy, scope, path);
    for (const rule of covering) rules.add(rule);
    if (covering.length === 0)
      violations.push({
        code: 'path-not-covered',
        message: `no rule of the TrustPolicy covers \`${path}\` on \`${scope.branch}\` for \`${scope.environment}\``,
        hint: 'add a rule whose `paths` match it',
      });
  }
  return [...rules];
}

// Finds statements on the same change: the same paths, modes and blobs, before and after. On a different base this
// holds only if that base is an ancestor of this one, and differs from it only in other files.
async function fittingStatements(
  from: number,
  to: number,
  steps: ApprovalStep,
  { heard }: Statements,
  paths: () => Promise<readonly PathChange[]>,
  sources: Sources,
): Promise<Fitting[]> {
  const fitting: Fitting[] = [];
  const equivalent = steps.stores[from]?.policy.spec.rules.some((r) => r.approvals.equivalent) === true;
  let own: string | undefined;
  for (const statement of heard) {
    const { fromID, targetID, changeDigest: digest, rollback } = statement.binding;
    const exact = fromID === steps.ids[from] && targetID === steps.trees[to];
    if (rollback !== steps.change.rollback || (!exact && (rollback || !equivalent))) continue;
    own ??= changeDigest(await paths());
    if (digest !== own) continue;
    if (exact) fitting.push({ statement, match: 'exact' });
    else if (fromID === NO_REVISION || (await sources.isAncestor(fromID, steps.ids[from] ?? '')))
      fitting.push({ statement, match: 'equivalent' });
  }
  return fitting;
}

/** Returns each person's final position: a later statement revokes or overrides an earlier one. */
function standingOf(fitting: readonly Fitting[]): {
  approvals: readonly Approval[];
  rejections: readonly ReadStatement[];
} {
  const people = new Map<string, { approvals: Approval[]; rejection: ReadStatement | undefined }>();
  for (const { statement, match } of fitting) {
    const person = people.get(statement.approval.principal) ?? { approvals: [], rejection: undefined };
    people.set(statement.approval.principal, person);
    const { decision } = statement;
    if (decision === 'approve') {
      person.approvals.push({ ...statement.approval, match });
      person.rejection = undefined;
    } else if (decision === 'reject') {
      person.approvals = [];
      person.rejection = statement;
    } else {
      // A review dismissed on the forge revokes what came from the forge, not what the person signed.
      person.approvals =
        statement.approval.importer === undefined ? [] : person.approvals.filter((a) => a.importer === undefined);
      if (statement.approval.importer === undefined || person.rejection?.approval.importer !== undefined)
        person.rejection = undefined;
    }
  }
  return {
    approvals: [...people.values()].flatMap((p) => p.approvals),
    rejections: [...people.values()].flatMap((p) => p.rejection ?? []),
  };
}

// If only a platform signed, its author line may name anyone, and the real author could be an approver. One more
// approval is required, unless an imported request names who opened it. A person who signed the merge already counts as
// one of two. A rollback needs one more than a change, because no one signed it either.
function requiredBy(rule: Rule, { from, to, steps, fitting }: StepContext): number {
  const { required } = rule.approvals;
  if (steps.change.rollback) return required + 1;
  const unsigned = steps.unsignedBy.slice(from + 1, to + 1);
  const openerKnown = fitting.some((f) => f.statement.makers.length > 0);
  if (unsigned.includes('platform') && !openerKnown) return required + 1;
  return unsigned.some((by) => by !== undefined) ? Math.max(required, 1) : required;
}

// Counts people, not keys or statements: each counts once, by the strongest approval given.
function entitledTo(rule: Rule, others: readonly Approval[], store: TrustStore): ReadonlyMap<string, number> {
  const entitled = store.members(rule.approvals.from);
  const people = new Map<string, number>();
  for (const approval of others) {
    if (!entitled.has(approval.principal) || (approval.match === 'equivalent' && !rule.approvals.equivalent)) continue;
    const weight = approval.class === 'C' ? 0 : approval.class === 'B' ? WEIGHT[rule.approvals.forgeReviews] : 1;
    people.set(approval.principal, Math.max(people.get(approval.principal) ?? 0, weight));
  }
  return people;
}

function sum(people: ReadonlyMap<string, number>): number {
  return [...people.values()].reduce((n, weight) => n + weight, 0);
}

// Anyone who could change the policy alone could make anything trusted.
function judgeRoots({ from, to, steps, store, others }: StepContext): readonly Violation[] {
  const changed = steps.stores.slice(from + 1, to + 1).find((s) => s.digest !== store.digest);
  if (changed === undefined) return [];
  const head = steps.ids[to] ?? '';
  const what = `${head.slice(0, 12)} changes the TrustPolicy at \`${steps.trustPath ?? ''}\``;
  const { roots } = store.policy.spec;
  if (roots === undefined)
    return [
      {
        code: 'trust-roots-missing',
        message: `${what}, but the policy in force names no roots who could approve that`,
        commit: head,
        hint: 'add `spec.roots` to the TrustPolicy of the configuration',
      },
    ];
  const members = store.members(roots.members);
  const people = new Set(
    others
      .filter((a) => members.has(a.principal) && a.importer === undefined && a.match === 'exact')
      .map((a) => a.principal),
  );
  if (people.size >= roots.threshold) return [];
  return [
    {
      code: 'trust-not-approved',
      message:
        `${what}, which needs ${count(roots.threshold, 'approval')} by its roots ` +
        `${roots.members.map((m) => `\`${m}\``).join(', ')}; it has ${people.size}`,
      commit: head,
      hint: `a root who did not make it must run \`countersign approve ${head.slice(0, 12)}\``,
    },
  ];
}

function rejectedBy(statement: ReadStatement, { steps, to }: StepContext): Violation {
  const head = steps.ids[to] ?? '';
  const { principal, reason } = statement.approval;
  return {
    code: 'approval-rejected',
    message: `\`${principal}\` rejected ${head.slice(0, 12)}${reason === '' ? '' : `: ${reason.slice(0, 200)}`}`,
    commit: head,
    hint:
      `ask \`${principal}\` to approve it, or to revoke the rejection ` +
      `with \`countersign approvals revoke ${head.slice(0, 12)}\``,
  };
}

function shortOfApprovals(
  rule: Rule,
  required: number,
  people: ReadonlyMap<string, number>,
  context: StepContext,
): Violation {
  const { steps, from, to, makers, fitting, others, statements } = context;
  const [base, head, tree] = [steps.ids[from] ?? '', steps.ids[to] ?? '', steps.trees[to] ?? ''];
  // Approvals of other changes stay in the repository forever. Only those filed for this change, or naming its commit,
  // are worth mentioning.
  const here = `/${base}-${tree}/`;
  const own = fitting.find(
    (f) => f.statement.decision === 'approve' && makers.has(f.statement.approval.principal),
  )?.statement;
  const weak = others.find((a) => (a.class === 'B' || a.class === 'C') && (people.get(a.principal) ?? 0) < 1);
  const moved = others.find((a) => a.match === 'equivalent' && !rule.approvals.equivalent);
  const stale = statements.heard.find(
    (s) =>
      s.decision === 'approve' &&
      !fitting.some((f) => f.statement === s) &&
      (s.binding.headID === head || s.path.includes(here)),
  );
  const unheard = statements.discarded.filter((d) => d.path.includes(here));
  const notes = [
    own === undefined ? '' : `\`${own.approval.principal}\` made this change and cannot approve it`,
    weak === undefined ? '' : `\`${weak.principal}\`’s review on the forge is of class ${weak.class}`,
    moved === undefined ? '' : `\`${moved.principal}\` approved it on an older base`,
    stale === undefined ? '' : `\`${stale.approval.principal}\` approved something else: another base, tree or content`,
    ...unheard.map((d) => d.message),
  ].filter((note) => note !== '');
  const code =
    own !== undefined
      ? 'self-approval'
      : weak !== undefined
        ? 'approval-weak'
        : stale !== undefined || moved !== undefined
          ? 'approval-stale'
          : (unheard[0]?.code ?? 'approval-missing');
  const has = people.size === 0 ? 'none' : [...people.keys()].map((p) => `\`${p}\``).join(', ');
  const names = rule.approvals.from.map((g) => `\`${g}\``).join(', ');
  const baseOption = base === NO_REVISION ? '' : ` --base ${base.slice(0, 12)}`;
  return {
    code,
    message:
      `rule \`${rule.name}\` needs ${count(required, 'approval')} from ${names || 'no one'} for ` +
      `${head.slice(0, 12)}; it has ${has}${notes.length === 0 ? '' : ` (${notes.slice(0, 3).join('; ')})`}`,
    commit: head,
    hint:
      'someone who did not make it must run `countersign approve ' +
      `${head.slice(0, 12)}${baseOption}${steps.change.rollback ? ' --rollback' : ''}\``,
  };
}

function unique(violations: readonly Violation[]): readonly Violation[] {
  return [...new Map(violations.map((v) => [`${v.code} ${v.message}`, v])).values()];
}
