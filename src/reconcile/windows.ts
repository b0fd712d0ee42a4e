import { CountersignError, cronOf, durationMs, messageOf, type Window } from '../model/index.ts';

/** A window that holds a change back: its name, and its end. */
export type Closed = { readonly window: string; readonly until: string };

const LONGEST_MS = 32 * 86_400_000;

/**
 * Returns the window that holds changes back at a moment, or undefined: an open freeze, or maintenance windows none of
 * which is open. Throws `config-invalid` for an invalid schedule or time zone.
 */
export function closedBy(windows: readonly Window[], now: Date): Closed | undefined {
  for (const window of windows.filter((w) => w.kind === 'freeze')) {
    const until = openUntil(window, now);
    if (until !== undefined) return { window: window.name, until: until.toISOString() };
  }
  const maintenance = windows.filter((w) => w.kind === 'maintenance');
  if (maintenance.length === 0 || maintenance.some((w) => openUntil(w, now) !== undefined)) return undefined;
  const next = maintenance
    .map((w) => ({ window: w.name, at: schedule(w).next(now) }))
    .filter((n): n is { window: string; at: Date } => n.at !== null)
    .sort((a, b) => a.at.getTime() - b.at.getTime())[0];
  return next === undefined ? undefined : { window: next.window, until: next.at.toISOString() };
}

/** Returns when an open window ends, or undefined if it is not open. */
function openUntil(window: Window, now: Date): Date | undefined {
  const length = durationMs(window.duration);
  if (length > LONGEST_MS)
    throw new CountersignError('config-invalid', `the window \`${window.name}\` stays open for longer than 32 days`);
  // Finds the newest opening before this moment: the search starts one window length ago.
  const cron = schedule(window);
  let end: Date | undefined;
  for (
    let at = cron.next(new Date(now.getTime() - length));
    at !== null && at.getTime() <= now.getTime();
    at = cron.next(at)
  )
    end = new Date(at.getTime() + length);
  return end !== undefined && end.getTime() > now.getTime() ? end : undefined;
}

function schedule({ name, schedule: pattern, timeZone }: Window): ReturnType<typeof cronOf> {
  try {
    return cronOf(pattern, timeZone);
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
