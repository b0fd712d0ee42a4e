import { constants, setPriority } from 'node:os';
import { workerData } from 'node:worker_threads';
import { answerWith } from '../open/index.ts';
import { deliver } from '../schedule/index.ts';
import type { DeliveryTask, ForCluster } from './deliver-report.ts';

// Delivers one report to one destination, then exits: files of a hundred megabytes are read, hashed and sent.
if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
const { place, issue } = workerData as DeliveryTask;
await answerWith(async (): Promise<ForCluster | undefined> => {
  let left: ForCluster | undefined;
  await deliver(place, issue, new AbortController().signal, async (...summary) => {
    left = summary;
  });
  return left;
});
