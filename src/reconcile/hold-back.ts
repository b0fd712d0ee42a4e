import { type Gate, inventoryBefore } from '../gate/index.ts';
import {
  type AllowedRevision,
  durationMs,
  type Entry,
  type EntryOf,
  isNoRevision,
  type Plan,
  type Recorded,
  type Verdict,
} from '../model/index.ts';
import { notUndone } from './hooks.ts';
import type { ReconcilePorts } from './ports.ts';
import { promotable } from './promotion.ts';
import { attempted, type Content, contentOf, rendersTheSame } from './same-content.ts';
import type { Peers, Standing } from './standing.ts';
import { closedBy } from './windows.ts';

/**
 * Answer to the question whether a commit may be applied now. `denied`: the gate said no, as already recorded on the
 * ledger.
 */
export type MayGo =
  | { readonly kind: 'go'; readonly allowed: AllowedRevision }
  | { readonly kind: 'held' | 'blocked'; readonly message: string }
  | { readonly kind: 'denied' };

/** Who asks: the branch moved, or a person requested a rollback. */
export type Asker = 'branch' | 'person';

type Override = Pick<Verdict['approvals'][number], 'principal' | 'reason'>;

/** Reasons not to apply an allowed change yet: promotion, other environments, windows, and an earlier failure. */
export class HoldBack {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #peers: Peers;
  readonly #standing: Standing;

  /** Throws `config-invalid` if the schedule of a window is invalid. */
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
   * Returns the commit to apply: the tip, or the newest proven in another environment; undefined if there is none yet.
   */
  async target(tip: string): Promise<string | undefined> {
    const { promotion } = this.#spec;
    if (promotion === undefined) return tip;
    const { repository } = this.#gate;
    const { revision } = this.#ports.state();
    const peer = this.#peers(promotion.from);
    for (const proven of promotable(this.#ports.ledger, promotion.from, durationMs(promotion.healthyFor), peer)) {
      if (proven === revision) return revision;
      // A commit that is no longer healthy there is not promoted.
      if (peer?.revision === proven && peer.health.progressing + peer.health.failed + peer.health.missing > 0) continue;
      if (proven === tip || (await repository.isAncestor(proven, tip).catch(() => false))) return proven;
    }
    this.#standing.report(
      'blocked',
      `waits for a commit that was healthy in \`${promotion.from}\` for ${promotion.healthyFor}`,
    );
    return undefined;
  }

  /**
   * Decides whether `target` may be applied now. Every path to the cluster with a new revision asks here: the branch, a
   * newer commit that overtakes, and a rollback. A person who rolls back skips holds and dependencies, which concern
   * the branch, but not windows. `judge` returns the allowed revision, or undefined if it is denied.
   */
  async mayGo(target: string, asker: Asker, judge: () => Promise<AllowedRevision | undefined>): Promise<MayGo> {
    const hold = asker === 'branch' ? this.#holds(target) : undefined;
    if (hold !== undefined) return { kind: 'held', message: hold };
    const allowed = await judge();
    if (allowed === undefined) return { kind: 'denied' };
    const same = asker === 'branch' ? this.#holdsContent(allowed) : undefined;
    if (same !== undefined) return { kind: 'held', message: same };
    const dependency = asker === 'branch' ? this.#dependency(target) : undefined;
    if (dependency !== undefined) return { kind: 'blocked', message: `${target.slice(0, 12)} ${dependency}` };
    const window = await this.#closedWindow(allowed);
    return window === undefined ? { kind: 'go', allowed } : { kind: 'blocked', message: window };
  }

  // Names the environment this one waits for, and the reason.
  #dependency(target: string): string | undefined {
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

