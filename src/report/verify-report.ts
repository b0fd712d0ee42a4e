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
  const check = new Check();
  const files: Files = {
    bytes: readFile,
    text: (name) => Buffer.from(readFile(name) ?? new Uint8Array()).toString('utf8'),
  };
  try {
    checkManifest(files, verifier, check);
    const log = checkLog(files, verifier, check);
    for (const note of seen) checkSeen(note, log, verifier, check);
    await checkContent(files, log, verifier, check);
  } catch (thrown) {
    if (!(thrown instanceof CheckFailed)) throw thrown;
  }
  return { ok: check.steps.every((s) => s.ok), steps: check.steps, unchecked: check.unchecked };
}

class CheckFailed extends Error {}

/** The steps of a check so far. */
class Check {
  readonly steps: { ok: boolean; text: string }[] = [];
  readonly unchecked: string[] = [];

  note(ok: boolean, text: string): void {
    this.steps.push({ ok, text });
  }

  /** Ends the check here if a step that the rest builds on does not hold. */
  must(ok: boolean, text: string): asserts ok {
    this.note(ok, text);
    if (!ok) throw new CheckFailed(text);
  }
}

type Files = {
  readonly bytes: (name: string) => Uint8Array | undefined;
  readonly text: (name: string) => string;
};

const FILES = [
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

// The manifest is signed, names every file, and each file is the one it names.
function checkManifest({ bytes, text }: Files, verifier: ReportVerifier, check: Check): void {
  const manifest = verifier.openNote(text('manifest.txt'));
  check.must(manifest !== undefined, 'manifest.txt is signed by this key');
  const named = [...manifest.matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map(([, digest, name = '']) => ({
    digest,
    name,
  }));
  const isComplete =
    manifest.startsWith(`${MANIFEST_TITLE}\n`) && FILES.every((file) => named.some((n) => n.name === file));
  check.must(isComplete, 'it names every file of a report');
  for (const { digest, name } of named) {
    const content = bytes(name);
    check.must(content !== undefined, `${name} is here`);
    check.must(sha256(content) === digest, `${name} is the file that was signed`);
  }
}

/** The entries of a report, which the checkpoint that goes with them covers. */
type Log = {
  readonly range: Range;
  readonly entries: readonly string[];
  readonly before: readonly Buffer[];
  readonly size: number;
};
type Range = {
  readonly from: string;
  readonly to: string;
  readonly first: number;
  readonly before: readonly string[];
  readonly checkpoint: string;
  readonly origin: string;
  readonly definition: ReportDefinition;
};

function checkLog({ text }: Files, verifier: ReportVerifier, check: Check): Log {
  const range = JSON.parse(text('range.json')) as Range;
  const checkpoint = verifier.openCheckpoint(text('checkpoint'));
  const isSigned = checkpoint !== undefined && text('checkpoint') === range.checkpoint;
  check.must(isSigned, 'the checkpoint is signed by this key');
  const entries = lines(text('entries.jsonl'));
  const before = range.before.map((b) => Buffer.from(b, 'base64'));
  const tree = verifier.extend(range.first, before, entries);
  check.must(
    tree.size === checkpoint.size && tree.root.equals(checkpoint.root),
    `${entries.length} entries give the root of the checkpoint at ${checkpoint.size}`,
  );
  return { range, entries, before, size: tree.size };
}

// A checkpoint that the reader kept from before: the log only grew since.
function checkSeen(note: string, { range, entries, before, size }: Log, verifier: ReportVerifier, check: Check): void {
  const kept = verifier.openCheckpoint(note);
  check.must(kept !== undefined, 'the checkpoint that was seen before is signed by this key');
  if (kept.size < range.first) {
    check.unchecked.push(
      `whether the log only grew since the checkpoint at ${kept.size}: the report’s entries begin at ${range.first}`,
    );
    return;
  }
  const then =
    kept.size > size ? undefined : verifier.extend(range.first, before, entries.slice(0, kept.size - range.first));
  check.must(then?.root.equals(kept.root) === true, `the log only grew since the checkpoint at ${kept.size}`);
}

// The report says what the entries say, and the signatures that go along hold.
async function checkContent({ text }: Files, log: Log, verifier: ReportVerifier, check: Check): Promise<void> {
  const { range, entries } = log;
  const evidence = new Map(lines(text('evidence.jsonl')).map((line) => [sha256(line), line]));
  const subjects = lines(text('subjects.jsonl')).map((line) => JSON.parse(line) as ReportSubject);
  check.must(subjects.every(isItsOwn), `${subjects.length} names are those that entries and evidence commit to`);
  try {
    const { from, to, first, checkpoint, origin, definition } = range;
    const model = buildReport({ from, to, first, entries, evidence, subjects, checkpoint, origin, definition });
    check.note([...jsonOf(model)].join('') === text('report.json'), 'report.json is what the entries say');
    for (const table of tablesOf(model))
      check.note(
        [...csvOf(table)].join('') === text(`${table.name}.csv`),
        `${table.name}.csv has the ${table.rows.length} rows of report.json`,
      );
    await checkSignatures(text('signed.jsonl'), model, verdictsOf(model, entries, evidence), verifier, check);
  } catch (thrown) {
    check.note(false, `it cannot be rebuilt: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

async function checkSignatures(
  signed: string,
  model: ReportModel,
  verdicts: ReturnType<typeof verdictsOf>,
  verifier: ReportVerifier,
  check: Check,
): Promise<void> {
  const again = await verifier.recheck(lines(signed), verdicts);
  for (const wrong of again.wrong) check.note(false, wrong);
  if (verdicts.length === 0) {
    check.unchecked.push(
      'signatures of commits and approvals: no change that was allowed was ' +
        'drawn as a sample (`report --seed`) or has an exception, so none go along',
    );
    return;
  }
  const sampled = model.sample === null ? 'with an exception' : 'of the sample or with an exception';
  const what = `${again.commits} commits and ${again.approvals} approvals of ${verdicts.length} changes ${sampled}`;
  check.note(again.wrong.length === 0, `signatures of ${what} hold, by the bytes that go along`);
  check.unchecked.push(...again.unchecked);
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
