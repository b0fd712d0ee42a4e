import { realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type ApiServer, Lease } from '../cluster/index.ts';
import { type Ledger, type LedgerInstance, type LedgerKey, openSigner } from '../ledger/index.ts';
import { CountersignError, messageOf, sha256 } from '../model/index.ts';
import type { Tenant } from './tenure.ts';

const LEASE_MS = 15_000;
const LOOK_MS = 1000;
const SAY_EVERY_MS = 60_000;

export type SigningParts = {
  readonly server: ApiServer;
  readonly namespace: string;
  readonly data: string;
  readonly origin: string;
  readonly key: LedgerKey | undefined;
  readonly instance: LedgerInstance;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** How long it is valid without renewal. */
  readonly durationMs?: number;
};

/**
 * The Lease of the service that signs a ledger in files. A copied data directory has its own lock, but not its own
 * Lease. The Lease belongs to the ledger's name and key, so other ledgers in the cluster are not affected.
 */
export class SigningLease {
  readonly #parts: SigningParts;
  readonly #identity: string;
  readonly #place: string;
  readonly #durationMs: number;
  #lease: Lease | undefined;

  constructor(parts: SigningParts) {
    this.#parts = parts;
    this.#durationMs = parts.durationMs ?? LEASE_MS;
    this.#place = placeOf(parts.data);
    this.#identity = `${this.#place}_${parts.instance.id}`;
  }

  /**
   * Takes the Lease before anything is signed. Waits for the API server. Throws (halt) if another live service holds
   * it.
   */
  async take(publicKey = keyOf(this.#parts)): Promise<void> {
    // a key that does not exist yet cannot be in use elsewhere
    if (this.#lease !== undefined || publicKey === undefined) return;
    const { server, namespace, origin, log, signal } = this.#parts;
    const name = `countersign-ledger-${sha256(`${origin}\n${publicKey.toString('base64')}`).slice(0, 16)}`;
    const lease = new Lease(server, namespace, name, this.#identity, this.#durationMs);
    // A killed process leaves it to the next one in the same directory, whose lock proves that it is alone there.
    const isOurs = (holder: string) => holder.startsWith(`${this.#place}_`);
    for (
      let saidAt = Number.NEGATIVE_INFINITY;
      ;
      await wait(Math.min(LOOK_MS, this.#durationMs / 10), undefined, { signal }).catch(() => {})
    ) {
      if (signal.aborted)
        throw new CountersignError('cluster-unreachable', 'told to stop while waiting for the Lease of its ledger', {
          recover: 'retry', // a service that was told to stop ends without an error
        });
      const taken = await lease.take(isOurs).catch((thrown: unknown) => thrown);
      if (taken === true) break;
      if (taken instanceof CountersignError && taken.recover === 'wait') {
        const fix = `grant get, create and update on leases in \`${namespace}\``;
        log.warn(
          {},
          `two services with this ledger’s key would not notice each other here: ${messageOf(taken)}; ${fix}`,
        );
        return;
      }
      if (taken === false && lease.renewals > 0) throw another(lease);
      if (performance.now() - saidAt < SAY_EVERY_MS) continue;
      saidAt = performance.now();
      const why = taken === false ? `\`${lease.holder}\` holds it, and may be gone` : messageOf(taken);
      log.warn({ lease: `${namespace}/${name}` }, `nothing is signed until the Lease of this ledger is held: ${why}`);
    }
    this.#lease = lease;
  }

  /**
   * Renews the Lease while it runs; ends with an error if someone else has it. While ownership is uncertain, nothing is
   * signed.
   */
  keep(ledger: Ledger): Tenant {
    const ended = new AbortController();
    const run = async () => {
      for (let renewed = performance.now(); !ended.signal.aborted && this.#lease !== undefined; ) {
        await wait(this.#durationMs / 3, undefined, { signal: ended.signal }).catch(() => {});
        if (ended.signal.aborted) return;
        const lease = this.#lease;
        const answer = await lease.renew().catch(() => undefined);
        // A copy of the data directory that took it in the meantime would have it still.
        const isTaken = answer === 'deleted' ? !(await lease.take().catch(() => true)) : answer === 'lost';
        if (isTaken) {
          const error = another(this.#lease);
          ledger.halt(error);
          throw error;
        }
        if (answer === 'held') renewed = performance.now();
        // The API server has been unreachable for so long that another service may have taken it.
        ledger.hold(performance.now() - renewed > this.#durationMs * 0.8 ? unheard() : undefined);
      }
      if (!ended.signal.aborted)
        await new Promise((resolve) => ended.signal.addEventListener('abort', resolve, { once: true }));
    };
    return { name: 'ledger', run, stop: () => ended.abort(), standBy: () => {} };
  }

  async release(): Promise<void> {
    await this.#lease?.release().catch(() => {});
  }
}

function keyOf({ data, origin, key }: SigningParts): Buffer | undefined {
  try {
    return openSigner(data, origin, key).publicKey;
  } catch (thrown) {
    if (thrown instanceof CountersignError && thrown.code === 'key-missing') return undefined;
    throw thrown;
  }
}

// Identical for every process in a directory, different for its copy.
function placeOf(data: string): string {
  const stats = statSync(data, { throwIfNoEntry: false });
  const path = stats === undefined ? data : realpathSync(data);
  return `${hostname()}_${sha256(`${path}\n${stats?.dev}\n${stats?.ino}`).slice(0, 12)}`;
}

function another(lease: Lease): CountersignError {
  const [, , instance = lease.holder] = lease.holder.split('_');
  const where = lease.holder.split('_')[0];
  return new CountersignError(
    'ledger-unusable',
    `another service signs this ledger: instance ${instance} since ${lease.since}, on ${where}`,
    {
      recover: 'halt',
      hint:
        'stop one of the two. Is this data directory a copy? `countersign ' +
        'ledger verify --against OTHER` shows whether both have signed',
    },
  );
}

function unheard(): CountersignError {
  return new CountersignError(
    'ledger-unusable',
    'cannot renew the Lease of the ledger: another service may sign it by now',
    {
      recover: 'retry',
      hint: 'it continues once the API server answers',
    },
  );
}
