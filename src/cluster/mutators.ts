import { groupOf, type ObjectRef } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { listAt, textAt } from './read-answer.ts';

const API = '/apis/admissionregistration.k8s.io';
const VERSIONS = ['v1', 'v1beta1', 'v1alpha1'];

/**
 * Returns the mutating webhooks and policies of the cluster whose rules have an object's kind, by kind and name.
 * Undefined if they cannot be read.
 */
export async function mutatorsOf(
  server: ApiServer,
  ref: ObjectRef,
  plural: string,
): Promise<readonly string[] | undefined> {
  const configurations = await itemsOf(server, 'mutatingwebhookconfigurations', ['v1']);
  if (configurations === undefined) return undefined;
  const policies = (await itemsOf(server, 'mutatingadmissionpolicies', VERSIONS)) ?? [];
  const webhooks = configurations.filter((item) =>
    listAt(item, 'webhooks').some((hook) => listAt(hook, 'rules').some((rule) => hasKind(rule, ref, plural))),
  );
  const others = policies.filter((item) =>
    listAt(item, 'spec', 'matchConstraints', 'resourceRules').some((rule) => hasKind(rule, ref, plural)),
  );
  const named = (kind: string, items: readonly unknown[]) =>
    items.map((item) => `${kind} ${textAt(item, 'metadata', 'name') ?? ''}`);
  return [...named('MutatingWebhookConfiguration', webhooks), ...named('MutatingAdmissionPolicy', others)];
}

async function itemsOf(
  server: ApiServer,
  plural: string,
  versions: readonly string[],
): Promise<readonly unknown[] | undefined> {
  for (const version of versions) {
    const answer = await server.request('GET', `${API}/${version}/${plural}`).catch(() => undefined);
    if (answer?.status === 200) return listAt(answer.body, 'items');
    if (answer?.status !== 404) return undefined;
  }
  return [];
}

// The version does not count: by default, the API server converts objects for webhooks that name another.
function hasKind(rule: unknown, { apiVersion }: ObjectRef, plural: string): boolean {
  const has = (field: string, ...values: readonly string[]) =>
    listAt(rule, field).some((value) => value === '*' || values.includes(String(value)));
  return (
    has('operations', 'CREATE', 'UPDATE') &&
    has('apiGroups', groupOf(apiVersion)) &&
    has('resources', plural, '*/*', `${plural}/*`)
  );
}
