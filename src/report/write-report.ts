import { extname } from 'node:path';
import { canonicalJson, sha256 } from '../model/index.ts';
import { buildReport, type ReportInput } from './build-report.ts';
import { evidentChanges } from './evident.ts';
import type { ChangeRecord, ReportModel } from './model.ts';
import { assessmentResults, planOfAction } from './oscal.ts';
import { embeddedFiles, renderPdf } from './render-pdf.ts';
import { csvOf, type Table, tablesOf } from './tables.ts';
import { xlsxOf } from './xlsx.ts';

/** Signs a text as a note (C2SP signed-note), with the key of the ledger. */
export type ReportSigner = (text: string) => string;

/** A change whose signed objects go along. */
export type SignedChange = Pick<ChangeRecord, 'entry' | 'ref'>;

/** The module that is that program. */
export const CHECKER = new URL(`./offline-check${extname(import.meta.url)}`, import.meta.url);

export const MANIFEST_TITLE = 'countersign.dev/report/v2';

/** What a report is made from, and the subtree roots over the entries before its first. */
export type ReportMaterial = { readonly input: ReportInput; readonly before: readonly Uint8Array[] };

/**
 * Makes the whole set and hands each file to `write` as soon as it is made; `manifest.txt` comes last, is signed, and names the SHA-256 of
 * every other. `read` gives what it is made from, once; `signed` the lines of what the verdicts on some changes rest on;
 * `checker` is the program of one file that goes along.
 */
export async function writeReport(
  read: () => ReportMaterial,
  signed: (changes: readonly SignedChange[]) => Promise<readonly string[]>,
  sign: ReportSigner,
  write: (name: string, bytes: Uint8Array) => void,
  checker: string,
): Promise<ReportModel> {
  const digests = new Map<string, string>();
  const emit = (name: string, bytes: Uint8Array) => {
    digests.set(name, sha256(bytes));
    write(name, bytes);
  };
  const model = modelAndProof(read(), emit);
  const [population, ...others] = tablesOf(model) as [Table, ...Table[]];
  emit('population.xlsx', xlsxOf([population, ...others]));
  for (const table of others) emit(`${table.name}.csv`, Buffer.from(csvOf(table)));
  const inside = embeddedFiles(model, population);
  emit('report.json', inside.json);
  emit('population.csv', inside.population);
  emit('report.pdf', await renderPdf(model, inside));
  const plan = planOfAction(model, digests);
  const results = assessmentResults(model, digests);
  emit('oscal-ar.json', pretty(results));
  if (plan !== undefined) emit('oscal-poam.json', pretty(plan));
  emit('signed.jsonl', linesOf(await signed(evidentChanges(model))));
  emit('verify.mjs', Buffer.from(checker));
  const lines = [...digests].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, digest]) => `${digest}  ${name}\n`);
  write('manifest.txt', Buffer.from(sign(`${MANIFEST_TITLE}\n${lines.join('')}`)));
  return model;
}

// In a function of its own, so that nothing of the ledger is held any more when the other forms are made.
function modelAndProof({ input, before: nodes }: ReportMaterial, emit: (name: string, bytes: Uint8Array) => void): ReportModel {
  const { from, to, first, checkpoint, origin, definition, entries, evidence, subjects } = input;
  const before = nodes.map((n) => Buffer.from(n).toString('base64'));
  emit('entries.jsonl', linesOf(entries));
  emit('evidence.jsonl', linesOf([...evidence.values()]));
  emit('subjects.jsonl', linesOf(subjects.map((one) => canonicalJson(one))));
  emit('checkpoint', Buffer.from(checkpoint));
  emit('range.json', linesOf([canonicalJson({ from, to, first, before, checkpoint, origin, definition })]));
  return buildReport(input);
}

function linesOf(lines: readonly string[]): Uint8Array {
  return Buffer.from(lines.map((line) => `${line}\n`).join(''));
}

function pretty(document: object): Uint8Array {
  return Buffer.from(`${JSON.stringify(document, null, 2)}\n`);
}
