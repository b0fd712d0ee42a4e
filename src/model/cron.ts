import { Cron } from 'croner';

/**
 * The times of a schedule of five fields, as in cron, in an IANA time zone. Throws an Error that says why where it
 * cannot be read, or never comes.
 */
export function cronOf(pattern: string, timeZone: string): { readonly next: (after: Date) => Date | null } {
  if (pattern.trim().split(/\s+/).length !== 5) throw new Error('it has not five fields');
  const cron = new Cron(pattern, { timezone: timeZone, paused: true });
  if (cron.nextRun() === null) throw new Error('it never comes');
  return { next: (after) => cron.nextRun(after) };
}

/** Whether it is a schedule that comes at some time. */
export function isCron(pattern: string): boolean {
  try {
    cronOf(pattern, 'UTC');
    return true;
  } catch {
    return false;
  }
}
