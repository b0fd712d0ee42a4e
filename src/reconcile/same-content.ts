import { type AllowedRevision, type ObjectRef, type OwnedObject, refKey } from '../model/index.ts';

/** Objects of a revision, by `refKey`, with the digest of each as rendered. */
export type Content = ReadonlyMap<string, string>;

type Inventory = { readonly objects: readonly OwnedObject[] };

/** Returns the content that a plan would have brought about from an inventory. */
export function attempted(
  before: Inventory,
  plan: { readonly objects: readonly OwnedObject[]; readonly prune: readonly ObjectRef[] },
): Content {
  const content = new Map(contentOf(before));
  for (const ref of plan.prune) content.delete(refKey(ref));
  for (const { ref, rendered } of plan.objects) content.set(refKey(ref), rendered);
  return content;
}

/** Returns the content of an inventory. */
export function contentOf({ objects }: Inventory): Content {
  return new Map(objects.map(({ ref, rendered }) => [refKey(ref), rendered]));
}

/** Tests whether a revision renders exactly this content. Commits that touch only other directories do not differ. */
export function rendersTheSame({ objects }: AllowedRevision, content: Content): boolean {
  const keys = new Set(objects.map(({ ref }) => refKey(ref)));
  return keys.size === content.size && objects.every(({ ref, digest }) => content.get(refKey(ref)) === digest);
}
