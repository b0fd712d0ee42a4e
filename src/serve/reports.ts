import { resolve } from 'node:path';
import { type ApiServer, putReport, type ReportResult } from '../cluster/index.ts';
import { frameworkNamed } from '../config/index.ts';
import type { GitProgram } from '../git/index.ts';
import type { ControlAnswer } from '../http/index.ts';
import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { deliverReport, makeReport } from '../publish/index.ts';
import { type ReportSummary, ScheduledReports, type ScheduledReportsPorts } from '../schedule/index.ts';

type Parts = Pick<ScheduledReportsPorts, 'schedules' | 'ledger' | 'log'> & {
  readonly data: string;
  readonly key: LedgerKey | undefined;
  readonly git: GitProgram | undefined;
  /** The cluster for summaries; undefined without a service. */
  readonly server: ApiServer | undefined;
};

/** Opens the reports that schedules request, made from the ledger in a data directory and stored below it. */
export function openScheduledReports(
  { data, key, git, server, ...ports }: Parts,
  open: (ports: ScheduledReportsPorts) => ScheduledReports = (made) => new ScheduledReports(made),
): ScheduledReports {
  return open({
    ...ports,
    directory: resolve(data, 'reports'),
    clock: () => new Date(),
    deliver: async (place, issue, signal) => {
      const left = await deliverReport({ place, issue }, signal);
      if (left !== undefined) await putSummary(server, ...left);
    },
    make: ({ spec }, { from, to }, out, supersedes, signal) => {
      const { entity, classification, environments, failureHours, reviewHours } = spec;
      const before =
        supersedes === undefined
          ? {}
          : {
              supersedes: {
                entry: supersedes.index,
                report: supersedes.entry.report,
                entries: supersedes.entry.checkpoint,
              },
            };
      const frameworks = spec.frameworks.map((f) => frameworkNamed(typeof f === 'string' ? f : f.file));
      const definition = {
        entity,
        classification,
        environments,
        failureHours,
        reviewHours,
        frameworks,
        sample: undefined,
        ...before,
      };
      return makeReport({ data: resolve(data), from, to, out, key, git, definition }, signal);
    },
  });
}

// One line per control and population check; those that passed are only counted.
async function putSummary(
  server: ApiServer | undefined,
  namespace: string,
  name: string,
  report: ReportSummary,
): Promise<void> {
  if (server === undefined)
    throw new CountersignError('cluster-unreachable', 'only a running service can write summaries into a cluster', {
      recover: 'retry',
    });
  const controls = report.controls.map((c): ReportResult => {
    const isWell = c.passed === c.tested && c.exceptions === c.dispositioned;
    const counts =
      `${c.tested} tested, ${c.passed} passed, ${c.undetermined} not determinable; ` +
      `${c.exceptions - c.dispositioned} exceptions open`;
    return {
      rule: c.id,
      result: isWell ? 'pass' : c.passed + c.undetermined === c.tested ? 'warn' : 'fail',
      message: `${c.title}: ${counts}`,
    };
  });
  const checks = report.reconciliation.map((r): ReportResult => {
    const result = r.status === 'ties' ? 'pass' : r.status === 'not determinable' ? 'warn' : 'fail';
    return { rule: r.id, result, message: `${r.check}: ${r.status}, ${r.unexplained} unexplained` };
  });
  if (!(await putReport(server, namespace, `evidence-${name}`, [...controls, ...checks], new Date())))
    throw new CountersignError(
      'cluster-refused',
      `there is no namespace \`${namespace}\`, or the cluster does not have Reports of openreports.io`,
      {
        recover: 'retry',
      },
    );
}

/** Executes `report run` from the control socket. */
export async function runScheduled(
  reports: ScheduledReports | undefined,
  asked: Readonly<Record<string, unknown>>,
): Promise<ControlAnswer> {
  const schedule = String(asked['schedule'] ?? '');
  if (reports === undefined)
    throw new CountersignError('usage', `there is no ReportSchedule \`${schedule}\``, {
      hint: 'the configuration of the service has none',
    });
  return { ok: true, result: await reports.runNow(schedule, asked['again'] === true) };
}
