import type { GitProgram } from '../git/index.ts';
import type { LedgerKey } from '../ledger/index.ts';
import type { ReportDefinition, ReportModel } from '../report/index.ts';
import { inThread } from './in-thread.ts';

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
};
const LIMIT_MS = 30 * 60_000;

/** Makes a report in a thread of its own: it takes seconds of a core, and whoever answers requests meanwhile must not notice. */
export function makeReport(task: ReportTask, signal?: AbortSignal): Promise<ReportMade> {
  return inThread('report-thread', task, LIMIT_MS, signal);
}
