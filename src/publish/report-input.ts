import { CompactRange, type LedgerReader } from '../ledger/index.ts';
import type { Entry } from '../model/index.ts';
import type { ReportInput, ReportMaterial, ReportSubject } from '../report/index.ts';

type About = Pick<ReportInput, 'from' | 'to' | 'origin' | 'definition'>;

/** Returns the material for a report of a period. Entries and evidence are read on demand. */
export function readMaterial(reader: LedgerReader, about: About): ReportMaterial {
  const first = reader.firstAt(about.from);
  const range = new CompactRange();
  for (const { leaf } of reader.rows(0, first)) range.append(leaf);
  const entries = { [Symbol.iterator]: () => bodies(reader, first) };
  const evidence = { get: (sha256: string) => reader.evidenceBytes(sha256) };
  return {
    input: { ...about, first, entries, evidence, checkpoint: reader.latestCheckpoint() ?? '' },
    before: range.nodes,
    evidence: evidenceFrom(reader, first),
    subjects: (commitments) => subjectsOf(reader).filter((s) => commitments.has(s.commitment)),
  };
}

/** Does the same for callers that write no files. */
export function readInput(reader: LedgerReader, about: About): ReportInput {
  return { ...readMaterial(reader, about).input, subjects: subjectsOf(reader) };
}

function* bodies(reader: LedgerReader, first: number): Generator<string> {
  for (const { body } of reader.stored(first)) yield body;
}

function subjectsOf(reader: LedgerReader): ReportSubject[] {
  return [...reader.subjects()].map(({ commitment, salt, text }) => ({
    commitment,
    salt: Buffer.from(salt).toString('hex'),
    text,
  }));
}

// Types whose evidence a report needs besides the entries themselves.
const EVIDENT: ReadonlySet<string> = new Set<Entry['type']>([
  'change.judged',
  'trust.changed',
  'admission.allowed',
  'config.stated',
]);

function evidenceFrom(reader: LedgerReader, first: number): readonly string[] {
  const found = new Set<string>();
  for (const { body, type } of reader.stored(first)) {
    if (!EVIDENT.has(type)) continue;
    const entry = JSON.parse(body) as Entry;
    if ('evidence' in entry && entry.evidence !== undefined) found.add(entry.evidence.sha256);
  }
  return [...found];
}
