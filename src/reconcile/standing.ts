import {
  type Inventory,
  isNoRevision,
  NO_REVISION,
  type ObjectRef,
  type OwnedObject,
  refText,
  type Told,
} from '../model/index.ts';
import { named } from './apply-revision.ts';
import { ObservedHealth } from './observed-health.ts';
import type { ClusterPort, ReconcilePorts } from './ports.ts';

/** Number of an environment's objects by health, and messages of the first few unhealthy ones. */
type HealthCount = {
  readonly current: number;
  readonly progressing: number;
  readonly failed: number;
  readonly missing: number;
  readonly trouble: readonly string[];
};

/** State of an environment's loop, for people and for readiness. */
export type ReconcilerStatus = {
  readonly environment: string;
  /** The last completely applied revision. */
  readonly revision: string;
  /** The branch at the last check; empty before the first. */
  readonly tip: string;
  readonly state:
    | 'starting'
    | 'applying'
    | 'applied'
    | 'denied'
    | 'refused'
    | 'held'
    | 'waiting'
    | 'blocked'
    | 'suspended'
    | 'drifted'
    | 'standby';
  readonly message: string;
  readonly at: string;
  /** Times of the last and next check; ISO 8601. */
  readonly looked: string;
  readonly next: string;
  readonly health: HealthCount;
  /**
   * For how long `revision` has been observed in health, in milliseconds; undefined unless this process runs the loop.
   */
  readonly healthyMs?: number;
};

/** Returns the state of another environment of the same service, for `dependsOn`. */
export type Peers = (environment: string) => ReconcilerStatus | undefined;

/** Reports the state of one environment's loop, on request and as events. */
export class Standing {
  readonly #ports: Pick<ReconcilePorts, 'cluster' | 'clock' | 'state' | 'tell'>;
  #status: Omit<ReconcilerStatus, 'health' | 'healthyMs'>;
  #observed: ObservedHealth | undefined;

  constructor(environment: string, ports: Pick<ReconcilePorts, 'cluster' | 'clock' | 'state' | 'tell'>) {
    this.#ports = ports;
    const at = ports.clock().toISOString();
    const message = 'not checked yet';
    this.#status = {
      environment,
      revision: NO_REVISION,
      tip: '',
      state: 'starting',
      message,
      at,
      looked: '',
      next: at,
    };
  }

  get status(): ReconcilerStatus {
    const health = healthOf(lastingIn(this.#ports.state().inventory), this.#ports.cluster);
    this.observe(health);
    const healthyMs = this.#observed?.of(this.#ports.state().revision);
    return { ...this.#status, health, ...(healthyMs === undefined ? {} : { healthyMs: Math.floor(healthyMs) }) };
  }

  /** Counts the time in health from now on, after `ms` that were observed before. */
  beginObserving(ms: number): void {
    this.#observed = new ObservedHealth();
    this.#observed.carryOn(this.#ports.state().revision, ms);
  }

  /** Another process may observe it now. */
  endObserving(): void {
    this.#observed = undefined;
  }

  /** Notes the health at this moment. */
  observe(health?: HealthCount): void {
    const { inventory, revision, open } = this.#ports.state();
    if (this.#observed === undefined || isNoRevision(revision)) return;
    const { cluster } = this.#ports;
    const seen = () => {
      if (open !== undefined || !cluster.connected) return 'unseen';
      const { progressing, failed, missing } = health ?? healthOf(lastingIn(inventory), cluster);
      if (failed + missing > 0) return 'failed';
      return progressing > 0 ? 'progressing' : 'well'; // a kind that is not watched counts as progressing
    };
    this.#observed.observe(revision, seen(), performance.now());
  }

  get message(): string {
    return this.#status.message;
  }

  /** The branch at the last check; empty before the first. */
  get tip(): string {
    return this.#status.tip;
  }

  looked(tip: string): void {
    this.#status = { ...this.#status, tip, looked: this.#ports.clock().toISOString() };
  }

  /** `at`: time of the next check, in milliseconds since 1970. */
  looksAt(at: number): void {
    this.#status = { ...this.#status, next: new Date(at).toISOString() };
  }

  report(state: ReconcilerStatus['state'], message: string): void {
    const at = this.#ports.clock().toISOString();
    const isNew = state !== this.#status.state || message !== this.#status.message;
    this.#status = { ...this.#status, revision: this.#ports.state().revision, state, message, at };
    if (isNew && (state === 'blocked' || state === 'suspended')) this.tell(state, message);
  }

  /** Called when everything matches Git. */
  atRest(): void {
    const { revision, inventory } = this.#ports.state();
    const { leaving } = inventory;
    this.report(
      'applied',
      `at ${revision.slice(0, 12)}${leaving.length === 0 ? '' : `; still being deleted: ${named(leaving)}`}`,
    );
  }

  tell(
    event: Told['event'],
    message: string,
    revision = this.#ports.state().revision,
    objects?: readonly ObjectRef[],
  ): void {
    const at = this.#ports.clock().toISOString();
    this.#ports.tell?.({
      environment: this.#status.environment,
      event,
      revision,
      message,
      at,
      ...(objects === undefined ? {} : { objects }),
    });
  }
}

// A hook that failed is the failure of its change, not of what is there now.
function lastingIn({ objects }: Inventory): readonly OwnedObject[] {
  return objects.filter((o) => o.hook !== 'ran');
}

/** Counts these objects by health. */
function healthOf(
  objects: readonly { readonly ref: ObjectRef }[],
  cluster: Pick<ClusterPort, 'live' | 'knows'>,
): HealthCount {
  const count = { current: 0, progressing: 0, failed: 0, missing: 0 };
  const trouble: string[] = [];
  for (const { ref } of objects) {
    const live = cluster.live(ref);
    const known = cluster.knows(ref);
    const state = live !== undefined ? live.health.state : known ? 'missing' : 'progressing';
    count[state]++;
    const why = live?.health.message ?? (known ? 'it is missing' : 'its kind cannot be watched');
    if (state !== 'current' && trouble.length < 5) trouble.push(`${refText(ref)}: ${why}`);
  }
  return { ...count, trouble };
}
