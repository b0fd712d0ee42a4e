import { CountersignError, type ObjectRef, type RenderedObject } from '../model/index.ts';

type Needed = { readonly ref: ObjectRef; readonly rendered: RenderedObject };

/** Tests whether an object makes the namespace or the kind of another. */
export function brings({ ref, rendered }: Needed, item: Pick<Needed, 'ref'>): boolean {
  if (ref.kind === 'Namespace') return ref.name === item.ref.namespace;
  const names = (rendered.object['spec'] as { names?: { kind?: string } } | undefined)?.names;
  return ref.kind === 'CustomResourceDefinition' && names?.kind === item.ref.kind;
}

const RBAC = 'rbac.authorization.k8s.io/';

/**
 * Tests whether a dry run failed only because a binding needs a role that the change brings. An account that may not
 * `bind` every role may bind one whose rights it has, and the API server looks at the role for that.
 */
export function waitsForRole(
  { rendered, ref }: Needed,
  thrown: unknown,
  changed: readonly Pick<Needed, 'ref'>[],
): boolean {
  if (!(thrown instanceof CountersignError) || !/ not found$/.test(thrown.message)) return false;
  if (!ref.apiVersion.startsWith(RBAC) || !/^(Cluster)?RoleBinding$/.test(ref.kind)) return false;
  const { kind, name } = (rendered.object['roleRef'] ?? {}) as { readonly kind?: unknown; readonly name?: unknown };
  const namespace = kind === 'Role' ? ref.namespace : '';
  return changed.some(
    ({ ref: role }) =>
      role.apiVersion.startsWith(RBAC) && role.kind === kind && role.name === name && role.namespace === namespace,
  );
}
