import { join, resolve } from 'node:path';
import type { ProcessSettings } from '../config/index.ts';
import { UserRepository } from '../git/index.ts';
import { count } from '../model/index.ts';
import { askService, gitProgram } from '../open/index.ts';
import { makeReport } from '../publish/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import type { ReportOptions } from './report-commands.ts';
import { defined, periodOf } from './report-definition.ts';
import { showWait } from './show-wait.ts';

/** Implements `countersign report`: writes the evidence of a period as a signed set of files around a PDF. */
export async function report(options: ReportOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const { data, out, archive } = options;
  const [period, definition] = [periodOf(options), defined(options)];
  const git = gitProgram(settings);
  const repositories = await Promise.all(
    (options.repo ?? []).map((directory) => new UserRepository(directory, git?.file).gitDirectory()),
  );
  const work = makeReport({ data, archive, out, ...period, definition, git, repositories });
  const made = await showWait(io, `the report of ${period.from} to ${period.to}`, work);
  const { id, summary, manifest, checkpoint } = made;
  const { sample } = definition;
  const issued = { report: id, ...period, manifest, checkpoint, ...(sample === undefined ? {} : { sample }) };
  const recorded = await askService(data, 'report-issued', issued);
  if (options.output === 'json') io.out(`${JSON.stringify({ id, directory: resolve(out), summary }, null, 2)}\n`);
  else {
    io.out(
      `report ${id}: ${count(summary.changes, 'change')}, ${summary.applied} applied, ` +
        `${summary.denied} denied, ${count(summary.exceptions, 'exception')}, ${summary.open} open\n`,
    );
    if (made.status === 'draft') io.out('a draft: the period had not ended at the newest entry\n');
    if (made.begins > period.from) io.out(`the ledger begins at ${made.begins}: earlier events are unknown\n`);
    io.out(`${join(out, 'report.pdf')}\n`);
  }
  if (recorded === undefined)
    io.err('this report is not recorded on the ledger, because no service runs on this data directory\n');
  return EXIT.yes;
}
