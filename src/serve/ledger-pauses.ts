import { CountersignError } from '../model/index.ts';

type Work = {
  readonly why: string;
  readonly run: () => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
};

/**
 * Work on the ledger that needs it closed, such as a change of its key. The service ends its run as for a new
 * configuration, does the work, and begins again. Requests to the webhook wait meanwhile.
 */
export class LedgerPauses {
  #asked = new AbortController();
  #waiting: Work[] = [];

  /** Aborted when work waits. */
  get asked(): AbortSignal {
    return this.#asked.signal;
  }

  /** Resolves with the result of the work, and throws what it throws. */
  ask<T>(why: string, run: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ why, run, resolve: (value) => resolve(value as T), reject });
      this.#asked.abort();
    });
  }

  /** Does the work that waits, with the ledger closed. Returns the reasons. */
  async run(): Promise<readonly string[]> {
    const works = this.#waiting.splice(0);
    if (works.length > 0) this.#asked = new AbortController();
    for (const { run, resolve, reject } of works) await run().then(resolve, reject);
    return works.map(({ why }) => why);
  }

  /** Refuses work that was not begun: the service ends. */
  close(): void {
    for (const { reject } of this.#waiting.splice(0))
      reject(
        new CountersignError('ledger-unusable', 'the service ended before it began with this', { recover: 'retry' }),
      );
  }
}
