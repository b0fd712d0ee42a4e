import {
  builtInScope,
  clusterScopes,
  digestOf,
  type Environment,
  groupOf,
  isOfKind,
  type KindScope,
  type KubernetesObject,
  type ObjectRef,
  type RenderedObject,
  refText,
  type Violation,
} from '../model/index.ts';

export type KindRef = Pick<ObjectRef, 'apiVersion' | 'kind'>;

/** Returns whether objects of a kind are in a namespace; undefined if that is unknown. */
export type ScopeOf = (kind: KindRef & Partial<Pick<ObjectRef, 'namespace'>>) => KindScope | undefined;

/**
 * Returns what is known of the scopes of kinds, from content alone: the kinds of Kubernetes itself, and those that a
 * CustomResourceDefinition among the objects defines. Two definitions of one kind that disagree say nothing.
 */
export function scopesOf(objects: readonly RenderedObject[]): ScopeOf {
  const defined = new Map<string, KindScope | undefined>();
  for (const { object, ref } of objects) {
    if (ref.kind !== 'CustomResourceDefinition' || groupOf(ref.apiVersion) !== 'apiextensions.k8s.io') continue;
    const definition = definitionIn(object);
    if (definition === undefined) continue;
    const { kind, scope } = definition;
    defined.set(kind, defined.has(kind) && defined.get(kind) !== scope ? undefined : scope);
  }
  return (ref) => builtInScope(ref) ?? defined.get(kindText(ref));
}

/**
 * Adds the kinds that an environment governs as cluster-scoped; they count where nothing else is known, and only for
 * objects without a namespace: a kind of the same name in another group may have one.
 */
export function declaredScopes(scopeOf: ScopeOf, { spec }: Pick<Environment, 'spec'>): ScopeOf {
  const declared = clusterScopes(spec.target.clusterScoped);
  return (ref) =>
    scopeOf(ref) ?? (ref.namespace === '' && declared.some((scope) => isOfKind(scope, ref)) ? 'Cluster' : undefined);
}

/** Returns the kinds of which nothing is known, and which have an object without a namespace; each once. */
export function unknownKinds(objects: readonly RenderedObject[], scopeOf: ScopeOf): readonly KindRef[] {
  const unknown = objects.map((o) => o.ref).filter((ref) => ref.namespace === '' && scopeOf(ref) === undefined);
  return [...new Map(unknown.map((ref) => [kindText(ref), ref])).values()];
}

/**
 * Returns an object as the cluster has it: in this namespace if its kind needs one and it sets none, and in none if
 * its kind has none. An empty `metadata.namespace` counts as none.
 */
export function placeObject(object: RenderedObject, namespace: string | undefined, scopeOf: ScopeOf): RenderedObject {
  const { ref } = object;
  const scope = scopeOf(ref);
  if (scope === 'Namespaced' && ref.namespace === '' && namespace !== undefined) return inNamespace(object, namespace);
  const isWritten = Object.hasOwn(object.object.metadata, 'namespace');
  return scope === 'Cluster' && isWritten ? inNamespace(object, undefined) : object;
}

/** Warns of a namespace that `placeObject` removes. An API server ignores it too. */
export function ignoredNamespace({ ref, source, lineOf }: RenderedObject, scopeOf: ScopeOf): Violation | undefined {
  if (ref.namespace === '' || scopeOf(ref) !== 'Cluster') return undefined;
  return {
    code: 'namespace-ignored',
    message: `${ref.kind} ${ref.name} is cluster-scoped: its namespace \`${ref.namespace}\` has no effect`,
    object: { ...ref, namespace: '' },
    source: { file: source.file, line: lineOf(['metadata', 'namespace']) },
    hint: `remove \`metadata.namespace\` in \`${source.file}\``,
  };
}

/** Refuses an object that sets no namespace, if its kind may need one. `how` ends the hint: what else can name it. */
export function withoutNamespace(
  { ref, source, lineOf }: RenderedObject,
  scopeOf: ScopeOf,
  how: string,
): Violation | undefined {
  const scope = scopeOf(ref);
  if (ref.namespace !== '' || scope === 'Cluster') return undefined;
  const refuse = (code: 'namespace-missing' | 'scope-unknown', message: string, hint: string): Violation => ({
    code,
    message: `${refText(ref)} ${message}`,
    object: ref,
    source: { file: source.file, line: lineOf(['metadata', 'namespace']) },
    hint: `set \`metadata.namespace\` in \`${source.file}\`, ${hint}`,
  });
  if (scope === 'Namespaced') return refuse('namespace-missing', 'has no namespace', how);
  return refuse(
    'scope-unknown',
    `has no namespace, and the scope of \`${kindText(ref)}\` is unknown`,
    'or keep its CustomResourceDefinition beside it',
  );
}

function inNamespace(rendered: RenderedObject, namespace: string | undefined): RenderedObject {
  const { namespace: _, ...others } = rendered.object.metadata;
  const metadata = namespace === undefined ? others : { ...others, namespace };
  const object = { ...rendered.object, metadata } as KubernetesObject;
  return { ...rendered, object, ref: { ...rendered.ref, namespace: namespace ?? '' }, digest: digestOf(object) };
}

// The fields that decide are those of apiextensions.k8s.io/v1. An API server refuses a definition without them.
function definitionIn({ spec }: KubernetesObject): { readonly kind: string; readonly scope: KindScope } | undefined {
  const { group, names, scope } = (spec ?? {}) as { group?: unknown; names?: unknown; scope?: unknown };
  const { kind } = (names ?? {}) as { kind?: unknown };
  if (typeof group !== 'string' || typeof kind !== 'string') return undefined;
  return scope === 'Namespaced' || scope === 'Cluster'
    ? { kind: kindText({ apiVersion: `${group}/v1`, kind }), scope }
    : undefined;
}

/** Returns `Kind.group`, or `Kind` in the core group. */
export function kindText({ apiVersion, kind }: KindRef): string {
  const group = groupOf(apiVersion);
  return group === '' ? kind : `${kind}.${group}`;
}
