import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CompactRange, leafHash, openCheckpoint, openSigned } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { readVerifiers } from '../open/index.ts';
import { recheckSigned } from '../publish/index.ts';
import { type ReportVerifier, verifyReport } from '../report/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { VerifyOptions } from './report-commands.ts';

const MAX_UNCHECKED = 20;

/** Implements `countersign verify FILE|DIR`: checks offline whether a report matches the ledger. */
export async function verify(file: string, options: VerifyOptions, io: Io): Promise<number> {
  if (!existsSync(file)) throw new CountersignError('usage', `there is no file or directory \`${file}\``);
  const directory = statSync(file).isDirectory() ? file : dirname(file);
  if (!existsSync(join(directory, 'manifest.txt')))
    throw new CountersignError('report-unverifiable', `there is no \`manifest.txt\` next to \`${file}\``, {
      hint: 'keep the files of a report together; the PDF alone proves nothing',
    });
  if (options.key === undefined)
    throw new CountersignError('usage', 'a report must be verified with a key from another source', {
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
    recheck: recheckSigned,
  };
  const seen = (options.seen ?? []).map((name) => {
    if (!existsSync(name)) throw new CountersignError('usage', `there is no file \`${name}\``);
    return readFileSync(name, 'utf8');
  });
  const result = await verifyReport(
    (name) => (existsSync(join(directory, name)) ? readFileSync(join(directory, name)) : undefined),
    verifier,
    seen,
  );
  if (options.output === 'json') io.out(`${JSON.stringify(result, null, 2)}\n`);
  else {
    for (const step of result.steps)
      io.out(`  ${step.ok ? paint(io, 'green', '✓') : paint(io, 'red', '✗')} ${step.text}\n`);
    for (const text of result.unchecked.slice(0, MAX_UNCHECKED))
      io.out(`  ${paint(io, 'yellow', '?')} not checked: ${plain(text)}\n`);
    if (result.unchecked.length > MAX_UNCHECKED)
      io.out(`  … and ${result.unchecked.length - MAX_UNCHECKED} more; --output json lists all\n`);
    io.out(
      result.ok
        ? `${paint(io, 'green', 'verified')}: the report is what the ledger of ${keys[0]?.name} says\n`
        : `${paint(io, 'red', 'not verified')}\n`,
    );
  }
  return result.ok ? EXIT.yes : EXIT.no;
}
