import { ANNOTATION, type Environment, operatorIdentities, policyNames } from '../model/index.ts';
import { IS_GENUINE, namesSpec, tokensSpec } from './account-policies.ts';
import { among, cel, NAMESPACES, within } from './cel.ts';
import { ADMISSION, BESIDE, OTHER_PARTS, PLAIN_BINDING, SUBRESOURCE } from './webhook-objects.ts';

/** Policies that an API server (Kubernetes 1.37 or newer) reads from files, and for whom. */
export type StaticPlan = {
  /** Name of the webhook configuration. */
  readonly name: string;
  /** Environments of the cluster. */
  readonly environments: readonly Environment[];
  /** The identities of the control plane, `user:NAME` and `group:NAME`. */
  readonly controlPlane: readonly string[];
  /** Our user names in the cluster. */
  readonly ours: readonly string[];
  readonly isFenced: boolean;
};

/** A file of the directory, and the objects in it. */
export type StaticFile = { readonly name: string; readonly objects: readonly object[] };

/** The API server reads only objects with such a name from files, and refuses it for others. */
export const STATIC_SUFFIX = '.static.k8s.io';

/**
 * Returns the files with policies: the gate's own objects, the names of the cluster's controllers, and the fence. There
 * is no webhook among them: one that no one can remove, and that does not answer, would close the cluster.
 */
export function staticPolicies(plan: StaticPlan): readonly StaticFile[] {
  return [
    { name: '10-own.yaml', objects: own(plan) },
    { name: '20-names.yaml', objects: [...names(plan), ...tokens(plan)] },
    ...(plan.isFenced ? [{ name: '30-fence.yaml', objects: fence(plan) }] : []),
  ];
}

/** Returns the policy by which anyone can see which files an API server has read: it refuses, and names the digest. */
export function staticProbe(plan: StaticPlan, digest: string): StaticFile {
  const levels = ['own', 'names', ...(plan.isFenced ? ['fence'] : [])].join(',');
  const objects = policy(plan, 'probe', {
    matchConstraints: {
      resourceRules: [{ apiGroups: [''], apiVersions: ['*'], operations: ['CREATE'], resources: ['configmaps'] }],
    },
    matchConditions: [{ name: 'probe', expression: `request.name == ${JSON.stringify(PROBE)}` }],
    validations: [{ expression: 'false', message: `countersign static ${digest} ${levels}`, reason: 'Forbidden' }],
  });
  return { name: '40-probe.yaml', objects };
}

const PROBE = 'countersign-static-probe';

const GLASS = JSON.stringify(ANNOTATION.breakGlass);
const ACCOUNT = 'system:serviceaccount:';
const WRITES = ['CREATE', 'UPDATE', 'DELETE'];

// Only the gate writes these. On call may write a reason on one and then remove it, so that there is a way out.
function own(plan: StaticPlan): object[] {
  const ours = cel(policyNames(plan.name));
  const kept = ['webhooks', 'spec'].map((field) => `object.?${field} == oldObject.?${field}`).join(' && ');
  return policy(plan, 'own', {
    matchConstraints: {
      resourceRules: [
        {
          apiGroups: ['admissionregistration.k8s.io'],
          apiVersions: ['*'],
          operations: WRITES,
          resources: [
            'validatingwebhookconfigurations',
            'validatingadmissionpolicies',
            'validatingadmissionpolicybindings',
          ],
        },
      ],
    },
    matchConditions: [
      { name: 'ours', expression: `request.name in ${ours}` },
      { name: 'others', expression: `!(${isGate(plan)})` },
    ],
    validations: [
      {
        expression:
          `(${onCall(plan)}) && ((request.operation == "UPDATE" && ${kept}) || ` +
          `(request.operation == "DELETE" && ${says('oldObject')}))`,
        message:
          'countersign: only the gate changes this; on call: write the annotation ' +
          `${ANNOTATION.breakGlass} with your reason on it, then delete it`,
        reason: 'Forbidden',
      },
    ],
  });
}

// A borrowed name has no credential of its own.
function names(plan: StaticPlan): object[] {
  const namespaces = [...governed(plan), ...plan.ours.map(namespaceOf)].filter((n) => n !== '');
  const user = 'request.userInfo.username';
  const accounts = cel(plan.ours.filter((name) => name.startsWith(ACCOUNT)));
  const isMeant = `${user}.startsWith("${ACCOUNT}kube-system:") || ${user} in ${accounts}`;
  return policy(plan, 'names', namesSpec(namespaces, isMeant));
}

