import { canonicalJson } from '../model/index.ts';

/** A field that is not as expected. `path` is written as in `kubectl explain`: `spec.containers[web].image`. */
export type Difference = {
  readonly path: string;
  readonly kind: 'added' | 'missing' | 'changed';
  /** Texts of the two sides, only for images and names: other fields may hold secrets. */
  readonly expected?: string;
  readonly actual?: string;
};

const MAX = 20;
const SHOWN = /(?:^|[.\]])(?:image|name|serviceAccountName|kind)$/;

/**
 * Returns the fields in which two JSON values differ, at most 20. Items of a list are matched by `name`, `mountPath`,
 * `containerPort` or `uid` if both sides have them.
 */
export function differencesBetween(expected: unknown, actual: unknown, path = ''): readonly Difference[] {
  const found: Difference[] = [];
  compare(expected, actual, path, found);
  return found;
}

/** Says in one line which fields differ, the first three by name. */
export function differencesText(differences: readonly Difference[]): string {
  const said = differences.slice(0, 3).map(({ path, kind, expected, actual }) => {
    const values = expected !== undefined && actual !== undefined ? ` (\`${actual}\` instead of \`${expected}\`)` : '';
    return kind === 'changed'
      ? `\`${path}\` differs${values}`
      : `\`${path}\` is ${kind}${actual === undefined ? '' : ` (\`${actual}\`)`}`;
  });
  const more = differences.length - said.length;
  return `${said.join(', ')}${more > 0 ? `, and ${more} more` : ''}`;
}

function compare(expected: unknown, actual: unknown, path: string, found: Difference[]): void {
  if (found.length >= MAX || expected === actual) return;
  if (isMap(expected) && isMap(actual)) {
    for (const key of new Set([...Object.keys(expected), ...Object.keys(actual)]))
      compare(expected[key], actual[key], path === '' ? key : `${path}.${key}`, found);
    return;
  }
  if (Array.isArray(expected) && Array.isArray(actual)) {
    compareLists(expected, actual, path, found);
    return;
  }
  const kind = expected === undefined ? 'added' : actual === undefined ? 'missing' : 'changed';
  if (kind === 'changed' && canonicalJson(expected) === canonicalJson(actual)) return;
  found.push({ path, kind, ...shown('expected', path, expected), ...shown('actual', path, actual) });
}

function compareLists(
  expected: readonly unknown[],
  actual: readonly unknown[],
  path: string,
  found: Difference[],
): void {
  const key = KEYS.find((k) => [...expected, ...actual].every((item) => keyOf(item, k) !== undefined));
  const [mine, theirs] = [expected.map((e) => keyOf(e, key)), actual.map((a) => keyOf(a, key))];
  const isKeyed = key !== undefined && isUnique(mine) && isUnique(theirs);
  if (!isKeyed) {
    for (let i = 0; i < Math.max(expected.length, actual.length); i++)
      compare(expected[i], actual[i], `${path}[${i}]`, found);
    return;
  }
  const [wanted, there] = [
    new Map(mine.map((n, i) => [n, expected[i]])),
    new Map(theirs.map((n, i) => [n, actual[i]])),
  ];
  for (const name of new Set([...mine, ...theirs]))
    compare(wanted.get(name), there.get(name), `${path}[${name}]`, found);
  const common = (list: readonly unknown[], other: ReadonlyMap<unknown, unknown>) => list.filter((n) => other.has(n));
  if (found.length < MAX && String(common(mine, there)) !== String(common(theirs, wanted)))
    found.push({ path, kind: 'changed' });
}

const KEYS = ['name', 'mountPath', 'uid', 'containerPort'] as const;

function keyOf(item: unknown, key: string | undefined): string | undefined {
  const value = key !== undefined && isMap(item) ? item[key] : undefined;
  return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;
}

function isUnique(names: readonly unknown[]): boolean {
  return new Set(names).size === names.length;
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shown(side: 'expected' | 'actual', path: string, value: unknown): Partial<Difference> {
  if (typeof value === 'string' && SHOWN.test(path)) return { [side]: value.slice(0, 200) };
  const image = side === 'actual' && isMap(value) ? value['image'] : undefined;
  return typeof image === 'string' ? { [side]: `image ${image.slice(0, 200).toWellFormed()}` } : {};
}
