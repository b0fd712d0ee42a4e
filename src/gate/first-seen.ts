import type { CommitFacts, Moment } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';

/**
 * When commits were first seen: the time of the ledger entry that first named them. What no entry names is being seen
 * now. Without a ledger (the pre-merge check) everything is.
 */
export function momentsOf(
  ledger: LedgerView | undefined,
  environment: string,
  wanted: ReadonlySet<string>,
  now: number,
): (facts: Pick<CommitFacts, 'id'>) => Moment {
  if (ledger === undefined) return () => ({ at: now, basis: 'now' });
  const seen = new Map<string, number>();
  for (const { entry } of ledger.all('commits.seen', environment)) {
    const at = Date.parse(entry.time);
    for (const id of ledger.evidence(entry.evidence) as readonly string[]) if (wanted.has(id) && !seen.has(id)) seen.set(id, at);
  }
  return ({ id }) => ({ at: seen.get(id) ?? now, basis: 'ledger' });
}

/** Puts on the ledger which of the commits are met for the first time. Done before they are judged, whatever the verdict will be. */
export async function recordSeen(
  ledger: LedgerView & Recorder,
  about: { readonly environment: string; readonly ref: string; readonly tip: string },
  ids: readonly string[],
): Promise<void> {
  const known = new Set(
    ledger.all('commits.seen', about.environment).flatMap(({ entry }) => ledger.evidence(entry.evidence) as readonly string[]),
  );
  const fresh = ids.filter((id) => !known.has(id));
  if (fresh.length === 0) return;
  const evidence = ledger.asEvidence(fresh);
  await ledger.record({ type: 'commits.seen', ...about, count: fresh.length, evidence: evidence.ref }, [evidence]);
}
