import { X509Certificate } from 'node:crypto';
import {
  ANNOTATION,
  type ClusterScope,
  clusterScopes,
  type Environment,
  INSTALLED,
  INSTALLED_DEFINITIONS,
  INSTALLED_IN_NAMESPACES,
  isOfNamespaces,
  NETWORK_RESULTS,
  rulesMode,
} from '../model/index.ts';
import { IS_GENUINE, namesSpec, tokensSpec } from './account-policies.ts';
import { among, cel, NAMESPACES, within } from './cel.ts';

/** Where the API server finds the webhook. */
export type WebhookPlace =
  | { readonly url: string }
  | { readonly service: { readonly namespace: string; readonly name: string; readonly port: number } };

/** Objects to register with the API server, and for whom. */
export type WebhookPlan = {
  /** Name of the configuration. Two services in one cluster need two. */
  readonly name: string;
  readonly place: WebhookPlace;
  /** Certificates (PEM) by which the API server trusts the webhook. */
  readonly ca: string;
  /** Environments whose admission is not `off`. */
  readonly environments: readonly Environment[];
  /** The identities of the control plane, `user:NAME` and `group:NAME`. */
  readonly controlPlane: readonly string[];
  /** Our identities in that cluster, under all our accounts. */
  readonly ours: readonly string[];
  /** Those of them whose requests the API server tells from those that only borrow the name. */
  readonly genuine: readonly string[];
  /** Namespaces of the gate itself: its pods, keys and documents. */
  readonly own: readonly string[];
  /** Stamped on the objects: the ledger they belong to. */
  readonly ledger: string;
  /** Whether the API server itself protects these objects from others. */
  readonly isProtected: boolean;
};

/** Labels that mark an object as managed by us. */
export const MANAGED = { 'app.kubernetes.io/managed-by': 'countersign' } as const;
export const ADMISSION = 'admissionregistration.k8s.io/v1';
const TIMEOUT_S = 5;
const SYSTEM = ['kube-system', 'kube-public', 'kube-node-lease'];
const WRITES = ['CREATE', 'UPDATE', 'DELETE'];
/**
 * Returns the ValidatingWebhookConfiguration. `kept` is the authority in the existing one: a replica may still serve
 * its certificates.
 */
