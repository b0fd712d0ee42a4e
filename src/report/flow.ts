import type { ChangeRecord, ReportModel } from './model.ts';

type Counts = Record<ChangeRecord['outcome'], number>;

const DAY_MS = 86_400_000;
const MOST = { day: 45, week: 60 }; // bars of a chart that a reader can distinguish

/**
 * Counts changes by outcome per day, week (from Monday) or month of the period, in UTC, including empty ones. If the
 * period begins long before the first change, it starts there. Changes are added one by one.
 */
export function flowBook(): {
  readonly see: (change: ChangeRecord) => void;
  readonly flow: (period: { readonly from: string; readonly to: string }, asOf: string) => ReportModel['flow'];
} {
  const days = new Map<string, Counts>();
  return {
    see: ({ time, outcome }) => {
      const day = time.slice(0, 10);
      const counts = days.get(day) ?? nothing();
      days.set(day, counts);
      counts[outcome]++;
    },
    flow: ({ from, to }, asOf) => {
      const known = [...days.keys()].sort();
      const first = known[0];
      if (first === undefined) return { unit: 'day', rows: [] };
      const last = new Date(
        Math.max(Date.parse(known.at(-1) ?? first), Math.min(Date.parse(to) - 1, Date.parse(asOf))),
      ).toISOString();
      const begin = Date.parse(first) - Date.parse(from) > MOST.week * 7 * DAY_MS ? first : from.slice(0, 10);
      const length = (Date.parse(last) - Date.parse(begin)) / DAY_MS;
      const unit = length <= MOST.day ? 'day' : length <= MOST.week * 7 ? 'week' : 'month';
      const rows = new Map<string, Counts>();
      for (let at = Date.parse(begin); at <= Date.parse(last); at += DAY_MS) rows.set(startOf(unit, at), nothing());
      for (const [day, counts] of days) {
        const row = rows.get(startOf(unit, Date.parse(day)));
        if (row !== undefined) for (const outcome of OUTCOMES) row[outcome] += counts[outcome];
      }
      return { unit, rows: [...rows].map(([start, counts]) => ({ from: start, ...counts })) };
    },
  };
}

const OUTCOMES = ['applied', 'allowed', 'failed', 'denied'] as const;

function nothing(): Counts {
  return { applied: 0, allowed: 0, failed: 0, denied: 0 };
}

function startOf(unit: ReportModel['flow']['unit'], time: number): string {
  const day = new Date(time).toISOString().slice(0, 10);
  if (unit === 'month') return `${day.slice(0, 7)}-01`;
  if (unit === 'day') return day;
  const sinceMonday = (new Date(time).getUTCDay() + 6) % 7;
  return new Date(time - sinceMonday * DAY_MS).toISOString().slice(0, 10);
}
