import { join } from 'node:path';
import { workerData } from 'node:worker_threads';
import {
  LEDGER_FILES,
  LedgerReader,
  openSigner,
  programSource,
  signNote,
  type Verifier,
  verifyLedger,
} from '../ledger/index.ts';
import { CountersignError, giveWay, messageOf } from '../model/index.ts';
import { answerWith, readVerifiers } from '../open/index.ts';
import { CHECKER, fileShelf, writeReport } from '../report/index.ts';
import type { ReportMade, ReportTask } from './make-report.ts';
import { ReportFiles } from './report-files.ts';
import { readMaterial } from './report-input.ts';
import { fetchedRepositories, signedObjects } from './signed-objects.ts';

// Makes one report, then exits. Threads that answer requests, on the whole machine, have priority.
giveWay();
await answerWith(() => makeReportHere(workerData as ReportTask));

// Makes the report in this thread. Throws `ledger-inconsistent`, `key-missing`, and errors from writing files.
async function makeReportHere({
  data,
  archive,
  from,
  to,
  definition,
  out,
  key,
  git,
  repositories = [],
}: ReportTask): Promise<ReportMade> {
  const reader = new LedgerReader(join(data, LEDGER_FILES.store), archive).freeze();
  try {
    const keys = readVerifiers(join(data, LEDGER_FILES.verifier));
    const { name } = keys[0] as Verifier;
    const sound = verifyLedger(reader, keys);
    if (sound.finding !== undefined)
      throw new CountersignError(
        'ledger-inconsistent',
        `cannot make a report from an inconsistent ledger: ${sound.finding.message}`,
        { hint: 'run `countersign ledger verify`' },
      );
    const signer = openSigner(data, name, key);
    const entity = definition.entity ?? name;
    const files = new ReportFiles(out);
    try {
      const shelf = fileShelf(join(out, 'changes.new'));
      const { id, summary, status, ledger } = await writeReport(
        readMaterial(reader, { from, to, origin: name, definition: { ...definition, entity } }),
        (changes) => signedObjects(reader, changes, [...repositories, ...fetchedRepositories(data)], git),
        (text) => signNote(text, signer),
        (file) => files.create(file),
        programSource(CHECKER),
        shelf,
      ).finally(shelf.close);
      const manifest = files.finish();
      return { id, summary, status, begins: ledger.begins, manifest, checkpoint: ledger.first + ledger.entries };
    } catch (cause) {
      files.giveUp();
      if (cause instanceof Error && 'syscall' in cause)
        throw new CountersignError('usage', `cannot write the report to \`${out}\`: ${messageOf(cause)}`, {
          cause,
          hint: 'free some space, or name a different directory; existing files are unchanged',
        });
      throw cause;
    }
  } finally {
    reader.close();
  }
}
