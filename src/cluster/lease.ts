import { CountersignError } from '../model/index.ts';
import type { Answer, ApiServer } from './api-server.ts';
import { isRecord, objectIn, textAt } from './read-answer.ts';

type LeaseSpec = {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
};
type LeaseObject = { readonly metadata: { readonly resourceVersion: string }; readonly spec: LeaseSpec };

/**
 * A Lease (coordination.k8s.io/v1) that one replica holds at a time. A lease counts as expired if it was seen unchanged
 * here for long enough. The holder's clock does not matter (as in client-go's leaderelection).
 */
export class Lease {
  readonly #server: ApiServer;
  readonly #collection: string;
  readonly #path: string;
  readonly #name: string;
  readonly #namespace: string;
  readonly #identity: string;
  readonly durationMs: number;
  #seen: { readonly version: string; readonly at: number; readonly seconds: number } | undefined;
  #holder = '';
  #since = '';
  #renewals = 0;

  constructor(server: ApiServer, namespace: string, name: string, identity: string, durationMs: number) {
    this.#server = server;
    this.#namespace = namespace;
    this.#name = name;
    this.#identity = identity;
    this.durationMs = durationMs;
    this.#collection = `/apis/coordination.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/leases`;
    this.#path = `${this.#collection}/${encodeURIComponent(name)}`;
  }

  /** The holder when last read; empty if there was none. */
  get holder(): string {
    return this.#holder;
  }

  /** When the holder says it took the lease. */
  get since(): string {
    return this.#since;
  }

  /** Milliseconds until another replica may take it, if the holder stays silent. */
  get msLeft(): number {
    return this.#seen === undefined ? 0 : this.#seen.at + this.#seen.seconds * 1000 - performance.now();
  }

  /** Number of renewals seen by the other holder: it is alive. */
  get renewals(): number {
    return this.#renewals;
  }

  /** Renews the lease. `lost`: another replica has it. `deleted`: another replica may have had it since. */
  async renew(): Promise<'held' | 'lost' | 'deleted'> {
    for (;;) {
      const found = await this.#server.request('GET', this.#path);
      if (found.status === 404) return 'deleted';
      this.#allowed(found, 'read');
      const lease = leaseIn(found);
      this.#holder = lease.spec.holderIdentity ?? '';
      this.#since = lease.spec.acquireTime ?? '';
      if (this.#holder !== this.#identity) return 'lost';
      // A conflict alone says nothing: someone may have added a label.
      if (this.#written(await this.#server.request('PUT', this.#path, this.#object(lease)))) return 'held';
    }
  }

  /**
   * Takes the lease, or renews it if it is already ours. Returns false if another replica has it, unless that one
   * `isGone`. Throws if the API server does not answer or denies access.
   */
  async take(isGone: (holder: string) => boolean = () => false): Promise<boolean> {
    const found = await this.#server.request('GET', this.#path);
    if (found.status === 404)
      return this.#written(await this.#server.request('POST', this.#collection, this.#object(undefined)));
    this.#allowed(found, 'read');
    const lease = leaseIn(found);
    this.#notice(lease);
    const runOut = this.msLeft < 0;
    if (this.#holder !== '' && this.#holder !== this.#identity && !runOut && !isGone(this.#holder)) return false;
    return this.#written(await this.#server.request('PUT', this.#path, this.#object(lease)));
  }

  /**
   * Reads the lease without taking it: a replica that may not run anything yet knows then how long the holder was
   * silent. Never throws.
   */
  async look(): Promise<void> {
    const found = await this.#server.request('GET', this.#path).catch(() => undefined);
    if (found?.status === 200) this.#notice(leaseIn(found));
  }

  #notice({ metadata: { resourceVersion: version }, spec }: LeaseObject): void {
    const holder = spec.holderIdentity ?? '';
    if (this.#seen?.version !== version) {
      this.#renewals = this.#seen !== undefined && holder === this.#holder && holder !== '' ? this.#renewals + 1 : 0;
      this.#seen = { version, at: performance.now(), seconds: spec.leaseDurationSeconds ?? 0 };
    }
    this.#holder = holder;
    this.#since = spec.acquireTime ?? '';
  }

  /** Releases the lease, so that another replica need not wait until it expires. */
  async release(): Promise<void> {
    const found = await this.#server.request('GET', this.#path);
    if (found.status !== 200) return;
    const lease = leaseIn(found);
    if (lease.spec.holderIdentity !== this.#identity) return;
    await this.#server.request('PUT', this.#path, {
      ...this.#object(lease),
      spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 },
    });
  }

  #written(answer: Answer): boolean {
    if (answer.status === 409) return false; // another replica was faster
    this.#allowed(answer, 'written');
    this.#holder = this.#identity;
    return true;
  }

  #allowed(answer: Answer, what: string): void {
    if (answer.status < 300) return;
    const passing = answer.status === 429 || answer.status >= 500;
    throw new CountersignError(
      passing ? 'cluster-unreachable' : 'cluster-forbidden',
      `the Lease ${this.#namespace}/${this.#name} cannot be ${what}: the API server answers ${answer.status}`,
      {
        recover: passing ? 'retry' : 'wait',
        hint: 'check that the service may get, create and update leases there, and that the namespace exists',
      },
    );
  }

  #object(before: LeaseObject | undefined): object {
    const now = new Date().toISOString().replace('Z', '000Z');
    const mine = before?.spec.holderIdentity === this.#identity;
    const { resourceVersion } = before?.metadata ?? {};
    return {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: {
        name: this.#name,
        namespace: this.#namespace,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
      },
      spec: {
        holderIdentity: this.#identity,
        leaseDurationSeconds: Math.ceil(this.durationMs / 1000),
        acquireTime: mine ? before.spec.acquireTime : now,
        renewTime: now,
        leaseTransitions: (before?.spec.leaseTransitions ?? 0) + (mine || before === undefined ? 0 : 1),
      },
    };
  }
}

// A Lease whose fields have the types of coordination.k8s.io/v1; a field of another type counts as absent.
function leaseIn(answer: Answer): LeaseObject {
  const { metadata, spec } = objectIn(answer);
  const fields = isRecord(spec) ? spec : {};
  const seconds = fields['leaseDurationSeconds'];
  const [holder, acquired] = [textAt(fields, 'holderIdentity'), textAt(fields, 'acquireTime')];
  return {
    metadata: { ...metadata, resourceVersion: textAt(metadata, 'resourceVersion') ?? '' },
    spec: {
      ...fields,
      ...(holder === undefined ? {} : { holderIdentity: holder }),
      ...(acquired === undefined ? {} : { acquireTime: acquired }),
      ...(typeof seconds === 'number' ? { leaseDurationSeconds: seconds } : {}),
    },
  };
}
