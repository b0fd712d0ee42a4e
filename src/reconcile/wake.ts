/** Why a loop goes on: its time has come, somebody wants it to look, or something of ours is not as it was. */
export type Reason = 'tick' | 'look' | 'drift';

/** The pause between two rounds of a loop, which ends early when something happens. */
export class Wake {
  #wake: ((reason: Reason) => void) | undefined;
  #pending: Reason | undefined;

  notify(reason: Reason): void {
    if (this.#pending !== 'look') this.#pending = reason;
    this.#wake?.(reason);
  }

  /** Whether somebody has asked for a look since the last pause; asked once, it is forgotten. */
  takeLook(): boolean {
    const asked = this.#pending === 'look';
    if (asked) this.#pending = undefined;
    return asked;
  }

  /**
   * Resolves after `ms` milliseconds or when something happens; what came while the loop was at work ends it before it
   * begins.
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
