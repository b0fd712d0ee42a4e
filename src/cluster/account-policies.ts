import { among, NAMESPACES, within } from './cel.ts';

const ACCOUNT = 'system:serviceaccount:';
const WRITES = ['CREATE', 'UPDATE', 'DELETE'];

/** CEL that tests whether the requester has a token of its own. A borrowed name (impersonation) has none. */
export const IS_GENUINE =
  '(has(request.userInfo.extra) && "authentication.kubernetes.io/credential-id" in request.userInfo.extra)';

/**
 * Returns the spec of a policy by which nothing is written in some namespaces under the borrowed name of an account.
 * `isMeant` is CEL that tests whether the name is one of those.
 */
export function namesSpec(namespaces: readonly string[], isMeant: string): object {
  return {
    matchConstraints: {
      ...within('In', [...new Set(namespaces)].sort()),
      resourceRules: [
        {
          apiGroups: ['*'],
          apiVersions: ['*'],
          operations: [...WRITES, 'CONNECT'],
          resources: ['*/*'],
          scope: 'Namespaced',
        },
        { ...NAMESPACES, resources: ['namespaces', 'namespaces/status', 'namespaces/finalize'] },
      ],
    },
    matchConditions: [{ name: 'controllers', expression: isMeant }],
    validations: [
      {
        expression: IS_GENUINE,
        message: 'countersign: this account is one of the cluster’s own, and the request only borrows its name',
        reason: 'Forbidden',
      },
    ],
  };
}

/**
 * Returns the spec of a policy by which only the controller manager and nodes get tokens of some accounts (user names).
 * `mayToo` is CEL that lets others.
 */
export function tokensSpec(users: readonly string[], mayToo: string): object {
  const accounts = users
    .filter((user) => user.startsWith(ACCOUNT))
    .map((user) => user.slice(ACCOUNT.length).split(':'));
  const isOne = (name: string) => `[request.namespace, ${name}] in ${JSON.stringify(accounts)}`;
  const of = (side: string) =>
    `(has(${side}.metadata.annotations) ? ` +
    `${side}.metadata.annotations[?"kubernetes.io/service-account.name"].orValue("") : "")`;
  const isNew = `(request.operation == "CREATE" || ${of('object')} != ${of('oldObject')})`;
  const isToken = '(has(object.type) && object.type == "kubernetes.io/service-account-token")';
  return {
    matchConstraints: {
      ...within('In', [...new Set(accounts.map(([namespace = '']) => namespace))].sort()),
      resourceRules: [
        { apiGroups: [''], apiVersions: ['*'], operations: ['CREATE'], resources: ['serviceaccounts/token'] },
        { apiGroups: [''], apiVersions: ['*'], operations: ['CREATE', 'UPDATE'], resources: ['secrets'] },
      ],
    },
    matchConditions: [
      {
        name: 'others',
        expression: `!(${among(['user:system:kube-controller-manager', 'group:system:nodes'])})`,
      },
      {
        name: 'controllers',
        expression:
          `request.resource.resource == "serviceaccounts" ? ${isOne('request.name')} : ` +
          `(${isToken} && ${isNew} && ${isOne(of('object'))})`,
      },
    ],
    validations: [
      {
        expression: mayToo,
        message: 'countersign: only the controller manager and nodes get tokens of this account',
        reason: 'Forbidden',
      },
    ],
  };
}
