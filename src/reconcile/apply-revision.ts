import { type EnvironmentState, environmentState } from '../gate/index.ts';
import {
  type AllowedRevision,
  CountersignError,
  type EntryOf,
  inParallel,
  messageOf,
  type ObjectRef,
  type OwnedObject,
  type Plan,
  type Recorded,
  type RenderedObject,
  refKey,
  refText,
} from '../model/index.ts';
import type { ReconcilePorts, Step } from './ports.ts';

type Purpose = EntryOf<'apply.intent'>['purpose'];
type Item = { readonly ref: ObjectRef; readonly rendered: RenderedObject; owned: OwnedObject };
type Intent = Recorded<EntryOf<'apply.intent'>>;

/** How it ended. `failed` means something was written and the cluster then refused; the last good revision must be restored. */
export type Applied = {
  readonly outcome: 'applied' | 'refused' | 'failed';
  readonly applied: number;
  readonly pruned: number;
  readonly error?: string;
};

/**
 * Brings the cluster to an allowed revision: dry run of all that changes, intent on the ledger, writes in order, removals,
 * result on the ledger. `force` names objects to write although their rendered content is what was applied last (drift).
 * Throws passing trouble (`recover: retry`) and leaves the intent open then: the next pass takes it over.
 */
export async function applyRevision(
  revision: AllowedRevision,
  purpose: Purpose,
  ports: ReconcilePorts,
  force: ReadonlySet<string> = new Set(),
): Promise<Applied> {
  const state = environmentState(ports.ledger, revision.environment);
  const step = (name: Step) => ports.onStep?.(name, revision.environment);
  const settled = new Map(state.inventory.objects.map((o) => [refKey(o.ref), o]));
  const items = revision.objects.map((rendered): Item => ({ ref: rendered.ref, rendered, owned: own(rendered, revision, settled) }));
  const mayDiffer = state.open === undefined ? new Set<string>() : new Set([...state.owned.keys()]);
  const changed = items.filter(
    (i) => settled.get(refKey(i.ref))?.rendered !== i.rendered.digest || force.has(refKey(i.ref)) || mayDiffer.has(refKey(i.ref)),
  );
  const kept = new Set(items.map((i) => refKey(i.ref)));
  const prune = [...state.owned.values()].filter((o) => !kept.has(refKey(o.ref))).map((o) => o.ref);

  const later = await dryRunAll(changed, revision, ports).catch((thrown) => refuse(thrown, revision, purpose, ports));
  if ('outcome' in later) return later;
  step('dry-run');
  let intent = await recordIntent(revision, purpose, items, prune, state, ports);
  step('intended');
  try {
    const first = changed.filter((i) => !later.deferred.has(refKey(i.ref)));
    await writeAll(first, revision, ports, step);
    const rest = changed.filter((i) => later.deferred.has(refKey(i.ref)));
    if (rest.length > 0) {
      await dryRunEach(rest, revision, ports);
      intent = await recordIntent(revision, purpose, items, prune, state, ports, intent.index);
      await writeAll(rest, revision, ports, step);
    }
    step('written');
    await removeAll(prune, ports);
    step('pruned');
  } catch (thrown) {
    if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
    return await recordFailure(thrown, intent, revision, ports);
  }
  const evidence = ports.ledger.asEvidence({ objects: items.map((i) => i.owned) });
  await ports.ledger.record(
    {
      type: 'apply.result',
      environment: revision.environment,
      intent: intent.index,
      revision: revision.revision,
      outcome: 'applied',
      applied: changed.length,
      pruned: prune.length,
      evidence: evidence.ref,
    },
    [evidence],
  );
  step('recorded');
  return { outcome: 'applied', applied: changed.length, pruned: prune.length };
}

// An object whose content did not change keeps the stamp of the revision that gave it that content: it need not be written.
function own(rendered: RenderedObject, revision: AllowedRevision, settled: ReadonlyMap<string, OwnedObject>): OwnedObject {
  const before = settled.get(refKey(rendered.ref));
  const place = { file: rendered.source.file, line: rendered.source.line };
  if (before?.rendered === rendered.digest) return { ...before, ...place };
  return { ref: rendered.ref, rendered: rendered.digest, revision: revision.revision, entry: revision.verdict, ...place };
}

// Objects in namespaces or of kinds that this very change brings cannot be dry-run yet: they are, as a whole, once those exist.
async function dryRunAll(
  changed: readonly Item[],
  revision: AllowedRevision,
  ports: ReconcilePorts,
): Promise<{ deferred: ReadonlySet<string> }> {
  const deferred = new Set<string>();
  const missing = new Map<string, Promise<boolean>>();
  for (const item of changed) {
    const place = `${item.ref.apiVersion}/${item.ref.kind}/${item.ref.namespace}`;
    if (!missing.has(place))
      missing.set(
        place,
        ports.cluster.isReadyFor(item.ref).then((ready) => !ready && broughtBy(changed, item)),
      );
    if (await missing.get(place)) deferred.add(refKey(item.ref));
  }
  await dryRunEach(
    changed.filter((i) => !deferred.has(refKey(i.ref))),
    revision,
    ports,
  );
  return { deferred };
}

