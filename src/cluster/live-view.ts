import { ANNOTATION, type KubernetesObject, LABEL, type ObjectRef, objectDigest, Recent } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { type Health, type HealthRule, healthOf } from './health.ts';
import { FollowedKind, KindFollow, type ObjectMeta, type Resource, TIMES, type WatchTimes } from './kind-follow.ts';

/** Data kept about an object with our label; never its content. */
export type LiveObject = {
  readonly version: string;
  readonly uid: string;
  readonly generation: number;
  /** Digest of the object without status (`objectDigest`). */
  readonly digest: string;
  /** The environment in its label, and the ledger in its annotation. */
  readonly environment: string;
  readonly ledger: string;
  readonly leaving: boolean;
  readonly health: Health;
};

/** Called for an object of an environment that changed or disappeared. */
export type LiveListener = (ref: ObjectRef) => void;

type Log = { warn(fields: object, message: string): void };

/** Our objects in a cluster, through watches on exactly their kinds. */
export class LiveView {
  readonly #server: ApiServer;
  readonly #log: Log;
  readonly #watches = new Map<string, KindWatch>();
  readonly #listeners = new Map<string, LiveListener>();
  readonly #rules = new Map<string, HealthRule>();
  readonly #times: WatchTimes;
  readonly #stopped = new AbortController();
  #lists = 0;

  constructor(server: ApiServer, log: Log, times: WatchTimes = TIMES) {
    this.#server = server;
    this.#log = log;
    this.#times = times;
  }

  /** Number of lists read so far, as a measure of cost. */
  get lists(): number {
    return this.#lists;
  }

  /** Whether every kind is currently being watched. */
  get connected(): boolean {
    return [...this.#watches.values()].every((w) => w.connected);
  }

  /** Subscribes to an environment's objects, with its own health rules. */
  listen(environment: string, listener: LiveListener, rule?: HealthRule): void {
    this.#listeners.set(environment, listener);
    if (rule !== undefined) this.#rules.set(environment, rule);
  }

  /** Watches a kind, per namespace if the account may not watch the whole cluster. Resolves once it has been listed. */
  async watch(resource: Resource, namespaces: readonly string[]): Promise<void> {
    const key = `${resource.apiVersion} ${resource.kind}`;
    let watch = this.#watches.get(key);
    if (watch === undefined) {
      watch = new KindWatch(resource, this.#server, this.#log, this.#times, this.#stopped.signal, {
        changed: (ref, environment) => this.#listeners.get(environment)?.(ref),
        listed: () => this.#lists++,
        health: (object, environment) => this.#rules.get(environment)?.(object) ?? healthOf(object),
      });
      this.#watches.set(key, watch);
    }
    await watch.need(namespaces);
  }

  /** Tests whether a kind was listed: only then does a missing entry mean that the object does not exist. */
  knows(ref: ObjectRef): boolean {
    return this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.read === true;
  }

  get(ref: ObjectRef): LiveObject | undefined {
    return this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.objects.get(placeOf(ref));
  }

  /** Returns the uid of the last object of this name that was healthy when it went, as far as the watch saw it. */
  endedWell(ref: ObjectRef): string | undefined {
    return this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.ended.get(placeOf(ref));
  }

  /** Takes in the answer to one of our writes, so that no one waits for the watch to report it. */
  put(ref: ObjectRef, object: KubernetesObject, digest: string): void {
    this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.put(object, false, digest);
  }

  close(): void {
    this.#stopped.abort();
  }
}

const ENDED = 100;

type Hooks = {
  readonly changed: (ref: ObjectRef, environment: string) => void;
  readonly listed: () => void;
  readonly health: (object: KubernetesObject, environment: string) => Health;
};

// A watch on one kind: for the whole cluster, or one per namespace.
class KindWatch {
  readonly objects = new Map<string, LiveObject>();
  /** Uids of objects that were healthy when they went: a Job may remove itself as soon as it is complete. */
  readonly ended = new Recent<string>(ENDED);
  readonly #resource: Resource;
  readonly #hooks: Hooks;
  readonly #followed: FollowedKind;