export function webhookConfiguration(plan: WebhookPlan, kept: string): object {
  const { environments } = plan;
  const clientConfig = {
    ...('url' in plan.place ? { url: plan.place.url } : { service: { ...plan.place.service, path: '/validate' } }),
    caBundle: Buffer.from(unionOf(plan.ca, kept)).toString('base64'),
  };
  const common = { admissionReviewVersions: ['v1'], clientConfig, sideEffects: 'None', matchPolicy: 'Equivalent' };
  const strict = { ...common, failurePolicy: 'Fail', timeoutSeconds: TIMEOUT_S };
  const governed = [...new Set(environments.flatMap((e) => e.spec.target.namespaces))].sort();
  const objects = environments
    .flatMap((e) => clusterScopes(e.spec.target.clusterScoped))
    .filter((o) => !isOfNamespaces(o));
  const globs = environments.filter((e) => rulesMode(e) !== 'off').flatMap((e) => e.spec.admission.policy.namespaces);
  const machinery = machineryOf(plan);
  const isMachinery = among(machinery);
  const webhooks = [
    {
      ...strict,
      name: 'gate.countersign.dev',
      ...within('In', governed),
      rules: [
        {
          operations: [...WRITES, 'CONNECT'],
          apiGroups: ['*'],
          apiVersions: ['*'],
          resources: ['*/*'], // with every part of an object that a later version of Kubernetes adds
          scope: 'Namespaced',
        },
        NAMESPACES,
      ],
      matchConditions: [
        ...BESIDE,
        OTHER_PARTS,
        PLAIN_BINDING,
        {
          // Parts of objects, but for `scale`, are written by no controller: there, everyone is asked about alike.
          name: 'not-machinery',
          expression: `!(${isMachinery}) || (${SUBRESOURCE} && request.subResource != "scale")`,
        },
        { name: 'not-installation', expression: `!(${installsBinding(plan.own)})` },
      ],
    },
    {
      ...strict,
      name: 'metadata.countersign.dev',
      ...within('In', governed),
      rules: METADATA_BESIDE,
      matchConditions: [...BESIDE, METADATA_CHANGES, { name: 'not-machinery', expression: `!(${isMachinery})` }],
    },
    {
      ...common,
      name: 'machinery.countersign.dev',
      failurePolicy: 'Ignore', // it carries out approved changes, and must continue while the gate is unavailable
      timeoutSeconds: 1, // the shortest: a gate that hangs must not hold up the cluster
      ...within('In', governed),
      rules: [
        { operations: WRITES, apiGroups: ['*'], apiVersions: ['*'], resources: ['*', '*/scale'], scope: 'Namespaced' },
        NAMESPACES,
        ...METADATA_BESIDE,
      ],
      matchConditions: [
        ...BESIDE,
        NOT_ENDPOINTS,
        {
          name: 'content',
          expression: `!(${SUBRESOURCE}) || request.subResource == "scale" || (${METADATA_CHANGES.expression})`,
        },
        { name: 'machinery', expression: isMachinery },
      ],
    },
    {
      ...common,
      name: 'eviction.countersign.dev',
      failurePolicy: 'Ignore', // nodes are drained also while the gate is unavailable
      timeoutSeconds: 1,
      ...within('In', governed),
      rules: [
        {
          operations: ['CREATE'],
          apiGroups: [''],
          apiVersions: ['*'],
          resources: ['pods/eviction'],
          scope: 'Namespaced',
        },
      ],
      matchConditions: [{ name: 'not-machinery', expression: `!(${isMachinery})` }],
    },
    {
      ...strict,
      name: 'nodes.countersign.dev',
      rules: [
        { operations: ['CONNECT'], apiGroups: [''], apiVersions: ['*'], resources: ['nodes/proxy'], scope: 'Cluster' },
      ],
      matchConditions: intoGovernedPods(governed),
    },
    ...(objects.length === 0
      ? []
      : [
          {
            ...strict,
            name: 'cluster.countersign.dev',
            rules: [{ operations: WRITES, apiGroups: ['*'], apiVersions: ['*'], resources: ['*'], scope: 'Cluster' }],
            matchConditions: [
              { name: 'objects', expression: governs(objects) },
              { name: 'not-machinery', expression: `!(${isMachinery})` },
              { name: 'not-installation', expression: `!(${installs(plan.own)})` },
            ],
          },
        ]),
    ...(globs.length === 0
      ? []
      : [
          {
            ...common,
            name: 'policy.countersign.dev',
            failurePolicy: environments.some(
              (e) => e.spec.admission.policy.namespaces.length > 0 && e.spec.admission.policy.failurePolicy === 'Fail',
            )
              ? 'Fail'
              : 'Ignore',
            timeoutSeconds: TIMEOUT_S,
            ...within('NotIn', [...new Set([...governed, ...SYSTEM, ...plan.own])].sort()),
            rules: [
              {
                operations: ['CREATE', 'UPDATE'],
                apiGroups: ['*'],
                apiVersions: ['*'],
                resources: ['*'],
                scope: 'Namespaced',
              },
            ],
            matchConditions: [
              ...BESIDE,
              NOT_ENDPOINTS,
              {
                name: 'namespaces',
                expression: `${cel([...new Set(globs)].sort().map(regexOf))}.exists(r, request.namespace.matches(r))`,
              },
            ],
          },
        ]),
  ];
  return {
    apiVersion: ADMISSION,
    kind: 'ValidatingWebhookConfiguration',
    metadata: metadataOf(plan, plan.name),
    webhooks,
  };
}

// A kubelet lets anyone who reaches it by a node's `proxy` act in its pods. Only paths that read, and those that act in
// other namespaces, are left out: a path that is spelled in another way is asked about.
const KUBELET_READS = '^/?(healthz|metrics|stats|pods|runningpods|spec|configz|logs|containerLogs)(/[^./%][^/%]*)*/?$';
const KUBELET_ACTS = '^/(run|exec|attach|portForward|checkpoint)/';
const POD_AND_REST = '/[a-z0-9][a-z0-9.-]*(/[a-zA-Z0-9][a-zA-Z0-9.-]*)*$';

