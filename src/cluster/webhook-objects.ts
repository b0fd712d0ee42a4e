import { X509Certificate } from 'node:crypto';
import { ANNOTATION, type Environment, rulesMode } from '../model/index.ts';

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
  /** Our identities in that cluster, under all our accounts. */
  readonly ours: readonly string[];
  /** Namespaces of the gate itself: its pods, keys and documents. */
  readonly own: readonly string[];
  /** Stamped on the objects: the ledger they belong to. */
  readonly ledger: string;
  /** Whether the API server itself protects these objects from others. */
  readonly isProtected: boolean;
};

/** Labels that mark an object as managed by us. */
export const MANAGED = { 'app.kubernetes.io/managed-by': 'countersign' } as const;
const ADMISSION = 'admissionregistration.k8s.io/v1';
const TIMEOUT_S = 5;
const SYSTEM = ['kube-system', 'kube-public', 'kube-node-lease'];
const WRITES = ['CREATE', 'UPDATE', 'DELETE'];
const SUBRESOURCES = [
  '*/scale',
  'pods/ephemeralcontainers',
  'pods/resize',
  'pods/eviction',
  'pods/exec',
  'pods/attach',
  'pods/portforward',
  'pods/proxy',
  'services/proxy',
];

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
  const kinds = [...new Set(environments.flatMap((e) => e.spec.target.clusterScoped))]
    .filter((k) => k !== 'Namespace')
    .sort();
  const globs = environments.filter((e) => rulesMode(e) !== 'off').flatMap((e) => e.spec.admission.policy.namespaces);
  const within = (operator: 'In' | 'NotIn', values: readonly string[]) => ({
    namespaceSelector: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator, values }] },
  });
  const machinery = machineryOf(environments);
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
          resources: ['*', ...SUBRESOURCES],
          scope: 'Namespaced',
        },
        NAMESPACES,
      ],
      matchConditions: [...BESIDE, { name: 'not-machinery', expression: `!(${isMachinery})` }],
    },
    {
      ...common,
      name: 'machinery.countersign.dev',
      failurePolicy: 'Ignore', // it carries out admitted requests, and must continue while the gate is unavailable
      timeoutSeconds: 2,
      ...within('In', governed),
      rules: [
        { operations: WRITES, apiGroups: ['*'], apiVersions: ['*'], resources: ['*', '*/scale'], scope: 'Namespaced' },
        NAMESPACES,
      ],
      matchConditions: [...BESIDE, NOT_ENDPOINTS, { name: 'machinery', expression: isMachinery }],
    },
    ...(kinds.length === 0
      ? []
      : [
          {
            ...strict,
            name: 'cluster.countersign.dev',
            rules: [{ operations: WRITES, apiGroups: ['*'], apiVersions: ['*'], resources: ['*'], scope: 'Cluster' }],
            matchConditions: [
              { name: 'kinds', expression: `request.kind.kind in ${cel(kinds)}` },
              { name: 'not-machinery', expression: `!(${isMachinery})` },
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

const NAMESPACES = {
  operations: WRITES,
  apiGroups: [''],
  apiVersions: ['*'],
  resources: ['namespaces'],
  scope: 'Cluster',
};
const NOT_ENDPOINTS = {
  name: 'not-endpoints',
  expression: '!(request.resource.resource in ["endpoints", "endpointslices"])',
};
const BESIDE = [
  {
    name: 'not-leases',
    expression: '!(request.resource.group == "coordination.k8s.io" && request.resource.resource == "leases")',
  },
  { name: 'not-events', expression: 'request.resource.resource != "events"' },
  // findings of tools, including ours
  { name: 'not-reports', expression: '!(request.resource.group in ["openreports.io", "wgpolicyk8s.io"])' },
];

/**
 * Returns policies, with bindings, that protect the gate's own objects even while the webhook is unavailable, because
 * the API server evaluates them. Members of the break-glass groups and our own account (an approved change) pass.
 */
export function protectingPolicies(plan: WebhookPlan): readonly object[] {
  if (!plan.isProtected) return [];
  const groups = [...new Set(plan.environments.flatMap((e) => e.spec.admission.breakGlass.groups))];
  const passing = among([
    ...machineryOf(plan.environments),
    ...plan.ours.map((u) => `user:${u}`),
    ...groups.map((g) => `group:${g}`),
  ]);
  const way = groups.length === 0 ? 'approved in Git' : `approved in Git, or by a member of ${groups.join(' or ')}`;
  const rule = (apiGroup: string, resources: readonly string[], names: readonly string[]) => ({
    apiGroups: [apiGroup],
    apiVersions: ['*'],
    operations: ['UPDATE', 'DELETE'],
    resources,
    resourceNames: names,
  });
  const cluster = policy(
    plan,
    plan.name,
    passing,
    `this object protects the gate; it can only be changed as a change that is ${way}`,
    {
      resourceRules: [
        rule('admissionregistration.k8s.io', ['validatingwebhookconfigurations'], [plan.name]),
        rule('apiextensions.k8s.io', ['customresourcedefinitions'], DEFINITIONS),
        rule('rbac.authorization.k8s.io', ['clusterroles', 'clusterrolebindings'], ['countersign']),
        ...(plan.own.length === 0 ? [] : [rule('', ['namespaces'], plan.own)]),
      ],
    },
  );
  if (plan.own.length === 0) return cluster;
  const inside = policy(
    plan,
    `${plan.name}-namespace`,
    passing,
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
          resources: ['*', 'pods/exec', 'pods/attach', 'pods/portforward', 'pods/ephemeralcontainers', '*/scale'],
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
  );
  return [...cluster, ...inside];
}

const DEFINITIONS = ['environments', 'trustpolicies', 'notifiers', 'reportschedules'].map(
  (plural) => `${plural}.countersign.dev`,
);

function policy(plan: WebhookPlan, name: string, passing: string, message: string, matchConstraints: object): object[] {
  return [
    {
      apiVersion: ADMISSION,
      kind: 'ValidatingAdmissionPolicy',
      metadata: metadataOf(plan, name),
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: { matchPolicy: 'Equivalent', ...matchConstraints },
        matchConditions: [{ name: 'others', expression: `!(${passing})` }],
        validations: [{ expression: 'false', message: `countersign: ${message}`, reason: 'Forbidden' }],
      },
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
function machineryOf(environments: readonly Environment[]): readonly string[] {
  const [first, ...others] = environments.map((e) => e.spec.admission.controllers);
  return (first ?? []).filter((id) => others.every((list) => list.includes(id)));
}

/** Returns CEL that tests whether the requester is one of the identities. */
function among(identities: readonly string[]): string {
  const of = (kind: string) =>
    identities.filter((id) => id.startsWith(`${kind}:`)).map((id) => id.slice(kind.length + 1));
  return (
    `request.userInfo.username in ${cel(of('user'))} || ` +
    `request.userInfo.groups.exists(g, g in ${cel(of('group'))})`
  );
}

function cel(values: readonly string[]): string {
  return JSON.stringify(values); // a list of strings has the same syntax in JSON and CEL
}

function regexOf(glob: string): string {
  return `^${glob.replaceAll('*', '.*')}$`; // the schema allows letters, digits, dashes and stars
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
