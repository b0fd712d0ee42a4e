import { parentPort, workerData } from 'node:worker_threads';
import { CountersignError, messageOf } from '../model/index.ts';
import { makeReportHere, type ReportAnswer, type ReportTask } from './make-report.ts';

// The thread that makes one report and ends.
const answer = await makeReportHere(workerData as ReportTask).then(
  (made): ReportAnswer => ({ made }),
  (thrown: unknown): ReportAnswer => {
    if (!(thrown instanceof CountersignError)) throw thrown;
    return { code: thrown.code, message: messageOf(thrown), hint: thrown.hint };
  },
);
parentPort?.postMessage(answer);
