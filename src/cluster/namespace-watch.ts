import { CountersignError, type KubernetesObject, messageOf, type ObjectRef, sha256 } from '../model/index.ts';
import { type ApiServer, apiPath } from './api-server.ts';
import { FollowedKind, KindFollow, type ObjectMeta, type Resource, TIMES, type WatchTimes } from './kind-follow.ts';
import { namespacedKinds } from './scan.ts';

type Kind = {
  readonly resource: Resource;
  readonly followed: FollowedKind;
  readonly stopped: AbortController;
  /** The last state seen of each object, by its place. */
  readonly marks: Map<string, string>;
};

type Hooks = {
  /** `uid` is empty for an object that is gone. */
  readonly changed: (ref: ObjectRef, uid: string) => void;
  /** Tests whether one more connection may be opened. */
  readonly mayOpen: () => boolean;
  readonly warn: (message: string) => void;
};

const AT_ONCE = 8;

/**
 * Reports which objects in some namespaces changed, for all kinds, through watches on their metadata. A change of
 * status alone does not count.
 */
export class NamespaceWatch {
  readonly #server: ApiServer;
  readonly #namespaces: ReadonlySet<string>;
  readonly #hooks: Hooks;
  readonly #times: WatchTimes;
  readonly #kinds = new Map<string, Kind>();
  #warned = false;
  #isComplete = false;

  constructor(server: ApiServer, namespaces: readonly string[], hooks: Hooks, times: WatchTimes = TIMES) {
    this.#server = server;
    this.#namespaces = new Set(namespaces);
    this.#hooks = hooks;
    this.#times = times;
  }

  /** Whether every kind is watched, so that no change goes unreported. */
  get complete(): boolean {
    return this.#isComplete && [...this.#kinds.values()].every((k) => k.followed.read);
  }

  /** Number of open connections. */
  get connections(): number {
    return [...this.#kinds.values()].reduce((sum, k) => sum + k.followed.connections, 0);
  }

  /**
   * Watches every kind currently served, and drops those no longer served. Resolves once later changes are reported.
   * Kinds that cannot be watched are retried at the next call. Throws if the kinds cannot be listed.
   */
  async follow(): Promise<void> {
    const served = new Map((await namespacedKinds(this.#server)).map((r) => [`${r.apiVersion} ${r.kind}`, r]));
    for (const [key, kind] of this.#kinds)
      if (!served.has(key)) {
        kind.stopped.abort();
        this.#kinds.delete(key);
      }
    this.#isComplete = true;
    const fresh = [...served].filter(([key]) => this.#kinds.get(key)?.followed.read !== true);
    for (let i = 0; i < fresh.length; i += AT_ONCE)
      await Promise.all(
        fresh.slice(i, i + AT_ONCE).map(async ([key, resource]) => {
          if (!this.#hooks.mayOpen()) {
            this.#isComplete = false;
            return this.#warn('too many watches are open already');
          }
          const kind = this.#kinds.get(key) ?? this.#kind(resource);
          this.#kinds.set(key, kind);
          await kind.followed.need([...this.#namespaces]).catch((thrown) => this.#warn(messageOf(thrown)));
        }),
      );
  }

  /** Reads an object; undefined if it does not exist. Throws `cluster-unreachable`. */
  async read({ apiVersion, kind, namespace, name }: ObjectRef): Promise<KubernetesObject | undefined> {
    const plural = this.#kinds.get(`${apiVersion} ${kind}`)?.resource.plural;
    if (plural === undefined) return undefined; // the kind is no longer served
    const { status, body } = await this.#server.request(
      'GET',
      `${apiPath(apiVersion, namespace)}/${plural}/${encodeURIComponent(name)}`,
    );
    if (status === 404) return undefined;
    if (status !== 200)
      throw new CountersignError(
        'cluster-unreachable',
        `the API server answers ${status} to a request for ${kind} ${namespace}/${name}`,
        {
          recover: 'retry',
        },
      );
    return { ...(body as KubernetesObject), apiVersion, kind };
  }

  close(): void {
    for (const { stopped } of this.#kinds.values()) stopped.abort();
  }

  #kind(resource: Resource): Kind {
    const marks = new Map<string, string>();
    const stopped = new AbortController();
    const { apiVersion, kind } = resource;
    const tell = (place: string, uid = '') => {
      if (!followed.read) return; // the listener reads existing objects itself
      const slash = place.indexOf('/');
      this.#hooks.changed({ apiVersion, kind, namespace: place.slice(0, slash), name: place.slice(slash + 1) }, uid);
    };
    const followed = new FollowedKind(resource, (namespace) => {
      const sink = {
        put: (object: KubernetesObject) => {
          const { namespace = '', name } = object.metadata;
          if (!this.#namespaces.has(namespace)) return;
          const place = `${namespace}/${name}`;
          const mark = markOf(object.metadata as ObjectMeta);
          if (marks.get(place) === mark) return;
          marks.set(place, mark);
          tell(place, (object.metadata as ObjectMeta).uid);
        },
        drop: (place: string) => {
          if (marks.delete(place)) tell(place);
        },
        places: () => [...marks.keys()].filter((place) => namespace === '' || place.startsWith(`${namespace}/`)),
        listed: () => {},
      };
      const log = { warn: (_: object, message: string) => this.#warn(message) };
      const of = { namespace, labelSelector: '', metadataOnly: true };
      return new KindFollow(this.#server, resource, of, this.#times, stopped.signal, log, sink);
    });
    return { resource, followed, stopped, marks };
  }

  // Once, not per kind and attempt: watches mostly fail together.
  #warn(message: string): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#hooks.warn(`changes in the governed namespaces are found later, by the next full scan: ${message}`);
  }
}

// If the API server counts generations, a status change does not increase them; otherwise every write is a change.
function markOf(metadata: ObjectMeta & { readonly ownerReferences?: unknown }): string {
  const { uid = '', generation = 0, resourceVersion = '', labels, annotations, ownerReferences } = metadata;
  if (generation === 0) return `${uid} ${resourceVersion}`;
  return sha256(JSON.stringify([uid, generation, labels, annotations, ownerReferences])).slice(0, 22);
}
