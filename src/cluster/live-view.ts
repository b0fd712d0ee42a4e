import { setTimeout as wait } from 'node:timers/promises';
import { ANNOTATION, CountersignError, type KubernetesObject, LABEL, messageOf, type ObjectRef, objectDigest } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { type Health, type HealthRule, healthOf } from './health.ts';

/** What is kept of an object that bears our label: never its content. */
export type LiveObject = {
  readonly version: string;
  readonly uid: string;
  readonly generation: number;
  /** Digest of what it asks for, without status (`objectDigest`). */
  readonly digest: string;
  /** The environment that its label names, and the ledger that its annotation names. */
  readonly environment: string;
  readonly ledger: string;
  readonly leaving: boolean;
  readonly health: Health;
};

/** A kind as the API serves it. */
export type Resource = { readonly apiVersion: string; readonly kind: string; readonly plural: string; readonly namespaced: boolean };

/** Told about an object of an environment that is different now, or gone. */
export type LiveListener = (ref: ObjectRef) => void;

type Log = { warn(fields: object, message: string): void };

type Event = { readonly type: string; readonly object: KubernetesObject & { readonly code?: number } };

const PAGE = 1000; // objects a list answers at once: more would hold up everything else while it is parsed
// A cache that is never held against the real thing is believed too long (Argo CD 8175): once a watch has ended after so long,
// all is read again.
const TIMES = { fullReadMs: 600_000, watchSeconds: 240 };
const QUIET_MS = 120_000; // bookmarks come every minute or so; a connection that is silent for longer is dead
const FIRST_PAUSE_MS = 200;
const FIRST_ATTEMPTS = 5;
const MAX_PAUSE_MS = 30_000;
const FORBIDDEN_PAUSE_MS = 60_000;

/** The objects of ours that are in a cluster, by watches on exactly their kinds. */
export class LiveView {
  readonly #server: ApiServer;
  readonly #log: Log;
  readonly #watches = new Map<string, KindWatch>();
  readonly #listeners = new Map<string, LiveListener>();
  readonly #rules = new Map<string, HealthRule>();
  readonly #times: typeof TIMES;
  readonly #stopped = new AbortController();
  #lists = 0;

  constructor(server: ApiServer, log: Log, times = TIMES) {
    this.#server = server;
    this.#log = log;
    this.#times = times;
  }

  /** How many lists were read so far: what looking costs. */
  get lists(): number {
    return this.#lists;
  }

  /** Whether every kind is being watched just now. */
  get connected(): boolean {
    return [...this.#watches.values()].every((w) => w.connected);
  }

  /** Who hears of an environment's objects, and the rules of its own for their health. */
  listen(environment: string, listener: LiveListener, rule?: HealthRule): void {
    this.#listeners.set(environment, listener);
    if (rule !== undefined) this.#rules.set(environment, rule);
  }

  /** Watches a kind, in the namespaces where the account may not watch all of the cluster. Resolves when it was read once. */
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

  /** Whether a kind was read: only then is an object that is not here not there. */
  knows(ref: ObjectRef): boolean {
    return this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.read === true;
  }

  get(ref: ObjectRef): LiveObject | undefined {
    return this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.objects.get(placeOf(ref));
  }

  /** Takes in what a write of ours answered, so that nobody waits for the watch to say the same. */
  put(ref: ObjectRef, object: KubernetesObject, digest: string): void {
    this.#watches.get(`${ref.apiVersion} ${ref.kind}`)?.put(object, false, digest);
  }

  close(): void {
    this.#stopped.abort();
  }
}

type Hooks = {
  readonly changed: (ref: ObjectRef, environment: string) => void;
  readonly listed: () => void;
  readonly health: (object: KubernetesObject, environment: string) => Health;
};

// One kind: a loop for the whole cluster, or one for each namespace.
class KindWatch {
  readonly objects = new Map<string, LiveObject>();
  /** Whether all that is asked for was listed once. */
  read = false;
  readonly #resource: Resource;
  readonly #server: ApiServer;
  readonly #log: Log;
  readonly #times: typeof TIMES;
  readonly #signal: AbortSignal;
  readonly #hooks: Hooks;
  readonly #loops = new Map<string, Promise<void>>();
  readonly #down = new Set<string>();
  #whole: boolean | undefined;

