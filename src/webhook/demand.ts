const BUSY = 20; // requests per second: far above what people and controllers send in an ordinary minute
const WITHIN_MS = 1000;

/** Tells whether the webhook is so busy that the gate's own writes, which can wait, should make room. */
export class Demand {
  /** Accounts whose requests are the gate's own. */
  ours: ReadonlySet<string> = new Set();
  readonly #clock: () => number;
  readonly #latest: number[] = Array.from({ length: BUSY }, () => Number.NEGATIVE_INFINITY);
  #next = 0;

  /** `clock` returns monotonic milliseconds. */
  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock;
  }

  /** Notes a request by `user`. */
  heard(user: string): void {
    if (this.ours.has(user)) return;
    this.#latest[this.#next] = this.#clock();
    this.#next = (this.#next + 1) % BUSY;
  }

  get isBusy(): boolean {
    return this.#clock() - (this.#latest[this.#next] as number) < WITHIN_MS;
  }
}
