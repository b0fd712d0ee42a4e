import type { LedgerView, Recorder } from '../../src/gate/index.ts';
import { evidenceRef, type Ledger, openLedger } from '../../src/ledger/index.ts';

/** A real ledger in a directory, as the gate is handed it, with a clock of the test's own. */
export function recorderAt(directory: string, clock: () => Date = () => new Date()): { ledger: Ledger; recorder: Recorder & LedgerView } {
  const ledger = openLedger(directory, 'countersign.dev/test', clock);
  const { read } = ledger;
  const recorder = {
    record: ledger.record.bind(ledger),
    asEvidence: evidenceRef,
    evidence: read.evidence.bind(read),
    latest: read.latest.bind(read),
    all: read.all.bind(read),
    entry: read.entry.bind(read),
  };
  return { ledger, recorder };
}
