import { parentPort, workerData } from 'node:worker_threads';
import type { PolicyBundle } from '../bundle/index.ts';
import { collectLeftovers } from '../model/index.ts';
import { type Judged, LoadedRules, type RunScope, type Subject } from './judge-subject.ts';

// Data of one pool thread. It writes into shared memory which subject it is evaluating and since when, so that the pool
// can end it.
export type ThreadData = {
  readonly bundles: readonly PolicyBundle[];
  readonly inventory: unknown;
  readonly pulse: SharedArrayBuffer;
};
export type Batch = {
  readonly id: number;
  readonly parts: readonly { readonly scope: RunScope; readonly subjects: readonly Subject[] }[];
};
export type Answer = {
  readonly id: number;
  readonly judged: readonly Judged[];
  readonly memory: number;
  /** CPU time of the slowest subject. */
  readonly slowestMs: number;
};

const { bundles, inventory, pulse } = workerData as ThreadData;
const beat = new Int32Array(pulse);
const rules = await LoadedRules.open(bundles, inventory);
parentPort?.on('message', ({ id, parts }: Batch) => {
  const judged: Judged[] = [];
  let slowest = 0; // in microseconds
  for (const { scope, subjects } of parts) {
    for (const subject of subjects) {
      Atomics.store(beat, 0, judged.length);
      Atomics.add(beat, 1, 1);
      const before = process.threadCpuUsage();
      judged.push(rules.judge(subject, scope));
      const { user, system } = process.threadCpuUsage(before);
      slowest = Math.max(slowest, user + system);
    }
  }
  parentPort?.postMessage({ id, judged, memory: rules.memory, slowestMs: slowest / 1000 } satisfies Answer);
});
collectLeftovers();
parentPort?.postMessage('ready');
