import { allowNothing, type EnvironmentState, type Gate, recall } from '../gate/index.ts';
import { type AllowedRevision, NO_REVISION } from '../model/index.ts';
import { applyRevision } from './apply-revision.ts';
import { notUndone, remainsOf } from './hooks.ts';
import type { ReconcilePorts } from './ports.ts';
import type { Standing } from './standing.ts';

/** The last complete revision of an environment: the target of drift correction, and of a restore after a failure. */
export class LastGood {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #standing: Standing;
  #current: AllowedRevision | undefined;

  constructor(gate: Gate, ports: ReconcilePorts, standing: Standing) {
    this.#gate = gate;
    this.#ports = ports;
    this.#standing = standing;
  }

  /** Remembers the revision just applied, so that it is not rendered again from the repository. */
  is(revision: AllowedRevision): void {
    this.#current = revision;
  }

  /** Returns the current revision with all its objects, verified against its verdict. */
  async at(state: EnvironmentState): Promise<AllowedRevision> {
    if (this.#current?.revision !== state.revision)
      this.#current = await recall(this.#gate, this.#ports.ledger, state.verdict);
    return this.#current;
  }

  /**
   * Applies the last good revision again after a failed change; if the first revision failed, removes what it wrote,
   * or keeps it if the environment says so.
   */
  async restore(): Promise<void> {
    const state = this.#ports.state();
    if (state.revision === NO_REVISION) return this.#undoFirst(state);
    const good = await recall(this.#gate, this.#ports.ledger, state.verdict);
    const remains = remainsOf(this.#ports);
    const restored = await applyRevision(good, 'restore', this.#ports);
    this.#current = good;
    const at = state.revision.slice(0, 12);
    const done =
      restored.outcome === 'applied'
        ? `restored ${at}${notUndone(remains)}`
        : `cannot restore ${at}: ${restored.error ?? ''}`;
    this.#report(done, restored.outcome === 'applied');
  }

  // There is no good revision to go back to.
  async #undoFirst(state: EnvironmentState): Promise<void> {
    if (this.#gate.environment.spec.apply.onFirstFailure === 'keep') {
      this.#standing.report('held', this.#afterFailure('what it wrote was kept'));
      return;
    }
    const nothing = allowNothing(this.#gate.environment, state.open?.intent.entry.verdict ?? -1);
    const remains = notUndone(remainsOf(this.#ports));
    const removed = await applyRevision(nothing, 'restore', this.#ports);
    const done =
      removed.outcome === 'applied'
        ? `what it wrote was removed (\`spec.apply.onFirstFailure: keep\` leaves it to look at)${remains}`
        : `cannot remove what it wrote: ${removed.error ?? ''}`;
    this.#report(done, removed.outcome === 'applied');
  }

  #report(done: string, isDone: boolean): void {
    const { log, state } = this.#ports;
    this.#standing.report('held', this.#afterFailure(done));
    this.#standing.tell(isDone ? 'restored' : 'trouble', this.#standing.message);
    const fields = { environment: this.#gate.environment.metadata.name, revision: state().revision };
    if (isDone) log.warn(fields, done);
    else log.error(fields, done);
  }

  // The failure is why anything was undone, so it comes first.
  #afterFailure(done: string): string {
    const { ledger } = this.#ports;
    const name = this.#gate.environment.metadata.name;
    let failed = ledger.latest(['apply.result'], name);
    while (failed !== undefined && failed.entry.outcome !== 'failed')
      failed = ledger.latest(['apply.result'], name, failed.index);
    const intent = failed && ledger.entry(failed.entry.intent)?.entry;
    if (failed === undefined || intent?.type !== 'apply.intent') return done;
    const what = `${intent.revision.slice(0, 12)} could not be applied (entry ${failed.index})`;
    return `${what}; ${done}: ${failed.entry.error ?? ''}`;
  }
}
