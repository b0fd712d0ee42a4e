import type { Violation } from '../model/index.ts';

/** Maximum number of violations, and of warnings, kept per file. */
export const KEPT_OF_FILE = 100;

/** Maximum number of violations, and of warnings, kept for all files together. */
export const KEPT_OF_ALL = 1000;

const MESSAGE = 2000; // characters of one message; a path may have 4,096, and a name in a file any number

/**
 * A bounded list of violations or warnings. It keeps the first `most`, counts the rest, and reports the total at the
 * end. So a file cannot fill memory with errors about itself, and none of them disappears silently.
 */
export class Kept {
  readonly #most: number;
  readonly #kept: Violation[] = [];
  #count = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Counts a violation, and creates it only if it is kept. */
  add(make: () => Violation): void {
    this.#count++;
    if (this.#kept.length < this.#most) this.#kept.push(short(make()));
  }

  addAll(violations: Iterable<Violation>): void {
    for (const violation of violations) this.add(() => violation);
  }

  /** Whether some were counted but not kept. */
  get isOver(): boolean {
    return this.#count > this.#most;
  }

  /** Returns the kept ones and, if there were more, one with the total; `code` and `what` belong to that one. */
  list(code: 'too-many-violations' | 'too-many-warnings', what: string): readonly Violation[] {
    const first = this.#kept[0];
    if (!this.isOver || first === undefined) return this.#kept;
    const message =
      `${what} at least ${this.#count} ${code.slice('too-many-'.length)}; ` +
      `the first ${this.#kept.length} are shown`;
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
