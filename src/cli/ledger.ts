import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LEDGER_FILES, LedgerReader, ledgerFile, openCheckpoint, parseVerifier, type Verifier, verifyLedger } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { EXIT, type Io, paint } from './io.ts';

export type LedgerVerifyOptions = { data: string; key?: string; checkpoint: string[]; output: 'text' | 'json' };

/** `countersign ledger verify`: every entry, proof and checkpoint, with the first bad entry named. */
export function ledgerVerify(options: LedgerVerifyOptions, io: Io): number {
  const directory = options.data;
  const file = ledgerFile(directory);
  const beside = join(directory.endsWith('.db') ? join(directory, '..') : directory, LEDGER_FILES.anchor);
  const verifier = readVerifier(options.key ?? join(beside, '..', LEDGER_FILES.verifier));
  const trusted = options.checkpoint.map((path) => readText(path, 'checkpoint'));
  if (trusted.length === 0 && existsSync(beside)) trusted.push(readText(beside, 'checkpoint'));
  for (const note of trusted) {
    if (openCheckpoint(note, verifier) === undefined) {
      throw new CountersignError('checkpoint-untrusted', `a checkpoint to verify against is not signed by \`${verifier.name}\``, {
        hint: 'is it this ledger’s checkpoint, and --key this ledger’s key?',
      });
    }
  }
  const reader = new LedgerReader(file).freeze();
  try {
    const size = reader.size;
    const progress = io.terminal && size > 5000;
    const result = verifyLedger(
      reader,
      verifier,
      trusted,
      (done) => progress && io.err(`\r${Math.floor((done / size) * 100)} % of ${size} entries`),
    );
    if (progress) io.err('\r\u001b[K');
    if (options.output === 'json') io.out(`${JSON.stringify({ ...result, finding: result.finding ?? null }, null, 2)}\n`);
    else if (result.finding === undefined)
      io.out(
        `${paint(io, 'green', 'consistent')}: ${result.size} entries, ${result.checkpoints} checkpoints by ${verifier.name}\nroot ${result.root}\n`,
      );
    else
      io.out(
        `${paint(io, 'red', 'not consistent')}: ${result.finding.message}\n${result.size} entries before it are as they were written\n`,
      );
    return result.finding === undefined ? EXIT.yes : EXIT.no;
  } finally {
    reader.close();
  }
}

/** Reads a public key file of one line. */
export function readVerifier(path: string): Verifier {
  return parseVerifier(readText(path, 'public key'));
}

function readText(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new CountersignError('key-missing', `there is no ${what} at \`${path}\``, {
      cause,
      hint: what === 'public key' ? 'name it with --key; it is `ledger.pub` in the service’s data directory' : 'name an existing file',
    });
  }
}
