import { connect } from '../cluster/index.ts';
import { CountersignError, type ObjectRef, resourceOf } from '../model/index.ts';
import { plain } from '../terminal/index.ts';
import { kindOf, OWNED_KINDS } from './kind-names.ts';

/** Where to ask for owners: the kubeconfig and its context, as flags or settings name them. */
export type Place = { readonly kubeconfig: string | undefined; readonly context: string | undefined };

const LEVELS = 5; // Pod, ReplicaSet, Deployment, and two for controllers of custom resources

/** Whether objects of the kind are made by a controller, so that their owner is in Git and they are not. */
export function isMadeByController(kind: string): boolean {
  return Object.hasOwn(OWNED_KINDS, kindOf(kind));
}

/**
 * Asks the cluster who owns an object, and who owns that, up to the top. Returns the chain without the object itself,
 * nearest first; undefined if the object does not exist. Throws what connecting throws, and `cluster-forbidden`.
 */
export async function findOwners(
  spelled: string,
  name: string,
  namespace: string,
  place: Place,
): Promise<readonly ObjectRef[] | undefined> {
  const { server } = await connect({ ...place, namedBy: 'operator' });
  try {
    const kind = kindOf(spelled);
    let at: ObjectRef = { apiVersion: OWNED_KINDS[kind] ?? 'v1', kind, namespace, name };
    let uid: string | undefined;
    const chain: ObjectRef[] = [];
    for (let level = 0; level < LEVELS; level++) {
      const { status, body } = await server.request('GET', pathOf(at));
      if (status === 404) return level === 0 ? undefined : chain;
      if (status !== 200)
        throw new CountersignError(
          'cluster-forbidden',
          `${plain(at.kind)} \`${plain(at.name)}\` cannot be read (status ${status})`,
          {
            hint: 'use a kubeconfig that may read it, or name the object in Git',
          },
        );
      // An owner counts only if it is the object that was meant: a name alone can be claimed by anyone who makes a Pod.
      if (level > 0 && uidOf(body) !== uid) return chain;
      if (level > 0) chain.push(at);
      const owner = controllerOf(body, namespace);
      if (owner === undefined) return chain;
      at = owner.ref;
      uid = owner.uid;
    }
    return chain;
  } finally {
    server.close();
  }
}

function pathOf({ apiVersion, kind, namespace, name }: ObjectRef): string {
  const root = apiVersion.includes('/')
    ? `/apis/${apiVersion.split('/').map(encodeURIComponent).join('/')}`
    : '/api/v1';
  return (
    `${root}/namespaces/${encodeURIComponent(namespace)}/` +
    `${encodeURIComponent(resourceOf(kind))}/${encodeURIComponent(name)}`
  );
}

type Owner = {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly name?: unknown;
  readonly uid?: unknown;
  readonly controller?: unknown;
};

function controllerOf(body: unknown, namespace: string): { readonly ref: ObjectRef; readonly uid: string } | undefined {
  const { metadata } = body as { metadata?: { ownerReferences?: unknown } };
  const owners: readonly Owner[] = Array.isArray(metadata?.ownerReferences) ? metadata.ownerReferences : [];
  const { apiVersion, kind, name, uid } = owners.find((o) => o.controller === true) ?? {};
  if (typeof apiVersion !== 'string' || typeof kind !== 'string' || typeof name !== 'string') return undefined;
  return typeof uid === 'string' ? { ref: { apiVersion, kind, namespace, name }, uid } : undefined;
}

function uidOf(body: unknown): unknown {
  return (body as { metadata?: { uid?: unknown } }).metadata?.uid;
}
