import {
  type AllowedRevision,
  type Change,
  type CommitVerdict,
  CountersignError,
  type Environment,
  NO_REVISION,
  type Recorded,
  type RenderedObject,
  refText,
  type Verdict,
  type Violation,
} from '../model/index.ts';
import { changeInput, evaluateChange, evaluateObjects, type PolicyBundle } from '../policy/index.ts';
import { type Rendering, render } from '../render/index.ts';
import { type TrustStore, verifyChange } from '../trust/index.ts';
import type { LedgerView, Recorder, SourceRepository } from './ports.ts';

/** What judges one environment. Without a recorder (the pre-merge check) nothing can be allowed to run. */
export type Gate = {
  readonly environment: Environment;
  readonly repository: SourceRepository;
  readonly trust: TrustStore;
  readonly bundle: PolicyBundle;
  readonly recorder: Recorder | undefined;
  readonly clock: () => Date;
};

/** The verdict, where it stands on the ledger, and what may now be applied. */
export type Assessment = {
  readonly verdict: Verdict;
  readonly recorded: Recorded | undefined;
  readonly allowed: AllowedRevision | undefined;
  readonly objects: readonly RenderedObject[];
};

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
    commits: judged.commits,
    approvals: judged.approvals,
    violations: judged.violations.slice(0, MAX_CODES),
    warnings: judged.warnings.slice(0, MAX_CODES),
    objects: judged.objects.length,
    consulted: { trustDigest: gate.trust.digest, bundleDigest: gate.bundle.digest },
  };
  if (gate.recorder === undefined) return { verdict, recorded: undefined, allowed: undefined, objects: judged.objects };
  const evidence = gate.recorder.asEvidence(verdict);
  const recorded = await gate.recorder.record(
    {
      type: 'change.judged',
      environment: verdict.environment,
      from,
      to,
      tree,
      outcome: verdict.outcome,
      violations: judged.violations.length,
      evidence: evidence.ref,
    },
    [evidence],
  );
  const allowed = verdict.outcome === 'allowed' ? allow(gate.environment, to, recorded.index, judged.objects) : undefined;
  return { verdict, recorded, allowed, objects: judged.objects };
}

/**
 * The `AllowedRevision` of a verdict that is already on the ledger: what was allowed then, rendered again from the same
 * tree. Throws `ledger-inconsistent` when the ledger does not hold that verdict.
 */
export async function recall(
  gate: Pick<Gate, 'environment' | 'repository'>,
  ledger: LedgerView,
  verdictIndex: number,
): Promise<AllowedRevision> {
  const recorded = ledger.entry(verdictIndex);
  const name = gate.environment.metadata.name;
  if (recorded?.entry.type !== 'change.judged' || recorded.entry.outcome !== 'allowed' || recorded.entry.environment !== name) {
    throw new CountersignError('ledger-inconsistent', `entry ${verdictIndex} does not allow a revision of \`${name}\``, {
      recover: 'halt',
    });
  }
  const { objects } = await renderTree(gate, recorded.entry.tree);
  return allow(gate.environment, recorded.entry.to, verdictIndex, objects);
}

/** Leave to own nothing any more: what a first revision wrote before it failed is taken away under its own verdict. */
export function allowNothing(environment: Environment, verdictIndex: number): AllowedRevision {
  return allow(environment, NO_REVISION, verdictIndex, []);
}

type Judged = {
  readonly commits: readonly CommitVerdict[];
  readonly approvals: Verdict['approvals'];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly objects: readonly RenderedObject[];
};

