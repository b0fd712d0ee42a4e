import type { Io } from './io.ts';

const WIDTH = 30;
const EVERY_MS = 100;

/** A progress bar on a terminal, nothing elsewhere. It only appears if the work takes longer than a moment. */
export class Progress {
  readonly #io: Io;
  readonly #what: string;
  readonly #started = Date.now();
  #shown = 0;

  constructor(io: Io, what: string) {
    this.#io = io;
    this.#what = what;
  }

  at(done: number, of: number): void {
    const now = Date.now();
    if (!this.#io.terminal || now - this.#started < 300 || now - this.#shown < EVERY_MS) return;
    this.#shown = now;
    const filled = Math.round((done / Math.max(1, of)) * WIDTH);
    this.#io.err(`\r[${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}] ${done} of ${of} ${this.#what}`);
  }

  end(): void {
    if (this.#shown > 0) this.#io.err(`\r${' '.repeat(WIDTH + 40)}\r`);
    this.#shown = 0;
  }
}
