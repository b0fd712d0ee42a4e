import type { Environment } from '../model/index.ts';
import { type Account, type AuditedWrite, accountFor, readAttempt, readAuditEvent } from './account-for.ts';
import type { LedgerView, Recorder } from './ports.ts';

/** An environment whose namespaces are checked in the audit log. */
export type AuditScope = { readonly environment: Environment; readonly applier: string };

/** A write without an explanation. */
export type Unmatched = { readonly environment: string; readonly write: AuditedWrite };

type Counts = Record<Account | 'events', number> & { from: number; to: number };

const REMEMBERED = 20_000; // the API server sends a batch again if it got no answer

/**
 * Compares the API server's audit events with the ledger: every write to a governed namespace is explained by an entry,
 * or becomes one. Counts per interval are recorded, so that a report can show that nothing is missing.
 */
export class AuditAccount {
  readonly #scopes: readonly AuditScope[];
  readonly #ledger: LedgerView & Recorder;
  readonly #counts = new Map<string, Counts>();
  readonly #seen = new Set<string>();
  readonly #policy: string;

  /** `policy` is the name of the ValidatingAdmissionPolicy that protects the gate's own objects. */
  constructor(scopes: readonly AuditScope[], ledger: LedgerView & Recorder, policy = 'countersign') {
    this.#scopes = scopes;
    this.#ledger = ledger;
    this.#policy = policy;
  }

  /**
   * Takes events in. When it resolves, unexplained writes are durable on the ledger. Throws a TypeError for anything
   * that is not an event; then nothing is taken in.
   */
  async take(events: readonly unknown[]): Promise<Unmatched[]> {
    const writes = events.flatMap((event) => readAuditEvent(event) ?? []);
    const attempts = events
      .flatMap((event) => readAttempt(event, this.#policy) ?? [])
      .filter((a) => !this.#seen.has(a.auditId));
    const unmatched: Unmatched[] = [];
    const fresh = writes.filter((write) => !this.#seen.has(write.auditId));
    const accounts = fresh.flatMap((write) => {
      const scope = this.#scopes.find((s) => s.environment.spec.target.namespaces.includes(write.namespace));
      return scope === undefined
        ? []
        : [{ write, scope, account: accountFor(write, scope.environment, scope.applier, this.#ledger) }];
    });
    for (const { write, scope, account } of accounts)
      if (account === 'unmatched') unmatched.push({ environment: scope.environment.metadata.name, write });
    await Promise.all([
      ...unmatched.map((u) => this.#record(u)),
      ...attempts.map(({ user, impersonator, ...a }) =>
        this.#ledger.record(
          {
            type: 'protection.refused',
            ...a,
            user: this.#ledger.subject(user),
            ...(impersonator === undefined ? {} : { impersonator: this.#ledger.subject(impersonator) }),
          },
          [],
        ),
      ),
    ]);
    for (const { auditId } of attempts) this.#remember(auditId);
    for (const { write, scope, account } of accounts) {
      this.#remember(write.auditId);
      this.#count(scope.environment.metadata.name, write, account);
    }
    return unmatched;
  }

  /** Records the counts since the last call. Throws like the ledger, and then keeps the counts. */
  async settle(): Promise<void> {
    for (const [environment, { from, to, ...counts }] of [...this.#counts]) {
      await this.#ledger.record(
        {
          type: 'audit.covered',
          environment,
          from: new Date(from).toISOString(),
          to: new Date(to).toISOString(),
          ...counts,
        },
        [],
      );
      this.#counts.delete(environment);
    }
  }

  async #record({ environment, write }: Unmatched): Promise<void> {
    const { auditId, user, impersonator, verb, group, resource, namespace, name, subresource, received } = write;
    await this.#ledger.record(
      {
        type: 'audit.unmatched',
        environment,
        auditId,
        user: this.#ledger.subject(user),
        ...(impersonator === undefined ? {} : { impersonator: this.#ledger.subject(impersonator) }),
        verb,
        resource: group === '' ? resource : `${resource}.${group}`,
        object: { namespace, name, subresource },
        at: new Date(Number.isFinite(received) ? received : 0).toISOString(),
      },
      [],
    );
  }

  #count(environment: string, { received }: AuditedWrite, account: Account): void {
    const at = Number.isFinite(received) ? received : 0;
    const counts = this.#counts.get(environment) ?? {
      from: at,
      to: at,
      events: 0,
      intents: 0,
      breakglass: 0,
      recorded: 0,
      controllers: 0,
      unmatched: 0,
    };
    counts.from = Math.min(counts.from, at);
    counts.to = Math.max(counts.to, at);
    counts.events++;
    counts[account]++;
    this.#counts.set(environment, counts);
  }

  #remember(auditId: string): void {
    this.#seen.add(auditId);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value as string);
  }
}
