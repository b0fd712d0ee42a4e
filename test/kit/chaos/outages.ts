import { DUTIES, type Duty, type Try } from './actors.ts';

/** How long each duty was away after a moment, in seconds; 0 if it never was. */
export type Outage = Readonly<Record<Duty, number>>;

/**
 * Returns how long each duty was away: from the moment to the end of the last try that failed, or to the end of a try
 * that took longer than it may. `tries` are all that ended so far, `waiting` those that did not.
 */
export function outagesSince(
  from: number,
  tries: readonly Try[],
  waiting: readonly Pick<Try, 'duty' | 'begun'>[],
  now: number,
): Outage {
  const away = (duty: Duty): number => {
    const bad = tries.filter(
      (t) => t.duty === duty && t.ended > from && (!t.isGood || t.ended - t.begun > SLOW_MS[duty]),
    );
    const late = waiting.filter((w) => w.duty === duty && now - w.begun > SLOW_MS[duty]).map(() => now);
    const last = Math.max(from, ...bad.map((t) => t.ended), ...late);
    return (last - from) / 1000;
  };
  return Object.fromEntries(DUTIES.map((duty) => [duty, away(duty)])) as Outage;
}

// What is slower than this counts as away.
const SLOW_MS: Readonly<Record<Duty, number>> = {
  admission: 5000,
  'break-glass': 5000,
  change: 10_000,
  record: 10_000,
};
