import type { EnvironmentState } from '../gate/index.ts';
import { type AllowedRevision, type Inventory, type ObjectRef, type OwnedObject, refKey } from '../model/index.ts';

type Attempted = { readonly objects: readonly OwnedObject[]; readonly prune: readonly ObjectRef[] };

/**
 * Tests whether a revision would change the settled inventory exactly as an earlier plan did: the same objects with the
 * same content written, and the same ones removed. Commits that touch only other directories do not differ in that.
 */
export function changesTheSame(revision: AllowedRevision, plan: Attempted, { inventory }: EnvironmentState): boolean {
  const before = new Map(inventory.objects.map((o) => [refKey(o.ref), o.rendered]));
  const differing = (objects: readonly { readonly key: string; readonly digest: string }[]) =>
    objects.filter(({ key, digest }) => before.get(key) !== digest).map(({ key, digest }) => `${key} ${digest}`);
  const kept = new Set(revision.objects.map((o) => refKey(o.ref)));
  return (
    sameSet(
      differing(revision.objects.map(({ ref, digest }) => ({ key: refKey(ref), digest }))),
      differing(plan.objects.map(({ ref, rendered }) => ({ key: refKey(ref), digest: rendered }))),
    ) &&
    sameSet(
      [...before.keys()].filter((key) => !kept.has(key)),
      plan.prune.map(refKey).filter((key) => before.has(key)),
    )
  );
}

/** Tests whether a revision renders exactly the objects of an inventory. */
export function rendersTheSame(revision: AllowedRevision, inventory: Inventory): boolean {
  return sameSet(
    revision.objects.map(({ ref, digest }) => `${refKey(ref)} ${digest}`),
    inventory.objects.map(({ ref, rendered }) => `${refKey(ref)} ${rendered}`),
  );
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  const first = new Set(a);
  const second = new Set(b);
  return first.size === second.size && [...first].every((one) => second.has(one));
}
