import {
  type AllowedRevision,
  type CommitVerdict,
  CountersignError,
  isNoRevision,
  type Recorded,
  type RenderedObject,
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
import { encryptionProblems } from '../render/index.ts';
import type { TrustStore } from '../trust/index.ts';
import { allow } from './allow.ts';
import { assessTrust, ledgerOf, malformedViolation, recordTrust, type TrustAssessment } from './assess-trust.ts';
import { waitIfBehind, waitIfOff } from './clock-offset.ts';
import type { Gate } from './gate.ts';
import { readImages } from './images-in-force.ts';
import { kindText, unknownKinds } from './place-objects.ts';
import { placementOf } from './placement.ts';
import { recordVerdict } from './record-verdict.ts';
import { type RenderedTree, renderedBy, renderTree } from './render-tree.ts';
import { outOfScope } from './scope.ts';
import { readWaivers } from './waivers-in-force.ts';

/** The verdict, its place on the ledger, and the revision that may now be applied. */
export type Assessment = {
  readonly verdict: Verdict;
  readonly recorded: Recorded | undefined;
  readonly allowed: AllowedRevision | undefined;
  readonly objects: readonly RenderedObject[];
};
const MAX_CODES = 500; // violations listed in a verdict; all of them are counted

/** Judges the change `from` → `to` of the environment's branch as a whole, and records the verdict. */
export async function assess(gate: Gate, from: string, to: string): Promise<Assessment> {
  if (gate.recorder !== undefined) waitIfBehind(gate); // before anything is recorded as seen at a wrong time
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
    ...hooksIn(judged.objects),
    consulted: {
      trustDigest: judged.trustDigest,
      bundleDigest: judged.bundleDigest,
      time: ledgerOf(gate) === undefined ? 'now' : 'ledger',
      at: judged.at,
      rendered: renderedBy(gate.environment),
      ...(judged.served.size === 0 ? {} : { served: Object.fromEntries([...judged.served].sort()) }),
    },
  };
  if (gate.recorder === undefined) return { verdict, recorded: undefined, allowed: undefined, objects: judged.objects };
  if (verdict.outcome === 'denied') waitIfOff(gate);
  const recorded = await recordVerdict(gate.recorder, verdict, judged.violations.length);
  if (verdict.outcome === 'allowed' && judged.trustAfter !== undefined)
    await recordTrust(gate.recorder, verdict, judged.trustAfter, recorded.index);
  const allowed =
    verdict.outcome === 'allowed'
      ? allow(gate.environment, to, recorded.index, judged.objects, judged.allows)
      : undefined;
  return { verdict, recorded, allowed, objects: judged.objects };
}

function hooksIn(objects: readonly RenderedObject[]): Pick<Verdict, 'hooks'> {
  const hooks = objects.flatMap((o) => {
    const { hook } = placementOf(o);
    return hook === undefined ? [] : [{ object: o.ref, phases: hook.runs.map((r) => r.phase) }];
  });
  return hooks.length === 0 ? {} : { hooks: hooks.slice(0, MAX_CODES) };
}

type Judged = {
  readonly commits: readonly CommitVerdict[];
  readonly approvals: Verdict['approvals'];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly waived: readonly Violation[];
  readonly bundleDigest: string;
  /** The time given to the rules. */
  readonly at: string;
  readonly objects: readonly RenderedObject[];
  /** SHA-256 over path, mode and SHA-256 of every file. */
  readonly content: string;
  /** The cluster's answers about kinds. */
  readonly served: RenderedTree['served'];
  readonly rollback: boolean;
  readonly allows: readonly string[];
  readonly trustDigest: string;
  /** The TrustPolicy in the repository after the change, if it differs. */
  readonly trustAfter: TrustStore | undefined;
};

async function judge(gate: Gate, from: string, to: string, tree: string): Promise<Judged> {
  if (tree === '') return { ...nothingJudged(gate), violations: [malformedViolation(await whyMalformed(gate, to))] };
  const trusted = await assessTrust(gate, from, to, tree);
  if (trusted.change === undefined && gate.untrusted === 'refused') {
    const { commits, approvals, violations, warnings, store } = trusted;
    const unrendered = [...warnings, NOT_RENDERED];
    const trustDigest = store.digest;
    return { ...nothingJudged(gate), commits, approvals, violations, warnings: unrendered, trustDigest };
  }
  return judgeObjects(gate, trusted, { from, to, tree });
}

