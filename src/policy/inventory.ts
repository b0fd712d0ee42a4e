import type { RenderedObject } from '../model/index.ts';

/**
 * Returns objects in the layout of Gatekeeper's `data.inventory`: by namespace or cluster, then version, kind and name.
 */
export function inventoryOf(objects: readonly RenderedObject[]): unknown {
  const inventory: Record<string, Record<string, unknown>> = { namespace: {}, cluster: {} };
  for (const { object, ref } of objects) {
    const path = ref.namespace === '' ? ['cluster'] : ['namespace', ref.namespace];
    const at = [...path, ref.apiVersion, ref.kind].reduce<Record<string, unknown>>((o, key) => {
      o[key] ??= {};
      return o[key] as Record<string, unknown>;
    }, inventory);
    at[ref.name] = object;
  }
  return inventory;
}
