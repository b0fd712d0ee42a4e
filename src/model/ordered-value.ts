import type { Position, ValuePath } from './place.ts';

/** A value with the keys of its mappings in text order; JavaScript puts number-like keys first. */
export type OrderedValue =
  | string
  | number
  | boolean
  | null
  | readonly OrderedValue[]
  | { readonly mapping: readonly (readonly [string, OrderedValue])[] };

/** Returns a JSON value with its keys in the order of their places, or as they come if places are unknown. */
export function orderedValue(
  value: unknown,
  positionOf?: (path: ValuePath) => Position,
  path: ValuePath = [],
): OrderedValue {
  if (Array.isArray(value)) return value.map((item, i) => orderedValue(item, positionOf, [...path, i]));
  if (typeof value !== 'object') return value as string | number | boolean;
  if (value === null) return null;
  const names = Object.keys(value);
  const sorted =
    positionOf !== undefined && names.some((name) => /^\d+$/.test(name)) ? byPlace(names, positionOf, path) : names;
  const entries = sorted.map(
    (name) => [name, orderedValue((value as Record<string, unknown>)[name], positionOf, [...path, name])] as const,
  );
  return { mapping: entries };
}

function byPlace(
  names: readonly string[],
  positionOf: (path: ValuePath) => Position,
  path: ValuePath,
): readonly string[] {
  const placed = names.map((name) => ({ name, at: positionOf([...path, name]) }));
  return placed.sort((a, b) => a.at.line - b.at.line || a.at.column - b.at.column).map(({ name }) => name);
}
