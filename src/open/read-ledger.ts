import type { LedgerView, Recorder } from '../gate/index.ts';
import { evidenceRef, type Ledger, LedgerReader, ledgerFile } from '../ledger/index.ts';

/** A ledger that a service may be writing to, as it stands now. */
export function readLedger(data: string): LedgerReader {
  return new LedgerReader(ledgerFile(data)).freeze();
}

/** The environments of the newest start on record. */
export function environmentsOf(reader: LedgerReader): readonly string[] {
  return reader.latest(['service.started'], '')?.entry.environments ?? [];
}

/** A reader as the gate asks for it. */
export function viewOf(read: LedgerReader): LedgerView {
  return {
    evidence: (ref) => read.evidence(ref),
    latest: (types, environment, before) => read.latest(types, environment, before),
    all: (type, environment) => read.all(type, environment),
    entry: (index) => read.entry(index),
  };
}

/** The ledger as the rooms ask for it: reading and recording behind one face. */
export function recorderOf(ledger: Ledger): LedgerView & Recorder & { recorded(): number } {
  return {
    ...viewOf(ledger.read),
    record: (body, evidence) => ledger.record(body, evidence),
    asEvidence: evidenceRef,
    subject: (text) => ledger.subject(text),
    recorded: () => ledger.size,
  };
}