// The controller manager makes tokens for its controllers, and nodes for pods. On call may, with a reason on the
// Namespace.
function tokens(plan: StaticPlan): object[] {
  const users = [...plan.controlPlane.map((id) => id.replace(/^user:/, '')), ...plan.ours];
  return policy(plan, 'tokens', tokensSpec(users, `(${onCall(plan)}) && ${says('namespaceObject')}`));
}

// People write nothing in governed namespaces, even if there is no webhook. What the webhook is not asked about is left
// out here too.
function fence(plan: StaticPlan): object[] {
  const enforced = plan.environments.filter((e) => e.spec.admission.mode === 'enforce');
  const connect = enforced.some((e) => e.spec.admission.connect === 'record') ? [] : ['CONNECT'];
  const isScaledByOthers = enforced.some((e) =>
    e.spec.drift.ignore.some(({ fields }) => fields.includes('/spec/replicas')),
  );
  const passing = enforced.flatMap(({ spec: { admission } }) => [
    ...admission.controllers,
    ...operatorIdentities(admission.operators),
  ]);
  const ours = plan.ours.map((user) => `user:${user}`);
  const isNew = `(oldObject == null || !${says('oldObject')} || ${reason('object')} != ${reason('oldObject')})`;
  return policy(plan, 'fence', {
    matchConstraints: {
      ...within('In', [...new Set(enforced.flatMap((e) => e.spec.target.namespaces))].sort()),
      resourceRules: [
        {
          apiGroups: ['*'],
          apiVersions: ['*'],
          operations: [...WRITES, ...connect],
          resources: ['*/*'],
          scope: 'Namespaced',
        },
        { ...NAMESPACES, operations: ['DELETE'] },
      ],
    },
    matchConditions: [
      ...BESIDE,
      OTHER_PARTS,
      PLAIN_BINDING,
      ...(isScaledByOthers
        ? [{ name: 'not-scale', expression: `!(${SUBRESOURCE} && request.subResource == "scale")` }]
        : []),
      { name: 'not-dry-run', expression: '!(has(request.dryRun) && request.dryRun)' },
      { name: 'people', expression: `!(${among([...plan.controlPlane, ...ours, ...new Set(passing)])})` },
    ],
    variables: [
      {
        name: 'said',
        expression:
          `request.resource.resource == "namespaces" ? ${says('oldObject')} : ` +
          `(${says('namespaceObject')} || (${says('object')} && ${isNew}) || (object == null && ${says('oldObject')}))`,
      },
    ],
    validations: [
      {
        expression: `(${onCall(plan)}) && variables.said`,
        message:
          'countersign: only approved commits change this namespace; on call: write the annotation ' +
          `${ANNOTATION.breakGlass} with your reason on the Namespace first`,
        reason: 'Forbidden',
      },
    ],
  });
}

function policy(plan: StaticPlan, part: string, spec: object): object[] {
  const name = `${plan.name}-${part}${STATIC_SUFFIX}`;
  return [
    {
      apiVersion: ADMISSION,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
      spec: { failurePolicy: 'Fail', ...spec },
    },
    {
      apiVersion: ADMISSION,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name: `${plan.name}-${part}-binding${STATIC_SUFFIX}` },
      spec: { policyName: name, validationActions: part === 'probe' ? ['Deny'] : ['Deny', 'Audit'] },
    },
  ];
}

function governed({ environments }: StaticPlan): readonly string[] {
  return environments.filter((e) => e.spec.admission.mode !== 'off').flatMap((e) => e.spec.target.namespaces);
}

function namespaceOf(user: string): string {
  return user.startsWith(ACCOUNT) ? (user.slice(ACCOUNT.length).split(':')[0] ?? '') : '';
}

function isGate({ ours }: StaticPlan): string {
  const isAccount = `request.userInfo.username.startsWith("${ACCOUNT}")`;
  return `request.userInfo.username in ${cel(ours)} && (!${isAccount} || ${IS_GENUINE})`;
}

function onCall({ environments }: StaticPlan): string {
  const groups = [...new Set(environments.flatMap((e) => e.spec.admission.breakGlass.groups))].sort();
  return `request.userInfo.groups.exists(g, g in ${cel(groups)})`;
}

function says(side: string): string {
  const annotations = `${side}.metadata.annotations`;
  return (
    `(${side} != null && has(${side}.metadata) && has(${annotations}) && ${GLASS} in ${annotations} && ` +
    `${annotations}[${GLASS}].trim() != "")`
  );
}

function reason(side: string): string {
  return `${side}.metadata.annotations[${GLASS}].trim()`;
}
