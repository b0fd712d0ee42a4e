const WINDOW_MS = 600_000;
const FREE = 5; // corrections of one object in ten minutes; beyond that, someone else keeps changing it
const FIRST_MS = 60_000;
const LONGEST_MS = 3_600_000;

/**
 * Limits how often each object may be reverted: a few times at once, then with increasing pauses, so that no fight goes
 * on forever.
 */
export class DriftGuard {
  readonly #corrections = new Map<string, { times: number[]; fights: number; next: number }>();

  /** Tests whether an object may be reverted now. `now` in milliseconds. */
  allows(key: string, now: number): boolean {
    return now >= (this.#corrections.get(key)?.next ?? 0);
  }

  /** Tests whether it was reverted so often that someone must be contesting it. */
  isContested(key: string): boolean {
    return (this.#corrections.get(key)?.fights ?? 0) > 0;
  }

  corrected(key: string, now: number): void {
    const known = this.#corrections.get(key) ?? { times: [], fights: 0, next: 0 };
    const times = [...known.times.filter((t) => t > now - WINDOW_MS), now];
    const contested = times.length >= FREE;
    // After a quiet window it starts over; otherwise each further correction doubles the pause.
    const fights = contested ? known.fights + 1 : known.times.some((t) => t > now - LONGEST_MS) ? known.fights : 0;
    const next = fights === 0 ? 0 : now + Math.min(LONGEST_MS, FIRST_MS * 2 ** (fights - 1));
    this.#corrections.set(key, { times, fights, next });
  }

  /** Resets everything for a new revision. */
  forget(): void {
    this.#corrections.clear();
  }

  /**
   * Returns when the first of these may be reverted again, in milliseconds since 1970; undefined if none is held back.
   */
  nextAt(keys: readonly string[], now: number): number | undefined {
    const held = keys.map((k) => this.#corrections.get(k)?.next ?? 0).filter((t) => t > now);
    return held.length === 0 ? undefined : Math.min(...held);
  }
}
