import type { Gate } from '../gate/index.ts';
import { durationMs, type EntryOf, type Recorded, type Verdict } from '../model/index.ts';
import type { ReconcilePorts } from './ports.ts';
import { promotable } from './promotion.ts';
import type { Peers, Standing } from './standing.ts';
import { closedBy } from './windows.ts';

/**
 * What keeps a change back that is otherwise allowed: promotion, other environments, windows, and what came of it
 * before.
 */
export class HoldBack {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #peers: Peers;
  readonly #standing: Standing;

  /** Throws `config-invalid` where the schedule of a window cannot be read. */
  constructor(gate: Gate, ports: ReconcilePorts, peers: Peers, standing: Standing) {
    this.#gate = gate;
    this.#ports = ports;
    this.#peers = peers;
    this.#standing = standing;
    closedBy(this.#spec.windows, ports.clock());
  }

  get #spec() {
    return this.#gate.environment.spec;
  }

  get #name(): string {
    return this.#gate.environment.metadata.name;
  }

  /**
   * The commit that is to be applied: the tip, or the newest that another environment has proven; undefined where there
   * is none yet.
   */
  async target(tip: string): Promise<string | undefined> {
    const { promotion } = this.#spec;
    if (promotion === undefined) return tip;
    const { repository } = this.#gate;
    const now = this.#ports.clock().getTime();
    const { revision } = this.#ports.state();
    for (const proven of promotable(this.#ports.ledger, promotion.from, durationMs(promotion.healthyFor), now)) {
      if (proven === revision) return revision;
      // What was healthy there and is not any more goes no further.
      const peer = this.#peers(promotion.from);
      if (peer?.revision === proven && peer.health.progressing + peer.health.failed + peer.health.missing > 0) continue;
      if (proven === tip || (await repository.isAncestor(proven, tip).catch(() => false))) return proven;
    }
    this.#standing.report(
      'blocked',
      `waits for a commit that was healthy in \`${promotion.from}\` for ${promotion.healthyFor}`,
    );
    return undefined;
  }

  /** What an environment that this one depends on is not at yet, in words. */
  dependency(target: string): string | undefined {
    for (const name of this.#spec.dependsOn) {
      const peer = this.#peers(name);
      if (peer === undefined) return `depends on \`${name}\`, which this service does not run`;
      const { progressing, failed, missing } = peer.health;
      if (peer.state !== 'applied') return `depends on \`${name}\`, which is ${peer.state}`;
      if (progressing + failed + missing > 0)
        return `depends on \`${name}\`, where ${peer.health.trouble[0] ?? 'not everything is healthy'}`;
      if (peer.tip === this.#standing.tip && peer.revision !== target && peer.tip === target)
        return `depends on \`${name}\`, which is not at ${target.slice(0, 12)} yet`;
    }
    return undefined;
  }

  /** Whether a window keeps the change back, whoever or whatever asks for it; that it waits is on record once. */
  async windowCloses(target: string): Promise<boolean> {
    const closed = closedBy(this.#spec.windows, this.#ports.clock());
    if (closed === undefined) return false;
    const { ledger, log } = this.#ports;
    const verdict = ledger.latest(['change.judged'], this.#name);
    const approvals = verdict === undefined ? [] : (ledger.evidence(verdict.entry.evidence) as Verdict).approvals;
    const overriding = approvals.find((a) => a.override === true && this.#mayOverride(a.principal));
    if (overriding !== undefined) {
      const told = ledger.latest(['window.overridden'], this.#name)?.entry;
      if (told?.revision !== target)
        await ledger.record(
          {
            type: 'window.overridden',
            environment: this.#name,
            revision: target,
            window: closed.window,
            principal: overriding.principal,
            reason: overriding.reason,
          },
          [],
        );
      log.warn(
        { environment: this.#name, revision: target, window: closed.window, by: overriding.principal },
        'a closed window is overridden',
      );
      return false;
    }
    const told = ledger.latest(['window.closed'], this.#name)?.entry;
    if (told?.revision !== target || told.window !== closed.window)
      await ledger.record({ type: 'window.closed', environment: this.#name, revision: target, ...closed }, []);
    this.#standing.report(
      'blocked',
      `${target.slice(0, 12)} waits for the window \`${closed.window}\` until ${closed.until}`,
    );
    return true;
  }

  #mayOverride(principal: string): boolean {
    return this.#gate.trust.members(this.#spec.windowOverride).has(principal);
  }

  /** Why this commit is not applied again, in words: it failed here, or somebody went back from it. */
  holds(target: string): string | undefined {
    const at = this.#ports.state().revision.slice(0, 12);
    const failed = this.#failedBefore(target);
    if (failed !== undefined)
      return `${target.slice(0, 12)} could not be applied (entry ${failed.index}); held at ${at} until a new commit: ${failed.entry.error ?? ''}`;
    const rolledBack = this.#rolledBackFrom(target);
    return rolledBack === undefined ? undefined : `rolled back to ${at} until a new commit: ${rolledBack.entry.reason}`;
  }

  #failedBefore(tip: string): Recorded<EntryOf<'apply.result'>> | undefined {
    for (
      let result = this.#ports.ledger.latest(['apply.result'], this.#name);
      result !== undefined;
      result = this.#ports.ledger.latest(['apply.result'], this.#name, result.index)
    ) {
      const intent = this.#ports.ledger.entry(result.entry.intent)?.entry as EntryOf<'apply.intent'> | undefined;
      if (intent?.purpose === 'apply')
        return result.entry.outcome === 'failed' && intent.revision === tip ? result : undefined;
    }
    return undefined;
  }

  // The tip that somebody rolled back from is not applied again; only a newer commit is.
  #rolledBackFrom(tip: string): Recorded<EntryOf<'rollback.requested'>> | undefined {
    const { ledger } = this.#ports;
    const asked = ledger.latest(['rollback.requested'], this.#name);
    if (asked === undefined || asked.entry.tip !== tip) return undefined;
    const done = ledger.latest(['apply.intent'], this.#name);
    return done !== undefined && done.index > asked.index && done.entry.purpose === 'rollback' ? asked : undefined;
  }
}
