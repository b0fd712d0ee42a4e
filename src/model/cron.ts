import { Cron } from 'croner';

/**
 * Returns the times of a five-field cron schedule in an IANA time zone. Throws an Error with the reason if it is
 * invalid or never due.
 */
export function cronOf(pattern: string, timeZone: string): { readonly next: (after: Date) => Date | null } {
  if (pattern.trim().split(/\s+/).length !== 5) throw new Error('it does not have five fields');
  const cron = new Cron(pattern, { timezone: timeZone, paused: true });
  if (cron.nextRun() === null) throw new Error('it is never due');
  return { next: (after) => cron.nextRun(after) };
}

/** Tests whether a schedule is valid and due at some time. */
export function isCron(pattern: string): boolean {
  try {
    cronOf(pattern, 'UTC');
    return true;
  } catch {
    return false;
  }
}
