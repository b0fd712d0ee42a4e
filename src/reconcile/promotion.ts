import type { LedgerView } from '../gate/index.ts';
import { type EntryOf, isNoRevision, type Recorded } from '../model/index.ts';

/**
 * A revision that was healthy in an environment, and since and until when (milliseconds; `until` is undefined while it
 * is current).
 */
type Lived = { readonly revision: string; readonly since: number; readonly until: number | undefined };

const LOOKED_BACK = 200; // results; older revisions must be named again by a commit to be promoted

/** Returns the healthy revisions of an environment, newest first, according to the ledger. */
function livedIn(ledger: LedgerView, environment: string): Lived[] {
  const lived: Lived[] = [];
  let until: number | undefined;
  let result = ledger.latest(['apply.result'], environment);
  for (let n = 0; result !== undefined && n < LOOKED_BACK; n++) {
    const { entry } = result as Recorded<EntryOf<'apply.result'>>;
    const at = Date.parse(entry.time);
    if (entry.outcome === 'applied' && !isNoRevision(entry.revision)) {
      const newest = lived.at(-1);
      // After a drift correction or a restore, the same revision continues.
      if (newest?.revision === entry.revision) lived[lived.length - 1] = { ...newest, since: at };
      else lived.push({ revision: entry.revision, since: at, until });
      until = at;
    } else until = at; // a failed change ended the health of the previous revision
    result = ledger.latest(['apply.result'], environment, result.index);
  }
  return lived;
}

/** Returns the revisions that were healthy there for long enough, newest first. */
export function promotable(ledger: LedgerView, environment: string, healthyForMs: number, now: number): string[] {
  return livedIn(ledger, environment)
    .filter((l) => (l.until ?? now) - l.since >= healthyForMs)
    .map((l) => l.revision);
}
