import { groupOf, type KubernetesObject, type ObjectRef } from './kubernetes.ts';

/** The name of the objects that `countersign manifests` and the service itself put into a cluster. */
export const INSTALLED = 'countersign';
/** The ClusterRole of `countersign manifests --rights derived` that is bound in each governed namespace. */
export const INSTALLED_IN_NAMESPACES = 'countersign-governed';
/** The ending of the names of our CustomResourceDefinitions: the API server makes it the group of the kind. */
export const INSTALLED_DEFINITIONS = '.countersign.dev';

const KINDS: Readonly<Record<string, readonly string[]>> = {
  'rbac.authorization.k8s.io': ['ClusterRole', 'ClusterRoleBinding'],
  'scheduling.k8s.io': ['PriorityClass'],
  'admissionregistration.k8s.io': [
    'ValidatingWebhookConfiguration',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
  ],
};

/** Returns the names of the policies that protect the gate whose webhook configuration has this name. */
export function policyNames(webhook: string): readonly string[] {
  return ['', '-namespace', '-names', '-tokens'].map((part) => `${webhook}${part}`);
}

/** Tests whether a cluster-scoped object is part of Countersign's own installation, by its kind and name. */
export function isInstallation({ apiVersion, kind, namespace, name }: ObjectRef): boolean {
  const group = groupOf(apiVersion);
  if (namespace !== '') return false;
  if (group === 'apiextensions.k8s.io' && kind === 'CustomResourceDefinition')
    return name.endsWith(INSTALLED_DEFINITIONS);
  if (KINDS[group]?.includes(kind) !== true) return false;
  if (kind === 'ClusterRole' && name === INSTALLED_IN_NAMESPACES) return true;
  return name === INSTALLED || (group === 'admissionregistration.k8s.io' && policyNames(INSTALLED).includes(name));
}

/**
 * Tests whether an object in a governed namespace is the binding of `countersign manifests --rights derived`: it gives
 * the service's own account (`user`) that one role, and nothing to anyone else. Its name alone proves nothing.
 */
export function isOwnBinding(
  { apiVersion, kind, metadata, roleRef, subjects }: KubernetesObject,
  user: string,
): boolean {
  const role = (roleRef ?? {}) as { readonly kind?: unknown; readonly name?: unknown };
  const [only, ...others] = (Array.isArray(subjects) ? subjects : []) as Readonly<Record<string, unknown>>[];
  return (
    groupOf(apiVersion) === 'rbac.authorization.k8s.io' &&
    kind === 'RoleBinding' &&
    metadata.name === INSTALLED &&
    metadata['ownerReferences'] === undefined &&
    role.kind === 'ClusterRole' &&
    role.name === INSTALLED_IN_NAMESPACES &&
    only?.['kind'] === 'ServiceAccount' &&
    others.length === 0 &&
    `system:serviceaccount:${only['namespace']}:${only['name']}` === user
  );
}