function broughtBy(changed: readonly Item[], item: Item): boolean {
  return changed.some(({ ref, rendered }) => {
    if (ref.kind === 'Namespace') return ref.name === item.ref.namespace;
    const names = (rendered.object['spec'] as { names?: { kind?: string } } | undefined)?.names;
    return ref.kind === 'CustomResourceDefinition' && names?.kind === item.ref.kind;
  });
}

async function dryRunEach(items: readonly Item[], revision: AllowedRevision, ports: ReconcilePorts): Promise<void> {
  await inParallel(items, async (item) => {
    const { admitted } = await ports.cluster.dryRun(item.rendered, item.owned, revision.environment);
    const { admitted: _, ...owned } = item.owned;
    item.owned = { ...owned, ...(admitted === undefined ? {} : { admitted }) };
  });
}

async function writeAll(
  items: readonly Item[],
  revision: AllowedRevision,
  ports: ReconcilePorts,
  step: (name: Step) => void,
): Promise<void> {
  let written = 0;
  for (const stage of ports.cluster.stages(items)) {
    await inParallel(stage, async (item) => {
      const { live } = await ports.cluster.apply(item.rendered, item.owned, revision.environment);
      item.owned = { ...item.owned, live };
      if (++written === 1) step('first-write');
    });
    for (const { ref } of stage) if (ref.kind === 'CustomResourceDefinition') await ports.cluster.established(ref);
  }
}

// In the reverse of the order they are applied in. A Namespace is left alone: with it would go what others have in it.
async function removeAll(prune: readonly ObjectRef[], ports: ReconcilePorts): Promise<void> {
  for (const stage of ports.cluster.stages(prune.map((ref) => ({ ref }))).reverse()) {
    await inParallel(
      stage.filter(({ ref }) => ref.kind !== 'Namespace'),
      ({ ref }) => ports.cluster.remove(ref),
    );
  }
}

async function recordIntent(
  revision: AllowedRevision,
  purpose: Purpose,
  items: readonly Item[],
  prune: readonly ObjectRef[],
  state: EnvironmentState,
  ports: ReconcilePorts,
  continues?: number,
): Promise<Intent> {
  const plan: Plan = { objects: items.map((i) => i.owned), prune };
  const evidence = ports.ledger.asEvidence(plan);
  return (await ports.ledger.record(
    {
      type: 'apply.intent',
      environment: revision.environment,
      revision: revision.revision,
      previous: state.revision,
      verdict: revision.verdict,
      purpose,
      ...(continues === undefined ? {} : { continues }),
      ...(state.open === undefined || continues !== undefined ? {} : { takesOver: state.open.intent.index }),
      evidence: evidence.ref,
    },
    [evidence],
  )) as Intent;
}

// Before the first write a refusal leaves the cluster as it was; it is recorded once, not at every look.
async function refuse(thrown: unknown, revision: AllowedRevision, purpose: Purpose, ports: ReconcilePorts): Promise<Applied> {
  if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
  const error = messageOf(thrown);
  const last = ports.ledger.latest(['apply.refused', 'apply.result', 'apply.intent'], revision.environment);
  const known = last?.entry.type === 'apply.refused' && last.entry.revision === revision.revision && last.entry.error === error;
  if (!known)
    await ports.ledger.record(
      { type: 'apply.refused', environment: revision.environment, revision: revision.revision, verdict: revision.verdict, error },
      [],
    );
  ports.log.warn(
    { environment: revision.environment, revision: revision.revision, purpose, error },
    'the cluster refuses the dry run; nothing was written',
  );
  return { outcome: 'refused', applied: 0, pruned: 0, error };
}

async function recordFailure(thrown: CountersignError, intent: Intent, revision: AllowedRevision, ports: ReconcilePorts): Promise<Applied> {
  const state = environmentState(ports.ledger, revision.environment);
  const evidence = ports.ledger.asEvidence({ objects: [...state.owned.values()] });
  const error = messageOf(thrown);
  await ports.ledger.record(
    {
      type: 'apply.result',
      environment: revision.environment,
      intent: intent.index,
      revision: state.revision,
      outcome: 'failed',
      applied: 0,
      pruned: 0,
      error,
      evidence: evidence.ref,
    },
    [evidence],
  );
  ports.log.error({ environment: revision.environment, revision: revision.revision, error }, 'applying failed');
  return { outcome: 'failed', applied: 0, pruned: 0, error };
}

/** What a person reads of a set of objects. */
export function named(refs: readonly ObjectRef[]): string {
  const names = refs.slice(0, 5).map(refText).join(', ');
  return refs.length > 5 ? `${names} and ${refs.length - 5} more` : names;
}
