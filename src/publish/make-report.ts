import { existsSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { GitProgram } from '../git/index.ts';
import { LEDGER_FILES, type LedgerKey } from '../ledger/index.ts';
import { inThread } from '../open/index.ts';
import type { ReportDefinition, ReportModel } from '../report/index.ts';

/** The report to make, its ledger, and its output directory. */
export type ReportTask = {
  readonly data: string;
  /** Where archived entries are, if not where the ledger says. */
  readonly archive?: string | undefined;
  readonly from: string;
  readonly to: string;
  readonly definition: Omit<ReportDefinition, 'entity'> & { readonly entity: string | undefined };
  readonly out: string;
  /** The ledger's key, if not the one in the data directory. */
  readonly key?: LedgerKey | undefined;
  readonly git: GitProgram | undefined;
  /** Git directories that may contain signed objects, besides those the service fetched. */
  readonly repositories?: readonly string[];
};
export type ReportMade = Pick<ReportModel, 'id' | 'summary' | 'status'> & {
  /** SHA-256 of the manifest, and the size of the checkpoint. */
  readonly manifest: string;
  readonly checkpoint: number;
  /** Same as `ledger.begins` of the model. */
  readonly begins: string;
};
const LIMIT_MS = 30 * 60_000;
const MIB = 1024 * 1024;
const LARGE_MB = 256; // size of a ledger; a smaller one needs little memory in any case
const HEAP = { base: 400, share: 0.6 }; // MiB, and share of the ledger's size; twice the largest use measured

/** Makes a report in a separate thread: it takes seconds of CPU time, and requests must be answered meanwhile. */
export function makeReport(task: ReportTask, signal?: AbortSignal): Promise<ReportMade> {
  return inThread(
    new URL(`./report-thread${extname(import.meta.url)}`, import.meta.url),
    task,
    { ms: LIMIT_MS, heapMb: heapFor(task.data) },
    signal,
  );
}

// Without a limit, V8 lets a heap grow to several times its live data before it collects garbage.
function heapFor(data: string): number | undefined {
  const file = join(data, LEDGER_FILES.store);
  const size = existsSync(file) ? statSync(file).size / MIB : 0;
  return size < LARGE_MB ? undefined : Math.round(HEAP.base + HEAP.share * size);
}
