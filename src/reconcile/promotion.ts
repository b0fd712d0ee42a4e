import type { LedgerView } from '../gate/index.ts';
import { type EntryOf, isNoRevision, type Recorded } from '../model/index.ts';

/**
 * A revision that was healthy in an environment: the results with which that began and ended, by index; `until` is
 * undefined while it is current.
 */
type Lived = { readonly revision: string; readonly since: number; readonly until: number | undefined };

/** A revision that runs now, and for how long it has been observed in health. */
type Current = { readonly revision: string; readonly healthyMs?: number | undefined };

const LOOKED_BACK = 200; // results; older revisions must be named again by a commit to be promoted
const REPLICAS = 10; // whose heartbeats follow each other; all but one have it in standby

/** Returns the healthy revisions of an environment, newest first, according to the ledger. */
function livedIn(ledger: LedgerView, environment: string): Lived[] {
  const lived: Lived[] = [];
  let until: number | undefined;
  let result = ledger.latest(['apply.result'], environment);
  for (let n = 0; result !== undefined && n < LOOKED_BACK; n++) {
    const { entry, index } = result as Recorded<EntryOf<'apply.result'>>;
    if (entry.outcome === 'applied' && !isNoRevision(entry.revision)) {
      const newest = lived.at(-1);
      // After a drift correction or a restore, the same revision continues.
      if (newest?.revision === entry.revision) lived[lived.length - 1] = { ...newest, since: index };
      else lived.push({ revision: entry.revision, since: index, until });
    }
    until = index; // a failed change ended the health of the previous revision
    result = ledger.latest(['apply.result'], environment, index);
  }
  return lived;
}

/**
 * Returns the revisions that were observed in health there for long enough, newest first. `current` is what runs there
 * now, if this process runs it.
 */
export function promotable(
  ledger: LedgerView,
  environment: string,
  healthyForMs: number,
  current: Current | undefined,
): string[] {
  return livedIn(ledger, environment)
    .filter((lived) => healthyForMs === 0 || observedFor(ledger, environment, lived, current) >= healthyForMs)
    .map((l) => l.revision);
}

/** Returns for how long the current revision of an environment was observed in health, in ms, by its heartbeats. */
export function observedBefore(ledger: LedgerView, environment: string, revision: string): number {
  const newest = livedIn(ledger, environment)[0];
  return newest?.revision === revision ? recordedFor(ledger, environment, newest) : 0;
}

function observedFor(ledger: LedgerView, environment: string, lived: Lived, current: Current | undefined): number {
  const isCurrent = lived.until === undefined && current?.revision === lived.revision;
  return (isCurrent ? current.healthyMs : undefined) ?? recordedFor(ledger, environment, lived);
}

// The newest heartbeat has all that was observed until then.
function recordedFor(ledger: LedgerView, environment: string, { revision, since, until }: Lived): number {
  let beat = ledger.latest(['heartbeat'], '', until);
  for (let n = 0; n < REPLICAS && beat !== undefined && beat.index > since; n++) {
    const { environments } = beat.entry as EntryOf<'heartbeat'>;
    const mine = environments.find((e) => e.name === environment && e.healthySeconds !== undefined);
    if (mine !== undefined) return mine.revision === revision ? (mine.healthySeconds as number) * 1000 : 0;
    beat = ledger.latest(['heartbeat'], '', beat.index);
  }
  return 0;
}
