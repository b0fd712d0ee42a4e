import type { PolicyBundle } from '../bundle/index.ts';
import { type Judged, LoadedRules, type RunScope, type Subject } from './judge-subject.ts';

/** Called when rules begin and finish on the calling thread, so that a watchdog can end it. */
export type NearWatch = { readonly begin: () => void; readonly end: () => void };

const QUICK_MS = 5; // CPU time for one subject; ordinary rules take a tenth of a millisecond
const PROVEN = 50; // consecutive answers
const LONG_MS = 50; // rules this slow must prove themselves again
const LARGEST = 64 * 1024; // characters: the input limits how much a rule can iterate over

/**
 * Evaluates rules on the calling thread. Waking another thread and being woken by it takes longer than ordinary rules
 * do, especially if cores are busy. Only rules that proved to be quick on separate threads run here, and only on small
 * objects.
 */
export class NearRules {
  readonly #bundles: readonly PolicyBundle[];
  readonly #inventory: unknown;
  readonly #watch: () => NearWatch | undefined;
  readonly #deadline: number;
  #rules: LoadedRules | undefined;
  #isOpening = false;
  #quick = 0;

  /** `deadline` in milliseconds: a result that took longer is discarded. */
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

  /** Whether ordinary subjects are evaluated here now. */
  get isProven(): boolean {
    return this.#rules !== undefined && this.#quick >= PROVEN && this.#watch() !== undefined;
  }

  /** Consecutive answers for which the rules were quick. */
  get quick(): number {
    return this.#quick;
  }

  /** Takes note of answers from other threads: how many, and the CPU time of the slowest. */
  heard(count: number, slowestMs: number): void {
    this.#quick = slowestMs > QUICK_MS ? 0 : this.#quick + count;
    this.#open();
  }

  /** Takes note of consecutive quick answers that the same rules gave in another pool. */
  trust(quick: number): void {
    this.#quick = Math.max(this.#quick, quick);
    this.#open();
  }

  #open(): void {
    if (this.#quick < PROVEN || this.#rules !== undefined || this.#isOpening || this.#watch() === undefined) return;
    this.#isOpening = true;
    LoadedRules.open(this.#bundles, this.#inventory).then(
      (rules) => {
        this.#rules = rules;
      },
      () => {}, // the threads report the reason to every caller
    );
  }

  /** Returns undefined if the subject must be evaluated elsewhere. */
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