async function judge(gate: Gate, from: string, to: string, tree: string): Promise<Judged> {
  const { environment, repository, trust } = gate;
  const nothing: Judged = { commits: [], approvals: [], violations: [], warnings: [], objects: [] };
  if (tree === '')
    return {
      ...nothing,
      violations: [{ code: 'malformed', message: `commit ${to.slice(0, 12)} cannot be taken apart without doubt`, commit: to }],
    };
  if (from !== NO_REVISION && !(await repository.isAncestor(from, to))) {
    return {
      ...nothing,
      violations: [
        {
          code: 'not-a-descendant',
          message: `${to.slice(0, 12)} does not descend from ${from.slice(0, 12)}, which is applied: the branch was rewritten`,
          commit: to,
          hint: 'put the branch back, and undo changes with `git revert`',
        },
      ],
    };
  }
  const history = await repository.history(from, to);
  const malformed = history.malformed.map(
    (m): Violation => ({
      code: 'malformed',
      message: `commit ${m.id.slice(0, 12)} is refused: ${m.reason}`,
      commit: m.id,
      hint: 'rewrite it with an ordinary git',
    }),
  );
  const change: Change = {
    environment: environment.metadata.name,
    repository: environment.spec.source.url,
    ref: `refs/heads/${environment.spec.source.branch}`,
    from,
    to,
    commits: history.commits,
  };
  const trusted = await verifyChange(
    change,
    trust,
    await repository.approvals(change.ref),
    (a, b) => repository.diff(a, b),
    gate.clock().getTime(),
  );
  const rendering = await renderTree(gate, tree);
  const scope = { environment: environment.metadata.name, parameters: environment.spec.policies.parameters };
  const ruled = evaluateObjects(gate.bundle, rendering.objects, scope);
  const violations = [
    ...malformed,
    ...(trusted.kind === 'refused' ? trusted.violations : []),
    ...rendering.violations,
    ...outOfScope(environment, rendering.objects),
    ...ruled.violations,
  ];
  const warnings = [...ruled.warnings];
  if (trusted.kind === 'refused')
    return { commits: trusted.commits, approvals: trusted.approvals, violations, warnings, objects: rendering.objects };
  const signers = new Map(trusted.commits.map((v) => [v.commit, v.signer?.principal ?? '']));
  const paths = (await repository.diff(from, to)).map((p) => p.path);
  const onChange = evaluateChange(gate.bundle, changeInput(trusted.change, signers, paths, rendering.objects), scope);
  return {
    commits: trusted.commits,
    approvals: trusted.change.approvals,
    violations: [...violations, ...onChange.violations],
    warnings: [...warnings, ...onChange.warnings],
    objects: rendering.objects,
  };
}

async function renderTree({ environment, repository }: Pick<Gate, 'environment' | 'repository'>, tree: string): Promise<Rendering> {
  const directory = environment.spec.source.path;
  const entries = await repository.files(tree, directory);
  const files = await Promise.all(
    entries.map(async ({ path, mode, blob }) => ({
      path,
      mode,
      content: mode === '160000' ? new Uint8Array() : await repository.blob(blob),
    })),
  );
  const rendering = render(files);
  if (rendering.objects.length > 0 || rendering.violations.length > 0) return rendering;
  return {
    objects: [],
    violations: [
      {
        code: 'nothing-rendered',
        message: `\`${directory}\` holds no manifests: this would remove everything`,
        hint: 'correct `spec.source.path`, or keep at least one object there',
      },
    ],
  };
}

// An environment owns its namespaces and the cluster-scoped kinds it names; nothing else in a commit reaches the cluster.
function outOfScope(environment: Environment, objects: readonly RenderedObject[]): Violation[] {
  const { namespaces, clusterScoped } = environment.spec.target;
  return objects.flatMap((o): Violation[] => {
    const at = { object: o.ref, source: { file: o.source.file, line: o.lineOf(['metadata', 'namespace']) } };
    if (o.ref.namespace === '' && !clusterScoped.includes(o.ref.kind))
      return [
        {
          ...at,
          code: 'kind-not-governed',
          message: `${refText(o.ref)} has no namespace, and this environment may own only ${clusterScoped.join(', ')} across the cluster`,
          hint: 'add `metadata.namespace`, or the kind to `spec.target.clusterScoped`',
        },
      ];
    const namespace = o.ref.kind === 'Namespace' && o.ref.apiVersion === 'v1' ? o.ref.name : o.ref.namespace;
    if (namespace === '' || namespaces.includes(namespace)) return [];
    return [
      {
        ...at,
        code: 'namespace-not-governed',
        message: `${refText(o.ref)} is outside of this environment’s namespaces ${namespaces.map((n) => `\`${n}\``).join(', ')}`,
        hint: 'move it, or add the namespace to `spec.target.namespaces`',
      },
    ];
  });
}

function allow(environment: Environment, revision: string, verdict: number, objects: readonly RenderedObject[]): AllowedRevision {
  return { environment: environment.metadata.name, revision, verdict, objects } as unknown as AllowedRevision;
}

// A tip that cannot be taken apart is a "no", not a "could not tell": it is somebody's commit.
function refusedTree(thrown: unknown): string {
  if (thrown instanceof CountersignError && thrown.code === 'git-object-corrupt') return '';
  throw thrown;
}
