import { CountersignError, cronOf, durationMs, messageOf, type Window } from '../model/index.ts';

/** A window that keeps a change from being applied: its name, and when it will no longer. */
export type Closed = { readonly window: string; readonly until: string };

const LONGEST_MS = 32 * 86_400_000;

/**
 * The window that keeps changes back at a moment, or undefined: a freeze that is open, or maintenance windows of which
 * none is. Throws `config-invalid` where a schedule or time zone cannot be read.
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

/** Until when a window is open, or undefined where it is not. */
function openUntil(window: Window, now: Date): Date | undefined {
  const length = durationMs(window.duration);
  if (length > LONGEST_MS)
    throw new CountersignError('config-invalid', `the window \`${window.name}\` stays open for longer than 32 days`);
  // The newest opening that is not after this moment: openings are looked through from one length ago.
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
      `the window \`${name}\` has a schedule that cannot be read: ${messageOf(cause)}`,
      {
        cause,
        hint: 'five fields as in cron, and an IANA time zone: `0 22 * * FRI`, `Europe/Berlin`',
      },
    );
  }
}
