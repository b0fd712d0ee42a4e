import type { CommitFacts, EntryOf, Moment, Recorded } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';

/**
 * Returns when commits were first seen: the time of the first ledger entry that names them. A commit without an entry
 * is being seen now. Without a ledger (the pre-merge check), all are.
 */
export function momentsOf(
  ledger: Pick<LedgerView, 'latest' | 'evidence'> | undefined,
  environment: string,
  now: number,
): (facts: Pick<CommitFacts, 'id'>) => Moment {
  if (ledger === undefined) return () => ({ at: now, basis: 'now' });
  const seen = seenIn(ledger, environment);
  return ({ id }) => ({ at: seen.get(id) ?? now, basis: seen.has(id) ? 'ledger' : 'now' });
}

/**
 * Records which of the commits are seen for the first time. This happens before they are judged.
 */
export async function recordSeen(
  ledger: LedgerView & Recorder,
  about: { readonly environment: string; readonly ref: string; readonly tip: string },
  ids: readonly string[],
): Promise<void> {
  const known = seenIn(ledger, about.environment);
  const fresh = ids.filter((id) => !known.has(id));
  if (fresh.length === 0) return;
  const evidence = ledger.asEvidence(fresh);
  await ledger.record({ type: 'commits.seen', ...about, count: fresh.length, evidence: evidence.ref }, [evidence]);
}

type Seen = { upTo: number; readonly times: Map<string, number> };
const remembered = new WeakMap<object, Map<string, Seen>>();

// Read once; later calls only read new entries. About a hundred bytes per commit.
function seenIn(ledger: Pick<LedgerView, 'latest' | 'evidence'>, environment: string): ReadonlyMap<string, number> {
  const byEnvironment = remembered.get(ledger) ?? new Map<string, Seen>();
  remembered.set(ledger, byEnvironment);
  const seen = byEnvironment.get(environment) ?? { upTo: -1, times: new Map<string, number>() };
  byEnvironment.set(environment, seen);
  const since: Recorded<EntryOf<'commits.seen'>>[] = [];
  let entry = ledger.latest(['commits.seen'], environment);
  while (entry !== undefined && entry.index > seen.upTo) {
    since.push(entry);
    entry = ledger.latest(['commits.seen'], environment, entry.index);
  }
  for (const recorded of since.reverse()) {
    const at = Date.parse(recorded.entry.time);
    for (const id of ledger.evidence(recorded.entry.evidence) as readonly string[])
      if (!seen.times.has(id)) seen.times.set(id, at);
    seen.upTo = recorded.index;
  }
  return seen.times;
}
