import type { EnvironmentState, LoadRules } from '../gate/index.ts';
import { CountersignError, type Environment, isNoRevision, messageOf, rulesMode } from '../model/index.ts';
import type { OpenGate } from './loops.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

export type RulesAtHandParts = Pick<OpenGate, 'environment' | 'look'> & {
  readonly state: () => EnvironmentState;
  readonly load: LoadRules;
  /** Whether the environment is run here: then its loop fetches. */
  readonly isHere: () => boolean;
  readonly log: Log;
};

const TIMES = {
  // Waivers are among the approvals, which may change without a new revision.
  freshMs: 60_000,
  firstPauseMs: 1000,
  mostPauseMs: 30_000,
  // Break-glass needs no rules: a replica that cannot get them answers all the same after a while.
  graceMs: 60_000,
};

/**
 * Keeps the rules of an environment loadable on this replica, also if another one runs it: every replica answers
 * admission, but only the one that runs an environment fetches its branch by itself.
 */
export class RulesAtHand {
  readonly environment: Environment;
  readonly #parts: RulesAtHandParts;
  readonly #times: typeof TIMES;
  readonly #begun = performance.now();
  // Revisions whose rules were loaded: the one in force, and the one that is being applied.
  #has: ReadonlySet<string> = new Set();
  #problem = '';
  #fetched = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;
  #again = Number.NEGATIVE_INFINITY;

  constructor(parts: RulesAtHandParts, times: typeof TIMES = TIMES) {
    this.environment = parts.environment;
    this.#parts = parts;
    this.#times = times;
  }

  /** Whether rules are evaluated at admission at all. */
  get isAsked(): boolean {
    const { mode, policy } = this.environment.spec.admission;
    return rulesMode(this.environment) !== 'off' && (mode !== 'off' || policy.namespaces.length > 0);
  }

  /** Returns why requests cannot be judged by the rules in force here now; undefined if they can, or need none. */
  get missing(): string | undefined {
    const { revision } = this.#parts.state();
    if (!this.isAsked || isNoRevision(revision) || this.#has.has(revision)) return undefined;
    return this.#problem === '' ? 'they are being loaded' : this.#problem;
  }

  /** Like `missing`, but undefined once this replica has been trying for a minute. */
  get holdsBack(): string | undefined {
    return performance.now() - this.#begun > this.#times.graceMs ? undefined : this.missing;
  }

  /** Loads rules; if that fails, fetches first and tries again. Throws `policy-unusable` (retry). */
  readonly load: LoadRules = async (revision) => {
    const { load, look } = this.#parts;
    const begun = performance.now();
    try {
      return await load(revision);
    } catch (thrown) {
      if (isNoRevision(revision) || begun < this.#again) throw thrown;
      await look(begun).catch((cause: unknown) => {
        throw new CountersignError('policy-unusable', `${messageOf(thrown)}; and ${messageOf(cause)}`, {
          cause,
          recover: 'retry',
        });
      });
      this.#fetched = begun;
      return load(revision);
    }
  };

  /** Loads what is in force and what comes next, and fetches now and then. Called every second or so; never throws. */
  async look(): Promise<void> {
    const begun = performance.now();
    if (!this.isAsked || begun < this.#again) return;
    const { state, look, isHere } = this.#parts;
    const { revision, open } = state();
    const wanted = new Set([revision, ...(open === undefined ? [] : [open.intent.entry.revision])]);
    try {
      for (const one of wanted)
        if (!isNoRevision(one) && !this.#has.has(one)) {
          await this.load(one);
          this.#has = new Set([...this.#has, one]);
        }
      this.#has = wanted;
      if (!isHere() && begun - this.#fetched >= this.#times.freshMs) {
        await look(begun);
        this.#fetched = begun;
      }
      this.#good();
    } catch (thrown) {
      this.#failed(messageOf(thrown));
    }
  }

  #good(): void {
    const { log } = this.#parts;
    if (this.#problem !== '') log.info(this.#about, 'this replica can evaluate its rules now');
    this.#problem = '';
    this.#pauseMs = 0;
  }

  #failed(problem: string): void {
    const { log } = this.#parts;
    const isNew = problem !== this.#problem;
    this.#problem = problem;
    this.#pauseMs = Math.min(this.#times.mostPauseMs, Math.max(this.#times.firstPauseMs, this.#pauseMs * 2));
    this.#again = performance.now() + this.#pauseMs;
    if (isNew)
      log.warn(
        this.#about,
        this.missing === undefined
          ? `this replica cannot see whether its waivers are the newest: ${problem}`
          : `this replica refuses requests that need its rules: ${problem}`,
      );
  }

  get #about(): { readonly environment: string } {
    return { environment: this.environment.metadata.name };
  }
}
