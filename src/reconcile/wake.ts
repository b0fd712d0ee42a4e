/** Why a loop continues: the interval ended, someone requested a check, or one of our objects changed. */
export type Reason = 'tick' | 'look' | 'drift';

/** The pause between two rounds of a loop, which ends early when something happens. */
export class Wake {
  #wake: ((reason: Reason) => void) | undefined;
  #pending: Reason | undefined;

  notify(reason: Reason): void {
    if (this.#pending !== 'look') this.#pending = reason;
    this.#wake?.(reason);
  }

  /** Tests and clears whether someone requested a check since the last pause. */
  takeLook(): boolean {
    const asked = this.#pending === 'look';
    if (asked) this.#pending = undefined;
    return asked;
  }

  /**
   * Resolves after `ms` milliseconds or when something happens; an event that arrived while the loop was busy ends it
   * at once.
   */
  pause(ms: number): Promise<Reason> {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined) return Promise.resolve(pending);
    return new Promise((resolve) => {
      const done = (reason: Reason) => {
        clearTimeout(timer);
        this.#wake = undefined;
        this.#pending = undefined;
        resolve(reason);
      };
      const timer = setTimeout(() => done('tick'), Math.min(ms, 2 ** 31 - 1));
      this.#wake = done;
    });
  }
}
