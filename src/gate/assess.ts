import type { ViolationCode } from '../model/index.ts';
import {
  type AllowedRevision,
  type Change,
  type CommitVerdict,
  CountersignError,
  type Environment,
  isNoRevision,
  mapInTurns,
  NO_REVISION,
  type Recorded,
  type RenderedObject,
  refText,
  type Verdict,
  type VerifiedChange,
  type Violation,
} from '../model/index.ts';
import {
  applyWaivers,
  changedObjects,
  changeInput,
  digestOfBundles,
  evaluateChange,
  evaluateObjects,
  type Found,
  type PolicyPool,
  type PolicyScope,
} from '../policy/index.ts';
import { encryptionProblems, type Rendering } from '../render/index.ts';
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
import { readImages } from './images-in-force.ts';
import type { LedgerView, Recorder } from './ports.ts';
import { recordVerdict } from './record-verdict.ts';
import { type RenderParts, renderedBy, renderingAs, renderTree } from './render-tree.ts';
import { trustInForce } from './trust-in-force.ts';
import { verifyAgain } from './verify-again.ts';
import { readWaivers } from './waivers-in-force.ts';
import { withoutAddresses } from './without-names.ts';

/** The verdict, where it stands on the ledger, and what may now be applied. */
export type Assessment = {
  readonly verdict: Verdict;
  readonly recorded: Recorded | undefined;
  readonly allowed: AllowedRevision | undefined;
  readonly objects: readonly RenderedObject[];
};

const MAX_COMMITS = 100_000; // of one change; each is kept with some hundred bytes, and named on the ledger
const MAX_CODES = 500; // a verdict lists this many violations; the count goes on

/** Judges the change `from` → `to` of the environment's branch as a whole, and records the verdict. */
export async function assess(gate: Gate, from: string, to: string): Promise<Assessment> {
  const tree = await gate.repository.tree(to).catch(refusedTree);
  const judged = await judge(gate, from, to, tree);
  const verdict: Verdict = {
    outcome: judged.violations.length === 0 ? 'allowed' : 'denied',
    environment: gate.environment.metadata.name,
    from,
    to,
    tree,
    content: judged.content,
    ...(judged.rollback ? { rollback: true as const } : {}),
    ...(judged.allows.length === 0 ? {} : { allows: judged.allows }),
    ...(judged.trustAfter === undefined ? {} : { trustAfter: judged.trustAfter.digest }),
    commits: judged.commits,
    approvals: judged.approvals,
    violations: judged.violations.slice(0, MAX_CODES),
    warnings: judged.warnings.slice(0, MAX_CODES),
    ...(judged.waived.length === 0 ? {} : { waived: judged.waived.slice(0, MAX_CODES) }),
    objects: judged.objects.length,
    consulted: {
      trustDigest: judged.trustDigest,
      bundleDigest: judged.bundleDigest,
      time: ledgerOf(gate) === undefined ? 'now' : 'ledger',
      at: judged.at,
      rendered: renderedBy(gate.environment),
    },
  };
  if (gate.recorder === undefined) return { verdict, recorded: undefined, allowed: undefined, objects: judged.objects };
  const recorded = await recordVerdict(gate.recorder, verdict, judged.violations.length);
  if (verdict.outcome === 'allowed' && judged.trustAfter !== undefined)
    await recordTrust(gate.recorder, verdict, judged.trustAfter, recorded.index);
  const allowed =
    verdict.outcome === 'allowed'
      ? allow(gate.environment, to, recorded.index, judged.objects, judged.allows)
      : undefined;
  return { verdict, recorded, allowed, objects: judged.objects };
}

/**
 * The `AllowedRevision` of a verdict that is already on the ledger: what was allowed then, rendered again from the same
 * tree. Its commits and approvals are verified again first: an entry proves what was recorded, and not that it was so.
 * Throws `ledger-inconsistent` when the ledger does not hold that verdict (halt), or commits and approvals do not bear
 * it out (wait).
 */
