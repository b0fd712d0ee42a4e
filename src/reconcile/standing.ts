import { NO_REVISION, type ObjectRef, refText, type Told } from '../model/index.ts';
import { named } from './apply-revision.ts';
import type { ClusterPort, ReconcilePorts } from './ports.ts';

/** How many of an environment's objects are in which health, and what the first few unhealthy ones say. */
export type HealthCount = {
  readonly current: number;
  readonly progressing: number;
  readonly failed: number;
  readonly missing: number;
  readonly trouble: readonly string[];
};

/** Where an environment's loop stands, for people and for readiness. */
export type ReconcilerStatus = {
  readonly environment: string;
  /** The last revision that was applied whole. */
  readonly revision: string;
  /** Where the branch was at the last look; empty before the first. */
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
  /** When it last looked, and will look next; ISO 8601. */
  readonly looked: string;
  readonly next: string;
  readonly health: HealthCount;
};

/** What other environments of the same service say; `dependsOn` asks. */
export type Peers = (environment: string) => ReconcilerStatus | undefined;

/** Says where one environment's loop stands, to people who ask and to whoever is told of what happens. */
export class Standing {
  readonly #ports: Pick<ReconcilePorts, 'cluster' | 'clock' | 'state' | 'tell'>;
  #status: Omit<ReconcilerStatus, 'health'>;

  constructor(environment: string, ports: Pick<ReconcilePorts, 'cluster' | 'clock' | 'state' | 'tell'>) {
    this.#ports = ports;
    const at = ports.clock().toISOString();
    const message = 'has not looked yet';
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
    return { ...this.#status, health: healthOf(this.#ports.state().inventory.objects, this.#ports.cluster) };
  }

  get message(): string {
    return this.#status.message;
  }

  /** Where the branch was at the last look; empty before the first. */
  get tip(): string {
    return this.#status.tip;
  }

  looked(tip: string): void {
    this.#status = { ...this.#status, tip, looked: this.#ports.clock().toISOString() };
  }

  /** `at`: when it looks next, in milliseconds since 1970. */
  looksAt(at: number): void {
    this.#status = { ...this.#status, next: new Date(at).toISOString() };
  }

  report(state: ReconcilerStatus['state'], message: string): void {
    const at = this.#ports.clock().toISOString();
    const isNew = state !== this.#status.state || message !== this.#status.message;
    this.#status = { ...this.#status, revision: this.#ports.state().revision, state, message, at };
    if (isNew && (state === 'blocked' || state === 'suspended')) this.tell(state, message);
  }

  /** Everything is as Git has it. */
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

/** How many of these objects are in which health. */
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
