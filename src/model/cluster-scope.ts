import { wildcardMatches } from './glob.ts';
import { clusterScopedKinds } from './kind-scope.ts';
import { groupOf, type ObjectRef, resourceOf } from './kubernetes.ts';

/** An entry of `spec.target.clusterScoped` as it is written: `Kind`, `Kind.group`, or names of one kind. */
export type WrittenScope =
  | string
  | { readonly kind: string; readonly group?: string | undefined; readonly names: readonly string[] };

/** The objects of one cluster-scoped kind that an environment governs. */
export type ClusterScope = {
  readonly kind: string;
  /** Empty for the core group; undefined if the kind is meant in every group. */
  readonly group: string | undefined;
  /** Patterns of names, in which `*` stands for any characters; `['*']` if all objects are meant. */
  readonly names: readonly string[];
};

/** Spellings that the schema accepts. Every group with cluster-scoped kinds is a domain with a dot. */
export const KIND = /^[A-Z][A-Za-z0-9]{0,62}$/;
export const GROUP = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$/;
export const NAME_PATTERN = /^[A-Za-z0-9:._@+*-]{1,253}$/;
const VERSION = /^v[0-9]+((alpha|beta)[0-9]+)?$/;
const EVERY = ['*'];

/** Tests whether a text is `Kind` or `Kind.group`. */
export function isKind(text: string): boolean {
  const { kind, group } = kindAndGroup(text);
  return KIND.test(kind) && (group === undefined || (GROUP.test(group) && !VERSION.test(group.split('.')[0] ?? '')));
}

/**
 * Returns how to write a kind: for resources (`clusterroles.rbac.authorization.k8s.io`), `group/version/Kind`,
 * `Kind.version.group` and wrong cases. Returns undefined if that is not clear.
 */
export function rightSpelling(text: string): string | undefined {
  const [last, ...others] = text.split('/').reverse() as [string, ...string[]];
  const [word = '', ...domain] = last.split('.');
  const known = clusterScopedKinds(); // people write them in other ways, as in kubectl or in RBAC
  const lower = word.toLowerCase();
  const kind = [...known.keys()].find((k) => k.toLowerCase() === lower || resourceOf(k) === lower) ?? word;
  const group = [...domain, ...others].filter((part) => !VERSION.test(part)).join('.');
  const full = group.includes('.') ? group : (known.get(kind) ?? group);
  const right = group === '' || full === '' ? kind : `${kind}.${full}`;
  return isKind(right) ? right : undefined;
}

/** Reads the entries of an environment. */
export function clusterScopes(written: readonly WrittenScope[]): readonly ClusterScope[] {
  return written.map((entry) => {
    const { kind, group, names } = typeof entry === 'string' ? { ...kindAndGroup(entry), names: EVERY } : entry;
    // Namespaces of other groups are ordinary objects, and have to be named with their group.
    return { kind, group: kind === 'Namespace' ? (group ?? '') : group, names };
  });
}

/** Tests whether an entry means the Namespaces of Kubernetes, which `spec.target.namespaces` chooses among. */
export function isOfNamespaces({ kind, group }: ClusterScope): boolean {
  return kind === 'Namespace' && group === '';
}

/** Tests whether an entry means the kind of an object. */
export function isOfKind(scope: ClusterScope, { kind, apiVersion }: Pick<ObjectRef, 'kind' | 'apiVersion'>): boolean {
  return scope.kind === kind && (scope.group === undefined || scope.group === groupOf(apiVersion));
}

/** Tests whether an entry means an object. If its name is unknown, every entry of its kind does. */
export function isInScope(scope: ClusterScope, ref: ObjectRef): boolean {
  return isOfKind(scope, ref) && (ref.name === '' || scope.names.some((pattern) => wildcardMatches(pattern, ref.name)));
}

/** Tests whether two entries can mean one object. */
export function scopesOverlap(a: ClusterScope, b: ClusterScope): boolean {
  if (a.kind !== b.kind || (a.group !== undefined && b.group !== undefined && a.group !== b.group)) return false;
  return a.names.some((one) => b.names.some((other) => canBothMatch(one, other)));
}

/** Returns an entry as text: `Kind.group`, and the patterns if it does not mean all objects. */
export function scopeText({ kind, group, names }: ClusterScope): string {
  const full = group === undefined || group === '' ? kind : `${kind}.${group}`;
  return names.includes('*') ? full : `${full} (${names.join(', ')})`;
}

/**
 * Tests whether a text exists that both patterns match. If both have a `*`, one is made of the longer beginning, all
 * that stands between stars, and the longer end; so only beginnings and ends can exclude each other.
 */
function canBothMatch(one: string, other: string): boolean {
  if (!one.includes('*')) return wildcardMatches(other, one);
  if (!other.includes('*')) return wildcardMatches(one, other);
  const [a, b] = [one.split('*'), other.split('*')];
  const [startA, startB, endA, endB] = [a[0] ?? '', b[0] ?? '', a.at(-1) ?? '', b.at(-1) ?? ''];
  return (startA.startsWith(startB) || startB.startsWith(startA)) && (endA.endsWith(endB) || endB.endsWith(endA));
}

function kindAndGroup(text: string): { readonly kind: string; readonly group: string | undefined } {
  const dot = text.indexOf('.');
  return dot < 0 ? { kind: text, group: undefined } : { kind: text.slice(0, dot), group: text.slice(dot + 1) };
}
