import { CountersignError } from '../model/index.ts';
import type { Answer, ApiServer } from './api-server.ts';

type LeaseSpec = {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
};
type LeaseObject = { readonly metadata: { readonly resourceVersion: string }; readonly spec: LeaseSpec };

/**
 * One Lease (coordination.k8s.io/v1) that one replica holds at a time. Whether another's has run out is told by how
 * long it was seen unchanged here, and never by its own clock (as client-go's leaderelection does it).
 */
export class Lease {
  readonly #server: ApiServer;
  readonly #collection: string;
  readonly #path: string;
  readonly #name: string;
  readonly #namespace: string;
  readonly #identity: string;
  readonly durationMs: number;
  #seen: { readonly version: string; readonly at: number } | undefined;
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

  /** Who held it when it was last looked at; empty for nobody. */
  get holder(): string {
    return this.#holder;
  }

  /** Since when, as the holder says. */
  get since(): string {
    return this.#since;
  }

  /** How often another was seen to renew it: it is alive. */
  get renewals(): number {
    return this.#renewals;
  }

  /** Renews it. False when another has it, or had it in between. */
  async renew(): Promise<boolean> {
    const found = await this.#server.request('GET', this.#path);
    if (found.status === 404) return this.take();
    this.#allowed(found, 'read');
    const lease = found.body as unknown as LeaseObject;
    this.#holder = lease.spec.holderIdentity ?? '';
    this.#since = lease.spec.acquireTime ?? '';
    if (this.#holder !== this.#identity) return false;
    return this.#written(await this.#server.request('PUT', this.#path, this.#object(lease)));
  }

  /**
   * Takes it, or renews it where it is ours already. False when another has it, unless that one `isGone`. Throws when
   * the API server does not answer, or does not let us.
   */
  async take(isGone: (holder: string) => boolean = () => false): Promise<boolean> {
    const found = await this.#server.request('GET', this.#path);
    if (found.status === 404)
      return this.#written(await this.#server.request('POST', this.#collection, this.#object(undefined)));
    this.#allowed(found, 'read');
    const lease = found.body as unknown as LeaseObject;
    const { resourceVersion: version } = lease.metadata;
    const holder = lease.spec.holderIdentity ?? '';
    if (this.#seen?.version !== version) {
      this.#renewals = this.#seen !== undefined && holder === this.#holder && holder !== '' ? this.#renewals + 1 : 0;
      this.#seen = { version, at: performance.now() };
    }
    this.#holder = holder;
    this.#since = lease.spec.acquireTime ?? '';
    const runOut = performance.now() - this.#seen.at > (lease.spec.leaseDurationSeconds ?? 0) * 1000;
    if (this.#holder !== '' && this.#holder !== this.#identity && !runOut && !isGone(this.#holder)) return false;
    return this.#written(await this.#server.request('PUT', this.#path, this.#object(lease)));
  }

  /** Lets go of it, so that another need not wait until it runs out. */
  async release(): Promise<void> {
    const found = await this.#server.request('GET', this.#path);
    const lease = found.body as unknown as LeaseObject;
    if (found.status !== 200 || lease.spec.holderIdentity !== this.#identity) return;
    await this.#server.request('PUT', this.#path, {
      ...this.#object(lease),
      spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 },
    });
  }

  #written(answer: Answer): boolean {
    if (answer.status === 409) return false; // another was faster
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
        hint: 'may the service get, create and update leases there, and is the namespace there?',
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
