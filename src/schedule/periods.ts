import { cronOf, durationMs, type ReportSchedule } from '../model/index.ts';

type Kind = ReportSchedule['spec']['period'];

/**
 * A calendar period in UTC, ISO 8601; the end is exclusive. `label` is `2026-10-31`, `2026-W44`, `2026-10`, `2026-Q4`
 * or `2026`.
 */
export type Period = { readonly label: string; readonly from: string; readonly to: string };

const MOST = 120; // periods per check: ten years of months

/** Returns the period that contains a moment. Weeks follow ISO 8601. */
export function periodWith(kind: Kind, at: Date): Period {
  const [year, month, day] = [at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate()];
  const monday = day - ((at.getUTCDay() + 6) % 7);
  switch (kind) {
    case 'day':
      return period(utc(year, month, day), utc(year, month, day + 1), (from) => from.toISOString().slice(0, 10));
    case 'week':
      return period(utc(year, month, monday), utc(year, month, monday + 7), weekOf);
    case 'month':
      return period(utc(year, month, 1), utc(year, month + 1, 1), (from) => from.toISOString().slice(0, 7));
    case 'quarter': {
      const first = month - (month % 3);
      return period(utc(year, first, 1), utc(year, first + 3, 1), () => `${year}-Q${first / 3 + 1}`);
    }
    case 'year':
      return period(utc(year, 0, 1), utc(year + 1, 0, 1), () => String(year));
  }
}

/**
 * Returns the periods with due reports, oldest first: complete ones after the newest with a report (`reportedTo` is its
 * end), whose time has come. Without any report, that is the newest period, or all since `spec.since`. Periods that
 * ended before the ledger `began` have no report.
 */
export function duePeriods(
  { spec }: ReportSchedule,
  reportedTo: string | undefined,
  began: Date,
  now: Date,
): readonly Period[] {
  const schedule = cronOf(spec.schedule, 'UTC');
  const grace = durationMs(spec.grace);
  const isDue = ({ to }: Period) => {
    const at = schedule.next(new Date(Date.parse(to) + grace - 1));
    return at !== null && at <= now;
  };
  const earliest = periodWith(spec.period, began);
  const start = reportedTo ?? spec.since;
  const due: Period[] = [];
  if (start === undefined) {
    let newest = periodWith(spec.period, now);
    while (!isDue(newest) && newest.from > earliest.from)
      newest = periodWith(spec.period, new Date(Date.parse(newest.from) - 1));
    return isDue(newest) ? [newest] : [];
  }
  const first = periodWith(spec.period, new Date(start));
  for (
    let one = first.from < earliest.from ? earliest : first;
    isDue(one) && due.length < MOST;
    one = periodWith(spec.period, new Date(one.to))
  )
    due.push(one);
  return due;
}

/** Returns the calendar period between two times; without a label if it is not a calendar period. */
export function periodFrom(from: string, to: string): Period {
  const at = new Date(from);
  const kinds = ['day', 'week', 'month', 'quarter', 'year'] as const;
  return (
    kinds.map((kind) => periodWith(kind, at)).find((p) => p.from === from && p.to === to) ?? {
      label: `${from}_${to}`,
      from,
      to,
    }
  );
}

function period(from: Date, to: Date, label: (from: Date) => string): Period {
  return { label: label(from), from: from.toISOString(), to: to.toISOString() };
}

function utc(year: number, month: number, day: number): Date {
  return new Date(Date.UTC(year, month, day));
}

// A week belongs to the year that contains its Thursday.
function weekOf(monday: Date): string {
  const thursday = new Date(monday.getTime() + 3 * 86_400_000);
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = Math.floor((thursday.getTime() - first) / (7 * 86_400_000)) + 1;
  return `${thursday.getUTCFullYear()}-W${String(week).padStart(2, '0')}`;
}
