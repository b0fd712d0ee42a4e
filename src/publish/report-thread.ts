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

// The thread that makes one report and ends. Whoever decides requests, here or on this machine, goes first.
giveWay();
await answerWith(() => makeReportHere(workerData as ReportTask));

// Makes it here and now. Throws `ledger-inconsistent`, `key-missing`, and what keeps files from being written.
async function makeReportHere({
  data,
  from,
  to,
  definition,
  out,
  key,
  git,
  repositories = [],
}: ReportTask): Promise<ReportMade> {
  const reader = new LedgerReader(join(data, LEDGER_FILES.store)).freeze();
  try {
    const keys = readVerifiers(join(data, LEDGER_FILES.verifier));
    const { name } = keys[0] as Verifier;
    const sound = verifyLedger(reader, keys);
    if (sound.finding !== undefined)
      throw new CountersignError(
        'ledger-inconsistent',
        `no report is made from a ledger that is not consistent: ${sound.finding.message}`,
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
        throw new CountersignError('usage', `the report cannot be written to \`${out}\`: ${messageOf(cause)}`, {
          cause,
          hint: 'make room there, or name another directory; nothing that was there is changed',
        });
      throw cause;
    }
  } finally {
    reader.close();
  }
}