function intoGovernedPods(governed: readonly string[]): object[] {
  const isPath = (pattern: string) => `(has(object.path) && object.path.matches(${JSON.stringify(pattern)}))`;
  const elsewhere = isPath(`${KUBELET_ACTS}[a-z0-9][a-z0-9-]*${POD_AND_REST}`);
  const here = isPath(`${KUBELET_ACTS}(${governed.join('|')})/`);
  return [
    { name: 'not-reads', expression: `!${isPath(KUBELET_READS)}` },
    { name: 'not-elsewhere', expression: `!${elsewhere} || ${here}` },
  ];
}

export const SUBRESOURCE = 'has(request.subResource) && request.subResource != ""';

// Metadata can be written through these too. Who only reports a status, or finishes a namespace, is not asked about.
const METADATA_BESIDE = [
  { operations: ['UPDATE'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*/status'], scope: 'Namespaced' },
  {
    operations: ['UPDATE'],
    apiGroups: [''],
    apiVersions: ['*'],
    resources: ['namespaces/status', 'namespaces/finalize'],
    scope: 'Cluster',
  },
];
const fieldOf = (side: string, field: string, empty: string) =>
  `(has(${side}.metadata.${field}) ? ${side}.metadata.${field} : ${empty})`;
const differs = (field: string, empty: string, map = '') =>
  `${fieldOf('object', field, empty)}${map} != ${fieldOf('oldObject', field, empty)}${map}`;
// Every cloud's controller marks a Service so that its load balancer goes before it, through `status`.
const WITHOUT_BALANCER =
  '.filter(f, !(request.resource.resource == "services" && f == "service.kubernetes.io/load-balancer-cleanup"))';
const [NOW, BEFORE] = [fieldOf('object', 'annotations', '{}'), fieldOf('oldObject', 'annotations', '{}')];
// Pod networks must be able to report while the gate is away.
const REPORT = `(request.resource.resource == "pods" && k in ${cel(NETWORK_RESULTS)})`;
const METADATA_CHANGES = {
  name: 'metadata',
  expression:
    'object != null && oldObject != null && (' +
    `${differs('labels', '{}')} || ${differs('finalizers', '[]', WITHOUT_BALANCER)} || ` +
    `${differs('ownerReferences', '[]')} || ` +
    `!${NOW}.all(k, ${REPORT} || (k in ${BEFORE} && ${NOW}[k] == ${BEFORE}[k])) || ` +
    `!${BEFORE}.all(k, ${REPORT} || k in ${NOW}))`,
};
// Parts that others of our webhooks are asked about, and the token that every node needs.
export const OTHER_PARTS = {
  name: 'not-other-parts',
  expression:
    `!(${SUBRESOURCE} && (request.subResource == "status" || (request.resource.group == "" && ` +
    '[request.resource.resource, request.subResource] in [["pods", "eviction"], ["serviceaccounts", "token"]])))',
};
// A binding chooses a node. What it says beyond that becomes metadata of the pod.
export const PLAIN_BINDING = {
  name: 'not-plain-binding',
  expression:
    '!(has(request.subResource) && request.subResource == "binding") || ' +
    '(has(object.metadata.annotations) && size(object.metadata.annotations) > 0) || ' +
    '(has(object.metadata.labels) && object.metadata.labels.exists(k, ' +
    '!(k in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"])))',
};
const NOT_ENDPOINTS = {
  name: 'not-endpoints',
  expression:
    '!((request.resource.group == "" && request.resource.resource == "endpoints") || ' +
    '(request.resource.group == "discovery.k8s.io" && request.resource.resource == "endpointslices"))',
};
export const BESIDE = [
  {
    name: 'not-leases',
    expression: '!(request.resource.group == "coordination.k8s.io" && request.resource.resource == "leases")',
  },
  {
    name: 'not-events',
    expression: '!(request.resource.group in ["", "events.k8s.io"] && request.resource.resource == "events")',
  },
  // a question, which stores nothing
  {
    name: 'not-questions',
    expression:
      '!(request.resource.group == "authorization.k8s.io" && request.resource.resource == "localsubjectaccessreviews")',
  },
  // findings of tools, including ours
  {
    name: 'not-reports',
    expression:
      '!([request.resource.group, request.resource.resource] in ' +
      '[["openreports.io", "reports"], ["wgpolicyk8s.io", "policyreports"]])',
  },
];

/**
 * Returns policies, with bindings, that protect the gate's own objects even while the webhook is unavailable, because
 * the API server evaluates them. Members of the break-glass groups and our own account (an approved change) pass. The
 * cluster's controllers have nothing to do there, but for the pods in the gate's own namespace.
 */
export function protectingPolicies(plan: WebhookPlan): readonly object[] {
  if (!plan.isProtected) return [];
  const groups = [...new Set(plan.environments.flatMap((e) => e.spec.admission.breakGlass.groups))];
  // Tokens have an id; a borrowed name has none.
  const isBorrowed = `request.userInfo.username in ${cel(plan.genuine)} && !${IS_GENUINE}`;
  const isPassing = among([...plan.ours.map((u) => `user:${u}`), ...groups.map((g) => `group:${g}`)]);
  const passing = `((${isPassing}) && !(${isBorrowed}))`;
  // Pods of the gate itself come from controllers.
  const borrowed = `request.userInfo.username.startsWith("system:serviceaccount:") && !${IS_GENUINE}`;
  const controllers = `((${among(machineryOf(plan))}) && !(${borrowed}))`;
  const way = groups.length === 0 ? 'approved in Git' : `approved in Git, or by a member of ${groups.join(' or ')}`;
  const others = (those: string) => ({ name: 'others', expression: `!(${those})` });
  const rule = (apiGroup: string, resources: readonly string[]) => ({
    apiGroups: [apiGroup],
    apiVersions: ['*'],
    operations: ['UPDATE', 'DELETE'],
    resources,
  });
  // Not by `resourceNames`: these do not apply to a request that deletes a whole collection, which has no name.
  const isOurs = [
    `request.resource.resource == "validatingwebhookconfigurations" && ${NAME} == ${JSON.stringify(plan.name)}`,
    'request.resource.resource == "customresourcedefinitions" && ' +
      `${NAME}.endsWith(${JSON.stringify(INSTALLED_DEFINITIONS)})`,
    `request.resource.resource in ${cel(INSTALLED_RESOURCES)} && ${NAME} == ${JSON.stringify(INSTALLED)}`,
    `request.resource.resource == "clusterroles" && ${NAME} == ${JSON.stringify(INSTALLED_IN_NAMESPACES)}`,
    `request.resource.resource == "namespaces" && ${NAME} in ${cel(plan.own)}`,
  ];
  const cluster = policy(
    plan,
    plan.name,
    `this object protects the gate; it can only be changed as a change that is ${way}`,
    {
      resourceRules: [
        rule('admissionregistration.k8s.io', ['validatingwebhookconfigurations']),
        rule('apiextensions.k8s.io', ['customresourcedefinitions']),
        rule('rbac.authorization.k8s.io', ['clusterroles', 'clusterrolebindings']),
        rule('scheduling.k8s.io', ['priorityclasses']),
        ...(plan.own.length === 0 ? [] : [rule('', ['namespaces'])]),
      ],
    },
    [{ name: 'ours', expression: isOurs.map((test) => `(${test})`).join(' || ') }, others(passing)],
  );
  const accounts = accountPolicies(plan, groups);
  if (plan.own.length === 0) return [...cluster, ...accounts];
  const inside = policy(
    plan,
    `${plan.name}-namespace`,
    `this is the gate’s own namespace; it can only be changed as a change that is ${way}`,
    {
      namespaceSelector: {
        matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values: plan.own }],
      },
      resourceRules: [
        {
          apiGroups: ['*'],
          apiVersions: ['*'],
          operations: [...WRITES, 'CONNECT'],
          resources: [
            '*',
            'serviceaccounts/token',
            'pods/exec',
            'pods/attach',
            'pods/portforward',
            'pods/ephemeralcontainers',
            '*/scale',
          ],
          scope: 'Namespaced',
        },
      ],
      excludeResourceRules: [
        {
          apiGroups: ['*'],
          apiVersions: ['*'],
          operations: ['*'],
          resources: ['events', 'leases', 'endpoints', 'endpointslices'],
          scope: 'Namespaced',
        },
      ],
    },
    [others(`${passing} || ${controllers}`)],
  );
  return [...cluster, ...inside, ...accounts];
}

