import { constants, setPriority } from 'node:os';

const SLICE_MS = 1; // event loop time per slice
const PAUSE_MS = 3; // for requests that wait for an answer
const HOPS = 4; // microtasks until the work that was let go has done its part

/**
 * The time slices that bulk work on one thread shares, so that requests are answered in between. While `isAsked` holds,
 * the work also pauses between slices.
 */
export class Turns {
  readonly #isAsked: () => boolean;
  readonly #waiting: (() => void)[] = [];
  #begun = Number.NEGATIVE_INFINITY; // the first work waits its turn, too
  #isScheduled = false;

  constructor(isAsked: () => boolean = () => false) {
    this.#isAsked = isAsked;
  }

  /**
   * Lets the event loop go round once bulk work has had this thread for a millisecond. All work with these turns shares
   * one slice, so that many tasks side by side keep the thread no longer than one.
   */
  breathe(): Promise<void> {
    if (this.#waiting.length === 0 && !this.#isLong()) return Promise.resolve();
    return new Promise((go) => {
      this.#waiting.push(go);
      this.#schedule();
    });
  }

  /** Does `items.map(of)` for many items, and breathes between them. */
  async map<T, R>(items: readonly T[], of: (item: T, i: number) => R): Promise<R[]> {
    const results: R[] = [];
    for (const [i, item] of items.entries()) {
      if (this.#isLong()) await this.breathe();
      results.push(of(item, i));
    }
    return results;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const slice = () => void this.#slice();
    if (this.#isAsked()) setTimeout(slice, PAUSE_MS);
    else setImmediate(slice);
  }

  async #slice(): Promise<void> {
    this.#begun = performance.now();
    while (this.#waiting.length > 0 && !this.#isLong()) {
      this.#waiting.shift()?.();
      for (let hop = 0; hop < HOPS; hop++) await undefined;
    }
    this.#isScheduled = false;
    if (this.#waiting.length > 0) this.#schedule();
  }

  #isLong(): boolean {
    return performance.now() - this.#begun > SLICE_MS;
  }
}

/**
 * Lowers the priority of this thread, and of processes it starts later, below everything else on the machine; for work
 * that can wait. On Linux, priorities are per thread (setpriority(2)). Elsewhere they are per process, so nothing
 * changes.
 */
export function giveWay(): void {
  if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
}
