import type { LedgerView, Recorder } from '../../src/gate/index.ts';
import { evidenceRef, type Ledger, openLedger } from '../../src/ledger/index.ts';

/** A real ledger in a directory, as the gate is handed it, with a clock of the test's own. */
export async function recorderAt(
  directory: string,
  clock: () => Date = () => new Date(),
): Promise<{ ledger: Ledger; recorder: Recorder & LedgerView }> {
  const ledger = await openLedger(directory, 'countersign.dev/test', { clock });
  const { read } = ledger;
  const recorder = {
    record: ledger.record.bind(ledger),
    asEvidence: evidenceRef,
    subject: ledger.subject.bind(ledger),
    evidence: read.evidence.bind(read),
    latest: read.latest.bind(read),
    all: read.all.bind(read),
    entry: read.entry.bind(read),
  };
  return { ledger, recorder };
}
