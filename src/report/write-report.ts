import { canonicalJson, sha256 } from '../model/index.ts';
import { buildReport, type ReportInput, type ReportModel } from './build-report.ts';
import { renderPdf } from './render-pdf.ts';

/** Signs a text as a note (C2SP signed-note), with the key of the ledger. */
export type ReportSigner = (text: string) => string;

/** The files of a report by name. `manifest.txt` is signed and names the SHA-256 of every other. */
export type ReportFiles = ReadonlyMap<string, Uint8Array>;

export const MANIFEST_TITLE = 'countersign.dev/report/v1';

/** Makes the whole set. `rangeBefore` are the subtree roots over the entries before `input.first`. */
export async function writeReport(
  input: ReportInput,
  rangeBefore: readonly Uint8Array[],
  sign: ReportSigner,
): Promise<{ model: ReportModel; files: ReportFiles }> {
  const model = buildReport(input);
  const range = {
    from: input.from,
    to: input.to,
    first: input.first,
    before: rangeBefore.map((n) => Buffer.from(n).toString('base64')),
    checkpoint: input.checkpoint,
    origin: input.origin,
  };
  const files = new Map<string, Uint8Array>([
    ['report.pdf', await renderPdf(model)],
    ['report.json', Buffer.from(`${canonicalJson(model)}\n`)],
    ['entries.jsonl', Buffer.from(input.entries.map((e) => `${e}\n`).join(''))],
    ['evidence.jsonl', Buffer.from([...input.evidence.values()].map((e) => `${e}\n`).join(''))],
    ['subjects.jsonl', Buffer.from(input.subjects.map((one) => `${canonicalJson(one)}\n`).join(''))],
    ['range.json', Buffer.from(`${canonicalJson(range)}\n`)],
  ]);
  const lines = [...files].map(([name, bytes]) => `${sha256(bytes)}  ${name}\n`);
  files.set('manifest.txt', Buffer.from(sign(`${MANIFEST_TITLE}\n${lines.join('')}`)));
  return { model, files };
}
