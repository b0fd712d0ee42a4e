import { controllerOf, type KubernetesObject, type ObjectRef } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { objectsIn } from './scan.ts';

/** Contents of a namespace: uids of our objects and of those that controllers made from them, and everything else. */
export type Contents = { readonly own: ReadonlySet<string>; readonly others: readonly ObjectRef[] };

// The API server or its metrics make these; they go with the namespace.
const PASSING: ReadonlySet<string> = new Set(['Event', 'PodMetrics']);
const ENDPOINTS_OF = 'endpoints.kubernetes.io/managed-by';

/**
 * Reads everything in a namespace from the API server itself. An object counts as ours if `isOurs` says so, or if it
 * was ours before (`known`, uids), or if its controller is. What every namespace has is left out. A kind that cannot be
 * listed is among the others.
 */
export async function contentsOf(
  server: ApiServer,
  namespace: string,
  isOurs: (object: KubernetesObject) => boolean,
  known: ReadonlySet<string>,
): Promise<Contents> {
  const all = objectsIn(server, [namespace], { isFresh: true, leftOut: PASSING });
  const objects: KubernetesObject[] = [];
  let page = await all.next();
  for (; page.done !== true; page = await all.next()) objects.push(...page.value);
  const own = new Set(known);
  for (const object of objects) if (isOurs(object)) own.add(uidOf(object));
  for (let before = -1; before !== own.size; ) {
    before = own.size;
    for (const object of objects) if (own.has(controllerOf(object)?.uid ?? '')) own.add(uidOf(object));
  }
  const services = new Set(
    objects.filter((o) => o.kind === 'Service' && own.has(uidOf(o))).map((o) => o.metadata.name),
  );
  for (const object of objects) if (isEndpointsOf(object, services)) own.add(uidOf(object));
  const unread = page.value.map((kind) => ({ apiVersion: '', kind, namespace, name: '*' }));
  const others = objects
    .filter((object) => !own.has(uidOf(object)) && !isGiven(object))
    .map(({ apiVersion, kind, metadata }) => ({ apiVersion, kind, namespace, name: metadata.name }));
  return { own, others: [...others, ...unread] };
}

function uidOf({ metadata }: KubernetesObject): string {
  return String(metadata['uid'] ?? '');
}

// The controller gives them the name of their Service, and no owner.
function isEndpointsOf({ kind, metadata }: KubernetesObject, services: ReadonlySet<string>): boolean {
  return (
    kind === 'Endpoints' && metadata.labels?.[ENDPOINTS_OF] === 'endpoint-controller' && services.has(metadata.name)
  );
}

function isGiven({ kind, metadata }: KubernetesObject): boolean {
  return (
    (kind === 'ServiceAccount' && metadata.name === 'default') ||
    (kind === 'ConfigMap' && metadata.name === 'kube-root-ca.crt')
  );
}
