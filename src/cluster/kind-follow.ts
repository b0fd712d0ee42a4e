import { setTimeout as wait } from 'node:timers/promises';
import { CountersignError, type KubernetesObject, messageOf } from '../model/index.ts';
import { type ApiServer, apiPath, METADATA_ONLY } from './api-server.ts';

/** A kind as served by the API. */
export type Resource = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
};

/** The part of an object's metadata that we read. */
export type ObjectMeta = {
  readonly namespace?: string;
  readonly name: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
};

/** Interval of full lists, in milliseconds, and duration of one watch, in seconds. */
export type WatchTimes = { readonly fullReadMs: number; readonly watchSeconds: number };

// A cache that is never compared with reality is trusted too long (Argo CD 8175): when a watch ends after this time,
// everything is listed again.
export const TIMES: WatchTimes = { fullReadMs: 600_000, watchSeconds: 240 };

type Event = { readonly type: string; readonly object: KubernetesObject & { readonly code?: number } };

// An empty list may be null.
type ListBody = { items?: KubernetesObject[] | null; metadata?: { resourceVersion?: string; continue?: string } };

/** Receiver of objects. A place is `namespace/name`. */
type Sink = {
  readonly put: (object: KubernetesObject) => void;
  /** `uid`: of the object that is gone, so that a later one with its name stays; undefined if none has the name. */
  readonly drop: (place: string, uid?: string) => void;
  /** Places of the known objects. */
  readonly places: () => Iterable<string>;
  readonly listed: () => void;
};

type Of = {
  readonly namespace: string;
  readonly labelSelector: string;
  /** Objects arrive without spec, status and data. */
  readonly metadataOnly?: boolean;
};

const PAGE = 500; // objects per list answer: parsing more would block everything else
const QUIET_MS = 120_000; // bookmarks come about every minute; a connection that is silent for longer is dead
const FIRST_PAUSE_MS = 200;
const FIRST_ATTEMPTS = 5;
const MAX_PAUSE_MS = 30_000;
const FORBIDDEN_PAUSE_MS = 60_000;

/** Lists and watches a kind, in one namespace or (`''`) in all, and survives any failure of the API server. */
export class KindFollow {
  /** Whether the watch is currently connected. */
  connected = false;
  readonly #server: ApiServer;
  readonly #resource: Resource;
  readonly #of: Of;
  readonly #times: WatchTimes;
  readonly #signal: AbortSignal;
  readonly #log: { warn(fields: object, message: string): void };
  readonly #sink: Sink;

  constructor(
    server: ApiServer,
    resource: Resource,
    of: Of,
    times: WatchTimes,
    signal: AbortSignal,
    log: { warn(fields: object, message: string): void },
    sink: Sink,
  ) {
    this.#server = server;
    this.#resource = resource;
    this.#of = of;
    this.#times = times;
    this.#signal = signal;
    this.#log = log;
    this.#sink = sink;
  }

  /** Resolves once everything has been listed, then keeps following until stopped. Throws if that is impossible. */
  async begin(): Promise<void> {
    void this.#goOn(await this.#firstList());
  }