function nothingJudged(gate: Gate): Judged {
  return {
    commits: [],
    approvals: [],
    violations: [],
    warnings: [],
    waived: [],
    bundleDigest: '',
    at: gate.clock().toISOString(),
    objects: [],
    content: '',
    served: new Map(),
    rollback: false,
    allows: [],
    trustDigest: gate.trust.digest,
    trustAfter: undefined,
  };
}

async function whyMalformed({ repository }: Gate, to: string): Promise<Parameters<typeof malformedViolation>[0]> {
  const [tip] = await repository.commits([to]);
  return tip?.kind === 'malformed'
    ? tip
    : { id: to, code: 'malformed', reason: 'its bytes are not in the format of Git' };
}

type Step = { readonly from: string; readonly to: string; readonly tree: string };

// Renders the tree of a change and asks the rules.
async function judgeObjects(gate: Gate, trusted: TrustAssessment, { from, to, tree }: Step): Promise<Judged> {
  const { environment } = gate;
  const [rendering, rules] = await Promise.all([renderTree(gate, tree), gate.rules(tree, trusted.store)]);
  refuseUnserved(gate, rendering);
  const now = gate.clock();
  const { images, refused: unusable } = await readImages(gate, tree, trusted.store);
  const scope = {
    environment: environment.metadata.name,
    parameters: environment.spec.policies.parameters,
    now,
    images,
  };
  const { commits, approvals, rollback, change } = trusted;
  const onObjects = await evaluateObjects(rules, rendering.objects, scope, undefined, gate.findings, gate.turns);
  const onChange =
    change === undefined
      ? NOTHING_FOUND
      : await ruleChange(gate, rules, { change, commits, store: trusted.store, from, to }, rendering.objects, scope);
  const { waivers, refused } = await readWaivers(gate, tree, trusted.store, now.getTime());
  const allows = [...new Set((change?.commits ?? []).flatMap((c) => c.allows))];
  const unrendered = rendering.violations.filter((v) => v.code !== 'nothing-rendered' || !allows.includes('empty'));
  const outside = await gate.turns.map(rendering.objects, (o) => outOfScope(environment, o, rendering.scopeOf));
  const encrypted = await gate.turns.map(rendering.objects, (o) =>
    encryptionProblems(o, environment.spec.decryption !== undefined),
  );
  const ruled = applyWaivers(
    [...onObjects.violations, ...onChange.violations],
    waivers,
    scope.environment,
    now.getTime(),
  );
  return {
    ...nothingJudged(gate),
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
    served: rendering.served,
    trustDigest: trusted.store.digest,
    ...(change === undefined
      ? {}
      : { rollback, trustAfter: trusted.storeAfter.digest === trusted.store.digest ? undefined : trusted.storeAfter }),
  };
}

// The definition may be on its way: another environment applies it, or another tool. A denial would be final.
function refuseUnserved({ servedScope }: Gate, { objects, scopeOf }: RenderedTree): void {
  const [kind] = servedScope === undefined ? [] : unknownKinds(objects, scopeOf);
  if (kind === undefined) return;
  throw new CountersignError(
    'cluster-refused',
    `\`${kindText(kind)}\` is not served by the cluster, so it is unknown whether its objects need a namespace`,
    {
      recover: 'retry',
      hint: 'apply its CustomResourceDefinition, or set `metadata.namespace` in every object of this kind',
    },
  );
}

const NOT_RENDERED: Violation = {
  code: 'not-rendered',
  message: 'the change was not rendered and no rule was evaluated: signatures and approvals come first',
  hint: '`countersign check` in a checkout shows the findings of the rules',
};

const NOTHING_FOUND: Found = { violations: [], warnings: [], exempt: [], trace: [] };

type Verified = {
  readonly change: VerifiedChange;
  readonly commits: readonly CommitVerdict[];
  readonly store: TrustStore;
  readonly from: string;
  readonly to: string;
};

// The previous objects are only rendered if a rule may want them.
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
    changeInput(change, signers, groupsOf, paths, await changedObjects(before, after, gate.turns), scope.now),
    scope,
  );
}

// A tip that cannot be parsed is a "no", not a "could not tell": it is someone's commit.
function refusedTree(thrown: unknown): string {
  if (thrown instanceof CountersignError && thrown.code === 'git-object-corrupt') return '';
  throw thrown;
}
