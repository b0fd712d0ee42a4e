import type { Violation } from '../model/index.ts';

/** The most violations, and the most warnings, that are kept of one file. */
export const KEPT_OF_FILE = 100;

/** The most violations, and the most warnings, that are kept of all files together. */
export const KEPT_OF_ALL = 1000;

const MESSAGE = 2000; // characters of one message; a path may have 4,096, a name in a file as many as the file

/**
 * A list of violations or warnings with an upper bound. Keeps the first `most`, counts the rest, and says at the end
 * how many there were, so that a file cannot fill memory with complaints about itself, and none of them is lost without
 * a trace.
 */
export class Kept {
  readonly #most: number;
  readonly #kept: Violation[] = [];
  #count = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Counts one, and makes it only if it is kept. */
  add(make: () => Violation): void {
    this.#count++;
    if (this.#kept.length < this.#most) this.#kept.push(short(make()));
  }

  addAll(violations: Iterable<Violation>): void {
    for (const violation of violations) this.add(() => violation);
  }

  /** Whether some were counted and not kept. */
  get isOver(): boolean {
    return this.#count > this.#most;
  }

  /**
   * Returns those that are kept and, where there were more, one that says how many; `code` and `what` are for that one.
   */
  list(code: 'too-many-violations' | 'too-many-warnings', what: string): readonly Violation[] {
    const first = this.#kept[0];
    if (!this.isOver || first === undefined) return this.#kept;
    const message = `${what} at least ${this.#count} ${code.slice('too-many-'.length)}; the first ${this.#kept.length} are shown`;
    return [
      ...this.#kept,
      { code, message, ...(first.source === undefined ? {} : { source: { file: first.source.file, line: 1 } }) },
    ];
  }
}

function short(violation: Violation): Violation {
  const { message } = violation;
  return message.length <= MESSAGE ? violation : { ...violation, message: `${message.slice(0, MESSAGE)}…` };
}
