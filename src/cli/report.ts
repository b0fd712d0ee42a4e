import { existsSync, readFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { CompactRange, leafHash, openCheckpoint, openSigned } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { type ReportVerifier, verifyReport } from '../report/index.ts';
import { sendCommand } from '../service/index.ts';
import { EXIT, type Io, paint } from './io.ts';
import { readVerifiers } from './ledger.ts';
import { makeReport } from './make-report.ts';
import { type DefinitionOptions, defined, periodOf } from './report-input.ts';
import { controlSocket } from './serve-http.ts';
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
  const { data, out } = options;
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL); // whoever decides requests on this machine goes first
  const [period, definition] = [periodOf(options), defined(options)];
  const { id, summary, manifest, checkpoint } = await makeReport({ data, out, ...period, definition });
  const { sample } = definition;
  const issued = { report: id, ...period, manifest, checkpoint, ...(sample === undefined ? {} : { sample }) };
  const recorded = await sendCommand(controlSocket(data), 'report-issued', issued);
  if (options.output === 'json') io.out(`${JSON.stringify({ id, directory: resolve(out), summary }, null, 2)}\n`);
  else
    io.out(
      `report ${id}: ${count(summary.changes, 'change')}, ${summary.applied} applied, ${summary.denied} denied, ${count(summary.exceptions, 'exception')}, ${summary.open} open\n${join(out, 'report.pdf')}\n`,
    );
  if (recorded === undefined) io.err('that it was made is not on the ledger: no service runs on this data directory\n');
  return EXIT.yes;
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