// The controllers' webhook lets them pass while the gate cannot answer in time. These policies are the API server's.
function accountPolicies(plan: WebhookPlan, groups: readonly string[]): readonly object[] {
  if (plan.genuine.length === 0) return [];
  const controllers = plan.controlPlane.flatMap((id) =>
    id.startsWith('user:system:serviceaccount:') ? [id.slice(5)] : [],
  );
  const users = [...controllers, ...plan.genuine];
  const enforced = plan.environments.filter((e) => e.spec.admission.mode === 'enforce');
  const namespaces = [...enforced.flatMap((e) => e.spec.target.namespaces), ...plan.own];
  return [
    ...policyWith(plan, `${plan.name}-names`, namesSpec(namespaces, `request.userInfo.username in ${cel(users)}`)),
    ...policyWith(plan, `${plan.name}-tokens`, tokensSpec(users, among(groups.map((g) => `group:${g}`)))),
  ];
}

const INSTALLED_RESOURCES = ['clusterroles', 'clusterrolebindings', 'priorityclasses'];

function policy(
  plan: WebhookPlan,
  name: string,
  message: string,
  matchConstraints: object,
  matchConditions: readonly { readonly name: string; readonly expression: string }[],
): object[] {
  return policyWith(plan, name, {
    matchConstraints: { matchPolicy: 'Equivalent', ...matchConstraints },
    matchConditions,
    validations: [{ expression: 'false', message: `countersign: ${message}`, reason: 'Forbidden' }],
  });
}