export async function recall(
  gate: RenderParts & Pick<Gate, 'trust' | 'openPolicy'>,
  ledger: LedgerView,
  verdictIndex: number,
): Promise<AllowedRevision> {
  const recorded = ledger.entry(verdictIndex);
  const name = gate.environment.metadata.name;
  if (
    recorded?.entry.type !== 'change.judged' ||
    recorded.entry.outcome !== 'allowed' ||
    recorded.entry.environment !== name
  ) {
    throw new CountersignError(
      'ledger-inconsistent',
      `entry ${verdictIndex} does not allow a revision of \`${name}\``,
      {
        recover: 'halt',
      },
    );
  }
  const { entry } = recorded;
  const judged = ledger.evidence(entry.evidence) as Verdict;
  const isOfEntry =
    judged.outcome === 'allowed' && judged.environment === name && judged.to === entry.to && judged.tree === entry.tree;
  const refusal = isOfEntry
    ? await verifyAgain(gate, ledger, judged, Date.parse(judged.consulted.at ?? entry.time))
    : 'its evidence is of another verdict';
  if (refusal !== undefined)
    throw new CountersignError(
      'ledger-inconsistent',
      `entry ${verdictIndex} allows ${entry.to.slice(0, 12)}, and what it rests on does not bear that out: ${refusal}`,
      {
        hint: 'nothing is applied because of it; find out who wrote the entry: `countersign ledger verify`, and compare with Git',
      },
    );
  // As it was made then, whatever the environment says by now.
  const { objects, content, violations } = await renderTree(
    { ...gate, environment: renderingAs(gate.environment, judged.consulted.rendered) },
    recorded.entry.tree,
  );
  // It was allowed without any; what does not render now must not be taken for a revision with fewer objects.
  const wrong = violations.find((v) => v.code !== 'nothing-rendered');
  if (wrong !== undefined)
    throw new CountersignError(
      'render-failed',
      `${recorded.entry.to.slice(0, 12)}, which entry ${verdictIndex} allowed, does not render any more: ${wrong.message}`,
      wrong.hint === undefined ? {} : { hint: wrong.hint },
    );
  // Git names files by SHA-1, for which two files with one name can be made; what was judged is known by SHA-256.
  if (judged.content !== undefined && judged.content !== content)
    throw new CountersignError(
      'git-object-corrupt',
      `the files of ${recorded.entry.to.slice(0, 12)} are not those that entry ${verdictIndex} allowed`,
      {
        hint: 'the repository was tampered with: fetch it anew into an empty data directory, and compare',
      },
    );
  return allow(gate.environment, recorded.entry.to, verdictIndex, objects, judged.allows ?? []);
}

/** What the rules in force at a commit say of its objects; signatures and approvals are not asked. */
export async function ruledAt(
  gate: Gate,
  commit: string,
  trace = false,
): Promise<Found & { readonly objects: readonly RenderedObject[] }> {
  const tree = await gate.repository.tree(commit);
  const { objects } = await renderTree(gate, tree);
  const { metadata, spec } = gate.environment;
  const found = await evaluateObjects(await gate.rules(tree, gate.trust), objects, {
    environment: metadata.name,
    parameters: spec.policies.parameters,
    now: gate.clock(),
    trace,
  });
  return { ...found, objects };
}

/** What a commit renders to for the environment; nothing of it is judged. */
export async function renderedAt(gate: RenderParts, commit: string): Promise<Rendering> {
  return renderTree(gate, await gate.repository.tree(commit));
}

function ledgerOf(gate: Pick<Gate, 'recorder' | 'past'>): LedgerView | undefined {
  return gate.recorder ?? gate.past;
}

/** Leave to own nothing any more: what a first revision wrote before it failed is taken away under its own verdict. */
export function allowNothing(environment: Environment, verdictIndex: number): AllowedRevision {
  return allow(environment, NO_REVISION, verdictIndex, [], ['empty']);
}

type Judged = {
  readonly commits: readonly CommitVerdict[];
  readonly approvals: Verdict['approvals'];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly waived: readonly Violation[];
  readonly bundleDigest: string;
  /** The moment the rules were told. */
  readonly at: string;
  readonly objects: readonly RenderedObject[];
  /** SHA-256 over path, mode and SHA-256 of every file. */
  readonly content: string;
  readonly rollback: boolean;
  readonly allows: readonly string[];
  readonly trustDigest: string;
  /** The TrustPolicy in the repository after the change, where it differs. */
  readonly trustAfter: TrustStore | undefined;
};

