import type { KubernetesObject } from '../../src/model/index.ts';

const SERVER = new Set(['uid', 'resourceVersion', 'generation', 'creationTimestamp', 'managedFields', 'namespace']);

/** Every leaf of metadata and spec: changed, removed; every list: an item twice, backwards; a field that is new. */
export function* changesOf(object: KubernetesObject): Generator<[string, KubernetesObject]> {
  const paths: (string | number)[][] = [];
  const walk = (value: unknown, path: (string | number)[]) => {
    if (path.length > 0) paths.push(path);
    if (Array.isArray(value)) for (const [i, item] of value.entries()) walk(item, [...path, i]);
    else if (typeof value === 'object' && value !== null)
      for (const [key, item] of Object.entries(value))
        if (!(path.length === 1 && path[0] === 'metadata' && SERVER.has(key))) walk(item, [...path, key]);
  };
  for (const part of ['metadata', 'spec']) walk(object[part], [part]);
  for (const path of paths)
    for (const how of ['changed', 'removed', 'doubled', 'backwards', 'added'] as const) {
      const copy = structuredClone(object) as unknown as Record<string | number, never>;
      const last = path.at(-1) as string;
      const parent = path.slice(0, -1).reduce((at, key) => at[key] as never, copy);
      const value = parent[last] as unknown;
      const next = other(value, how);
      if (next === undefined && (how !== 'removed' || path.length === 1)) continue;
      if (how !== 'removed') parent[last] = next as never;
      else if (Array.isArray(parent)) parent.splice(Number(last), 1);
      else delete parent[last];
      yield [`${how} ${path.filter((p) => typeof p === 'string').join('.')}`, copy as unknown as KubernetesObject];
    }
}

function other(value: unknown, how: 'changed' | 'removed' | 'doubled' | 'backwards' | 'added'): unknown {
  if (Array.isArray(value)) {
    if (how === 'doubled' && value.length > 0) return [...value, value[0]];
    return how === 'backwards' && value.length > 1 ? value.toReversed() : undefined;
  }
  if (typeof value === 'object' && value !== null) return how === 'added' ? { ...value, unheardOf: 'x' } : undefined;
  if (how !== 'changed') return undefined;
  return typeof value === 'string' ? `${value}x` : typeof value === 'number' ? value + 1 : value !== true;
}
