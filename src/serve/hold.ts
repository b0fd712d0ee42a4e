import { CountersignError } from '../model/index.ts';
import type { ClusterPort, ReconcilePorts } from '../reconcile/index.ts';

/** Thrown when the Lease of an environment is lost, and for each write from then on. */
export class LeaseLost extends CountersignError {
  constructor(name: string) {
    super('cluster-unreachable', `lost the Lease of \`${name}\`: another replica may hold it`, {
      recover: 'halt',
      hint: 'the process manager should restart it',
    });
  }
}

/**
 * A replica's own view of its Lease. It ends without anyone noticing: by a clock that runs on while the process is
 * stopped. Without Leases it never ends.
 */
export class Hold {
  readonly #name: string;
  #until = Number.POSITIVE_INFINITY;
  #givenUpFor: string | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  /** Sets how long it is valid from a moment by `performance.now()`, unless it was lost. */
  lasts(from: number, ms: number): void {
    if (this.#until !== Number.NEGATIVE_INFINITY) this.#until = from + ms;
    this.#givenUpFor = undefined;
  }

  /** Ends it for good. */
  lose(): void {
    this.#until = Number.NEGATIVE_INFINITY;
  }

  /** Ends it until the Lease is taken again: this replica gives it to one that may have what this one lacks. */
  giveUp(why: string): void {
    this.#givenUpFor = why;
  }

  /** Throws `LeaseLost` if it ended, and `ledger-unusable` (retry) if it was given up. */
  check(): void {
    if (this.#givenUpFor !== undefined)
      throw new CountersignError('ledger-unusable', `gave up the Lease of \`${this.#name}\`: ${this.#givenUpFor}`, {
        recover: 'retry',
      });
    if (performance.now() > this.#until) throw new LeaseLost(this.#name);
  }
}

/** Wraps a cluster and a ledger so that nothing is written to them after the Lease was lost. */
export function whileHeld<T extends Pick<ReconcilePorts, 'cluster' | 'ledger'>>(ports: T, hold: Hold): T {
  const { cluster, ledger } = ports;
  return {
    ...ports,
    cluster: guarded(cluster, hold),
    ledger: {
      ...ledger,
      record: async (...args: Parameters<typeof ledger.record>) => {
        hold.check();
        return ledger.record(...args);
      },
    },
  };
}

const WRITES: ReadonlySet<PropertyKey> = new Set(['apply', 'remove', 'takeOver'] satisfies (keyof ClusterPort)[]);

// Every other operation stays the cluster's own, also one that is added later.
function guarded(cluster: ClusterPort, hold: Hold): ClusterPort {
  return new Proxy(cluster, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        if (!WRITES.has(key)) return value.apply(target, args);
        try {
          hold.check();
        } catch (thrown) {
          return Promise.reject(thrown as LeaseLost);
        }
        return value.apply(target, args);
      };
    },
  });
}