  // A newly defined kind answers 429 until its storage is ready.
  async #firstList(): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#list();
      } catch (thrown) {
        if (attempt === FIRST_ATTEMPTS || isForbidden(thrown)) throw thrown;
        await wait(FIRST_PAUSE_MS * attempt);
      }
    }
  }

  async #goOn(first: string): Promise<void> {
    let version: string | undefined = first;
    let listedAt = performance.now();
    let failures = 0;
    while (!this.#signal.aborted) {
      try {
        if (version === undefined || performance.now() - listedAt > this.#times.fullReadMs * (1 + Math.random() / 10)) {
          version = await this.#list();
          listedAt = performance.now();
        }
        this.connected = true;
        version = await this.#follow(version);
        failures = 0;
      } catch (thrown) {
        if (this.#signal.aborted) return;
        this.connected = false;
        if (!(thrown instanceof Gone)) {
          failures++;
          if (failures === 3)
            this.#log.warn(
              { kind: this.#resource.kind, ...(this.#of.namespace === '' ? {} : { namespace: this.#of.namespace }) },
              `cannot be watched: ${messageOf(thrown)}`,
            );
        }
        version = undefined; // changes missed meanwhile are found by listing everything again
        const pause = isForbidden(thrown)
          ? FORBIDDEN_PAUSE_MS
          : Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 10));
        await wait(pause * (0.5 + Math.random()), undefined, { ref: false, signal: this.#signal }).catch(() => {});
      }
    }
  }

  async #list(): Promise<string> {
    const found = new Set<string>();
    let next = '';
    let version = '';
    do {
      const query = `${this.#selector}limit=${PAGE}${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`;
      const { status, body } = await this.#server.request(
        'GET',
        `${this.#path}?${query}`,
        undefined,
        undefined,
        this.#accept('list'),
      );
      this.#sink.listed();
      if (status === 410 && next !== '') throw new Gone();
      if (status === 404) break; // the kind is no longer served, so no object of it exists
      if (status >= 300) throw refused(status, this.#resource.kind);
      const { items, metadata } = body as ListBody;
      for (const item of items ?? []) {
        found.add(`${item.metadata.namespace ?? ''}/${item.metadata.name}`);
        this.#sink.put(item);
      }
      next = metadata?.continue ?? '';
      version = metadata?.resourceVersion ?? version;
    } while (next !== '');
    for (const place of this.#sink.places()) if (!found.has(place)) this.#sink.drop(place);
    return version;
  }

  // Resolves with the newest resource version seen when the server ends the watch, as it does every few minutes.
  async #follow(from: string): Promise<string> {
    let version = from;
    const query =
      `watch=1&${this.#selector}allowWatchBookmarks=true&resourceVersion=${encodeURIComponent(from)}` +
      `&timeoutSeconds=${Math.round(this.#times.watchSeconds * (1 + Math.random() / 5))}`;
    let gone = false;
    const status = await this.#server.follow(
      `${this.#path}?${query}`,
      (line) => {
        if (line === '') return;
        const { type, object } = JSON.parse(line) as Event;
        if (type === 'ERROR') {
          gone = true;
          return;
        }
        version = (object.metadata as ObjectMeta).resourceVersion ?? version;
        if (type === 'ADDED' || type === 'MODIFIED') this.#sink.put(object);
        else if (type === 'DELETED') this.#sink.drop(...goneIn(object));
      },
      this.#signal,
      QUIET_MS,
      this.#accept('object'),
    );
    if (gone || status === 410) throw new Gone();
    if (status !== 200) throw refused(status, this.#resource.kind);
    return version;
  }

  #accept(what: keyof typeof METADATA_ONLY): string {
    return this.#of.metadataOnly === true ? METADATA_ONLY[what] : 'application/json';
  }

  get #selector(): string {
    return this.#of.labelSelector === '' ? '' : `labelSelector=${encodeURIComponent(this.#of.labelSelector)}&`;
  }

  get #path(): string {
    return `${apiPath(this.#resource.apiVersion, this.#of.namespace)}/${this.#resource.plural}`;
  }
}

/** A kind followed in the whole cluster or, if the account may not do that, in the required namespaces. */
export class FollowedKind {
  /** Whether everything requested has been listed once. */
  read = false;
  readonly #namespaced: boolean;
  readonly #open: (namespace: string) => KindFollow;
  readonly #loops = new Map<string, Promise<void>>();
  readonly #follows = new Map<string, KindFollow>();
  #whole: boolean | undefined;

  /** `open` follows it in one namespace or (`''`) in all. */
  constructor({ namespaced }: Resource, open: (namespace: string) => KindFollow) {
    this.#namespaced = namespaced;
    this.#open = open;
  }

  /** Whether all watches are currently connected. */
  get connected(): boolean {
    return [...this.#follows.values()].every((f) => f.connected);
  }

  /** Number of open connections. */
  get connections(): number {
    return this.#follows.size;
  }

  /** Resolves once everything requested has been listed. Throws if that is impossible. */
  async need(namespaces: readonly string[]): Promise<void> {
    if (this.#whole !== false) {
      try {
        await this.#begun('');
        this.#whole = true;
        this.read = true;
        return;
      } catch (thrown) {
        if (!isForbidden(thrown) || !this.#namespaced) throw thrown;
        this.#whole = false;
      }
    }
    await Promise.all(namespaces.map((ns) => this.#begun(ns)));
    this.read = true;
  }

  #begun(namespace: string): Promise<void> {
    const first = this.#loops.get(namespace) ?? this.#begin(namespace);
    this.#loops.set(namespace, first);
    return first;
  }

  async #begin(namespace: string): Promise<void> {
    const follow = this.#open(namespace);
    this.#follows.set(namespace, follow);
    try {
      await follow.begin();
    } catch (thrown) {
      this.#follows.delete(namespace);
      this.#loops.delete(namespace);
      throw thrown;
    }
  }
}

/** Thrown if the requested version has expired (410): everything is listed again. */
class Gone extends Error {}

/** Tests whether the API server denies us access. */
function isForbidden(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.code === 'cluster-forbidden';
}

function refused(status: number, kind: string): CountersignError {
  if (status === 401 || status === 403)
    return new CountersignError('cluster-forbidden', `may not list and watch the kind \`${kind}\` (${status})`, {
      hint:
        'grant the service’s account `list` and `watch` on it: `countersign manifests --rights derived ' +
        '--rights-only` prints all that it needs (`countersign help operations`)',
    });
  return new CountersignError(
    'cluster-unreachable',
    `the API server answers ${status} to a request for the kind \`${kind}\``,
    {
      recover: 'retry',
    },
  );
}

function goneIn({ metadata }: KubernetesObject): Parameters<Sink['drop']> {
  const { namespace = '', name, uid } = metadata as ObjectMeta;
  return [`${namespace}/${name}`, uid];
}
