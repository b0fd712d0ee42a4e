import { groupOf, type ObjectRef } from './kubernetes.ts';

/** The name of the objects that `countersign manifests` and the service itself put into a cluster. */
export const INSTALLED = 'countersign';
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
  return name === INSTALLED || (group === 'admissionregistration.k8s.io' && policyNames(INSTALLED).includes(name));
}
