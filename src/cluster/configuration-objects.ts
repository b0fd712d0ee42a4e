import { CountersignError, type KubernetesObject, messageOf } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { KindFollow, type ObjectMeta, TIMES } from './kind-follow.ts';

const API_VERSION = 'countersign.dev/v1alpha1';
const KINDS = {
  Environment: 'environments',
  EnvironmentSet: 'environmentsets',
  TrustPolicy: 'trustpolicies',
  Notifier: 'notifiers',
  ReportSchedule: 'reportschedules',
} as const;

/** Plurals of our documents. */
export const DOCUMENTS: readonly string[] = Object.values(KINDS).sort();

/** One of our documents, stored as an object in a cluster. */
export type ClusterDocument = {
  readonly kind: keyof typeof KINDS;
  readonly namespace: string;
  readonly name: string;
  readonly generation: number;
  /** The whole object, with its status. */
  readonly object: KubernetesObject;
};

/** A condition in the format of Kubernetes. */
export type Condition = {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
};

type Log = { warn(fields: object, message: string): void };

/** Our documents in some namespaces of a cluster, kept up to date, with the status we write to them. */
export class ConfigurationObjects {
  readonly #server: ApiServer;
  readonly #namespaces: readonly string[];
  readonly #log: Log;
  readonly #stopped = new AbortController();
  readonly #documents = new Map<string, ClusterDocument>();
  readonly #refused = new Set<string>();

  constructor(server: ApiServer, namespaces: readonly string[], log: Log) {
    this.#server = server;
    this.#namespaces = namespaces;
    this.#log = log;
  }

  /**
   * Reads all documents and follows changes; `changed` is called if the content of one differs. Throws
   * `cluster-unreachable` or `cluster-forbidden`, and `config-invalid` if the kinds are not installed.
   */
  async begin(changed: () => void): Promise<void> {
    const { status, body } = await this.#server.request('GET', `/apis/${API_VERSION}`);
    const served = new Set(
      (body as { resources?: readonly { readonly name: string }[] }).resources?.map((r) => r.name),
    );
    const missing = Object.entries(KINDS).filter(([, plural]) => !served.has(plural));
    if (status === 404 || (status === 200 && missing.length > 0))
      throw new CountersignError(
        'config-invalid',
        `this cluster does not have our kinds (${missing.map(([kind]) => kind).join(', ')})`,
        {
          hint: 'install them first: `countersign crds | kubectl apply -f -`',
        },
      );
    let ready = false;
    for (const namespace of this.#namespaces)
      for (const [kind, plural] of Object.entries(KINDS) as [ClusterDocument['kind'], string][]) {
        const key = (place: string) => `${kind} ${place}`;
        const resource = { apiVersion: API_VERSION, kind, plural, namespaced: true };
        await new KindFollow(
          this.#server,
          resource,
          { namespace, labelSelector: '' },
          TIMES,
          this.#stopped.signal,
          this.#log,
          {
            put: (object) => {
              const { name, generation = 0 } = object.metadata as ObjectMeta;
              const place = key(`${namespace}/${name}`);
              const before = this.#documents.get(place);
              const { managedFields: _, ...metadata } = object.metadata as ObjectMeta & { managedFields?: unknown };
              this.#documents.set(place, {
                kind,
                namespace,
                name,
                generation,
                object: { ...object, apiVersion: API_VERSION, kind, metadata },
              });
              if (ready && asked(before?.object) !== asked(object)) changed();
            },
            drop: (place) => {
              if (this.#documents.delete(key(place)) && ready) changed();
            },
            places: () =>
              [...this.#documents.values()]
                .filter((d) => d.kind === kind && d.namespace === namespace)
                .map((d) => `${d.namespace}/${d.name}`),
            listed: () => {},
          },
        ).begin();
      }
    ready = true;
  }

  /** Oldest first: if two documents claim the same thing, the older one wins. */
  get documents(): readonly ClusterDocument[] {
    const order = (d: ClusterDocument) =>
      `${(d.object.metadata as { creationTimestamp?: string }).creationTimestamp} ${d.namespace}/${d.name}`;
    return [...this.#documents.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
  }

  get(kind: string, namespace: string, name: string): ClusterDocument | undefined {
    return this.#documents.get(`${kind} ${namespace}/${name}`);
  }

  /** Writes an object's status. A failure is logged once: a status is for people and never the record. */
  async writeStatus(
    document: ClusterDocument,
    status: Readonly<Record<string, unknown>>,
    conditions: readonly Condition[],
  ): Promise<boolean> {
    const { kind, namespace, name } = document;
    const before =
      (document.object['status'] as { conditions?: (Condition & { lastTransitionTime?: string })[] } | undefined)
        ?.conditions ?? [];
    const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    const written = conditions.map((c) => {
      const was = before.find((b) => b.type === c.type);
      const since = was?.status === c.status ? (was.lastTransitionTime ?? now) : now;
      return {
        ...c,
        message: c.message.slice(0, 1000),
        lastTransitionTime: since,
        observedGeneration: document.generation,
      };
    });
    const path =
      `/apis/${API_VERSION}/namespaces/${encodeURIComponent(namespace)}` +
      `/${KINDS[kind]}/${encodeURIComponent(name)}/status`;
    const body = { status: { ...status, observedGeneration: document.generation, conditions: written } };
    const answer = await this.#server
      .request('PATCH', `${path}?fieldManager=countersign`, body, 'application/merge-patch+json')
      .catch((thrown: unknown) => messageOf(thrown));
    if (typeof answer !== 'string' && (answer.status < 300 || answer.status === 404)) return true;
    const why = typeof answer === 'string' ? answer : `the API server answers ${answer.status}`;
    if (!this.#refused.has(why))
      this.#log.warn({ kind, namespace, name }, `cannot write the status of documents: ${why}`);
    this.#refused.add(why);
    return false;
  }

  close(): void {
    this.#stopped.abort();
  }
}

// Returns the content that counts as a change: not the status, which we write ourselves.
function asked(object: KubernetesObject | undefined): string {
  if (object === undefined) return '';
  const { uid, generation, labels, deletionTimestamp } = object.metadata as ObjectMeta;
  return JSON.stringify([uid, generation, labels ?? {}, deletionTimestamp ?? '']);
}
