const BUSY = 20; // requests within a second: what people and controllers ask in an ordinary minute is far less
const WITHIN_MS = 1000;

/**
 * Whether others are asking the webhook so often that the gate's own writes, which can wait, should make room for them.
 */
export class Demand {
  /** Accounts whose requests are the gate's own. */
  ours: ReadonlySet<string> = new Set();
  readonly #clock: () => number;
  readonly #latest: number[] = Array.from({ length: BUSY }, () => Number.NEGATIVE_INFINITY);
  #next = 0;

  /** `clock` gives milliseconds that only go forward. */
  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock;
  }

  /** Notes that `user` asked. */
  heard(user: string): void {
    if (this.ours.has(user)) return;
    this.#latest[this.#next] = this.#clock();
    this.#next = (this.#next + 1) % BUSY;
  }

  get isBusy(): boolean {
    return this.#clock() - (this.#latest[this.#next] as number) < WITHIN_MS;
  }
}