async function judge(gate: Gate, from: string, to: string, tree: string): Promise<Judged> {
  const { environment, repository } = gate;
  const nothing: Judged = {
    commits: [],
    approvals: [],
    violations: [],
    warnings: [],
    waived: [],
    bundleDigest: '',
    at: gate.clock().toISOString(),
    objects: [],
    content: '',
    rollback: false,
    allows: [],
    trustDigest: gate.trust.digest,
    trustAfter: undefined,
  };
  if (tree === '') {
    const [tip] = await repository.commits([to]);
    const why =
      tip?.kind === 'malformed'
        ? tip
        : { id: to, code: 'malformed' as const, reason: 'its bytes are not what Git writes' };
    return { ...nothing, violations: [malformedViolation(why)] };
  }
  const trusted = await assessTrust(gate, from, to, tree);
  if (trusted.change === undefined && gate.untrusted === 'refused') {
    const { commits, approvals, violations, warnings, store } = trusted;
    return {
      ...nothing,
      commits,
      approvals,
      violations,
      warnings: [...warnings, NOT_RENDERED],
      trustDigest: store.digest,
    };
  }
  const [rendering, rules] = await Promise.all([renderTree(gate, tree), gate.rules(tree, trusted.store)]);
  const now = gate.clock();
  const { images, refused: unusable } = await readImages(gate, tree, trusted.store);
  const scope = {
    environment: environment.metadata.name,
    parameters: environment.spec.policies.parameters,
    now,
    images,
  };
  const { commits, approvals, rollback, change } = trusted;
  const onObjects = await evaluateObjects(rules, rendering.objects, scope, undefined, gate.findings);
  const onChange =
    change === undefined
      ? NOTHING_FOUND
      : await ruleChange(gate, rules, { change, commits, store: trusted.store, from, to }, rendering.objects, scope);
  const { waivers, refused } = await readWaivers(gate, tree, trusted.store, now.getTime());
  const allows = [...new Set((change?.commits ?? []).flatMap((c) => c.allows))];
  const unrendered = rendering.violations.filter((v) => v.code !== 'nothing-rendered' || !allows.includes('empty'));
  const outside = await mapInTurns(rendering.objects, (o) => outOfScope(environment, o));
  const encrypted = await mapInTurns(rendering.objects, (o) =>
    encryptionProblems(o, environment.spec.decryption !== undefined),
  );
  const ruled = applyWaivers(
    [...onObjects.violations, ...onChange.violations],
    waivers,
    scope.environment,
    now.getTime(),
  );
  return {
    ...nothing,
    commits,
    approvals,
    allows,
    violations: [...trusted.violations, ...unrendered, ...outside.flat(), ...encrypted.flat(), ...ruled.standing],
    warnings: [
      ...trusted.warnings,
      ...rendering.warnings,
      ...refused,
      ...unusable,
      ...ruled.warnings,
      ...onObjects.warnings,
      ...onChange.warnings,
    ],
    waived: ruled.waived,
    bundleDigest: digestOfBundles(rules.bundles),
    at: now.toISOString(),
    objects: rendering.objects,
    content: rendering.content,
    trustDigest: trusted.store.digest,
    ...(change === undefined
      ? {}
      : { rollback, trustAfter: trusted.storeAfter.digest === trusted.store.digest ? undefined : trusted.storeAfter }),
  };
}

const NOT_RENDERED: Violation = {
  code: 'not-rendered',
  message: 'nothing of the change was rendered and no rule was asked: signatures and approvals come first',
  hint: '`countersign check` in a checkout shows what the rules say of it',
};

const NOTHING_FOUND: Found = { violations: [], warnings: [], exempt: [], trace: [] };

type Verified = {
  readonly change: VerifiedChange;
  readonly commits: readonly CommitVerdict[];
  readonly store: TrustStore;
  readonly from: string;
  readonly to: string;
};

