import type { LedgerView, Recorder } from '../../src/gate/index.ts';
import { evidenceRef } from '../../src/ledger/index.ts';
import { prepare } from '../../src/ledger/sequencer.ts';
import { type Entry, type Recorded, sha256 } from '../../src/model/index.ts';

/** A ledger in memory for tests of logic. It takes every entry that the schema takes, and forgets all of it. */
export function memoryRecorder(clock: () => Date): Recorder & LedgerView {
  const entries: Recorded[] = [];
  const evidence = new Map<string, string>();
  const environmentOf = ({ entry }: Recorded) => ('environment' in entry ? entry.environment : '');
  return {
    record: async (body, given) => {
      const entry = { v: 1, time: clock().toISOString(), ...body } as Entry;
      prepare(entry);
      for (const { ref, bytes } of given) evidence.set(ref.sha256, bytes);
      const recorded = { index: entries.length, entry };
      entries.push(recorded);
      return recorded;
    },
    asEvidence: evidenceRef,
    subject: commitment,
    evidence: ({ sha256 }) => JSON.parse(evidence.get(sha256) ?? 'null'),
    latest: (types, environment, before = entries.length) =>
      entries
        .slice(0, before)
        .findLast((r) => types.some((t) => t === r.entry.type) && environmentOf(r) === environment),
    all: (type, environment) => entries.filter((r) => r.entry.type === type && environmentOf(r) === environment),
    entry: (index) => entries[index],
  } as Recorder & LedgerView;
}

// The shape that the schema asks of a commitment.
function commitment(text: string): string {
  return `subject:${sha256(text)}`;
}
