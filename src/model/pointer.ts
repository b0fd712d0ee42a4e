/** Returns the keys of a JSON pointer (RFC 6901), from the outermost on. */
export function pointerKeys(pointer: string): string[] {
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** Returns a key as a part of a JSON pointer. */
export function pointerPart(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

/**
 * Returns a copy of a value without what JSON pointers name. A list or map that has nothing left is removed, too,
 * because an API server keeps no empty one where someone else's value was the only one.
 */
export function withoutPointers<T>(value: T, pointers: readonly string[]): T {
  const copy = structuredClone(value);
  // The last item of a list goes first, so that the others keep their places.
  const ordered = [...pointers].sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
  for (const pointer of ordered) removeAt(copy, pointerKeys(pointer));
  return copy;
}

function removeAt(at: unknown, [key = '', ...rest]: readonly string[]): void {
  if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return;
  const inside = (at as Record<string, unknown>)[key];
  removeAt(inside, rest);
  const isEmpty = typeof inside === 'object' && inside !== null && Object.keys(inside).length === 0;
  if (rest.length > 0 && !isEmpty) return;
  if (Array.isArray(at)) {
    if (/^\d+$/.test(key)) at.splice(Number(key), 1);
  } else delete (at as Record<string, unknown>)[key];
}
