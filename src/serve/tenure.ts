import { setTimeout as wait } from 'node:timers/promises';
import type { Lease } from '../cluster/index.ts';
import { CountersignError, messageOf } from '../model/index.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

/** Work that one of several replicas runs: an environment's loop, or the reports. */
export type Tenant = {
  readonly name: string;
  run(): Promise<void>;
  stop(): void;
  standBy(message: string): void;
};

/**
 * Runs a loop only while this replica holds its Lease, and otherwise stands by. When told to stop, it lets the loop
 * finish its current step and releases the Lease. If the Lease cannot be renewed in time, the process ends: another
 * replica may hold it by now.
 */
export async function runWhileHeld(loop: Tenant, lease: Lease, signal: AbortSignal, log: Log): Promise<void> {
  const pause = () => wait((lease.durationMs / 3) * (0.8 + Math.random() / 5), undefined, { signal }).catch(() => {});
  while (!signal.aborted) {
    const held = await lease.take().catch((thrown) => {
      log.warn({ environment: loop.name }, messageOf(thrown));
      return false;
    });
    if (held) {
      log.info({ lease: loop.name }, `this replica has \`${loop.name}\` now`);
      await runHeld(loop, lease, signal);
      return;
    }
    loop.standBy(lease.holder === '' ? 'waits for its Lease' : `\`${lease.holder}\` holds it`);
    await pause();
  }
}

async function runHeld(loop: Tenant, lease: Lease, signal: AbortSignal): Promise<void> {
  const ended = new AbortController();
  const running = loop.run().finally(() => ended.abort());
  const renewing = (async () => {
    for (let renewed = performance.now(); !ended.signal.aborted; ) {
      await wait(lease.durationMs / 3, undefined, { signal: ended.signal }).catch(() => {});
      if (ended.signal.aborted) return;
      const mine = await lease.take().catch(() => undefined);
      if (mine === true) renewed = performance.now();
      // Taken by another replica, or unreachable for so long that it may be.
      if (mine === false || performance.now() - renewed > lease.durationMs * 0.8)
        throw new CountersignError(
          'cluster-unreachable',
          `lost the Lease of \`${loop.name}\`: another replica may hold it`,
          {
            recover: 'halt',
            hint: 'the process manager should restart it',
          },
        );
    }
  })();
  // A lost Lease takes effect at once: do not wait for the loop.
  await Promise.race([running, renewing.then(() => running)]);
  await running;
  if (signal.aborted) await lease.release().catch(() => {});
}
