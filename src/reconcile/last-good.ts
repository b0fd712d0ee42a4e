import { allowNothing, type EnvironmentState, type Gate, recall } from '../gate/index.ts';
import { type AllowedRevision, NO_REVISION } from '../model/index.ts';
import { applyRevision } from './apply-revision.ts';
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
    const restored = await applyRevision(good, 'restore', this.#ports);
    this.#current = good;
    this.#standing.report(
      'held',
      restored.outcome === 'applied'
        ? `restored ${state.revision.slice(0, 12)}`
        : `cannot restore ${state.revision.slice(0, 12)}: ${restored.error ?? ''}`,
    );
    this.#standing.tell(restored.outcome === 'applied' ? 'restored' : 'trouble', this.#standing.message);
    this.#ports.log.warn(
      { environment: this.#gate.environment.metadata.name, revision: state.revision, outcome: restored.outcome },
      'restored the last good revision',
    );
  }

  // There is no good revision to go back to.
  async #undoFirst(state: EnvironmentState): Promise<void> {
    if (this.#gate.environment.spec.apply.onFirstFailure === 'keep') {
      this.#standing.report('held', 'the first revision could not be applied; what it wrote was kept');
      return;
    }
    await applyRevision(
      allowNothing(this.#gate.environment, state.open?.intent.entry.verdict ?? -1),
      'restore',
      this.#ports,
    );
    this.#standing.report('held', 'the first revision could not be applied; what it wrote was removed');
  }
}
