import { basename } from 'node:path';
import { parentPort, Worker } from 'node:worker_threads';
import { answerOf, resultOf, type ThreadAnswer } from '../model/index.ts';

const YOUNG_MB = 32; // short-lived objects; without a limit this space grows to several times that

/** Time limit of a thread, and its maximum heap. */
export type ThreadLimits = { readonly ms: number; readonly heapMb?: number | undefined };

/** Runs `module` in a separate thread, so that requests are answered meanwhile. Throws what the module throws. */
export async function inThread<T>(
  module: URL,
  workerData: unknown,
  { ms, heapMb }: ThreadLimits,
  signal?: AbortSignal,
): Promise<T> {
  const worker = new Worker(module, {
    workerData,
    resourceLimits: {
      maxYoungGenerationSizeMb: YOUNG_MB,
      ...(heapMb === undefined ? {} : { maxOldGenerationSizeMb: heapMb }),
    },
  });
  const end = () => void worker.terminate();
  const limit = setTimeout(end, ms);
  signal?.addEventListener('abort', end, { once: true });
  if (signal?.aborted === true) end();
  try {
    const answer = await new Promise<ThreadAnswer<T>>((done, failed) => {
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', () => failed(new Error(`the thread ${basename(module.pathname)} ended early`)));
    });
    return resultOf(answer);
  } finally {
    clearTimeout(limit);
    signal?.removeEventListener('abort', end);
    await worker.terminate();
  }
}

/** Runs a task in such a thread and returns its result to the caller. */
export async function answerWith<T>(task: () => Promise<T>): Promise<void> {
  parentPort?.postMessage(await answerOf(task));
}
