import { basename } from 'node:path';
import { parentPort, Worker } from 'node:worker_threads';
import { CountersignError, type ErrorCode, messageOf } from '../model/index.ts';

/** Result of a thread. */
type Answer<T> =
  | { readonly done: T }
  | { readonly code: ErrorCode; readonly message: string; readonly hint: string | undefined };

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
    const answer = await new Promise<Answer<T>>((done, failed) => {
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', () => failed(new Error(`the thread ${basename(module.pathname)} ended early`)));
    });
    if ('done' in answer) return answer.done;
    throw new CountersignError(answer.code, answer.message, answer.hint === undefined ? {} : { hint: answer.hint });
  } finally {
    clearTimeout(limit);
    signal?.removeEventListener('abort', end);
    await worker.terminate();
  }
}

/** Runs a task in such a thread and returns its result to the caller. */
export async function answerWith<T>(task: () => Promise<T>): Promise<void> {
  const answer = await task().then(
    (done): Answer<T> => ({ done }),
    (thrown: unknown): Answer<T> => {
      if (!(thrown instanceof CountersignError)) throw thrown;
      return { code: thrown.code, message: messageOf(thrown), hint: thrown.hint };
    },
  );
  parentPort?.postMessage(answer);
}
