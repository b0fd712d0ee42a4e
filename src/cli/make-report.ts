import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError, type ErrorCode } from '../model/index.ts';
import type { ReportDefinition, ReportModel } from '../report/index.ts';

/** What to make, of which ledger, and where to put it. */
export type ReportTask = {
  readonly data: string;
  readonly from: string;
  readonly to: string;
  readonly definition: Omit<ReportDefinition, 'entity'> & { readonly entity: string | undefined };
  readonly out: string;
  /** The ledger's key, where it is not the one in the data directory. */
  readonly key?: LedgerKey | undefined;
};
export type ReportMade = Pick<ReportModel, 'id' | 'summary' | 'status'> & {
  /** SHA-256 of the manifest, and the size of the checkpoint. */
  readonly manifest: string;
  readonly checkpoint: number;
};
/** What the thread says in the end. */
export type ReportAnswer =
  | { readonly made: ReportMade }
  | { readonly code: ErrorCode; readonly message: string; readonly hint: string | undefined };

const YOUNG_MB = 16; // what is made anew all the time; left alone, it grows to several times that
const LIMIT_MS = 30 * 60_000;

/** Makes a report in a thread of its own: it takes seconds of a core, and whoever answers requests meanwhile must not notice. */
export async function makeReport(task: ReportTask, signal?: AbortSignal): Promise<ReportMade> {
  const worker = new Worker(new URL(`./report-thread${extname(import.meta.url)}`, import.meta.url), {
    workerData: task,
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
  });
  const end = () => void worker.terminate();
  const limit = setTimeout(end, LIMIT_MS);
  signal?.addEventListener('abort', end, { once: true });
  if (signal?.aborted === true) end();
  try {
    const answer = await new Promise<ReportAnswer>((done, failed) => {
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', () => failed(new Error('the thread that makes the report ended early')));
    });
    if ('made' in answer) return answer.made;
    throw new CountersignError(answer.code, answer.message, answer.hint === undefined ? {} : { hint: answer.hint });
  } finally {
    clearTimeout(limit);
    signal?.removeEventListener('abort', end);
    await worker.terminate();
  }
}
