import { frameworkNamed } from '../config/index.ts';
import { CompactRange, type LedgerReader } from '../ledger/index.ts';
import { CountersignError, type Entry } from '../model/index.ts';
import type { ReportDefinition, ReportInput, ReportSubject } from '../report/index.ts';

export type DefinitionOptions = {
  environment?: string[];
  entity?: string;
  classification: string;
  framework?: string[];
  seed?: string;
  sample: string;
  failureHours: string;
  reviewHours: string;
};

/** What a report of a period is made from, and the subtree roots before its first entry. */
export function readInput(
  reader: LedgerReader,
  about: Pick<ReportInput, 'from' | 'to' | 'origin' | 'definition'>,
): { readonly input: ReportInput; readonly before: readonly Buffer[] } {
  const { before, ...collected } = collect(reader, about.from);
  const subjects = subjectsOf(reader, collected.entries, collected.evidence);
  return { input: { ...about, ...collected, subjects, checkpoint: reader.latestCheckpoint() ?? '' }, before };
}

/** The period as it was typed. Throws `usage` where it is empty. */
export function periodOf(options: { readonly from?: string; readonly to?: string }): { readonly from: string; readonly to: string } {
  const from = instant(options.from, '1970-01-01T00:00:00.000Z');
  const to = instant(options.to, new Date(Date.now() + 1).toISOString());
  if (from >= to)
    throw new CountersignError('usage', `the period from ${from} to ${to} is empty`, { hint: '--to must be later than --from' });
  return { from, to };
}

// What a report is made from beside the entries themselves.
const EVIDENT: ReadonlySet<Entry['type']> = new Set(['change.judged', 'trust.changed', 'admission.allowed']);

/** What is asked for, with everything that has a default. Throws `usage`. */
export function defined(options: DefinitionOptions): Omit<ReportDefinition, 'entity'> & { readonly entity: string | undefined } {
  const whole = (text: string, flag: string) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1 || value > 100_000)
      throw new CountersignError('usage', `\`${text}\` is no number for ${flag}`, { hint: 'a whole number from 1 on' });
    return value;
  };
  return {
    entity: options.entity,
    classification: options.classification,
    frameworks: (options.framework ?? ['soc2']).map(frameworkNamed),
    environments: options.environment ?? [],
    sample: options.seed === undefined ? undefined : { seed: options.seed, size: whole(options.sample, '--sample') },
    failureHours: whole(options.failureHours, '--failure-hours'),
    reviewHours: whole(options.reviewHours, '--review-hours'),
  };
}

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

/** A day or time as it was typed, in ISO 8601. Throws `usage`. */
export function instant(text: string | undefined, otherwise: string): string {
  if (text === undefined) return otherwise;
  const time = Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00Z` : text);
  if (Number.isNaN(time))
    throw new CountersignError('usage', `\`${text}\` is not a time`, { hint: 'for example 2026-01-31 or 2026-01-31T12:00:00Z' });
  return new Date(time).toISOString();
}
