import type { Expansion, Match, Selector } from '../bundle/index.ts';
import { groupOf, type KubernetesObject } from '../model/index.ts';

/** Properties a constraint is matched against. */
export type Matched = {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Labels of the namespace it is in; undefined if unknown. */
  readonly namespaceLabels: Readonly<Record<string, string>> | undefined;
  readonly generated: boolean;
};

/** Describes an object for matching. A Namespace belongs to itself. */
export function matchedOf(
  object: KubernetesObject,
  namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>,
  generated = false,
): Matched {
  const [group, kind] = [groupOf(object.apiVersion), object.kind];
  const name = object.metadata?.name ?? object.metadata?.['generateName'] ?? '';
  const isNamespace = kind === 'Namespace' && group === '';
  const namespace = isNamespace ? String(name) : (object.metadata?.namespace ?? '');
  const labels = object.metadata?.labels ?? {};
  return {
    group,
    kind,
    namespace,
    name: String(name),
    labels,
    namespaceLabels: isNamespace ? labels : namespaces.get(namespace),
    generated,
  };
}

/**
 * Tests whether a constraint applies to this object, like Gatekeeper's matcher
 * (https://open-policy-agent.github.io/gatekeeper/website/docs/howto#the-match-field). A selector on the labels of an
 * unknown namespace matches: the rule is then evaluated rather than skipped.
 */
export function matches(match: Match, object: Matched): boolean {
  const clusterScoped = object.namespace === '' || (object.kind === 'Namespace' && object.group === '');
  return (
    (match.kinds === undefined ||
      match.kinds.length === 0 ||
      match.kinds.some((k) => listed(k.apiGroups, object.group) && listed(k.kinds, object.kind))) &&
    scopeMatches(match.scope, clusterScoped) &&
    (match.namespaces === undefined ||
      match.namespaces.length === 0 ||
      object.namespace === '' ||
      match.namespaces.some((g) => globMatches(g, object.namespace))) &&
    !(object.namespace !== '' && (match.excludedNamespaces ?? []).some((g) => globMatches(g, object.namespace))) &&
    (match.name === undefined || match.name === '' || globMatches(match.name, object.name)) &&
    (match.labelSelector === undefined || selects(match.labelSelector, object.labels)) &&
    (match.namespaceSelector === undefined ||
      object.namespace === '' ||
      object.namespaceLabels === undefined ||
      selects(match.namespaceSelector, object.namespaceLabels)) &&
    (match.source === undefined || match.source === 'All' || (match.source === 'Generated') === object.generated)
  );
}

function listed(values: readonly string[] | undefined, value: string): boolean {
  return values === undefined || values.length === 0 || values.includes('*') || values.includes(value);
}

function scopeMatches(scope: string | undefined, clusterScoped: boolean): boolean {
  if (scope === undefined || scope === '' || scope === '*') return true;
  return (scope === 'Cluster') === clusterScoped;
}

// A star at either end, or at both.
function globMatches(glob: string, text: string): boolean {
  const [open, close] = [glob.startsWith('*'), glob.length > 1 && glob.endsWith('*')];
  const core = glob.slice(open ? 1 : 0, close ? -1 : undefined);
  if (open && close) return text.includes(core);
  if (open) return text.endsWith(core);
  return close ? text.startsWith(core) : text === core;
}

/** Tests whether labels match a Kubernetes label selector. An unknown operator selects nothing. */
function selects(selector: Selector, labels: Readonly<Record<string, string>>): boolean {
  const has = (key: string) => Object.hasOwn(labels, key);
  return (
    Object.entries(selector.matchLabels ?? {}).every(([k, v]) => has(k) && labels[k] === v) &&
    (selector.matchExpressions ?? []).every(({ key, operator, values = [] }) => {
      switch (operator) {
        case 'In':
          return has(key) && values.includes(labels[key] as string);
        case 'NotIn':
          return !has(key) || !values.includes(labels[key] as string);
        case 'Exists':
          return has(key);
        case 'DoesNotExist':
          return !has(key);
        default:
          return false;
      }
    })
  );
}

/** Returns the objects that a workload creates, by the bundle's ExpansionTemplates. */
export function expanded(
  object: KubernetesObject,
  expansions: readonly Expansion[],
): { readonly object: KubernetesObject; readonly path: readonly string[]; readonly expansion: Expansion }[] {
  const [group, version] = object.apiVersion.includes('/')
    ? (object.apiVersion.split('/') as [string, string])
    : ['', object.apiVersion];
  return expansions
    .filter((e) =>
      e.applyTo.some((a) => a.groups.includes(group) && a.versions.includes(version) && a.kinds.includes(object.kind)),
    )
    .flatMap((expansion) => {
      const path = expansion.templateSource.split('.');
      const template = path.reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], object);
      if (typeof template !== 'object' || template === null) return [];
      const { group: g, version: v, kind } = expansion.generated;
      const metadata = {
        ...(template as KubernetesObject).metadata,
        name: `${object.metadata.name}-${kind.toLowerCase()}`,
        ...(object.metadata.namespace === undefined ? {} : { namespace: object.metadata.namespace }),
      };
      return [
        {
          object: { ...(template as KubernetesObject), apiVersion: g === '' ? v : `${g}/${v}`, kind, metadata },
          path,
          expansion,
        },
      ];
    });
}