function policyWith(plan: WebhookPlan, name: string, spec: object): object[] {
  return [
    {
      apiVersion: ADMISSION,
      kind: 'ValidatingAdmissionPolicy',
      metadata: metadataOf(plan, name),
      spec: { failurePolicy: 'Fail', ...spec },
    },
    {
      apiVersion: ADMISSION,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: metadataOf(plan, name),
      spec: { policyName: name, validationActions: ['Deny', 'Audit'] },
    },
  ];
}

function metadataOf({ ledger }: WebhookPlan, name: string): object {
  return { name, labels: MANAGED, annotations: { [ANNOTATION.ledger]: ledger } };
}

// Machinery accounts common to all environments. The gate itself handles accounts that only some of them list.
function machineryOf({ environments, controlPlane }: WebhookPlan): readonly string[] {
  const [first, ...others] = environments.map((e) => e.spec.admission.controllers);
  const declared = (first ?? []).filter((id) => others.every((list) => list.includes(id)));
  return [...new Set([...controlPlane, ...declared])];
}

// The name of a request is empty if a whole collection is deleted, and unknown where a server makes it up later.
const NAME =
  '(has(request.name) && request.name != "" ? request.name : ' +
  'object != null ? (has(object.metadata.name) ? object.metadata.name : "") : ' +
  'oldObject != null ? oldObject.metadata.name : "")';
const isKind = (kind: string, group: string) =>
  `request.kind.kind == ${JSON.stringify(kind)} && request.kind.group == ${JSON.stringify(group)}`;

/** Returns CEL that tests whether one of the entries means the object; a name that is unknown is asked about. */
function governs(objects: readonly ClusterScope[]): string {
  const byKind = Map.groupBy(objects, ({ kind, group }) => JSON.stringify([kind, group ?? '*']));
  const tests = [...byKind.values()].map((same) => {
    const { kind, group } = same[0] as ClusterScope;
    const ofKind = group === undefined ? `request.kind.kind == ${JSON.stringify(kind)}` : isKind(kind, group);
    const names = [...new Set(same.flatMap((o) => o.names))].sort();
    if (names.includes('*')) return `(${ofKind})`;
    const exact = names.filter((name) => !name.includes('*'));
    const patterns = names.filter((name) => name.includes('*')).map(nameRegex);
    const matches = [
      'n == ""',
      ...(exact.length === 0 ? [] : [`n in ${cel(exact)}`]),
      ...(patterns.length === 0 ? [] : [`${cel(patterns)}.exists(r, n.matches(r))`]),
    ];
    return `(${ofKind} && [${NAME}].exists(n, ${matches.join(' || ')}))`;
  });
  return tests.sort().join(' || ');
}

