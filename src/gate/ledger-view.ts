import type { LedgerView } from './ports.ts';

/** Returns a view that anything may be added to, from a reader of the ledger. */
export function viewOf(read: LedgerView): LedgerView {
  return {
    evidence: (ref) => read.evidence(ref),
    latest: (types, environment, before, since) => read.latest(types, environment, before, since),
    all: (type, environment, since) => read.all(type, environment, since),
    entry: (index) => read.entry(index),
    firstAt: (time) => read.firstAt?.(time) ?? Number.MAX_SAFE_INTEGER,
  };
}
