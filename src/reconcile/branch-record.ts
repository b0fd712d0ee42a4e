import type { Gate } from '../gate/index.ts';
import { durationMs, isNoRevision, NO_REVISION } from '../model/index.ts';
import type { ReconcilePorts } from './ports.ts';
import type { Standing } from './standing.ts';

/**
 * Watches the branch of an environment: every move is recorded, and a branch that does not move for too long is
 * reported.
 */
export class BranchRecord {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #standing: Standing;
  #tip: { readonly id: string; readonly since: number } | undefined;

  constructor(gate: Gate, ports: ReconcilePorts, standing: Standing) {
    this.#gate = gate;
    this.#ports = ports;
    this.#standing = standing;
  }

  get #name(): string {
    return this.#gate.environment.metadata.name;
  }

  /** Records where a check found the branch. */
  async seen(tip: string): Promise<void> {
    await this.#tellIfMoved(tip);
    await this.#tellIfStale(tip);
  }

  // Every move of the branch is recorded; a move that is not a step forward is reported as such.
  async #tellIfMoved(tip: string): Promise<void> {
    const before = this.#ports.ledger.latest(['ref.advanced', 'ref.rewound'], this.#name)?.entry.after ?? NO_REVISION;
    if (before === tip) return;
    const { repository, environment } = this.#gate;
    const forward = isNoRevision(before) || (await repository.isAncestor(before, tip).catch(() => false));
    const ref = `refs/heads/${environment.spec.source.branch}`;
    await this.#ports.ledger.record(
      { type: forward ? 'ref.advanced' : 'ref.rewound', environment: this.#name, ref, before, after: tip },
      [],
    );
    if (forward) return;
    this.#ports.log.warn({ environment: this.#name, before, after: tip }, 'the branch was rewritten');
    this.#standing.tell(
      'rewritten',
      `the branch went from ${before.slice(0, 12)} to ${tip.slice(0, 12)}, which does not descend from it`,
    );
  }

  // A mirror or remote that holds commits back looks like a team on holiday, so someone must be told.
  async #tellIfStale(tip: string): Promise<void> {
    const { staleAfter } = this.#gate.environment.spec.source;
    const since = this.#firstLookAt(tip);
    if (staleAfter === undefined || this.#ports.clock().getTime() - since < durationMs(staleAfter)) return;
    const told = this.#ports.ledger.latest(['source.stale'], this.#name)?.entry;
    if (told?.tip === tip) return;
    await this.#ports.ledger.record(
      { type: 'source.stale', environment: this.#name, tip, since: new Date(since).toISOString() },
      [],
    );
    this.#ports.log.warn(
      { environment: this.#name, tip, since: new Date(since).toISOString() },
      `the branch has not moved for ${staleAfter}: is the remote holding commits back?`,
    );
    this.#standing.tell('stale', `the branch has not moved for ${staleAfter}`);
  }

  #firstLookAt(tip: string): number {
    const now = this.#ports.clock().getTime();
    if (this.#tip?.id !== tip) {
      const seen = this.#ports.ledger.all('commits.seen', this.#name).find((r) => r.entry.tip === tip);
      this.#tip = { id: tip, since: seen === undefined ? now : Date.parse(seen.entry.time) };
    }
    return this.#tip.since;
  }
}
