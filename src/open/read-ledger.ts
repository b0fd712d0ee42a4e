import { type LedgerView, type Recorder, viewOf } from '../gate/index.ts';
import { evidenceRef, type Ledger, LedgerReader, ledgerFile } from '../ledger/index.ts';

/** Opens a ledger that a service may be writing to, in its current state; with a directory for archived entries. */
export function readLedger(data: string, archive?: string): LedgerReader {
  return new LedgerReader(ledgerFile(data), archive).freeze();
}

/** Returns the environments of the most recent start on record. */
export function environmentsOf(reader: LedgerReader): readonly string[] {
  return reader.latest(['service.started'], '')?.entry.environments ?? [];
}

/** Adapts the ledger to the interface of other rooms: reading and recording together. */
export function recorderOf(ledger: Ledger): LedgerView & Recorder & { recorded(): number } {
  return {
    ...viewOf(ledger.read),
    record: (body, evidence) => ledger.record(body, evidence),
    asEvidence: evidenceRef,
    subject: (text) => ledger.subject(text),
    recorded: () => ledger.size,
  };
}
