import { type EntryOf, sha256, type Verdict } from '../model/index.ts';
import { buildReport } from './build-report.ts';
import { evidentChanges } from './evident.ts';
import type { ReportSubject } from './input.ts';
import type { ReportDefinition, ReportModel } from './model.ts';
import { jsonOf } from './render-pdf.ts';
import { csvOf, tablesOf } from './tables.ts';
import { MANIFEST_TITLE } from './write-report.ts';

/**
 * The parts of the ledger that verification needs. They are passed in, so that a report can be verified with the public
 * key alone.
 */
export type ReportVerifier = {
  /** Returns the text of a note with a valid signature, or undefined. */
  readonly openNote: (note: string) => string | undefined;
  /** Returns the size and root of a checkpoint with a valid signature, or undefined. */
  readonly openCheckpoint: (note: string) => { size: number; root: Buffer } | undefined;
  /** Returns the size and root after appending entries to a range. */
  readonly extend: (
    first: number,
    before: readonly Buffer[],
    entries: readonly string[],
  ) => { size: number; root: Buffer };
  /**
   * Checks the objects that verdicts rest on again, from the lines of `signed.jsonl`. Throws if a line does not match
   * its hash.
   */
  readonly recheck: (lines: readonly string[], verdicts: readonly RecordedVerdict[]) => Promise<Rechecked>;
};

/** A verdict, and when it was recorded on the ledger. */
export type RecordedVerdict = { readonly verdict: Verdict; readonly time: string };
/** Number of valid signatures, the invalid ones, and those that could not be checked. */
type Rechecked = {
  readonly commits: number;
  readonly approvals: number;
  readonly wrong: readonly string[];
  readonly unchecked: readonly string[];
};

/** The checks with their results, in order; they stop at the first failure. */
export type ReportCheck = {
  readonly ok: boolean;
  readonly steps: readonly { readonly ok: boolean; readonly text: string }[];
  /** Aspects that could not be checked with these files. */
  readonly unchecked: readonly string[];
};

/**
 * Checks a set of report files. `readFile` returns the bytes of a file next to the PDF, or undefined; `seen` are
 * checkpoints someone kept.
 */
export async function verifyReport(
  readFile: (name: string) => Uint8Array | undefined,
  verifier: ReportVerifier,
  seen: readonly string[] = [],
): Promise<ReportCheck> {
  const steps: { ok: boolean; text: string }[] = [];
  const step = (ok: boolean, text: string) => {
    steps.push({ ok, text });
    return ok;
  };
  const text = (name: string) => Buffer.from(readFile(name) ?? new Uint8Array()).toString('utf8');
  const manifest = verifier.openNote(text('manifest.txt'));
  if (!step(manifest !== undefined, 'manifest.txt is signed by this key')) return { ok: false, steps, unchecked: [] };
  const named = [...(manifest ?? '').matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map((m) => ({
    digest: m[1],
    name: m[2] ?? '',
  }));
  const wanted = [
    'report.pdf',
    'report.json',
    'population.csv',
    'exceptions.csv',
    'access.csv',
    'entries.jsonl',
    'evidence.jsonl',
    'subjects.jsonl',
    'signed.jsonl',
    'range.json',
    'checkpoint',
  ];
  if (
    !step(
      manifest?.startsWith(`${MANIFEST_TITLE}\n`) === true && wanted.every((w) => named.some((n) => n.name === w)),
      'it names every file of a report',
    )
  )
    return { ok: false, steps, unchecked: [] };
  for (const { digest, name } of named) {
    const bytes = readFile(name);
    if (
      !step(
        bytes !== undefined && sha256(bytes) === digest,
        bytes === undefined ? `${name} is missing` : `${name} is the file that was signed`,
      )
    )
      return { ok: false, steps, unchecked: [] };
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
  if (
    !step(checkpoint !== undefined && text('checkpoint') === range.checkpoint, 'the checkpoint is signed by this key')
  )
    return { ok: false, steps, unchecked: [] };
  const entries = lines(text('entries.jsonl'));
  const before = range.before.map((b) => Buffer.from(b, 'base64'));
  const tree = verifier.extend(range.first, before, entries);
  if (
    !step(
      checkpoint !== undefined && tree.size === checkpoint.size && tree.root.equals(checkpoint.root),
      `${entries.length} entries give the root of the checkpoint at ${checkpoint?.size ?? 0}`,
    )
  )
    return { ok: false, steps, unchecked: [] };
  let unchecked: readonly string[] = [];
  for (const note of seen) {
    const kept = verifier.openCheckpoint(note);
    if (!step(kept !== undefined, 'the checkpoint that was seen before is signed by this key'))
      return { ok: false, steps, unchecked: [] };
    const { size = 0, root } = kept ?? {};
    if (size < range.first) {
      unchecked = [
        ...unchecked,
        `whether the log only grew since the checkpoint at ${size}: the report’s entries begin at ${range.first}`,
      ];
      continue;
    }
    const then =
      size > tree.size ? undefined : verifier.extend(range.first, before, entries.slice(0, size - range.first));
    if (
      !step(
        then !== undefined && root !== undefined && then.root.equals(root),
        `the log only grew since the checkpoint at ${size}`,
      )
    )
      return { ok: false, steps, unchecked: [] };
  }
  const evidence = new Map(lines(text('evidence.jsonl')).map((line) => [sha256(line), line]));
  const subjects = lines(text('subjects.jsonl')).map((line) => JSON.parse(line) as ReportSubject);
  if (!step(subjects.every(isItsOwn), `${subjects.length} names are those that entries and evidence commit to`))
    return { ok: false, steps, unchecked: [] };
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
    step([...jsonOf(model)].join('') === text('report.json'), 'report.json is what the entries say');
    for (const table of tablesOf(model))
      step(
        [...csvOf(table)].join('') === text(`${table.name}.csv`),
        `${table.name}.csv has the ${table.rows.length} rows of report.json`,
      );
    const verdicts = verdictsOf(model, entries, evidence);
    const again = await verifier.recheck(lines(text('signed.jsonl')), verdicts);
    for (const wrong of again.wrong) step(false, wrong);
    if (verdicts.length === 0)
      unchecked = [
        ...unchecked,
        'signatures of commits and approvals: no change that was allowed was ' +
          'drawn as a sample (`report --seed`) or has an exception, so none go along',
      ];
    else {
      const sampled = model.sample === null ? 'with an exception' : 'of the sample or with an exception';
      const what = `${again.commits} commits and ${again.approvals} approvals of ${verdicts.length} changes ${sampled}`;
      step(again.wrong.length === 0, `signatures of ${what} hold, by the bytes that go along`);
      unchecked = [...unchecked, ...again.unchecked];
    }
  } catch (thrown) {
    step(false, `it cannot be rebuilt: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
  return { ok: steps.every((s) => s.ok), steps, unchecked };
}

function verdictsOf(
  model: ReportModel,
  entries: readonly string[],
  evidence: ReadonlyMap<string, string>,
): RecordedVerdict[] {
  return evidentChanges(model).map(({ entry: index }) => {
    const { evidence: ref, time } = JSON.parse(entries[index - model.ledger.first] ?? '') as EntryOf<'change.judged'>;
    return { verdict: JSON.parse(evidence.get(ref.sha256) ?? '') as Verdict, time };
  });
}

function isItsOwn({ commitment, salt, text }: ReportSubject): boolean {
  return commitment === `subject:${sha256(Buffer.concat([Buffer.from(salt, 'hex'), Buffer.from(text)]))}`;
}

function lines(text: string): string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}
