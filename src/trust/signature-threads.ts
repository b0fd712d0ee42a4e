import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { CountersignError, type SignatureFact, type TrustPolicy } from '../model/index.ts';

/** Signatures in transit to a thread: one block of bytes, transferred instead of copied. */
export type SignatureBatch = {
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly lengths: readonly number[];
  readonly signatures: readonly (string | undefined)[];
};
export type SignatureAnswer = { readonly id: number; readonly facts: readonly SignatureFact[] };

type Waiting = {
  readonly resolve: (facts: readonly SignatureFact[]) => void;
  readonly reject: (reason: unknown) => void;
};

// a thread holds the keys and one batch; exceeding this is a defect, and ends the thread but not the service
const MAX_HEAP_MIB = 256;
const YOUNG_MIB = 8; // facts are small and short-lived; more would waste memory

/**
 * Threads that examine signatures under one TrustPolicy. If a thread dies, its pending batches fail and count as
 * unexamined.
 */
export class SignatureThreads {
  readonly #workers: readonly Worker[];
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #failed: CountersignError | undefined;

  constructor(policy: TrustPolicy, threads: number) {
    const file = new URL(`./signature-thread${extname(import.meta.url)}`, import.meta.url);
    this.#workers = Array.from({ length: threads }, () => {
      const worker = new Worker(file, {
        workerData: { policy },
        resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB, maxYoungGenerationSizeMb: YOUNG_MIB },
      });
      worker.on('message', (answer: SignatureAnswer) => {
        this.#waiting.get(answer.id)?.resolve(answer.facts);
        this.#waiting.delete(answer.id);
      });
      worker.on('error', (cause) => this.#fail(cause));
      return worker;
    });
  }

  /** Returns the facts of each signature, in order. */
  examine(
    items: readonly { readonly payload: Uint8Array; readonly signature: string | undefined }[],
  ): Promise<readonly SignatureFact[]> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    const id = this.#next++;
    const bytes = new Uint8Array(items.reduce((n, item) => n + item.payload.length, 0));
    let at = 0;
    for (const { payload } of items) {
      bytes.set(payload, at);
      at += payload.length;
    }
    const batch: SignatureBatch = {
      id,
      bytes,
      lengths: items.map((i) => i.payload.length),
      signatures: items.map((i) => i.signature),
    };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#workers[id % this.#workers.length]?.postMessage(batch, [bytes.buffer]);
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((w) => w.terminate()));
  }

  #fail(cause: unknown): void {
    this.#failed = new CountersignError('signatures-not-examined', 'a signature thread ended', {
      cause,
      recover: 'retry',
    });
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failed);
    this.#waiting.clear();
  }
}