// The objects as they were are rendered only where a rule may want them.
async function ruleChange(
  gate: Gate,
  rules: PolicyPool,
  { change, commits, store, from, to }: Verified,
  after: readonly RenderedObject[],
  scope: PolicyScope,
): Promise<Found> {
  if (!rules.bundles.some((b) => b.manifest.entries.some((e) => e.convention === 'change'))) return NOTHING_FOUND;
  const before = isNoRevision(from) ? [] : (await renderTree(gate, await gate.repository.tree(from))).objects;
  const signers = new Map(commits.map((v) => [v.commit, v.signer?.principal ?? '']));
  const paths = (await gate.repository.diff(from, to)).map((p) => p.path);
  const groupsOf = (principal: string) =>
    store.policy.spec.groups.filter((g) => g.members.includes(principal)).map((g) => g.name);
  return evaluateChange(
    rules,
    changeInput(change, signers, groupsOf, paths, await changedObjects(before, after), scope.now),
    scope,
  );
}

/** What signatures and approvals say of a change, before anything of it is rendered. */
export type TrustAssessment = {
  /** There only when nothing stands against it. */
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

/** What of a gate takes part before anything is rendered. */
type TrustParts = Omit<Gate, 'rules' | 'openWaiver' | 'make' | 'read'>;

/** Judges every commit and approval of `from..to`; what is met for the first time goes on the ledger before that. */
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

// The seal, where history begins with one, and every commit by its id: on the ledger before anything is judged.
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

// The history of the last look is taken over where this one only goes on from it.
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
    message: `more than ${MAX_COMMITS} commits lie between ${from.slice(0, 12)} and ${to.slice(0, 12)}, the most that one change may bring`,
    commit: to,
    hint: 'for a repository with a long history, set `spec.source.baseline` to the commit from which on the gate judges',
  };
}

function malformedViolation(m: { id: string; code: ViolationCode; reason: string }): Violation {
  return {
    code: m.code,
    message: `commit ${m.id.slice(0, 12)} is refused: ${m.reason}`,
    commit: m.id,
    hint: 'rewrite it with an ordinary git',
  };
}

// Going back is a change like any other, but nobody signed it: only approvals that say so allow it.
function refusedRollback(from: string, to: string, refused: readonly Violation[]): readonly Violation[] {
  if (refused.length === 0) return [];
  return [
    {
      code: 'not-a-descendant',
      message: `${to.slice(0, 12)} does not descend from ${from.slice(0, 12)}, which is applied: the branch was rewritten, and no rollback was approved`,
      commit: to,
      hint: `put the branch back and undo changes with \`git revert\`; or approve going back: \`countersign approve ${to.slice(0, 12)} --base ${from.slice(0, 12)} --rollback\``,
    },
    ...refused.filter((v) => v.code !== 'approval-missing' && v.code !== 'approval-stale'),
  ];
}

async function recordTrust(recorder: Recorder, verdict: Verdict, after: TrustStore, index: number): Promise<void> {
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

// An environment owns its namespaces and the cluster-scoped kinds it names; nothing else in a commit reaches the
// cluster.
function outOfScope(environment: Environment, { ref, source, lineOf }: RenderedObject): Violation[] {
  const { namespaces, clusterScoped } = environment.spec.target;
  const refuse = (code: ViolationCode, message: string, hint: string): Violation[] => [
    { object: ref, source: { file: source.file, line: lineOf(['metadata', 'namespace']) }, code, message, hint },
  ];
  if (ref.namespace === '' && !clusterScoped.includes(ref.kind))
    return refuse(
      'kind-not-governed',
      `${refText(ref)} has no namespace, and this environment may own only ${clusterScoped.join(', ')} across the cluster`,
      'add `metadata.namespace`, or the kind to `spec.target.clusterScoped`',
    );
  const namespace = ref.kind === 'Namespace' && ref.apiVersion === 'v1' ? ref.name : ref.namespace;
  if (namespace === '' || namespaces.includes(namespace)) return [];
  return refuse(
    'namespace-not-governed',
    `${refText(ref)} is outside of this environment’s namespaces ${namespaces.map((n) => `\`${n}\``).join(', ')}`,
    'move it, or add the namespace to `spec.target.namespaces`',
  );
}

function allow(
  environment: Environment,
  revision: string,
  verdict: number,
  objects: readonly RenderedObject[],
  allows: readonly string[],
): AllowedRevision {
  return { environment: environment.metadata.name, revision, verdict, objects, allows } as unknown as AllowedRevision;
}

// A tip that cannot be taken apart is a "no", not a "could not tell": it is somebody's commit.
function refusedTree(thrown: unknown): string {
  if (thrown instanceof CountersignError && thrown.code === 'git-object-corrupt') return '';
  throw thrown;
}
