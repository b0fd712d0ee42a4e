import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import {
  CompactRange,
  LEDGER_FILES,
  LedgerReader,
  leafHash,
  openCheckpoint,
  openSigned,
  readSigner,
  signNote,
  type Verifier,
  verifyLedger,
} from '../ledger/index.ts';
import { CountersignError, type Entry } from '../model/index.ts';
import { type ReportSubject, type ReportVerifier, verifyReport, writeReport } from '../report/index.ts';
import { EXIT, type Io, paint } from './io.ts';
import { readVerifiers } from './ledger.ts';
import { count } from './show-verdict.ts';

export type ReportOptions = { data: string; from?: string; to?: string; out: string; output: 'text' | 'json' };
export type VerifyOptions = { key?: string; output: 'text' | 'json' };

/** `countersign report`: the evidence of a period, as a signed set of files around a PDF. */
export async function report(options: ReportOptions, io: Io): Promise<number> {
  const key = join(options.data, LEDGER_FILES.key);
  const reader = new LedgerReader(join(options.data, LEDGER_FILES.store)).freeze();
  try {
    const keys = readVerifiers(join(options.data, LEDGER_FILES.verifier));
    const verifier = keys[0] as Verifier;
    const sound = verifyLedger(reader, keys);
    if (sound.finding !== undefined)
      throw new CountersignError(
        'ledger-inconsistent',
        `no report is made from a ledger that is not consistent: ${sound.finding.message}`,
        { hint: 'run `countersign ledger verify`' },
      );
    const from = instant(options.from, '1970-01-01T00:00:00.000Z');
    const to = instant(options.to, new Date(Date.now() + 1).toISOString());
    if (from >= to)
      throw new CountersignError('usage', `the period from ${from} to ${to} is empty`, { hint: '--to must be later than --from' });
    if (!existsSync(key))
      throw new CountersignError('key-missing', `there is no ledger key at \`${key}\``, {
        hint: 'make reports where the service keeps its key',
      });
    const signer = readSigner(verifier.name, readFileSync(key, 'utf8'));
    const { first, before, entries, evidence } = collect(reader, from);
    const subjects = subjectsOf(reader, entries, evidence);
    const checkpoint = reader.latestCheckpoint() ?? '';
    const { model, files } = await writeReport(
      { from, to, first, entries, evidence, subjects, checkpoint, origin: verifier.name },
      before,
      (text) => signNote(text, signer),
    );
    mkdirSync(options.out, { recursive: true });
    for (const [name, bytes] of files) {
      writeFileSync(join(options.out, `${name}.new`), bytes);
      renameSync(join(options.out, `${name}.new`), join(options.out, name));
    }
    const { summary } = model;
    if (options.output === 'json') io.out(`${JSON.stringify({ id: model.id, directory: resolve(options.out), summary }, null, 2)}\n`);
    else
      io.out(
        `report ${model.id}: ${count(summary.changes, 'change')}, ${summary.applied} applied, ${summary.denied} denied, ${count(summary.exceptions, 'exception')}\n${join(options.out, 'report.pdf')}\n`,
      );
    return EXIT.yes;
  } finally {
    reader.close();
  }
}

/** `countersign verify FILE`: whether a report is what the ledger says, offline. */
export function verify(file: string, options: VerifyOptions, io: Io): number {
  if (!existsSync(file)) throw new CountersignError('usage', `there is no file \`${file}\``);
  const directory = dirname(file);
  if (!existsSync(join(directory, 'manifest.txt')))
    throw new CountersignError('report-unverifiable', `\`manifest.txt\` does not lie beside \`${file}\``, {
      hint: 'keep the files of a report together; the PDF alone proves nothing',
    });
  if (options.key === undefined)
    throw new CountersignError('usage', 'a report is verified with a key you have from elsewhere', {
      hint: 'use --key with the ledger’s public key (`ledger.pub`)',
    });
  const keys = readVerifiers(options.key);
  const verifier: ReportVerifier = {
    openNote: (note) => openSigned(note, keys)?.text,
    openCheckpoint: (note) => openCheckpoint(note, keys),
    extend: (first, before, entries) => {
      const range = new CompactRange(first, before);
      for (const entry of entries) range.append(leafHash(Buffer.from(entry)));
      return { size: range.size, root: range.root() };
    },
  };
  const result = verifyReport((name) => (existsSync(join(directory, name)) ? readFileSync(join(directory, name)) : undefined), verifier);
  if (options.output === 'json') io.out(`${JSON.stringify(result, null, 2)}\n`);
  else {
    for (const step of result.steps) io.out(`  ${step.ok ? paint(io, 'green', '✓') : paint(io, 'red', '✗')} ${step.text}\n`);
    io.out(
      result.ok
        ? `${paint(io, 'green', 'verified')}: the report is what the ledger of ${keys[0]?.name} says\n`
        : `${paint(io, 'red', 'not verified')}\n`,
    );
  }
  return result.ok ? EXIT.yes : EXIT.no;
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
    if (entry.type !== 'change.judged') continue;
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
