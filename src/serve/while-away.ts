import { setTimeout as wait } from 'node:timers/promises';
import { CountersignError, messageOf } from '../model/index.ts';

type Parts = {
  readonly signal: AbortSignal;
  readonly log: { warn(fields: object, message: string): void; info(fields: object, message: string): void };
  /** Receives the reason for waiting. */
  readonly waitsFor?: (why: string) => void;
  readonly times?: { readonly firstMs: number; readonly mostMs: number; readonly sayEveryMs: number };
};

const TIMES = { firstMs: 500, mostMs: 10_000, sayEveryMs: 60_000 };

/**
 * Runs a task until it ends for a reason other than temporary trouble: an unreachable API server, database or
 * repository. Each outage is logged once, then once a minute. Returns undefined if it was told to stop while waiting.
 * Throws errors that waiting cannot fix.
 */
export async function whileAway<T>(
  task: () => Promise<T>,
  { signal, log, waitsFor = () => {}, times = TIMES }: Parts,
): Promise<T | undefined> {
  let said = { why: '', at: Number.NEGATIVE_INFINITY };
  for (let pause = times.firstMs; ; pause = Math.min(times.mostMs, pause * 2)) {
    const begun = performance.now();
    try {
      return await task();
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'retry') throw thrown;
      if (signal.aborted) return undefined;
      const why = messageOf(thrown);
      waitsFor(why);
      // It had been running for a while: this is a new outage.
      if (performance.now() - begun > times.mostMs) pause = times.firstMs;
      if (said.why !== why || performance.now() - said.at >= times.sayEveryMs) {
        log.warn(
          { code: thrown.code, ...(thrown.hint === undefined ? {} : { hint: thrown.hint }) },
          `waiting, and trying again: ${why}`,
        );
        said = { why, at: performance.now() };
      }
    }
    await wait(pause, undefined, { signal }).catch(() => {});
    if (signal.aborted) return undefined;
  }
}