  constructor(resource: Resource, server: ApiServer, log: Log, times: typeof TIMES, signal: AbortSignal, hooks: Hooks) {
    this.#times = times;
    this.#resource = resource;
    this.#server = server;
    this.#log = log;
    this.#signal = signal;
    this.#hooks = hooks;
  }

  get connected(): boolean {
    return this.#down.size === 0;
  }

  async need(namespaces: readonly string[]): Promise<void> {
    if (this.#whole !== false) {
      const first = this.#loops.get('') ?? this.#begin('');
      this.#loops.set('', first);
      try {
        await first;
        this.#whole = true;
        this.read = true;
        return;
      } catch (thrown) {
        this.#loops.delete('');
        this.#down.delete('');
        if (!isForbidden(thrown) || !this.#resource.namespaced) throw thrown;
        this.#whole = false;
      }
    }
    await Promise.all(
      namespaces.map((ns) => {
        const first = this.#loops.get(ns) ?? this.#begin(ns);
        this.#loops.set(ns, first);
        return first.catch((thrown) => {
          this.#loops.delete(ns);
          this.#down.delete(ns);
          throw thrown;
        });
      }),
    );
    this.read = true;
  }

  put(object: KubernetesObject, announce: boolean, digest?: string): void {
    const { namespace = '', name, labels, annotations, uid, generation, deletionTimestamp, resourceVersion = '' } = object.metadata as Meta;
    const environment = labels?.[LABEL];
    const place = `${namespace}/${name}`;
    if (environment === undefined) {
      this.#drop(place, announce);
      return;
    }
    const whole = { ...object, apiVersion: this.#resource.apiVersion, kind: this.#resource.kind };
    const before = this.objects.get(place);
    if (before !== undefined && resourceVersion !== '' && before.version === resourceVersion) return; // what we wrote ourselves
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
    // What is the same is kept as it was: texts that are told again and again would fill the memory.
    this.objects.set(place, before !== undefined && same(before, now) ? { ...before, version: resourceVersion } : now);
    if (announce && (before === undefined || !same(before, now))) {
      this.#hooks.changed(this.#ref(place), environment);
      if (before !== undefined && before.environment !== environment) this.#hooks.changed(this.#ref(place), before.environment);
    }
  }

  #drop(place: string, announce: boolean): void {
    const before = this.objects.get(place);
    if (before === undefined) return;
    this.objects.delete(place);
    if (announce) this.#hooks.changed(this.#ref(place), before.environment);
  }

  #ref(place: string): ObjectRef {
    const slash = place.indexOf('/');
    const { apiVersion, kind } = this.#resource;
    return { apiVersion, kind, namespace: place.slice(0, slash), name: place.slice(slash + 1) };
  }

  // The first list is waited for; from there on it goes on by itself until it is stopped.
  async #begin(namespace: string): Promise<void> {
    this.#down.add(namespace);
    const version = await this.#firstList(namespace);
    void this.#goOn(namespace, version);
  }

