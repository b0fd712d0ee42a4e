import { setTimeout as wait } from 'node:timers/promises';
import { CountersignError, type KubernetesObject, messageOf } from '../model/index.ts';
import { type ApiServer, apiPath, METADATA_ONLY } from './api-server.ts';

/** A kind as the API serves it. */
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

/** After how long all is read again, in milliseconds, and how long one watch lasts, in seconds. */
export type WatchTimes = { readonly fullReadMs: number; readonly watchSeconds: number };

// A cache that is never held against the real thing is believed too long (Argo CD 8175): once a watch has ended after
// so long, all is read again.
export const TIMES: WatchTimes = { fullReadMs: 600_000, watchSeconds: 240 };

type Event = { readonly type: string; readonly object: KubernetesObject & { readonly code?: number } };

// A list of nothing may be null.
type ListBody = { items?: KubernetesObject[] | null; metadata?: { resourceVersion?: string; continue?: string } };

/** Where objects go. A place is `namespace/name`. */
type Sink = {
  readonly put: (object: KubernetesObject) => void;
  readonly drop: (place: string) => void;
  /** What is known to be there. */
  readonly places: () => Iterable<string>;
  readonly listed: () => void;
};

type Of = {
  readonly namespace: string;
  readonly labelSelector: string;
  /** Objects come without spec, status and data. */
  readonly metadataOnly?: boolean;
};

const PAGE = 500; // objects a list answers at once: more would hold up everything else while it is parsed
const QUIET_MS = 120_000; // bookmarks come every minute or so; a connection that is silent for longer is dead
const FIRST_PAUSE_MS = 200;
const FIRST_ATTEMPTS = 5;
const MAX_PAUSE_MS = 30_000;
const FORBIDDEN_PAUSE_MS = 60_000;

/** One list and watch of a kind, in one namespace or (`''`) in all: goes on through whatever the API server does. */
export class KindFollow {
  /** Whether it is being told of changes just now. */
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

  /**
   * Resolves when all was listed once; from there on it goes on by itself until it is stopped. Throws where it cannot
   * be.
   */
  async begin(): Promise<void> {
    void this.#goOn(await this.#firstList());
  }

  // A kind that was defined a moment ago answers 429 until its storage is there.
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
        version = undefined; // what was missed meanwhile is found by reading all again
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
      if (status === 404) break; // the kind is served no more: nothing of it is there
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

  // Resolves with the newest version that was heard of when the server ends the watch, as it does every few minutes.
  async #follow(from: string): Promise<string> {
    let version = from;
    const query = `watch=1&${this.#selector}allowWatchBookmarks=true&resourceVersion=${encodeURIComponent(from)}&timeoutSeconds=${Math.round(this.#times.watchSeconds * (1 + Math.random() / 5))}`;
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
        else if (type === 'DELETED') this.#sink.drop(`${object.metadata.namespace ?? ''}/${object.metadata.name}`);
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

/**
 * A kind that is followed in the whole cluster or, where the account may not, in the namespaces that somebody needs.
 */
export class FollowedKind {
  /** Whether all that is asked for was listed once. */
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

  /** Whether it is being told of changes just now. */
  get connected(): boolean {
    return [...this.#follows.values()].every((f) => f.connected);
  }

  /** How many connections it holds. */
  get connections(): number {
    return this.#follows.size;
  }

  /** Resolves when all that is asked for was listed once. Throws where it cannot be. */
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

/** The version that was asked for is forgotten (410): everything is read again. */
class Gone extends Error {}

/** Whether the API server does not let us. */
function isForbidden(thrown: unknown): boolean {
  return thrown instanceof CountersignError && thrown.code === 'cluster-forbidden';
}

function refused(status: number, kind: string): CountersignError {
  if (status === 401 || status === 403)
    return new CountersignError('cluster-forbidden', `may not list and watch the kind \`${kind}\` (${status})`, {
      hint: 'grant the service’s account `list` and `watch` on every kind it applies (docs/operations.md)',
    });
  return new CountersignError(
    'cluster-unreachable',
    `the API server answers ${status} when asked for the kind \`${kind}\``,
    {
      recover: 'retry',
    },
  );
}
