/** Health as seen at a moment. `unseen`: changes are being made, or something is not watched. */
type Seen = 'well' | 'progressing' | 'failed' | 'unseen';

/** Longer than the pauses between observations; after a longer one, the process stood still. */
const MOST_MS = 30_000;

/**
 * How long a revision has been observed in health. Time in which it was not observed, or was progressing, is not
 * counted; a failure starts from zero.
 */
export class ObservedHealth {
  #revision = '';
  #ms = 0;
  #last: number | undefined;

  /** Continues from what was observed before, by this process or another. */
  carryOn(revision: string, ms: number): void {
    [this.#revision, this.#ms, this.#last] = [revision, ms, undefined];
  }

  /** Adds an observation at a moment by `performance.now()`. */
  observe(revision: string, seen: Seen, now: number): void {
    if (revision !== this.#revision) this.carryOn(revision, 0);
    if (seen === 'failed') this.#ms = 0;
    if (seen !== 'well') {
      this.#last = undefined;
      return;
    }
    if (this.#last !== undefined && now - this.#last <= MOST_MS) this.#ms += now - this.#last;
    this.#last = now;
  }

  /** Milliseconds for this revision. */
  of(revision: string): number {
    return revision === this.#revision ? this.#ms : 0;
  }
}