/**
 * Returns CEL that tests whether someone who has every right installs or upgrades Countersign. That must also work
 * while the gate is away or broken, so the API server decides alone. A name proves nothing: the object can only give
 * rights to the gate's own account, and only someone who could do everything anyway can write it.
 */
function installs(own: readonly string[]): string {
  const named = `${NAME} == ${JSON.stringify(INSTALLED)}`;
  const rbac = 'rbac.authorization.k8s.io';
  const ours = 'object.metadata.labels.all(k, k.startsWith("app.kubernetes.io/"))';
  const isPlain = `(!has(object.metadata.labels) || ${ours})`;
  const forms = [
    // Without a webhook that converts, which would see and change our documents.
    `${isKind('CustomResourceDefinition', 'apiextensions.k8s.io')} && ` +
      `${NAME}.endsWith(${JSON.stringify(INSTALLED_DEFINITIONS)}) && ` +
      '(!has(object.spec.conversion) || object.spec.conversion.strategy == "None")',
    // Roles of others must not include it: they collect roles by labels.
    `${isKind('ClusterRole', rbac)} && ${NAME} in ${cel([INSTALLED, INSTALLED_IN_NAMESPACES])} && ` +
      `!has(object.aggregationRule) && ${isPlain}`,
    `${isKind('ClusterRoleBinding', rbac)} && ${named} && ${bindsOnlyUs(INSTALLED, own)}`,
    `${isKind('PriorityClass', 'scheduling.k8s.io')} && ${named} && ` +
      '!(has(object.globalDefault) && object.globalDefault)',
  ];
  return (
    'object != null && ' + // a removal has none
    `(${forms.map((form) => `(${form})`).join(' || ')}) && ${MAY_DO_ALL}`
  );
}

/** Returns CEL that tests the same for the binding by which the gate has its rights in a governed namespace. */
function installsBinding(own: readonly string[]): string {
  return (
    `${isKind('RoleBinding', 'rbac.authorization.k8s.io')} && ${NAME} == ${JSON.stringify(INSTALLED)} && ` +
    `object != null && !has(object.metadata.ownerReferences) && ${bindsOnlyUs(INSTALLED_IN_NAMESPACES, own)} && ` +
    MAY_DO_ALL
  );
}

function bindsOnlyUs(role: string, own: readonly string[]): string {
  return (
    `object.roleRef.kind == "ClusterRole" && object.roleRef.name == ${JSON.stringify(role)} && ` +
    `has(object.subjects) && object.subjects.all(s, s.kind == "ServiceAccount" && ` +
    `s.name == ${JSON.stringify(INSTALLED)} && s.namespace in ${cel(own)})`
  );
}

const MAY_DO_ALL = 'authorizer.group("*").resource("*").check("*").allowed()';

function regexOf(glob: string): string {
  return `^${glob.replaceAll('*', '.*')}$`; // the schema allows letters, digits, dashes and stars
}

// RE2, in which a plain `.` does not match a line break; names may contain one. The schema allows no other character
// that is special.
function nameRegex(pattern: string): string {
  return `^${pattern.replaceAll(/[.+]/g, '\\$&').replaceAll('*', '(?s:.*)')}$`;
}

/** Merges two sets of certificates, without expired ones. */
function unionOf(ca: string, kept: string): string {
  const all = `${ca}\n${kept}`.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const usable = [...new Set(all)].filter((pem) => {
    try {
      return new X509Certificate(pem).validToDate.getTime() > Date.now();
    } catch {
      return false;
    }
  });
  return `${usable.slice(0, MAX_AUTHORITIES).join('\n')}\n`;
}

const MAX_AUTHORITIES = 8; // replicas that each made their own, before and after renewal
