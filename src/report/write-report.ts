import { createHash } from 'node:crypto';
import { extname } from 'node:path';
import { bytesOf, canonicalJson } from '../model/index.ts';
import { buildReport } from './build-report.ts';
import { Embedding } from './embed.ts';
import { evidentChanges } from './evident.ts';
import type { ReportInput, ReportSubject } from './input.ts';
import type { ChangeRecord, ReportModel } from './model.ts';
import { assessmentResults, planOfAction } from './oscal.ts';
import { jsonOf, renderPdf } from './render-pdf.ts';
import type { Shelf } from './shelf.ts';
import { csvLine, csvOf, type Table, type TableRows, tablesOf } from './tables.ts';
import { writeXlsx } from './xlsx.ts';

/** Signs a text as a note (C2SP signed-note), with the ledger's key. */
export type ReportSigner = (text: string) => string;

/** A change whose signed objects are included. */
export type SignedChange = Pick<ChangeRecord, 'entry' | 'ref'>;

/** The module with that program. */
export const CHECKER = new URL(`./offline-check${extname(import.meta.url)}`, import.meta.url);

export const MANIFEST_TITLE = 'countersign.dev/report/v2';

/** Data for a report, and the proofs that go with it. */
export type ReportMaterial = {
  readonly input: Omit<ReportInput, 'subjects'>;
  /** Subtree roots over the entries before its first. */
  readonly before: readonly Uint8Array[];
  /** SHA-256 of the evidence named by entries, each once. */
  readonly evidence: readonly string[];
  /** Returns the texts behind commitments that are still stored. */
  readonly subjects: (commitments: ReadonlySet<string>) => readonly ReportSubject[];
};

/** A file of a report being written; it gets its name when it ends. */
export type ReportFile = { readonly write: (bytes: Uint8Array) => void; readonly end: () => void };

/**
 * Writes the whole set, each file in chunks through `create`. `manifest.txt` comes last, is signed, and contains the
 * SHA-256 of every other file. `signed` returns the lines with the objects that some changes' verdicts rest on.
 * `checker` is the single-file program to include; `shelf` stores records of changes meanwhile.
 */
export async function writeReport(
  { input: known, before, evidence, subjects: subjectsOf }: ReportMaterial,
  signed: (changes: readonly SignedChange[]) => Promise<readonly string[]>,
  sign: ReportSigner,
  create: (name: string) => ReportFile,
  checker: string,
  shelf: Shelf,
): Promise<ReportModel> {
  const digests = new Map<string, string>();
  const open = (name: string): ReportFile => {
    const hash = createHash('sha256');
    const file = create(name);
    const write = (bytes: Uint8Array) => {
      hash.update(bytes);
      file.write(bytes);
    };
    const end = () => {
      digests.set(name, hash.digest('hex'));
      file.end();
    };
    return { write, end };
  };
  const emit = (name: string, texts: Iterable<string>) => {
    const file = open(name);
    for (const bytes of bytesOf(texts)) file.write(bytes);
    file.end();
  };
  const { from, to, first, checkpoint, origin, definition } = known;
  const named = new Set<string>();
  emit('entries.jsonl', linesOf(known.entries, named));
  emit('evidence.jsonl', linesOf(evidenceOf(known, evidence), named));
  const subjects = subjectsOf(named);
  emit('subjects.jsonl', linesOf(subjects.map((one) => canonicalJson(one))));
  emit('checkpoint', [checkpoint]);
  const nodes = before.map((n) => Buffer.from(n).toString('base64'));
  emit('range.json', linesOf([canonicalJson({ from, to, first, before: nodes, checkpoint, origin, definition })]));
  const model = buildReport({ ...known, subjects }, shelf);

  const tables = tablesOf(model) as [Table, ...Table[]];
  const [population, ...others] = tables;
  const [csv, csvInside] = [open('population.csv'), new Embedding()];
  const both = bothInto(csv, csvInside);
  const book = open('population.xlsx');
  await writeXlsx([{ ...population, rows: seen(population, both) }, ...others], book.write, () => csvInside.settle());
  book.end();
  both.flush();
  csv.end();
  for (const table of others) emit(`${table.name}.csv`, csvOf(table));
  const [json, jsonInside] = [open('report.json'), new Embedding()];
  for (const bytes of bytesOf(jsonOf(model))) {
    json.write(bytes);
    jsonInside.write(bytes);
    await jsonInside.settle();
  }
  json.end();
  const pdf = open('report.pdf');
  await renderPdf(model, pdf.write, { json: await jsonInside.end(), population: await csvInside.end() });
  pdf.end();
  const plan = planOfAction(model, digests);
  const results = assessmentResults(model, digests);
  emit('oscal-ar.json', pretty(results));
  if (plan !== undefined) emit('oscal-poam.json', pretty(plan));
  emit('signed.jsonl', linesOf(await signed(evidentChanges(model))));
  emit('verify.mjs', [checker]);
  const lines = [...digests].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, digest]) => `${digest}  ${name}\n`);
  const manifest = create('manifest.txt');
  manifest.write(Buffer.from(sign(`${MANIFEST_TITLE}\n${lines.join('')}`)));
  manifest.end();
  return model;
}

// The population is iterated once for both of its formats.
function seen({ columns, rows }: Table, into: { readonly line: (line: string) => void }): TableRows {
  const each = function* () {
    into.line(csvLine(columns));
    for (const row of rows) {
      into.line(csvLine(row));
      yield row;
    }
  };
  return { length: rows.length, [Symbol.iterator]: each };
}

const PIECE = 64 * 1024;

function bothInto(...places: readonly { write(bytes: Uint8Array): void }[]): {
  line: (line: string) => void;
  flush: () => void;
} {
  let pending = '';
  const flush = () => {
    const bytes = Buffer.from(pending);
    pending = '';
    for (const place of places) place.write(bytes);
  };
  const line = (text: string) => {
    pending += text;
    if (pending.length >= PIECE) flush();
  };
  return { line, flush };
}

function* evidenceOf({ evidence }: Pick<ReportInput, 'evidence'>, digests: readonly string[]): Generator<string> {
  for (const digest of digests) yield evidence.get(digest) ?? '';
}

// Collects the commitments in the lines, if requested.
function* linesOf(lines: Iterable<string>, named?: Set<string>): Generator<string> {
  for (const line of lines) {
    yield `${line}\n`;
    if (named === undefined || !line.includes('subject:')) continue;
    for (const commitment of line.match(/subject:[0-9a-f]{64}/g) ?? []) named.add(commitment);
  }
}

function* pretty(document: object): Generator<string> {
  yield `${JSON.stringify(document, null, 2)}\n`;
}
