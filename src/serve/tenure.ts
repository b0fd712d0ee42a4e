import { setTimeout as wait } from 'node:timers/promises';
import type { Lease } from '../cluster/index.ts';
import { type ErrorCode, messageOf } from '../model/index.ts';
import { type Hold, LeaseLost } from './hold.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

type Failing = { readonly code: string; readonly since: number };

/** Work that one of several replicas runs: an environment's loop, or the reports. */
export type Tenant = {
  readonly name: string;
  run(): Promise<void>;
  stop(): void;
  /** Ends `run`, which may be called again; without it, the work goes on even if this replica lacks something. */
  pause?(): void;
  /** Why its checks fail since when, by `performance.now()`; undefined if they do not. */
  readonly failing?: Failing | undefined;
  standBy(message: string): void;
};

/**
 * Runs a loop only while this replica holds its Lease, and otherwise stands by. When told to stop, it lets the loop
 * finish its current step and releases the Lease. If the Lease is lost, or cannot be renewed in time, the loop's writes
 * end at once and the process ends: another replica may hold it by now. If this replica lacks what the work needs for a
 * while, it gives the Lease to one that may have it. `lacks` says what, in words: it takes no Lease until it has that.
 * Without `lacks` there is no other replica, and it goes on as well as it can.
 */
export async function runWhileHeld(
  loop: Tenant,
  lease: Lease,
  hold: Hold,
  signal: AbortSignal,
  log: Log,
  lacks?: () => string | undefined,
): Promise<void> {
  let passedOn = Number.NEGATIVE_INFINITY;
  // Or right when a silent holder loses it.
  const pause = async () => {
    const [often, soon] = [(lease.durationMs / 3) * (0.8 + Math.random() / 5), lease.durationMs / 30];
    const ms = Math.min(often, Math.max(lease.msLeft + MARGIN_MS, soon));
    await wait(ms, undefined, { signal }).catch(() => {});
  };
  while (!signal.aborted) {
    const lacking = loop.pause === undefined ? undefined : lacks?.();
    if (lacking !== undefined) {
      loop.standBy(`cannot run here: ${lacking}`);
      await lease.look(); // the holder may be gone too
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
      const mayPassOn = performance.now() - passedOn > PASS_ON_MS;
      const trouble = () => lacks?.() ?? (mayPassOn ? stuck(loop, lease) : undefined);
      const why = await runHeld(loop, lease, hold, signal, lacks === undefined ? undefined : trouble);
      if (why === undefined) return;
      log.warn({ lease: loop.name }, `${why}: another replica may run this now`);
      if (stuck(loop, lease) !== undefined) passedOn = performance.now();
      loop.standBy(why);
      await wait(lease.durationMs * PASSED_ON, undefined, { signal }).catch(() => {});
      continue;
    }
    loop.standBy(lease.holder === '' ? 'waits for its Lease' : `\`${lease.holder}\` holds it`);
    await pause();
  }
}

const HELD = 0.8; // of a Lease's duration: others wait until all of it has passed

const LOOK_MS = 1000;
const MARGIN_MS = 50;
const UNABLE = 0.5; // of a Lease's duration: a database that restarts is back by then
const PASSED_ON = 0.5; // of a Lease's duration: the others look every third
// If no replica reaches the repository, the Lease must not go round and round.
const PASS_ON_MS = 300_000;
// Codes of failures that another replica may not have.
const LACKING: ReadonlySet<string> = new Set(['git-unreachable', 'disk-full'] satisfies ErrorCode[]);

// Why the loop's checks fail, if that may be different on another replica.
function stuck({ failing }: Tenant, { durationMs }: Lease): string | undefined {
  if (failing === undefined || !LACKING.has(failing.code)) return undefined;
  return performance.now() - failing.since > durationMs * UNABLE ? `its checks fail here (${failing.code})` : undefined;
}

// Returns what this replica lacks, if it gave the Lease up for that; undefined if the loop ended.
async function runHeld(
  loop: Tenant,
  lease: Lease,
  hold: Hold,
  signal: AbortSignal,
  lacks: (() => string | undefined) | undefined,
): Promise<string | undefined> {
  const ended = new AbortController();
  const never = new Promise<never>(() => {});
  const unable = loop.pause === undefined || lacks === undefined ? never : inability(lacks, lease, ended.signal);
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
  const why = await Promise.race([running, over, unable]);
  if (typeof why === 'string' && !signal.aborted) {
    hold.giveUp(why);
    loop.pause?.();
    ended.abort(); // it is renewed no more
    await lease.release().catch(() => {});
    await running;
    return why;
  }
  await running;
  if (signal.aborted) await lease.release().catch(() => {});
  return undefined;
}

// Resolves with what this replica lacks, once that was so for half a Lease's duration.
async function inability(lacks: () => string | undefined, { durationMs }: Lease, signal: AbortSignal): Promise<string> {
  for (let since = performance.now(); !signal.aborted; ) {
    await wait(LOOK_MS, undefined, { signal }).catch(() => {});
    const why = lacks();
    if (why === undefined) since = performance.now();
    else if (performance.now() - since > durationMs * UNABLE) return why;
  }
  return new Promise<never>(() => {});
}
