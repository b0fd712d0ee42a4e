/**
 * Runs one task at a time, in order. A task may step aside while it waits for something that writes nothing: others run
 * meanwhile, and it must look again at what it relied on.
 */
export class OneAtATime {
  #last: Promise<void> = Promise.resolve();
  #release: () => void = () => {};

  async alone<T>(task: () => Promise<T>): Promise<T> {
    await this.#acquire();
    try {
      return await task();
    } finally {
      this.#release();
    }
  }

  /** Called only by the task that runs alone. */
  async aside<T>(task: () => Promise<T>): Promise<T> {
    this.#release();
    try {
      return await task();
    } finally {
      await this.#acquire();
    }
  }

  async #acquire(): Promise<void> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    await before;
    this.#release = resolve;
  }
}
