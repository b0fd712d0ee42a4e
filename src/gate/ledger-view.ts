import type { LedgerView } from './ports.ts';

/** Returns a view that anything may be added to, from a reader of the ledger. */
export function viewOf(read: LedgerView): LedgerView {
  return {
    evidence: (ref) => read.evidence(ref),
    latest: (types, environment, before) => read.latest(types, environment, before),
    all: (type, environment) => read.all(type, environment),
    entry: (index) => read.entry(index),
  };
}
