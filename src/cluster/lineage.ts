import { CountersignError, type KubernetesObject, messageOf, type ObjectRef, Recent } from '../model/index.ts';
import { type ApiServer, apiPath } from './api-server.ts';
import { KindFollow, TIMES, type WatchTimes } from './kind-follow.ts';
import { objectIn } from './read-answer.ts';

type Kind = { readonly plural: string; readonly namespaced: boolean };
type Log = { warn(fields: object, message: string): void };

/** Kinds from which the cluster's machinery makes other objects. They are followed; others are read when asked. */
const FOLLOWED: readonly (readonly [apiVersion: string, kind: string, plural: string, namespaced: boolean])[] = [
  ['apps/v1', 'Deployment', 'deployments', true],
  ['apps/v1', 'ReplicaSet', 'replicasets', true],
  ['apps/v1', 'StatefulSet', 'statefulsets', true],
  ['apps/v1', 'DaemonSet', 'daemonsets', true],
  ['apps/v1', 'ControllerRevision', 'controllerrevisions', true],
  ['batch/v1', 'Job', 'jobs', true],
  ['batch/v1', 'CronJob', 'cronjobs', true],
  ['v1', 'ReplicationController', 'replicationcontrollers', true],
  ['v1', 'ServiceAccount', 'serviceaccounts', true],
  ['v1', 'LimitRange', 'limitranges', true],
  ['autoscaling/v2', 'HorizontalPodAutoscaler', 'horizontalpodautoscalers', true],
  ['scheduling.k8s.io/v1', 'PriorityClass', 'priorityclasses', false],
];
const MAX_NAMESPACES = 8; // followed one by one where the account may not follow a kind in the whole cluster
const MOMENT_MS = 1000; // how long an answer about a kind that is not followed is kept

type Followed = { readonly objects: Map<string, KubernetesObject>; isRead: boolean };

/** Objects from which others are made, as they are in a cluster: from watches, or read when asked. */
export class Lineage {
  readonly #server: ApiServer;
  readonly #namespaces: ReadonlySet<string>;
  readonly #kindOf: (apiVersion: string, kind: string) => Promise<Kind | undefined>;
  readonly #log: Log;
  readonly #times: WatchTimes;
  readonly #stopped = new AbortController();
  readonly #kinds = new Map<string, Followed>();
  readonly #asked = new Recent<{ readonly at: number; readonly answer: Promise<readonly KubernetesObject[]> }>(5000);

  /** `kindOf` finds how the API serves a kind. */
  constructor(
    server: ApiServer,
    namespaces: readonly string[],
    kindOf: (apiVersion: string, kind: string) => Promise<Kind | undefined>,
    log: Log,
    times: WatchTimes = TIMES,
  ) {
    this.#server = server;
    this.#namespaces = new Set(namespaces);
    this.#kindOf = kindOf;
    this.#log = log;
    this.#times = times;
  }

