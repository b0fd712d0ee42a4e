import { resolve } from 'node:path';
import { loadConfiguration, type ProcessSettings } from '../config/index.ts';
import type { LedgerReader } from '../ledger/index.ts';
import { count, type EntryOf, type Recorded } from '../model/index.ts';
import { askService, gitProgram, ledgerKey, openOwnLedger, readLedger, recorderOf } from '../open/index.ts';
import { periodFrom } from '../schedule/index.ts';
import { openScheduledReports } from '../serve/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { ReportListOptions, ReportRunOptions } from './report-commands.ts';
import { showWait } from './show-wait.ts';

type Issued = Recorded<EntryOf<'report.issued'>>;

/**
 * Implements `countersign report run NAME`: makes the due reports of a ReportSchedule, through the running service or,
 * if there is none, here.
 */
export async function reportRun(
  name: string,
  options: ReportRunOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const { data, again } = options;
  const work = askService(data, 'report-run', { schedule: name, again });
  const answer = await showWait(io, `the service makes the report \`${name}\``, work);
  const made = answer === undefined ? await runHere(name, options, settings, io) : (answer.result as readonly Issued[]);
  const issued = made.map(({ index, entry }) => ({
    entry: index,
    report: entry.report,
    period: periodFrom(entry.from, entry.to).label,
    version: entry.version ?? 1,
    directory: resolve(data, 'reports', name, periodFrom(entry.from, entry.to).label, `v${entry.version ?? 1}`),
  }));
  if (options.output === 'json') io.out(`${JSON.stringify(issued, null, 2)}\n`);
  else if (issued.length === 0) io.out(`nothing of \`${plain(name)}\` is due\n`);
  else
    for (const one of issued)
      io.out(`report ${one.report}: ${one.period}, version ${one.version}\n${one.directory}/report.pdf\n`);
  const missing = onLedger(data, listed).filter(
    (r) => r.schedule === name && r.places.some((p) => p.state !== 'delivered'),
  );
  for (const one of missing)
    for (const place of one.places.filter((p) => p.state !== 'delivered'))
      io.err(
        `${paint(io, 'yellow', 'warning:')} ${one.period}, ` +
          `version ${one.version} is not at \`${plain(place.name)}\` yet\n`,
      );
  return missing.length === 0 ? EXIT.yes : EXIT.no;
}

async function runHere(
  name: string,
  options: ReportRunOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<readonly Issued[]> {
  const schedules = loadConfiguration(options.config).reportSchedules;
  const key = ledgerKey(options);
  const ledger = await openOwnLedger(options);
  try {
    const error = (_: object, message: string) => void io.err(`${paint(io, 'red', 'error:')} ${plain(message)}\n`);
    const reports = openScheduledReports({
      data: options.data,
      key,
      git: gitProgram(settings),
      server: undefined,
      schedules,
      ledger: recorderOf(ledger),
      log: { info: () => {}, error },
    });
    return await reports.runNow(name, options.again);
  } finally {
    await ledger.close();
  }
}

type Listed = {
  readonly entry: number;
  readonly time: string;
  readonly schedule: string;
  readonly period: string;
  readonly version: number;
  readonly report: string;
  readonly places: readonly {
    readonly name: string;
    readonly state: 'delivered' | 'failed' | 'waiting' | 'superseded';
    readonly error?: string;
  }[];
};

/** Implements `countersign report list`: the reports on the ledger, where they are, and which could not be made. */
export function reportList(options: ReportListOptions, io: Io): number {
  const [reports, failed] = onLedger(options.data, (reader) => [listed(reader), failedOf(reader)] as const);
  if (options.output === 'json') {
    io.out(`${JSON.stringify({ reports, failed }, null, 2)}\n`);
    return EXIT.yes;
  }
  for (const one of reports) {
    const by = one.schedule === '' ? 'by hand' : `${one.schedule}, version ${one.version}`;
    io.out(
      `${String(one.entry).padStart(8)}  ${one.time.slice(0, 19).replace('T', ' ')} ` +
        ` ${one.period.padEnd(10)}  ${plain(by)}\n`,
    );
    for (const { name, state, error } of one.places) {
      const colour = state === 'delivered' ? 'green' : state === 'failed' ? 'red' : 'yellow';
      io.out(
        `          ${plain(name)}: ${paint(io, colour, state)}${error === undefined ? '' : `, ${plain(error)}`}\n`,
      );
    }
  }
  for (const { schedule, period, error } of failed)
    io.out(`${paint(io, 'red', 'not made')}: ${plain(schedule)}, ${period}: ${plain(error)}\n`);
  io.out(`${count(reports.length, 'report')}\n`);
  return EXIT.yes;
}

function onLedger<T>(data: string, look: (reader: LedgerReader) => T): T {
  const reader = readLedger(data);
  try {
    return look(reader);
  } finally {
    reader.close();
  }
}

// Returns reports that were due and are still missing.
function failedOf(
  reader: LedgerReader,
): readonly { readonly schedule: string; readonly period: string; readonly error: string }[] {
  const made = new Set(reader.all('report.issued', '').map(({ entry: e }) => `${e.schedule} ${e.from} ${e.to}`));
  const newest = new Map(reader.all('report.failed', '').map(({ entry: e }) => [`${e.schedule} ${e.from} ${e.to}`, e]));
  return [...newest]
    .filter(([key]) => !made.has(key))
    .map(([, { schedule, from, to, error }]) => ({ schedule, period: periodFrom(from, to).label, error }));
}

function listed(reader: LedgerReader): readonly Listed[] {
  const issued = reader.all('report.issued', '');
  const superseded = new Set(
    issued.filter(({ entry }) => entry.schedule !== undefined).map(({ entry }) => entry.supersedes),
  );
  const told = reader.all('report.delivered', '');
  return issued.map(({ index, entry }) => ({
    entry: index,
    time: entry.time,
    schedule: entry.schedule ?? '',
    period: periodFrom(entry.from, entry.to).label,
    version: entry.version ?? 1,
    report: entry.report,
    places: (entry.deliver ?? []).map((name) => {
      const last = told.findLast(({ entry: e }) => e.issued === index && e.to === name)?.entry;
      const state = last?.outcome ?? (superseded.has(index) ? 'superseded' : 'waiting');
      return { name, state, ...(last?.error === undefined ? {} : { error: last.error }) };
    }),
  }));
}
