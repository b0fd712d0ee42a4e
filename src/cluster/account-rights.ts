import { INSTALLED, INSTALLED_IN_NAMESPACES, policyNames, readableKinds, resourceOf } from '../model/index.ts';
import { DOCUMENTS } from './configuration-objects.ts';
import { MANAGED } from './webhook-objects.ts';

/** A kind that environments render, as the API serves it. */
export type AppliedKind = {
  readonly group: string;
  readonly plural: string;
  readonly isNamespaced: boolean;
  /** The names that environments may own; undefined if a pattern allows others. Of cluster-scoped kinds only. */
  readonly names?: readonly string[] | undefined;
};

/** Names of roles that are given rights beyond the account's own (`escalate`), or bound (`bind`). */
export type Grants = {
  readonly roles: readonly string[];
  readonly clusterRoles: readonly string[];
  readonly boundRoles: readonly string[];
  /** ClusterRoles that RoleBindings, and that ClusterRoleBindings, bind. */
  readonly boundInNamespaces: readonly string[];
  readonly boundInCluster: readonly string[];
};

/** The service's work in a cluster: for whom rights are, and which. */
export type RightsPlan = {
  /** The namespace of the service and its account. */
  readonly namespace: string;
  /** The name of its webhook configuration. */
  readonly webhook: string;
  readonly governed: readonly string[];
  /** The governed namespaces that are not there: they are created, so that their rights have a place. */
  readonly missing: readonly string[];
  readonly kinds: readonly AppliedKind[];
  /** Namespaced kinds, beside those of Kubernetes itself, whose objects are read. */
  readonly alsoRead: readonly { readonly group: string; readonly plural: string }[];
  /** Accounts that environments impersonate, as `namespace/name`. */
  readonly impersonated: readonly string[];
  readonly grants: Grants | undefined;
};

type Rule = {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
};

const RBAC = 'rbac.authorization.k8s.io';
const LABELS = { 'app.kubernetes.io/name': 'countersign', ...MANAGED };
const READ = ['get', 'list', 'watch'];
// A server-side apply of an object that is not there needs `create`; an exact replacement is an `update`.
const WRITE = ['create', 'update', 'patch', 'delete'];
const REGISTRATION = 'admissionregistration.k8s.io';
const POLICIES = ['validatingadmissionpolicies', 'validatingadmissionpolicybindings'];

/**
 * Returns the objects that give the service's account exactly the rights it needs for these kinds: a role for what is
 * not in a namespace, one that is bound in each governed namespace, and one in its own. The same plan gives the same
 * text.
 */
export function accountRights(plan: RightsPlan): readonly object[] {
  const governed = sorted(plan.governed);
  const subjects = [{ kind: 'ServiceAccount', name: INSTALLED, namespace: plan.namespace }];
  const bound = (kind: 'Role' | 'ClusterRole', name: string) => ({
    roleRef: { apiGroup: RBAC, kind, name },
    subjects,
  });
  return [
    ...sorted(plan.missing).map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
    rbac('ClusterRole', INSTALLED, { rules: [...clusterRules(plan), ...appliedInCluster(plan)] }),
    rbac('ClusterRoleBinding', INSTALLED, bound('ClusterRole', INSTALLED)),
    rbac('ClusterRole', INSTALLED_IN_NAMESPACES, { rules: rulesInNamespaces(plan) }),
    ...governed.map((namespace) =>
      rbac('RoleBinding', INSTALLED, bound('ClusterRole', INSTALLED_IN_NAMESPACES), namespace),
    ),
    rbac('Role', INSTALLED, { rules: ownRules() }, plan.namespace),
    rbac('RoleBinding', INSTALLED, bound('Role', INSTALLED), plan.namespace),
  ];
}

function rbac(kind: string, name: string, content: object, namespace?: string): object {
  const place = namespace === undefined ? {} : { namespace };
  return { apiVersion: `${RBAC}/v1`, kind, metadata: { name, ...place, labels: LABELS }, ...content };
}

