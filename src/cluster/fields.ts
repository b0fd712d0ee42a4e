import { type KubernetesObject, pointerKeys, pointerPart, SERVER_FIELDS } from '../model/index.ts';

type FieldSet = { readonly [field: string]: FieldSet };

/** One manager's fields of an object, from `metadata.managedFields`. */
export type ManagedFields = {
  readonly manager: string;
  readonly operation: string;
  readonly subresource?: string;
  readonly time?: string;
  readonly fieldsV1: FieldSet;
  readonly [field: string]: unknown;
};

/** Merges the fields of several managers into one set. */
export function mergeFields(a: FieldSet, b: FieldSet): FieldSet {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return Object.fromEntries([...keys].map((key) => [key, mergeFields(a[key] ?? {}, b[key] ?? {})]));
}

const MAX_PATHS = 20;

/**
 * Returns JSON pointers to the differences between the live and the wanted object, without `status` and the server's
 * own fields; the first `limit` of them.
 */
export function differences(is: KubernetesObject, wanted: KubernetesObject, limit = MAX_PATHS): string[] {
  const found: string[] = [];
  const walk = (a: unknown, b: unknown, at: string) => {
    if (found.length >= limit || a === b) return;
    if (
      typeof a !== 'object' ||
      typeof b !== 'object' ||
      a === null ||
      b === null ||
      Array.isArray(a) !== Array.isArray(b)
    ) {
      found.push(at);
      return;
    }
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      if ((at === '' && key === 'status') || (at === '/metadata' && SERVER_FIELDS.has(key))) continue;
      walk((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], `${at}/${pointerPart(key)}`);
    }
  };
  walk(is, wanted, '');
  return found;
}

/** Returns the last writer other than us: the newest entry of a different manager, ignoring subresources. */
export function lastWriter(
  object: KubernetesObject,
  us: string,
): { readonly manager: string; readonly time: string } | undefined {
  const all = (object.metadata['managedFields'] ?? []) as readonly ManagedFields[];
  const [newest] = all
    .filter((m) => m.manager !== us && m.subresource !== 'status')
    .sort((a, b) => ((a.time ?? '') < (b.time ?? '') ? 1 : -1));
  return newest === undefined ? undefined : { manager: newest.manager, time: newest.time ?? '' };
}

/** Returns the object with the values of `live` at the pointers; missing values are removed. */
export function withValuesOf(
  object: KubernetesObject,
  live: KubernetesObject,
  pointers: readonly string[],
): KubernetesObject {
  return pointers.reduce((made, pointer) => replaced(made, live, pointerKeys(pointer)), object);
}

function replaced<T>(object: T, live: unknown, [key, ...rest]: readonly string[]): T {
  if (key === undefined || typeof object !== 'object' || object === null) return object;
  const there = typeof live === 'object' && live !== null ? (live as Record<string, unknown>)[key] : undefined;
  if (Array.isArray(object))
    return object.map((item, i) =>
      String(i) === key ? (rest.length === 0 ? there : replaced(item, there, rest)) : item,
    ) as T;
  const { [key]: old, ...others } = object as Record<string, unknown>;
  if (old === undefined) return object;
  const value = rest.length === 0 ? there : replaced(old, there, rest);
  return (value === undefined ? others : { ...others, [key]: value }) as T;
}
