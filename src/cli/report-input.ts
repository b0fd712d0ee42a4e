import { CompactRange, type LedgerReader } from '../ledger/index.ts';
import type { Entry } from '../model/index.ts';
import type { ReportInput, ReportSubject } from '../report/index.ts';

/** What a report of a period is made from, and the subtree roots before its first entry. */
export function readInput(
  reader: LedgerReader,
  about: Pick<ReportInput, 'from' | 'to' | 'origin' | 'definition'>,
): { readonly input: ReportInput; readonly before: readonly Buffer[] } {
  const { before, ...collected } = collect(reader, about.from);
  const subjects = subjectsOf(reader, collected.entries, collected.evidence);
  return { input: { ...about, ...collected, subjects, checkpoint: reader.latestCheckpoint() ?? '' }, before };
}

// What a report is made from beside the entries themselves.
const EVIDENT: ReadonlySet<Entry['type']> = new Set(['change.judged', 'trust.changed', 'admission.allowed', 'config.stated']);

// The entries from the first one of the period on, what they need to be proven, and the evidence they name.
function collect(
  reader: LedgerReader,
  from: string,
): { first: number; before: readonly Buffer[]; entries: string[]; evidence: Map<string, string> } {
  const range = new CompactRange();
  let before: readonly Buffer[] = [];
  let first = -1;
  const entries: string[] = [];
  const evidence = new Map<string, string>();
  for (const stored of reader.stored()) {
    const entry = JSON.parse(stored.body) as Entry;
    if (first < 0 && entry.time >= from) {
      first = stored.index;
      before = range.copy().nodes;
    }
    if (first < 0) {
      range.append(stored.leaf);
      continue;
    }
    entries.push(stored.body);
    if (!EVIDENT.has(entry.type) || !('evidence' in entry) || entry.evidence === undefined) continue;
    evidence.set(entry.evidence.sha256, reader.evidenceBytes(entry.evidence.sha256) ?? '');
  }
  return { first: first < 0 ? range.size : first, before: first < 0 ? range.nodes : before, entries, evidence };
}

// Of the names that are kept, those that this period speaks of.
function subjectsOf(reader: LedgerReader, entries: readonly string[], evidence: ReadonlyMap<string, string>): ReportSubject[] {
  const named = new Set([...entries, ...evidence.values()].flatMap((json) => json.match(/subject:[0-9a-f]{64}/g) ?? []));
  return [...reader.subjects()]
    .filter(({ commitment }) => named.has(commitment))
    .map(({ commitment, salt, text }) => ({ commitment, salt: Buffer.from(salt).toString('hex'), text }));
}