// Rights that do not depend on the environments: see decision 29 for the request behind each rule.
function clusterRules({ webhook, impersonated }: RightsPlan): readonly Rule[] {
  const accounts = sorted(impersonated.map((account) => account.slice(account.indexOf('/') + 1)));
  return [
    rule('', ['namespaces'], READ),
    rule('', ['configmaps'], ['get'], ['kube-root-ca.crt']),
    rule('', ['events'], ['list']),
    rule('events.k8s.io', ['events'], ['create']),
    rule('node.k8s.io', ['runtimeclasses'], ['get']),
    rule('scheduling.k8s.io', ['priorityclasses'], READ),
    rule('storage.k8s.io', ['storageclasses'], ['list']),
    rule(REGISTRATION, ['mutatingadmissionpolicies', 'mutatingwebhookconfigurations'], ['list']),
    rule(REGISTRATION, [...POLICIES, 'validatingwebhookconfigurations'], [...READ, 'create']),
    rule(REGISTRATION, ['validatingwebhookconfigurations'], ['update'], [webhook]),
    rule(REGISTRATION, POLICIES, ['delete', 'update'], policyNames(webhook)),
    ...(accounts.length === 0 ? [] : [rule('', ['serviceaccounts'], ['impersonate'], accounts)]),
  ];
}

function appliedInCluster({ kinds, governed, grants }: RightsPlan): readonly Rule[] {
  const all = kinds.filter((kind) => !kind.isNamespaced);
  const open = all.filter((kind) => kind.names === undefined && !isNamespaces(kind));
  const named = all.filter((kind) => kind.names !== undefined && !isNamespaces(kind));
  return [
    // A namespace that is made without its binding would take nothing: the one who prints the rights creates it.
    ...(all.some(isNamespaces) ? [rule('', ['namespaces'], ['delete', 'patch', 'update'], governed)] : []),
    ...together(open, [...READ, ...WRITE]),
    ...together(named, READ),
    ...named.map(({ group, plural, names = [] }) => rule(group, [plural], WRITE, names)),
    ...grant('clusterroles', 'escalate', grants?.clusterRoles),
    ...grant('clusterroles', 'bind', grants?.boundInCluster),
  ];
}

// Reading has no `*`: it would allow `get` on `pods/exec` and every other part of an object as well.
function rulesInNamespaces({ kinds, alsoRead, grants }: RightsPlan): readonly Rule[] {
  const builtIn = readableKinds().map(({ group, kind }) => ({ group, plural: resourceOf(kind) }));
  const namespaced = kinds.filter((kind) => kind.isNamespaced);
  const documents = DOCUMENTS.map((plural) => ({ group: 'countersign.dev', plural }));
  return [
    ...together([...builtIn, ...documents, ...alsoRead, ...namespaced], READ),
    ...together(namespaced, WRITE),
    rule('openreports.io', ['reports'], ['create', 'patch']),
    ...grant('roles', 'escalate', grants?.roles),
    ...grant('roles', 'bind', grants?.boundRoles),
    ...grant('clusterroles', 'bind', grants?.boundInNamespaces),
  ];
}

function ownRules(): readonly Rule[] {
  return [
    rule('countersign.dev', DOCUMENTS, READ),
    rule(
      'countersign.dev',
      DOCUMENTS.map((plural) => `${plural}/status`),
      ['patch'],
    ),
    rule('coordination.k8s.io', ['leases'], ['create', 'get', 'update']),
    rule('', ['secrets'], ['create']),
    rule('', ['secrets'], ['get', 'update'], ['countersign-webhook']),
    rule('', ['configmaps'], ['create', 'get', 'patch']), // `--anchor configmap:`
  ];
}

function isNamespaces({ group, plural }: AppliedKind): boolean {
  return group === '' && plural === 'namespaces';
}

function grant(resource: string, verb: string, names: readonly string[] = []): readonly Rule[] {
  return names.length === 0 ? [] : [rule(RBAC, [resource], [verb], names)];
}

// One rule for each group.
function together(
  kinds: readonly { readonly group: string; readonly plural: string }[],
  verbs: readonly string[],
): readonly Rule[] {
  return sorted(kinds.map((kind) => kind.group)).map((group) =>
    rule(
      group,
      kinds.filter((kind) => kind.group === group).map((kind) => kind.plural),
      verbs,
    ),
  );
}

function rule(group: string, resources: readonly string[], verbs: readonly string[], names?: readonly string[]): Rule {
  return {
    apiGroups: [group],
    resources: sorted(resources),
    ...(names === undefined ? {} : { resourceNames: sorted(names) }),
    verbs: sorted(verbs),
  };
}

function sorted(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)].sort();
}
