const WRITES = ['CREATE', 'UPDATE', 'DELETE'];

/** The rule of a webhook or policy about writes of Namespaces. */
export const NAMESPACES = {
  operations: WRITES,
  apiGroups: [''],
  apiVersions: ['*'],
  resources: ['namespaces'],
  scope: 'Cluster',
};

/** Returns the selector of namespaces with, or without, these names. */
export function within(operator: 'In' | 'NotIn', values: readonly string[]) {
  return { namespaceSelector: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator, values }] } };
}

/** Returns CEL that tests whether the requester is one of the identities. */
export function among(identities: readonly string[]): string {
  const of = (kind: string) =>
    identities.filter((id) => id.startsWith(`${kind}:`)).map((id) => id.slice(kind.length + 1));
  return (
    `request.userInfo.username in ${cel(of('user'))} || ` +
    `request.userInfo.groups.exists(g, g in ${cel(of('group'))})`
  );
}

/** Returns a list of texts in CEL. */
export function cel(values: readonly string[]): string {
  return JSON.stringify(values); // a list of strings has the same syntax in JSON and CEL
}
