import {
  type AdmittedRequest,
  type EntryOf,
  type Environment,
  type ObjectRef,
  operatorIdentities,
  type ProvenWrites,
  type Recorded,
} from '../model/index.ts';
import { type AuditedWrite, readAuditEvent } from './account-for.ts';
import { isListed, isMachinery } from './admission-request.ts';
import { usesOf } from './break-glass.ts';
import type { LedgerView } from './ports.ts';

/** Outcome of one user's requests once admission is enforced; similar requests are combined. */
export type Previewed = {
  readonly outcome: 'refused' | 'break-glass' | 'operator' | 'let through';
  readonly user: string;
  readonly operation: string;
  /** `Kind` or the resource, with its subresource. */
  readonly what: string;
  readonly namespace: string;
  /** Number of requests; the name of one object. */
  readonly count: number;
  readonly example: string;
  /** The gate's reason; empty if unknown. */
  readonly reason: string;
};

type Seen = Omit<Previewed, 'count'> & { readonly count?: number };

/**
 * Builds the preview from the records of `audit` and `warn` since a time (ISO 8601): future refusals, and requests
 * allowed by name.
 */
export function previewFromLedger(ledger: LedgerView, environment: string, since: string): readonly Previewed[] {
  const seen: Seen[] = [];
  const isSince = ({
    entry,
  }: Recorded<
    EntryOf<'admission.denied' | 'admission.warned' | 'admission.allowed' | 'admission.proven' | 'breakglass.used'>
  >) => entry.time >= since;
  const ofRef = (ref: ObjectRef, subresource = '') => ({
    what: `${ref.kind}${subresource === '' ? '' : `/${subresource}`}`,
    namespace: ref.namespace,
    example: ref.name,
  });
  for (const { entry } of [
    ...ledger.all('admission.denied', environment, since),
    ...ledger.all('admission.warned', environment, since),
  ].filter(isSince)) {
    if (entry.type === 'admission.denied' && entry.mode === 'enforce') continue;
    const { user, operation, object, subresource, reason, repeated } = entry;
    seen.push({ outcome: 'refused', user, operation, ...ofRef(object, subresource), reason, count: repeated ?? 1 });
  }
  for (const { entry } of usesOf(ledger, environment).filter(isSince))
    seen.push({
      outcome: 'break-glass',
      user: entry.user,
      operation: entry.operation,
      ...ofRef(entry.object, entry.subresource),
      reason: entry.reason,
    });
  for (const { entry } of ledger.all('admission.allowed', environment, since).filter(isSince)) {
    for (const r of ledger.evidence(entry.evidence) as readonly AdmittedRequest[])
      if (r.as !== 'intent')
        seen.push({
          outcome: 'let through',
          user: r.user,
          operation: r.operation,
          ...ofRef(r.object, r.subresource),
          reason: r.as,
        });
  }
  for (const { entry } of ledger.all('admission.proven', environment, since).filter(isSince))
    for (const p of ledger.evidence(entry.evidence) as readonly ProvenWrites[])
      seen.push({
        outcome: 'let through',
        user: p.user,
        operation: p.operation,
        ...ofRef(
          { apiVersion: p.apiVersion, kind: p.kind, namespace: p.namespace, name: p.writes[0]?.[0] ?? '' },
          p.subresource,
        ),
        reason: 'machinery',
        count: p.count,
      });
  return together(seen);
}

const OPERATION: Readonly<Record<string, string>> = {
  create: 'CREATE',
  update: 'UPDATE',
  patch: 'UPDATE',
  delete: 'DELETE',
  deletecollection: 'DELETE',
};
// Requests the API server does not send to the gate (docs/admission.md).
const NOT_ASKED: ReadonlySet<string> = new Set(['status', 'binding', 'token', 'finalize', 'approval', 'log']);
const BESIDE: ReadonlySet<string> = new Set(['leases', 'events']);

/**
 * Builds the preview from the API server's audit log (audit.k8s.io/v1 events): the outcome of writes to an
 * environment's namespaces. Intents are unknown there, so `applier` is the user that applies. Throws a TypeError for
 * anything that is not an event.
 */
export function previewFromAudit(
  events: readonly unknown[],
  environment: Environment,
  applier: string,
): readonly Previewed[] {
  const { target } = environment.spec;
  const writes = events
    .flatMap((event) => readAuditEvent(event) ?? [])
    .filter((w) => target.namespaces.includes(w.namespace));
  return together(
    writes.flatMap((write): Seen[] => {
      if (NOT_ASKED.has(write.subresource) || BESIDE.has(write.resource) || write.user === applier) return [];
      const [outcome, reason] = becomes(write, environment);
      const { user, namespace, name: example } = write;
      const what = `${write.resource}${write.subresource === '' ? '' : `/${write.subresource}`}`;
      return [{ outcome, user, operation: OPERATION[write.verb] ?? write.verb, what, namespace, example, reason }];
    }),
  );
}

function becomes(write: AuditedWrite, environment: Environment): [Previewed['outcome'], string] {
  const { admission } = environment.spec;
  if (isMachinery(write, environment))
    return ['let through', 'machinery, if its content follows from what is approved'];
  if (write.subresource === 'eviction') return ['let through', 'eviction'];
  if (isListed(write, operatorIdentities(admission.operators)))
    return ['operator', 'if it belongs to an object in Git'];
  if (admission.breakGlass.groups.some((g) => write.groups.includes(g)))
    return ['break-glass', 'only while it is open'];
  return ['refused', ''];
}

const ORDER: readonly Previewed['outcome'][] = ['refused', 'operator', 'break-glass', 'let through'];

function together(all: readonly Seen[]): readonly Previewed[] {
  const found = new Map<string, Previewed>();
  for (const { count = 1, ...one } of all) {
    const key = JSON.stringify([one.outcome, one.user, one.operation, one.what, one.namespace]);
    const before = found.get(key);
    found.set(key, { ...(before ?? one), count: (before?.count ?? 0) + count });
  }
  return [...found.values()].sort(
    (a, b) => ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome) || b.count - a.count || (a.user < b.user ? -1 : 1),
  );
}
