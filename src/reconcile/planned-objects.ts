import type { EnvironmentState } from '../gate/index.ts';
import {
  type AllowedRevision,
  type ObjectRef,
  type OwnedObject,
  type Placement,
  type RenderedObject,
  refKey,
} from '../model/index.ts';

type Settled = ReadonlyMap<string, OwnedObject>;

const HISTORY = 10; // ReplicaSets and revisions that the cluster keeps if the object does not say how many

/**
 * Returns what a plan says of an object. One whose content did not change keeps the stamp of the revision that gave it
 * that content, and need not be written. `settled` is the inventory by `refKey`.
 */
export function own(
  { rendered, placement }: { readonly rendered: RenderedObject; readonly placement: Placement },
  revision: AllowedRevision,
  settled: Settled,
): OwnedObject {
  const before = settled.get(refKey(rendered.ref));
  const place = { file: rendered.source.file, line: rendered.source.line };
  if (before?.rendered === rendered.digest) return { ...before, ...place };
  return {
    ref: rendered.ref,
    rendered: rendered.digest,
    revision: revision.revision,
    entry: revision.verdict,
    ...place,
    ...(placement.isStated ? { order: placement.order } : {}),
  };
}

/**
 * Returns what an interrupted run of the same content had approved of an object: what it made may still be there, and
 * make pods. `begun` is its plan by `refKey`.
 */
export function approvedOf(
  { ref, rendered }: { readonly ref: ObjectRef; readonly rendered: RenderedObject },
  begun: Settled,
): Partial<OwnedObject> {
  const before = begun.get(refKey(ref));
  return before?.rendered === rendered.digest ? approvalOf(before) : {};
}

/** Returns the digests that say what is approved of an object. */
export function approvalOf({ admitted, templates, live }: Partial<OwnedObject> = {}): Partial<OwnedObject> {
  return {
    ...(live === undefined ? {} : { live }),
    ...(admitted === undefined ? {} : { admitted }),
    ...(templates === undefined ? {} : { templates }),
  };
}

/**
 * Returns the digests of a hook that a failed change ran: its object stays for people to look at, and was approved as
 * it is.
 */
export function stillApproved(
  { ref, admitted, templates = [] }: OwnedObject,
  { open }: EnvironmentState,
): Partial<OwnedObject> {
  const failed = open?.plan.objects.find((o) => refKey(o.ref) === refKey(ref));
  const digest = failed?.admitted ?? admitted;
  const all = [...new Set([...(failed?.templates ?? []), ...templates])];
  return { ...(digest === undefined ? {} : { admitted: digest }), ...(all.length === 0 ? {} : { templates: all }) };
}

/**
 * Returns the digests of the templates that are approved for an object: the new one first (and the one without the
 * fields left to others), and as many earlier ones as the cluster may still run.
 */
export function latestOf(
  [template, left]: readonly [string, string | undefined],
  earlier: readonly string[],
  { object }: RenderedObject,
): readonly string[] {
  const { revisionHistoryLimit } = (object['spec'] ?? {}) as { revisionHistoryLimit?: unknown };
  const kept = typeof revisionHistoryLimit === 'number' ? revisionHistoryLimit : HISTORY;
  const made = left === undefined ? [template] : [template, left];
  return [...new Set([...made, ...earlier])].slice(0, (kept + 2) * made.length);
}
