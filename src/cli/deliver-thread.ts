import { constants, setPriority } from 'node:os';
import { workerData } from 'node:worker_threads';
import type { ReportDelivery } from '../model/index.ts';
import { deliver, type Issue, type ReportSummary } from '../schedule/index.ts';
import { answerWith } from './in-thread.ts';

export type DeliveryTask = { readonly place: ReportDelivery; readonly issue: Issue };
/** What is left to whoever has a connection to the cluster. */
export type ForCluster = readonly [namespace: string, name: string, summary: ReportSummary];

// The thread that brings one report to one place and ends: files of a hundred megabytes are read, hashed and sent.
if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
const { place, issue } = workerData as DeliveryTask;
await answerWith(async (): Promise<ForCluster | undefined> => {
  let left: ForCluster | undefined;
  await deliver(place, issue, new AbortController().signal, async (...summary) => {
    left = summary;
  });
  return left;
});
