import type { KubernetesObject } from '../model/index.ts';
import { type ApiServer, apiPath } from './api-server.ts';
import type { Resource } from './kind-follow.ts';

type Discovery = {
  readonly items?: readonly {
    readonly metadata?: { readonly name?: string };
    readonly versions: readonly {
      readonly version: string;
      readonly resources?: readonly {
        readonly resource: string;
        readonly scope: string;
        readonly verbs: readonly string[];
        readonly responseKind: { readonly kind: string };
      }[];
    }[];
  }[];
};

const ALL_AT_ONCE = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
const PAGE = 500;
// These only describe other objects or are written constantly; no one chooses their content. Endpoints are proven.
const LEFT_OUT: ReadonlySet<string> = new Set([
  'Event',
  'Lease',
  'PodMetrics',
  'ControllerRevision',
  'Report',
  'PolicyReport',
]);

/** Lists every namespaced kind that can be listed, each in the API server's preferred version. */
export async function namespacedKinds(
  server: ApiServer,
  leftOut: ReadonlySet<string> = LEFT_OUT,
): Promise<readonly Resource[]> {
  const found = new Map<string, Resource>();
  for (const path of ['/api', '/apis']) {
    const { status, body } = await server.request('GET', path, undefined, undefined, ALL_AT_ONCE);
    if (status !== 200) throw new Error(`the API server answers ${status} to a request for its kinds`);
    for (const group of (body as Discovery).items ?? []) {
      const name = group.metadata?.name ?? '';
      for (const { version, resources = [] } of group.versions)
        for (const { resource, scope, verbs, responseKind } of resources) {
          const key = `${name}/${resource}`;
          if (scope !== 'Namespaced' || !verbs.includes('list') || leftOut.has(responseKind.kind) || found.has(key))
            continue;
          const apiVersion = name === '' ? version : `${name}/${version}`;
          found.set(key, { apiVersion, kind: responseKind.kind, plural: resource, namespaced: true });
        }
    }
  }
  return [...found.values()];
}

/** How objects are listed: `isFresh`: not from a cache that may be seconds old. `leftOut`: kinds. */
export type ListHow = { readonly isFresh?: boolean; readonly leftOut?: ReadonlySet<string> };

/**
 * Yields all objects in namespaces, kind by kind, from the API server's own cache unless `isFresh`. Returns the kinds
 * that may not be listed or whose server is unavailable. Throws if the kinds cannot be listed.
 */
export async function* objectsIn(
  server: ApiServer,
  namespaces: readonly string[],
  { isFresh = false, leftOut }: ListHow = {},
): AsyncGenerator<readonly KubernetesObject[], readonly string[]> {
  const unread: string[] = [];
  const wanted = new Set(namespaces);
  let isWhole = namespaces.length > FEW; // one list of the cluster instead of many
  for (const resource of await namespacedKinds(server, leftOut)) {
    const { kind } = resource;
    for (const place of isWhole ? [''] : namespaces) {
      const status = yield* listed(server, resource, place, wanted, isFresh);
      if (status === 200 || status === 404) continue;
      if (place !== '' || status !== 403) {
        if (!unread.includes(kind)) unread.push(kind);
        continue;
      }
      isWhole = false; // the account may only read these namespaces
      for (const namespace of namespaces) {
        const own = yield* listed(server, resource, namespace, wanted, isFresh);
        if (own !== 200 && own !== 404 && !unread.includes(kind)) unread.push(kind);
      }
    }
  }
  return unread;
}

const FEW = 8;

// Returns the status of the last answer.
async function* listed(
  server: ApiServer,
  { apiVersion, kind, plural }: Resource,
  namespace: string,
  wanted: ReadonlySet<string>,
  isFresh: boolean,
): AsyncGenerator<readonly KubernetesObject[], number> {
  let next = '';
  do {
    const first = isFresh ? '' : '&resourceVersion=0';
    const page = next === '' ? first : `&continue=${encodeURIComponent(next)}`;
    const path = `${apiPath(apiVersion, namespace)}/${plural}?limit=${PAGE}${page}`;
    const { status, body } = await server.request('GET', path);
    if (status !== 200) return status;
    const { items, metadata } = body as { items?: KubernetesObject[] | null; metadata?: { continue?: string } };
    const here = (items ?? []).filter((item) => wanted.has(item.metadata.namespace ?? ''));
    if (here.length > 0) yield here.map((item) => ({ ...item, apiVersion, kind }));
    next = metadata?.continue ?? '';
  } while (next !== '');
  return 200;
}