  // A kind that was defined a moment ago answers 429 until its storage is there.
  async #firstList(namespace: string): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#list(namespace);
      } catch (thrown) {
        if (attempt === FIRST_ATTEMPTS || isForbidden(thrown)) throw thrown;
        await wait(FIRST_PAUSE_MS * attempt);
      }
    }
  }

  async #goOn(namespace: string, first: string): Promise<void> {
    let version: string | undefined = first;
    let listedAt = Date.now();
    let failures = 0;
    while (!this.#signal.aborted) {
      try {
        if (version === undefined || Date.now() - listedAt > this.#times.fullReadMs * (1 + Math.random() / 10)) {
          version = await this.#list(namespace);
          listedAt = Date.now();
        }
        this.#down.delete(namespace);
        version = await this.#follow(namespace, version);
        failures = 0;
      } catch (thrown) {
        if (this.#signal.aborted) return;
        this.#down.add(namespace);
        if (!(thrown instanceof Gone)) {
          failures++;
          if (failures === 3)
            this.#log.warn(
              { kind: this.#resource.kind, ...(namespace === '' ? {} : { namespace }) },
              `cannot be watched: ${messageOf(thrown)}`,
            );
        }
        version = undefined; // what was missed meanwhile is found by reading all again
        const pause = isForbidden(thrown) ? FORBIDDEN_PAUSE_MS : Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 10));
        await wait(pause * (0.5 + Math.random()), undefined, { ref: false, signal: this.#signal }).catch(() => {});
      }
    }
  }

  async #list(namespace: string): Promise<string> {
    const found = new Set<string>();
    let next = '';
    let version = '';
    do {
      const query = `labelSelector=${encodeURIComponent(LABEL)}&limit=${PAGE}${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`;
      const { status, body } = await this.#server.request('GET', `${this.#path(namespace)}?${query}`);
      this.#hooks.listed();
      if (status === 410 && next !== '') throw new Gone();
      if (status === 404) break; // the kind is served no more: nothing of it is there
      if (status >= 300) throw refused(status, this.#resource.kind);
      const { items = [], metadata } = body as { items?: KubernetesObject[]; metadata?: { resourceVersion?: string; continue?: string } };
      for (const item of items) {
        found.add(`${item.metadata.namespace ?? ''}/${item.metadata.name}`);
        this.put(item, true);
      }
      next = metadata?.continue ?? '';
      version = metadata?.resourceVersion ?? version;
    } while (next !== '');
    for (const place of [...this.objects.keys()])
      if (!found.has(place) && (namespace === '' || place.startsWith(`${namespace}/`))) this.#drop(place, true);
    return version;
  }

  // Resolves with the newest version that was heard of when the server ends the watch, as it does every few minutes.
  async #follow(namespace: string, from: string): Promise<string> {
    let version = from;
    const query = `watch=1&labelSelector=${encodeURIComponent(LABEL)}&allowWatchBookmarks=true&resourceVersion=${encodeURIComponent(from)}&timeoutSeconds=${Math.round(this.#times.watchSeconds * (1 + Math.random() / 5))}`;
    let gone = false;
    const status = await this.#server.follow(
      `${this.#path(namespace)}?${query}`,
      (line) => {
        if (line === '') return;
        const { type, object } = JSON.parse(line) as Event;
        if (type === 'ERROR') {
          gone = true;
          return;
        }
        version = (object.metadata as Meta).resourceVersion ?? version;
        if (type === 'ADDED' || type === 'MODIFIED') this.put(object, true);
        else if (type === 'DELETED') this.#drop(`${object.metadata.namespace ?? ''}/${object.metadata.name}`, true);
      },
      this.#signal,
      QUIET_MS,
    );
    if (gone || status === 410) throw new Gone();
    if (status !== 200) throw refused(status, this.#resource.kind);
    return version;
  }

  #path(namespace: string): string {
    const { apiVersion, plural } = this.#resource;
    const base = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    return namespace === '' ? `${base}/${plural}` : `${base}/namespaces/${encodeURIComponent(namespace)}/${plural}`;
  }
}

type Meta = {
  readonly namespace?: string;
  readonly name: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
};

/** The version that was asked for is forgotten (410): everything is read again. */
class Gone extends Error {}

function placeOf(ref: ObjectRef): string {
  return `${ref.namespace}/${ref.name}`;
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

function isForbidden(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.code === 'cluster-forbidden';
}

function refused(status: number, kind: string): CountersignError {
  if (status === 401 || status === 403)
    return new CountersignError('cluster-forbidden', `may not list and watch the kind \`${kind}\` (${status})`, {
      hint: 'grant the service’s account `list` and `watch` on every kind it applies (docs/operations.md)',
    });
  return new CountersignError('cluster-unreachable', `the API server answers ${status} when asked for the kind \`${kind}\``, {
    recover: 'retry',
  });
}
