import type { ObjectRef, Placement } from '../model/index.ts';

type Placed = { readonly ref: ObjectRef; readonly placement: Placement };

/**
 * Groups the objects of a change by their order. If any of them states one, or the change has hooks, the Namespaces
 * and definitions that state none come first of all: others need them. One group if nothing says otherwise.
 */
export function wavesOf<T extends Placed>(items: readonly T[], hasHooks = false): readonly (readonly T[])[] {
  if (!hasHooks && !items.some((i) => i.placement.isStated)) return items.length === 0 ? [] : [items];
  const byOrder = Map.groupBy(items, waveOf);
  return [...byOrder.keys()].sort((a, b) => a - b).map((order) => byOrder.get(order) ?? []);
}

/** Returns the place of an object among the waves of a change in which any object states an order. */
export function waveOf({ ref, placement }: Placed): number {
  return isGround(ref) && !placement.isStated && placement.hook === undefined
    ? Number.NEGATIVE_INFINITY
    : placement.order;
}

function isGround({ apiVersion, kind }: ObjectRef): boolean {
  return (
    (kind === 'Namespace' && apiVersion === 'v1') ||
    (kind === 'CustomResourceDefinition' && apiVersion.startsWith('apiextensions.k8s.io/'))
  );
}
