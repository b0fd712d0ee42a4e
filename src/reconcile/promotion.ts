import type { LedgerView } from '../gate/index.ts';
import { type EntryOf, isNoRevision, type Recorded } from '../model/index.ts';

/**
 * A revision that an environment had in health, and since and until when (milliseconds; `until` is undefined while it
 * still has it).
 */
type Lived = { readonly revision: string; readonly since: number; readonly until: number | undefined };

const LOOKED_BACK = 200; // results; whoever promotes something older than that names it anew by a commit

/** The revisions an environment was at, in health, newest first, as the ledger has them. */
function livedIn(ledger: LedgerView, environment: string): Lived[] {
  const lived: Lived[] = [];
  let until: number | undefined;
  let result = ledger.latest(['apply.result'], environment);
  for (let n = 0; result !== undefined && n < LOOKED_BACK; n++) {
    const { entry } = result as Recorded<EntryOf<'apply.result'>>;
    const at = Date.parse(entry.time);
    if (entry.outcome === 'applied' && !isNoRevision(entry.revision)) {
      const newest = lived.at(-1);
      // Drift put right, or a restore: it is the same life of the same revision.
      if (newest?.revision === entry.revision) lived[lived.length - 1] = { ...newest, since: at };
      else lived.push({ revision: entry.revision, since: at, until });
      until = at;
    } else until = at; // a change that failed ended the health of what was there before
    result = ledger.latest(['apply.result'], environment, result.index);
  }
  return lived;
}

/** The revisions that were healthy there for long enough, newest first. */
export function promotable(ledger: LedgerView, environment: string, healthyForMs: number, now: number): string[] {
  return livedIn(ledger, environment)
    .filter((l) => (l.until ?? now) - l.since >= healthyForMs)
    .map((l) => l.revision);
}
