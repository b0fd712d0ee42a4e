import { workerData } from 'node:worker_threads';
import { type ArchiveRequest, type LedgerKey, moveToArchive } from '../ledger/index.ts';
import { answerWith } from '../open/index.ts';

/** A request to archive, its ledger, and the key that records it. */
export type ArchiveTask = {
  readonly data: string;
  readonly request: ArchiveRequest;
  readonly key: LedgerKey | undefined;
};

// Moves old entries to an archive, then exits.
const { data, request, key } = workerData as ArchiveTask;
await answerWith(() => moveToArchive(data, request, { key }));