  /** Begins to follow; resolves once everything was listed. A kind that cannot be followed is read when asked. */
  async follow(): Promise<void> {
    await Promise.all(
      FOLLOWED.map(([apiVersion, kind, plural, namespaced]) =>
        this.#follow({ apiVersion, kind, plural, namespaced }).catch((thrown) =>
          this.#log.warn(
            { kind },
            `is not followed, so each admission request about it reads it: ${messageOf(thrown)}`,
          ),
        ),
      ),
    );
  }

  /** Returns the object with this name, or undefined. `fresh`: from the API server. Throws `cluster-unreachable`. */
  async get(ref: ObjectRef, fresh = false): Promise<KubernetesObject | undefined> {
    const { apiVersion, kind, namespace, name } = ref;
    const followed = this.#kinds.get(`${apiVersion} ${kind}`);
    const known = followed?.isRead === true && this.#covers(namespace);
    if (known && !fresh) {
      const found = followed.objects.get(`${namespace}/${name}`);
      if (found !== undefined) return found; // what is missing may only be late
    }
    const served = await this.#kindOf(apiVersion, kind);
    if (served === undefined) return undefined;
    const place = apiPath(apiVersion, served.namespaced ? namespace : '');
    const path = `${place}/${served.plural}/${encodeURIComponent(name)}`;
    const [object] = await this.#once(path, fresh, async () => {
      const { status, body } = await this.#server.request('GET', path);
      if (status === 404) return [];
      if (status !== 200) throw silent(status, `${kind} ${namespace}/${name}`);
      return [objectIn({ status, body })];
    });
    return object;
  }

  /**
   * Returns the objects of a kind in a namespace (`''`: cluster-scoped). Of a kind that is not followed, only those
   * with these labels are read. `fresh` and errors as in `get`.
   */
  async list(
    apiVersion: string,
    kind: string,
    namespace: string,
    fresh = false,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<readonly KubernetesObject[]> {
    const followed = this.#kinds.get(`${apiVersion} ${kind}`);
    if (!fresh && followed?.isRead === true && this.#covers(namespace))
      return [...followed.objects].filter(([place]) => place.startsWith(`${namespace}/`)).map(([, object]) => object);
    const served = await this.#kindOf(apiVersion, kind);
    if (served === undefined) return [];
    const selector = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const query = selector.length === 0 ? '' : `?labelSelector=${encodeURIComponent(selector.join(','))}`;
    const path = `${apiPath(apiVersion, served.namespaced ? namespace : '')}/${served.plural}${query}`;
    return this.#once(path, fresh, async () => {
      const { status, body } = await this.#server.request('GET', path);
      if (status === 404) return [];
      const { items } = body;
      if (status !== 200 || (items !== null && !Array.isArray(items))) throw silent(status, `the kind \`${kind}\``);
      return ((items ?? []) as KubernetesObject[]).map((item) => ({ ...item, apiVersion, kind }));
    });
  }

  close(): void {
    this.#stopped.abort();
  }

  #covers(namespace: string): boolean {
    return namespace === '' || this.#namespaces.has(namespace);
  }

  // Requests that come together share one answer, and so do those of the next moment.
  #once(
    path: string,
    fresh: boolean,
    ask: () => Promise<readonly KubernetesObject[]>,
  ): Promise<readonly KubernetesObject[]> {
    const known = this.#asked.get(path);
    if (!fresh && known !== undefined && performance.now() - known.at < MOMENT_MS) return known.answer;
    const answer = ask();
    this.#asked.set(path, { at: performance.now(), answer });
    answer.catch(() => this.#asked.delete(path));
    return answer;
  }

  async #follow(resource: Kind & { readonly apiVersion: string; readonly kind: string }): Promise<void> {
    const { apiVersion, kind } = resource;
    const followed: Followed = { objects: new Map(), isRead: false };
    try {
      await this.#followIn('', resource, followed);
    } catch (thrown) {
      const isForbidden = thrown instanceof CountersignError && thrown.code === 'cluster-forbidden';
      if (!isForbidden || !resource.namespaced || this.#namespaces.size > MAX_NAMESPACES) throw thrown;
      await Promise.all([...this.#namespaces].map((namespace) => this.#followIn(namespace, resource, followed)));
    }
    followed.isRead = true;
    this.#kinds.set(`${apiVersion} ${kind}`, followed);
  }

  #followIn(
    namespace: string,
    resource: Kind & { readonly apiVersion: string; readonly kind: string },
    { objects }: Followed,
  ): Promise<void> {
    const { apiVersion, kind } = resource;
    const sink = {
      put: (object: KubernetesObject) => {
        const { namespace: at = '', name } = object.metadata;
        if (this.#covers(at)) objects.set(`${at}/${name}`, trimmed({ ...object, apiVersion, kind }));
      },
      drop: (place: string) => void objects.delete(place),
      places: () => [...objects.keys()].filter((place) => namespace === '' || place.startsWith(`${namespace}/`)),
      listed: () => {},
    };
    const of = { namespace, labelSelector: '' };
    return new KindFollow(this.#server, resource, of, this.#times, this.#stopped.signal, this.#log, sink).begin();
  }
}

const ROLLED_OUT: ReadonlySet<string> = new Set(['Deployment', 'ReplicaSet']);

// Of a status, only those that say how far a rollout is are read.
function trimmed({ metadata, status, ...rest }: KubernetesObject): KubernetesObject {
  const { managedFields: _, ...kept } = metadata;
  return {
    ...rest,
    metadata: kept as KubernetesObject['metadata'],
    ...(ROLLED_OUT.has(rest.kind) ? { status } : {}),
  } as KubernetesObject;
}

function silent(status: number, what: string): CountersignError {
  return new CountersignError('cluster-unreachable', `the API server answers ${status} to a request for ${what}`, {
    recover: 'retry',
  });
}
