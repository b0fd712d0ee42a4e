import type { PolicyBundle } from '../bundle/index.ts';
import { type Judged, LoadedRules, type RunScope, type Subject } from './judge-subject.ts';

/**
 * Hears when rules begin to run on the thread that asks them, and when they are done: whoever watches it can end it.
 */
export type NearWatch = { readonly begin: () => void; readonly end: () => void };

const QUICK_MS = 5; // of a core, for all that is in one message; ordinary rules take a tenth of a millisecond each
const PROVEN = 50; // answers in a row
const LONG_MS = 50; // so slow, they have to prove themselves again
const LARGEST = 64 * 1024; // characters: what a rule walks through is bounded by what it is given

/**
 * Rules on the very thread that asks. Waking another thread and being woken by it takes longer than ordinary rules do,
 * the more so where cores are busy. Only what proved to be quick on threads of its own is asked here, and only about
 * small objects.
 */
export class NearRules {
  readonly #bundles: readonly PolicyBundle[];
  readonly #inventory: unknown;
  readonly #watch: () => NearWatch | undefined;
  readonly #deadline: number;
  #rules: LoadedRules | undefined;
  #isOpening = false;
  #quick = 0;

  /** `deadline` in milliseconds: what took longer here is no answer. */
  constructor(
    bundles: readonly PolicyBundle[],
    inventory: unknown,
    deadline: number,
    watch: () => NearWatch | undefined,
  ) {
    this.#bundles = bundles;
    this.#inventory = inventory;
    this.#watch = watch;
    this.#deadline = deadline;
  }

  /** Hears of answers from elsewhere: how many, and what they took of a core together. */
  heard(count: number, cpuMs: number): void {
    this.#quick = cpuMs > QUICK_MS ? 0 : this.#quick + count;
    if (this.#quick < PROVEN || this.#rules !== undefined || this.#isOpening || this.#watch() === undefined) return;
    this.#isOpening = true;
    LoadedRules.open(this.#bundles, this.#inventory).then(
      (rules) => {
        this.#rules = rules;
      },
      () => {}, // the threads say why, to everybody who asks
    );
  }

  /** Undefined for what is to be asked elsewhere. */
  ask(subject: Subject, scope: RunScope): Judged | undefined {
    const watch = this.#watch();
    if (
      watch === undefined ||
      this.#rules === undefined ||
      this.#quick < PROVEN ||
      subject.kind !== 'object' ||
      subject.json.length > LARGEST
    )
      return undefined;
    const begun = performance.now();
    watch.begin();
    try {
      const judged = this.#rules.judge(subject, scope);
      return performance.now() - begun > this.#deadline ? undefined : judged;
    } finally {
      watch.end();
      if (performance.now() - begun > LONG_MS) this.#quick = 0;
    }
  }
}
