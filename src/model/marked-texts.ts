import { z } from 'zod';
import { interpreted, type Mark } from './field.ts';

/** A text of a document that something else interprets, with its place in the document. */
export type MarkedText = { readonly path: readonly (string | number)[]; readonly text: string; readonly mark: Mark };

type Definition = {
  readonly type: string;
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly element?: z.core.$ZodType;
  readonly valueType?: z.core.$ZodType;
  readonly options?: readonly z.core.$ZodType[];
  readonly innerType?: z.core.$ZodType;
};

/**
 * Finds the marked texts in a document that the schema accepts. The schema says which texts those are, not their keys.
 * In a union, only the forms that accept the value are looked at.
 */
export function markedTexts(schema: z.core.$ZodType, value: unknown, path: MarkedText['path'] = []): MarkedText[] {
  if (value === undefined || value === null) return [];
  const mark = interpreted.get(schema as never) as Mark | undefined;
  const own = mark !== undefined && typeof value === 'string' ? [{ path, text: value, mark }] : [];
  return [...own, ...inside(schema._zod.def as Definition, value, path)];
}

function inside(def: Definition, value: unknown, path: MarkedText['path']): MarkedText[] {
  if (def.innerType !== undefined) return markedTexts(def.innerType, value, path);
  if (def.options !== undefined)
    return def.options
      .filter((option) => z.safeParse(option, value).success)
      .flatMap((option) => markedTexts(option, value, path));
  const { shape, element, valueType } = def;
  if (element !== undefined && Array.isArray(value))
    return value.flatMap((item, i) => markedTexts(element, item, [...path, i]));
  if (typeof value !== 'object' || value === null) return [];
  if (shape !== undefined)
    return Object.entries(shape).flatMap(([key, inner]) =>
      Object.hasOwn(value, key) ? markedTexts(inner, (value as Record<string, unknown>)[key], [...path, key]) : [],
    );
  if (valueType !== undefined)
    return Object.entries(value).flatMap(([key, inner]) => markedTexts(valueType, inner, [...path, key]));
  return [];
}
