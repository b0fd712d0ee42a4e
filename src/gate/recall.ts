import { type AllowedRevision, CountersignError, type RenderedObject, type Verdict } from '../model/index.ts';
import { evaluateObjects, type Found } from '../policy/index.ts';
import { allow } from './allow.ts';
import type { Gate } from './gate.ts';
import { kindText } from './place-objects.ts';
import type { LedgerView, ServedScope } from './ports.ts';
import { type RenderedTree, type RenderParts, renderingAs, renderTree } from './render-tree.ts';
import { verifyAgain } from './verify-again.ts';

/**
 * Returns the `AllowedRevision` of a verdict that is already on the ledger, rendered again from the same tree. Its
 * commits and approvals are verified again first: an entry proves what was recorded, not that it was true. Throws
 * `ledger-inconsistent` if the ledger does not have that verdict (halt), or if commits and approvals do not support it
 * (wait).
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
    : 'its evidence is of a different verdict';
  if (refusal !== undefined)
    throw new CountersignError(
      'ledger-inconsistent',
      `entry ${verdictIndex} allows ${entry.to.slice(0, 12)}, ` +
        `but its commits and approvals do not support that: ${refusal}`,
      {
        hint:
          'nothing is applied because of it; find out who wrote the entry: ' +
          '`countersign ledger verify`, and compare with Git',
      },
    );
  // Rendered as it was then, even if the environment has changed.
  const { objects, content, violations } = await renderTree(
    {
      ...gate,
      environment: renderingAs(gate.environment, judged.consulted.rendered),
      servedScope: servedThen(judged),
    },
    recorded.entry.tree,
  );
  // It was allowed without violations; a failed rendering must not pass for a revision with fewer objects.
  const wrong = violations.find((v) => v.code !== 'nothing-rendered');
  if (wrong !== undefined)
    throw new CountersignError(
      'render-failed',
      `${recorded.entry.to.slice(0, 12)}, which entry ${verdictIndex} allowed, ` +
        `can no longer be rendered: ${wrong.message}`,
      wrong.hint === undefined ? {} : { hint: wrong.hint },
    );
  // Git names files by SHA-1, for which collisions can be made; the verdict has their SHA-256.
  if (judged.content !== undefined && judged.content !== content)
    throw new CountersignError(
      'git-object-corrupt',
      `the files of ${recorded.entry.to.slice(0, 12)} differ from those that entry ${verdictIndex} allowed`,
      {
        hint: 'the repository was tampered with: fetch it again into an empty data directory, and compare',
      },
    );
  return allow(gate.environment, recorded.entry.to, verdictIndex, objects, judged.allows ?? []);
}

/** Returns what the cluster said of kinds at the time of a verdict. */
export function servedThen({ consulted: { served } }: Verdict): ServedScope {
  return async (kind) => {
    const text = kindText(kind);
    return served !== undefined && Object.hasOwn(served, text) ? served[text] : undefined;
  };
}

/** Evaluates the rules in force at a commit on its objects, without signatures and approvals. */
export async function ruledAt(
  gate: Gate,
  commit: string,
  trace = false,
): Promise<Found & { readonly objects: readonly RenderedObject[] }> {
  const tree = await gate.repository.tree(commit);
  const { objects } = await renderTree(gate, tree);
  const { metadata, spec } = gate.environment;
  const { name: environment } = metadata;
  const scope = { environment, parameters: spec.policies.parameters, now: gate.clock(), trace };
  const rules = await gate.rules(tree, gate.trust);
  const found = await evaluateObjects(rules, objects, scope, undefined, undefined, gate.turns);
  return { ...found, objects };
}

/** Renders a commit for the environment without judging it. */
export async function renderedAt(gate: RenderParts, commit: string): Promise<RenderedTree> {
  return renderTree(gate, await gate.repository.tree(commit));
}