  constructor(resource: Resource, server: ApiServer, log: Log, times: WatchTimes, signal: AbortSignal, hooks: Hooks) {
    this.#resource = resource;
    this.#hooks = hooks;
    this.#followed = new FollowedKind(
      resource,
      (namespace) =>
        new KindFollow(server, resource, { namespace, labelSelector: LABEL }, times, signal, log, {
          put: (object) => this.put(object, true),
          drop: (place, uid) => this.#drop(place, true, uid),
          places: () =>
            [...this.objects.keys()].filter((place) => namespace === '' || place.startsWith(`${namespace}/`)),
          listed: hooks.listed,
        }),
    );
  }

  /** Whether everything requested has been listed once. */
  get read(): boolean {
    return this.#followed.read;
  }

  get connected(): boolean {
    return this.#followed.connected;
  }

  need(namespaces: readonly string[]): Promise<void> {
    return this.#followed.need(namespaces);
  }

  put(object: KubernetesObject, announce: boolean, digest?: string): void {
    const meta = object.metadata as ObjectMeta;
    const {
      namespace = '',
      name,
      labels,
      annotations,
      uid,
      generation,
      deletionTimestamp,
      resourceVersion = '',
    } = meta;
    const environment = labels?.[LABEL];
    const place = `${namespace}/${name}`;
    const before = this.objects.get(place);
    if (isOlder(before, uid, resourceVersion)) return;
    if (environment === undefined) {
      this.#drop(place, announce);
      return;
    }
    const whole = { ...object, apiVersion: this.#resource.apiVersion, kind: this.#resource.kind };
    // our own write
    if (before !== undefined && resourceVersion !== '' && before.version === resourceVersion) return;
    const now: LiveObject = {
      version: resourceVersion,
      uid: uid ?? '',
      generation: generation ?? 0,
      digest: digest ?? objectDigest(whole),
      environment,
      ledger: annotations?.[ANNOTATION.ledger] ?? '',
      leaving: deletionTimestamp !== undefined,
      health: this.#hooks.health(whole, environment),
    };
    if (now.leaving && before !== undefined && before.uid === now.uid) this.#noteEnd(place, before);
    // Unchanged objects are kept as they are: storing the same texts repeatedly would fill the memory.
    this.objects.set(place, before !== undefined && same(before, now) ? { ...before, version: resourceVersion } : now);
    if (announce && (before === undefined || !same(before, now))) {
      this.#hooks.changed(this.#ref(place), environment);
      if (before !== undefined && before.environment !== environment)
        this.#hooks.changed(this.#ref(place), before.environment);
    }
  }

  #drop(place: string, announce: boolean, uid?: string): void {
    const before = this.objects.get(place);
    if (before === undefined || (uid !== undefined && before.uid !== '' && before.uid !== uid)) return;
    this.objects.delete(place);
    this.#noteEnd(place, before);
    if (announce) this.#hooks.changed(this.#ref(place), before.environment);
  }

  #noteEnd(place: string, { uid, health }: LiveObject): void {
    if (health.state === 'current') this.ended.set(place, uid);
  }

  #ref(place: string): ObjectRef {
    const slash = place.indexOf('/');
    const { apiVersion, kind } = this.#resource;
    return { apiVersion, kind, namespace: place.slice(0, slash), name: place.slice(slash + 1) };
  }
}

function placeOf(ref: ObjectRef): string {
  return `${ref.namespace}/${ref.name}`;
}

// A late event of an object that was deleted, and whose name another one has since. Versions are ordered numbers
// (KEP-5504); elsewhere, the event counts.
function isOlder(before: LiveObject | undefined, uid: string | undefined, version: string): boolean {
  if (before === undefined || uid === undefined || before.uid === '' || before.uid === uid) return false;
  const [then, now] = [before.version, version];
  return /^\d+$/.test(then) && /^\d+$/.test(now) && BigInt(now) < BigInt(then);
}

function same(a: LiveObject, b: LiveObject): boolean {
  return (
    a.digest === b.digest &&
    a.uid === b.uid &&
    a.generation === b.generation &&
    a.leaving === b.leaving &&
    a.environment === b.environment &&
    a.ledger === b.ledger &&
    a.health.state === b.health.state &&
    a.health.message === b.health.message
  );
}
