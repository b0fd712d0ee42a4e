import { resolve } from 'node:path';
import { frameworkNamed } from '../config/index.ts';
import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { deliver, ScheduledReports, type ScheduledReportsPorts } from '../schedule/index.ts';
import type { ControlAnswer } from '../service/index.ts';
import { makeReport } from './make-report.ts';

type Parts = Pick<ScheduledReportsPorts, 'schedules' | 'ledger' | 'log'> & { readonly data: string; readonly key: LedgerKey | undefined };

/** The reports that schedules ask for, made from the ledger of a data directory and kept below it. */
export function openScheduledReports(
  { data, key, ...ports }: Parts,
  open: (ports: ScheduledReportsPorts) => ScheduledReports = (made) => new ScheduledReports(made),
): ScheduledReports {
  return open({
    ...ports,
    directory: resolve(data, 'reports'),
    clock: () => new Date(),
    deliver,
    make: ({ spec }, { from, to }, out, supersedes, signal) => {
      const { entity, classification, environments, failureHours, reviewHours } = spec;
      const before =
        supersedes === undefined
          ? {}
          : { supersedes: { entry: supersedes.index, report: supersedes.entry.report, entries: supersedes.entry.checkpoint } };
      const frameworks = spec.frameworks.map((f) => frameworkNamed(typeof f === 'string' ? f : f.file));
      const definition = { entity, classification, environments, failureHours, reviewHours, frameworks, sample: undefined, ...before };
      return makeReport({ data: resolve(data), from, to, out, key, definition }, signal);
    },
  });
}

/** What the control socket is asked by `report run`. */
export async function runScheduled(
  reports: ScheduledReports | undefined,
  asked: Readonly<Record<string, unknown>>,
): Promise<ControlAnswer> {
  const schedule = String(asked['schedule'] ?? '');
  if (reports === undefined)
    throw new CountersignError('usage', `there is no ReportSchedule \`${schedule}\``, { hint: 'the service’s configuration has none' });
  return { ok: true, result: await reports.runNow(schedule, asked['again'] === true) };
}
