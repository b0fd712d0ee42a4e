import { existsSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { GitProgram } from '../git/index.ts';
import { LEDGER_FILES, type LedgerKey } from '../ledger/index.ts';
import { inThread } from '../open/index.ts';
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
  readonly git: GitProgram | undefined;
  /** Git directories that signed objects may be had from, beside those that the service fetched. */
  readonly repositories?: readonly string[];
};
export type ReportMade = Pick<ReportModel, 'id' | 'summary' | 'status'> & {
  /** SHA-256 of the manifest, and the size of the checkpoint. */
  readonly manifest: string;
  readonly checkpoint: number;
  /** As `ledger.begins` of the model. */
  readonly begins: string;
};
const LIMIT_MS = 30 * 60_000;
const MIB = 1024 * 1024;
const LARGE_MB = 256; // of a ledger; what a smaller one needs is little in any case
const HEAP = { base: 400, share: 0.6 }; // MiB, and of the ledger's size; half of it was ever needed

/**
 * Makes a report in a thread of its own: it takes seconds of a core, and whoever answers requests meanwhile must not
 * notice.
 */
export function makeReport(task: ReportTask, signal?: AbortSignal): Promise<ReportMade> {
  return inThread(
    new URL(`./report-thread${extname(import.meta.url)}`, import.meta.url),
    task,
    { ms: LIMIT_MS, heapMb: heapFor(task.data) },
    signal,
  );
}

// V8 lets a heap grow to several times of what lives in it before it clears up, unless it is told how much there may
// be.
function heapFor(data: string): number | undefined {
  const file = join(data, LEDGER_FILES.store);
  const size = existsSync(file) ? statSync(file).size / MIB : 0;
  return size < LARGE_MB ? undefined : Math.round(HEAP.base + HEAP.share * size);
}