  // Names the window that holds the change back, unless an approval overrides it. Either is recorded once.
  async #closedWindow({ revision, verdict }: AllowedRevision): Promise<string | undefined> {
    const closed = closedBy(this.#spec.windows, this.#ports.clock());
    if (closed === undefined) return undefined;
    const { ledger } = this.#ports;
    const lastApplied = this.#lastApplied(revision);
    const override = this.#overrideIn(ledger.entry(verdict)?.entry, lastApplied);
    if (override !== undefined) {
      await this.#recordOverride(revision, closed.window, override, lastApplied);
      return undefined;
    }
    const last = ledger.latest(['window.closed'], this.#name)?.entry;
    if (last?.revision !== revision || last.window !== closed.window)
      await ledger.record({ type: 'window.closed', environment: this.#name, revision, ...closed }, []);
    return `${revision.slice(0, 12)} waits for the window \`${closed.window}\` until ${closed.until}`;
  }

  // Returns the approval that overrides windows. Every step of the verdict needs one that was issued since this
  // revision was last applied: an override counts for the change it was given for, and once.
  #overrideIn(judged: Entry | undefined, lastApplied: string): Override | undefined {
    if (judged?.type !== 'change.judged') return undefined;
    const { approvals } = this.#ports.ledger.evidence(judged.evidence) as Verdict;
    const overrides = approvals.filter(
      (a) => a.override === true && a.issuedAt > lastApplied && this.#mayOverride(a.principal),
    );
    let last: Override | undefined;
    for (let at = judged.from; at !== judged.to; ) {
      const step = overrides.find((a) => a.from === at && a.commit !== at);
      if (step === undefined) return undefined;
      at = step.commit;
      last = step;
    }
    return last;
  }

  async #recordOverride(revision: string, window: string, override: Override, lastApplied: string): Promise<void> {
    const { ledger, log } = this.#ports;
    const environment = this.#name;
    const { principal, reason } = override;
    const last = ledger.latest(['window.overridden'], environment)?.entry;
    if (last?.revision !== revision || last.window !== window || last.time <= lastApplied)
      await ledger.record({ type: 'window.overridden', environment, revision, window, principal, reason }, []);
    log.warn({ environment, revision, window, by: principal }, 'a closed window is overridden');
  }

  // Returns the time at which a revision was last applied, or an empty text.
  #lastApplied(revision: string): string {
    const results = this.#ports.ledger.all('apply.result', this.#name);
    return (
      results.findLast(({ entry }) => entry.revision === revision && isNew(entry, this.#ports.ledger))?.entry.time ?? ''
    );
  }

  #mayOverride(principal: string): boolean {
    return this.#gate.trust.members(this.#spec.windowOverride).has(principal);
  }

  // Returns why this commit is not applied again: it failed here, or someone rolled back from it. Asked before it is
  // judged, which is not needed for that.
  #holds(target: string): string | undefined {
    const failed = this.#failures().find((f) => f.intent.revision === target && !this.#isTrustedOtherwise(f.verdict));
    if (failed !== undefined) return this.#heldFor(failed, `${target.slice(0, 12)} could not be applied`);
    const rolledBack = this.#rolledBack();
    return rolledBack?.entry.tip === target ? this.#heldBack(rolledBack) : undefined;
  }

