import { substituteText, type ValuePath } from '../model/index.ts';

/** Called for each reference to an undeclared name. */
type Missing = (name: string, path: ValuePath) => void;

/**
 * Replaces `${NAME}` in the values of a document with declared texts, before anything else reads it. So kind, names and
 * namespace are those of the final text. Keys, and CustomResourceDefinitions (kustomize-controller 1694), stay as they
 * are.
 */
export function substitute(document: unknown, declared: Readonly<Record<string, string>>, missing: Missing): unknown {
  return replaced(document, declared, [], missing);
}

function replaced(
  value: unknown,
  declared: Readonly<Record<string, string>>,
  path: ValuePath,
  missing: Missing,
): unknown {
  if (typeof value === 'string') return substituteText(value, declared, (name) => missing(name, path));
  if (Array.isArray(value)) {
    const items = value.map((item, i) => replaced(item, declared, [...path, i], missing));
    return items.some((item, i) => item !== value[i]) ? items : value;
  }
  if (typeof value !== 'object' || value === null) return value;
  const isDefinition = isDefinitionAt(value, declared, path);
  let isDifferent = false;
  const entries = Object.entries(value).map(([key, old]) => {
    const now = isDefinition && key !== 'kind' ? old : replaced(old, declared, [...path, key], missing);
    isDifferent ||= now !== old;
    return [key, now] as const;
  });
  return isDifferent ? Object.fromEntries(entries) : value;
}

// A whole document, or an item of a List, that is a CustomResourceDefinition after substitution; its schema may contain
// its own `${…}`.
function isDefinitionAt(value: object, declared: Readonly<Record<string, string>>, path: ValuePath): boolean {
  const isObject =
    path.length === 0 ||
    (path.at(-2) === 'items' && path.length % 2 === 0 && path.every((p, i) => i % 2 === 1 || p === 'items'));
  if (!isObject || !Object.hasOwn(value, 'kind')) return false;
  const { kind } = value as { kind: unknown };
  return typeof kind === 'string' && substituteText(kind, declared, () => {}) === 'CustomResourceDefinition';
}
