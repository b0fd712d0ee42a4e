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
import { CountersignError } from '../model/index.ts';
import { type ReportVerifier, verifyReport, writeReport } from '../report/index.ts';
import { EXIT, type Io, paint } from './io.ts';
import { readVerifiers } from './ledger.ts';
import { type DefinitionOptions, defined, periodOf, readInput } from './report-input.ts';
import { count } from './show-verdict.ts';

export type ReportOptions = DefinitionOptions & {
  data: string;
  from?: string;
  to?: string;
  out: string;
  output: 'text' | 'json';
};
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
    const { from, to } = periodOf(options);
    if (!existsSync(key))
      throw new CountersignError('key-missing', `there is no ledger key at \`${key}\``, {
        hint: 'make reports where the service keeps its key',
      });
    const signer = readSigner(verifier.name, readFileSync(key, 'utf8'));
    const { input, before } = readInput(reader, { from, to, origin: verifier.name, definition: defined(options, verifier.name) });
    mkdirSync(options.out, { recursive: true });
    const write = (name: string, bytes: Uint8Array) => {
      writeFileSync(join(options.out, `${name}.new`), bytes);
      renameSync(join(options.out, `${name}.new`), join(options.out, name));
    };
    const model = await writeReport(input, before, (text) => signNote(text, signer), write);
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
