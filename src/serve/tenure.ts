import { setTimeout as wait } from 'node:timers/promises';
import type { Lease } from '../cluster/index.ts';
import { messageOf } from '../model/index.ts';
import { type Hold, LeaseLost } from './hold.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

/** Work that one of several replicas runs: an environment's loop, or the reports. */
export type Tenant = {
  readonly name: string;
  run(): Promise<void>;
  stop(): void;
  /** Ends `run`, which may be called again; without it, the work goes on while the ledger is away. */
  pause?(): void;
  standBy(message: string): void;
};

/**
 * Runs a loop only while this replica holds its Lease, and otherwise stands by. When told to stop, it lets the loop
 * finish its current step and releases the Lease. If the Lease is lost, or cannot be renewed in time, the loop's writes
 * end at once and the process ends: another replica may hold it by now. If this replica cannot record for a while, it
 * gives the Lease to one that can, and takes none until it can.
 */
export async function runWhileHeld(
  loop: Tenant,
  lease: Lease,
  hold: Hold,
  signal: AbortSignal,
  log: Log,
  canRecord: () => boolean = () => true,
): Promise<void> {
  const pause = () => wait((lease.durationMs / 3) * (0.8 + Math.random() / 5), undefined, { signal }).catch(() => {});
  while (!signal.aborted) {
    if (loop.pause !== undefined && !canRecord()) {
      loop.standBy('waits for the ledger, which takes no records from this replica');
      await wait(LOOK_MS, undefined, { signal }).catch(() => {});
      continue;
    }
    const asked = performance.now();
    const held = await lease.take().catch((thrown) => {
      log.warn({ environment: loop.name }, messageOf(thrown));
      return false;
    });
    if (held) {
      log.info({ lease: loop.name }, `this replica has \`${loop.name}\` now`);
      hold.lasts(asked, lease.durationMs * HELD);
      if ((await runHeld(loop, lease, hold, signal, canRecord)) === 'ended') return;
      log.warn({ lease: loop.name }, 'the ledger takes no records from this replica: another one may run this now');
      continue;
    }
    loop.standBy(lease.holder === '' ? 'waits for its Lease' : `\`${lease.holder}\` holds it`);
    await pause();
  }
}

const HELD = 0.8; // of a Lease's duration: others wait until all of it has passed

const LOOK_MS = 1000;
const UNABLE = 0.5; // of a Lease's duration: a database that restarts is back by then

async function runHeld(
  loop: Tenant,
  lease: Lease,
  hold: Hold,
  signal: AbortSignal,
  canRecord: () => boolean,
): Promise<'ended' | 'given up'> {
  const ended = new AbortController();
  const unable = loop.pause === undefined ? new Promise<never>(() => {}) : inability(canRecord, lease, ended.signal);
  const running = loop.run().finally(() => ended.abort());
  const renewing = (async () => {
    for (let renewed = performance.now(); !ended.signal.aborted; ) {
      await wait(lease.durationMs / 3, undefined, { signal: ended.signal }).catch(() => {});
      if (ended.signal.aborted) return;
      const asked = performance.now();
      const answer = await lease.renew().catch(() => 'unreachable' as const);
      if (answer === 'held') {
        renewed = asked;
        hold.lasts(asked, lease.durationMs * HELD);
      }
      // Deleted or taken, or unreachable for so long that another replica may have it.
      if (answer === 'lost' || answer === 'deleted' || performance.now() - renewed > lease.durationMs * HELD) {
        hold.lose();
        throw new LeaseLost(loop.name);
      }
    }
  })();
  // Do not wait for the loop: its step may wait for the ledger.
  const over = renewing.then(() => running);
  over.catch(() => {});
  const how = await Promise.race([running, over, unable]);
  if (how === 'unable' && !signal.aborted) {
    hold.giveUp();
    loop.pause?.();
    ended.abort(); // it is renewed no more
    await lease.release().catch(() => {});
    await running;
    return 'given up';
  }
  await running;
  if (signal.aborted) await lease.release().catch(() => {});
  return 'ended';
}

// Resolves once this replica could not record for half a Lease's duration.
async function inability(canRecord: () => boolean, { durationMs }: Lease, signal: AbortSignal): Promise<'unable'> {
  for (let since = performance.now(); !signal.aborted; ) {
    await wait(LOOK_MS, undefined, { signal }).catch(() => {});
    if (canRecord()) since = performance.now();
    else if (performance.now() - since > durationMs * UNABLE) return 'unable';
  }
  return new Promise<never>(() => {});
}
