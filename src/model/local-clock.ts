/**
 * The clock on the wall in an IANA time zone. The times it shows ("wall times") are milliseconds since 1970 as if they
 * were UTC; instants are milliseconds since 1970.
 */
export class LocalClock {
  readonly #format: Intl.DateTimeFormat;

  /** Throws a RangeError if there is no such time zone. */
  constructor(timeZone: string) {
    this.#format = new Intl.DateTimeFormat('en-GB', {
      timeZone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
  }

  /** Returns the wall time at an instant. */
  shown(instant: number): number {
    const parts = new Map(this.#format.formatToParts(instant).map(({ type, value }) => [type, Number(value)]));
    const part = (type: Intl.DateTimeFormatPartTypes) => parts.get(type) as number;
    const ms = ((instant % 1000) + 1000) % 1000;
    return Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), part('minute'), part('second'), ms);
  }

  /**
   * Returns the first and the last instant at which the clock shows a wall time: two if it is put back over it. If it
   * is put forward over it, both are the instant of that.
   */
  instantsOf(wall: number): { readonly first: number; readonly last: number } {
    const candidates = this.#offsetsAround(wall).map((offset) => wall - offset);
    const shown = candidates.filter((instant) => this.shown(instant) === wall);
    if (shown.length > 0) return { first: Math.min(...shown), last: Math.max(...shown) };
    const jump = this.#jumpOver(wall, Math.min(...candidates), Math.max(...candidates));
    return { first: jump, last: jump };
  }

  /** Returns by how much the clock is put forward or back around an instant; 0 on most days. */
  shiftAround(instant: number): number {
    const [before = 0, after = 0] = this.#offsetsAround(instant);
    return Math.abs(after - before);
  }

  // Clocks differ from UTC by less than a day, so these are in force before and after the wall time.
  #offsetsAround(moment: number): readonly number[] {
    return [moment - AROUND_MS, moment + AROUND_MS].map((instant) => this.shown(instant) - instant);
  }

  // The first instant at which the clock shows more than `wall`.
  #jumpOver(wall: number, from: number, to: number): number {
    let [before, after] = [from, to];
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.shown(middle) > wall) after = middle;
      else before = middle;
    }
    return after;
  }
}

const AROUND_MS = 36 * 3_600_000;
