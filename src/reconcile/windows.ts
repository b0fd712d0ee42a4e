import { CountersignError, cronOf, durationMs, LocalClock, messageOf, type Window } from '../model/index.ts';

/** A window that holds a change back: its name, and its end. */
export type Closed = { readonly window: string; readonly until: string };

const LONGEST_MS = 32 * 86_400_000;

/**
 * Returns the window that holds changes back at a moment, or undefined: an open freeze, or maintenance windows none of
 * which is open. Windows are in the local time of their zone. A freeze that begins or ends in an hour that the clock
 * shows twice lasts from the first to the last time that it shows it; maintenance ends at the first.
 * Throws `config-invalid` for an invalid schedule or time zone.
 */
export function closedBy(windows: readonly Window[], now: Date): Closed | undefined {
  for (const window of windows.filter((w) => w.kind === 'freeze')) {
    const until = openUntil(window, now.getTime());
    if (until !== undefined) return { window: window.name, until: new Date(until).toISOString() };
  }
  const maintenance = windows.filter((w) => w.kind === 'maintenance');
  if (maintenance.length === 0 || maintenance.some((w) => openUntil(w, now.getTime()) !== undefined)) return undefined;
  const next = maintenance
    .map((w) => ({ window: w.name, at: opensNext(w, now.getTime()) }))
    .filter((n): n is { window: string; at: number } => n.at !== undefined)
    .sort((a, b) => a.at - b.at)[0];
  return next === undefined ? undefined : { window: next.window, until: new Date(next.at).toISOString() };
}

// Returns when an open window ends, or undefined if it is not open.
function openUntil(window: Window, now: number): number | undefined {
  const length = durationMs(window.duration);
  if (length > LONGEST_MS)
    throw new CountersignError('config-invalid', `the window \`${window.name}\` stays open for longer than 32 days`);
  const { clock, opensAfter } = scheduleOf(window);
  const wall = clock.shown(now);
  const shift = clock.shiftAround(now); // when the clock is put back, a wall time may lie ahead of an instant's own
  let newest: number | undefined;
  for (
    let opens = opensAfter(wall - length - shift);
    opens !== undefined && opens <= wall + shift;
    opens = opensAfter(opens)
  ) {
    const from = clock.instantsOf(opens).first;
    const end = clock.instantsOf(opens + length);
    const until = window.kind === 'freeze' ? end.last : end.first;
    if (from <= now && now < until) newest = Math.max(until, newest ?? until);
  }
  return newest;
}

// Returns the instant at which a window opens next.
function opensNext(window: Window, now: number): number | undefined {
  const { clock, opensAfter } = scheduleOf(window);
  for (let opens = opensAfter(clock.shown(now)); opens !== undefined; opens = opensAfter(opens)) {
    const { first } = clock.instantsOf(opens);
    if (first > now) return first;
  }
  return undefined;
}

/** When a window opens, in wall times. */
type Schedule = { readonly clock: LocalClock; readonly opensAfter: (wall: number) => number | undefined };

function scheduleOf({ name, schedule: pattern, timeZone }: Window): Schedule {
  try {
    const cron = cronOf(pattern, 'UTC'); // wall times are written as if they were UTC
    return { clock: new LocalClock(timeZone), opensAfter: (wall) => cron.next(new Date(wall))?.getTime() };
  } catch (cause) {
    throw new CountersignError(
      'config-invalid',
      `the schedule of the window \`${name}\` is invalid: ${messageOf(cause)}`,
      {
        cause,
        hint: 'give five fields as in cron, and an IANA time zone: `0 22 * * FRI`, `Europe/Berlin`',
      },
    );
  }
}