  // The same for a commit that changes nothing about it: what counts is what the environment renders, its rules and
  // trust, not which commit the branch is at.
  #holdsContent(allowed: AllowedRevision): string | undefined {
    const { ledger } = this.#ports;
    const target = allowed.revision.slice(0, 12);
    const failed = this.#failures().find(
      (f) => this.#isJudgedAlike(allowed, f) && rendersTheSame(allowed, f.content()),
    );
    if (failed !== undefined) {
      const { revision } = failed.intent;
      return this.#heldFor(
        failed,
        `${target} renders the same objects as ${revision.slice(0, 12)}, which could not be applied`,
      );
    }
    const rolledBack = this.#rolledBack();
    const before = rolledBack && inventoryBefore(ledger, this.#name, rolledBack.index);
    return rolledBack !== undefined && before !== undefined && rendersTheSame(allowed, contentOf(before))
      ? this.#heldBack(rolledBack)
      : undefined;
  }

  #heldFor({ result }: Failure, what: string): string {
    const { revision } = this.#ports.state();
    const held = isNoRevision(revision) ? 'nothing is applied' : `held at ${revision.slice(0, 12)}`;
    return (
      `${what} (entry ${result.index})${this.#notUndone(result.index)}; ` +
      `${held} until its objects, rules or trust change, ` +
      `or \`countersign resume ${this.#name}\`: ${result.entry.error ?? ''}`
    );
  }

  // The restore after a failure is on the ledger with what it leaves.
  #notUndone(failure: number): string {
    const { ledger } = this.#ports;
    const next = (before?: number) => ledger.latest(['apply.intent'], this.#name, before);
    for (let at = next(); at !== undefined && at.index > failure; at = next(at.index))
      if (at.entry.purpose === 'restore') return notUndone((ledger.evidence(at.entry.evidence) as Plan).remains ?? []);
    return '';
  }

  #heldBack({ entry }: Recorded<EntryOf<'rollback.requested'>>): string {
    return (
      `rolled back to ${this.#ports.state().revision.slice(0, 12)} until its objects change, or ` +
      `\`countersign resume ${this.#name}\`: ${entry.reason}`
    );
  }

  // The failures since a change was last applied, newest first, up to one after which someone asked to try again.
  #failures(): readonly Failure[] {
    const { ledger } = this.#ports;
    const failures: Failure[] = [];
    for (
      let result = ledger.latest(['apply.result'], this.#name);
      result !== undefined && failures.length < REMEMBERED;
      result = ledger.latest(['apply.result'], this.#name, result.index)
    ) {
      const intent = ledger.entry(result.entry.intent)?.entry;
      if (intent?.type !== 'apply.intent' || intent.purpose !== 'apply') continue;
      if (result.entry.outcome !== 'failed' || this.#isLifted(result.index)) break;
      const { index } = result;
      failures.push({
        result,
        intent,
        content: () =>
          attempted(inventoryBefore(ledger, this.#name, index) ?? NOTHING, ledger.evidence(intent.evidence) as Plan),
        verdict: this.#verdict(intent.verdict),
      });
    }
    return failures;
  }

  // A resume that ended a suspension asked for nothing else.
  #isLifted(index: number): boolean {
    const { ledger } = this.#ports;
    const next = (before?: number) =>
      ledger.latest(['environment.suspended', 'environment.resumed'], this.#name, before);
    for (let at = next(); at !== undefined && at.index > index; at = next(at.index))
      if (at.entry.type === 'environment.resumed' && next(at.index)?.entry.type !== 'environment.suspended')
        return true;
    return false;
  }

  #verdict(index: number): Verdict | undefined {
    const judged = this.#ports.ledger.entry(index)?.entry;
    return judged?.type === 'change.judged' ? (this.#ports.ledger.evidence(judged.evidence) as Verdict) : undefined;
  }

  #isTrustedOtherwise(before: Verdict | undefined): boolean {
    return before?.consulted.trustDigest !== this.#gate.trust.digest;
  }

  // A commit may allow what an earlier one did not (`Countersign-Allow`).
  #isJudgedAlike({ verdict, allows }: AllowedRevision, { verdict: before }: Failure): boolean {
    const now = this.#verdict(verdict)?.consulted;
    return (
      now?.trustDigest === before?.consulted.trustDigest &&
      now?.bundleDigest === before?.consulted.bundleDigest &&
      allows.every((one) => before?.allows?.includes(one) === true)
    );
  }

  // The newest rollback that stands. What was rolled back from is not applied again. Drift that is reverted and a
  // restore since then change nothing about that, nor does a later rollback that was refused.
  #rolledBack(): Recorded<EntryOf<'rollback.requested'>> | undefined {
    const { ledger } = this.#ports;
    let newest = ledger.latest(['apply.intent'], this.#name);
    while (newest !== undefined && newest.entry.purpose !== 'apply' && newest.entry.purpose !== 'rollback')
      newest = ledger.latest(['apply.intent'], this.#name, newest.index);
    if (newest?.entry.purpose !== 'rollback' || this.#isLifted(newest.index)) return undefined;
    const { index, entry } = newest;
    return ledger
      .all('rollback.requested', this.#name)
      .findLast((r) => r.index < index && r.entry.to === entry.revision);
  }
}

const REMEMBERED = 20;
const NOTHING = { objects: [] };

type Failure = {
  readonly result: Recorded<EntryOf<'apply.result'>>;
  readonly intent: EntryOf<'apply.intent'>;
  /** The content that it would have brought about. */
  readonly content: () => Content;
  readonly verdict: Verdict | undefined;
};

// A result of a change or a rollback; corrections and restores bring nothing new.
function isNew(result: EntryOf<'apply.result'>, ledger: ReconcilePorts['ledger']): boolean {
  const intent = ledger.entry(result.intent)?.entry;
  if (intent?.type !== 'apply.intent' || result.outcome !== 'applied') return false;
  return intent.purpose === 'apply' || intent.purpose === 'rollback';
}
