import { type AllowedRevision, CountersignError, type RenderedObject, type Verdict } from '../model/index.ts';
import { evaluateObjects, type Found } from '../policy/index.ts';
import type { Rendering } from '../render/index.ts';
import { allow } from './allow.ts';
import type { Gate } from './gate.ts';
import type { LedgerView } from './ports.ts';
import { type RenderParts, renderingAs, renderTree } from './render-tree.ts';
import { verifyAgain } from './verify-again.ts';

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
