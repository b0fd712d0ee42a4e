import { canonicalJson, sha256 } from '../model/index.ts';
import { buildReport, type ReportSubject } from './build-report.ts';
import type { ReportDefinition } from './model.ts';
import { csvOf, tablesOf } from './tables.ts';
import { MANIFEST_TITLE } from './write-report.ts';

/** What verification needs of the ledger: handed in, so that a report proves itself with the public key alone. */
export type ReportVerifier = {
  /** The text of a note with a good signature, or undefined. */
  readonly openNote: (note: string) => string | undefined;
  /** The size and root of a checkpoint with a good signature, or undefined. */
  readonly openCheckpoint: (note: string) => { size: number; root: Buffer } | undefined;
  /** The size and root after appending entries to a range. */
  readonly extend: (first: number, before: readonly Buffer[], entries: readonly string[]) => { size: number; root: Buffer };
};

/** Each check with its outcome, in the order they were made; after the first failure the rest is not tried. */
export type ReportCheck = { readonly ok: boolean; readonly steps: readonly { readonly ok: boolean; readonly text: string }[] };

/** Checks a set of report files. `readFile` gives the bytes of a file beside the PDF, or undefined. */
export function verifyReport(readFile: (name: string) => Uint8Array | undefined, verifier: ReportVerifier): ReportCheck {
  const steps: { ok: boolean; text: string }[] = [];
  const step = (ok: boolean, text: string) => {
    steps.push({ ok, text });
    return ok;
  };
  const text = (name: string) => Buffer.from(readFile(name) ?? new Uint8Array()).toString('utf8');
  const manifest = verifier.openNote(text('manifest.txt'));
  if (!step(manifest !== undefined, 'manifest.txt is signed by this key')) return { ok: false, steps };
  const named = [...(manifest ?? '').matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map((m) => ({ digest: m[1], name: m[2] ?? '' }));
  const wanted = [
    'report.pdf',
    'report.json',
    'population.csv',
    'exceptions.csv',
    'access.csv',
    'entries.jsonl',
    'evidence.jsonl',
    'subjects.jsonl',
    'range.json',
    'checkpoint',
  ];
  if (
    !step(
      manifest?.startsWith(`${MANIFEST_TITLE}\n`) === true && wanted.every((w) => named.some((n) => n.name === w)),
      'it names every file of a report',
    )
  )
    return { ok: false, steps };
  for (const { digest, name } of named) {
    const bytes = readFile(name);
    if (
      !step(
        bytes !== undefined && sha256(bytes) === digest,
        bytes === undefined ? `${name} is missing` : `${name} is the file that was signed`,
      )
    )
      return { ok: false, steps };
  }
  const range = JSON.parse(text('range.json')) as {
    from: string;
    to: string;
    first: number;
    before: string[];
    checkpoint: string;
    origin: string;
    definition: ReportDefinition;
  };
  const checkpoint = verifier.openCheckpoint(text('checkpoint'));
  if (!step(checkpoint !== undefined && text('checkpoint') === range.checkpoint, 'the checkpoint is signed by this key'))
    return { ok: false, steps };
  const entries = lines(text('entries.jsonl'));
  const tree = verifier.extend(
    range.first,
    range.before.map((b) => Buffer.from(b, 'base64')),
    entries,
  );
  if (
    !step(
      checkpoint !== undefined && tree.size === checkpoint.size && tree.root.equals(checkpoint.root),
      `${entries.length} entries give the root of the checkpoint at ${checkpoint?.size ?? 0}`,
    )
  )
    return { ok: false, steps };
  const evidence = new Map(lines(text('evidence.jsonl')).map((line) => [sha256(line), line]));
  const subjects = lines(text('subjects.jsonl')).map((line) => JSON.parse(line) as ReportSubject);
  if (!step(subjects.every(isItsOwn), `${subjects.length} names are those that entries and evidence commit to`))
    return { ok: false, steps };
  try {
    const model = buildReport({
      from: range.from,
      to: range.to,
      first: range.first,
      entries,
      evidence,
      subjects,
      checkpoint: range.checkpoint,
      origin: range.origin,
      definition: range.definition,
    });
    step(`${canonicalJson(model)}\n` === text('report.json'), 'report.json is what the entries say');
    for (const table of tablesOf(model))
      step(csvOf(table) === text(`${table.name}.csv`), `${table.name}.csv has the ${table.rows.length} rows of report.json`);
  } catch (thrown) {
    step(false, `the entries do not make a report: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
  return { ok: steps.every((s) => s.ok), steps };
}

function isItsOwn({ commitment, salt, text }: ReportSubject): boolean {
  return commitment === `subject:${sha256(Buffer.concat([Buffer.from(salt, 'hex'), Buffer.from(text)]))}`;
}

function lines(text: string): string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}
