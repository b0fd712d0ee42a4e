import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  checkExtension,
  checkReceipt,
  exportLedger,
  extension,
  importLedger,
  LEDGER_FILES,
  LedgerReader,
  ledgerFile,
  receipt,
} from '../ledger/index.ts';
import { CountersignError, count } from '../model/index.ts';
import { readText, readVerifiers } from '../open/index.ts';
import { EXIT, type Io, Progress, paint } from '../terminal/index.ts';
import { ledgerDirectory, readIndex } from './ledger.ts';
import type { LedgerExportOptions, LedgerImportOptions, LedgerProveOptions } from './ledger-commands.ts';

/**
 * Implements `countersign ledger prove`: a receipt for an entry, a proof that the ledger extends a checkpoint, or the
 * check of a receipt.
 */
export function ledgerProve(index: string | undefined, options: LedgerProveOptions, io: Io): number {
  if (options.check !== undefined) return check(options.check, options, io);
  const reader = new LedgerReader(ledgerFile(options.data), options.archive).freeze();
  try {
    const newest = reader.latestCheckpoint();
    if (newest === undefined)
      throw new CountersignError('ledger-unusable', 'no checkpoint of this ledger has been signed yet');
    if (options.since !== undefined) return proveExtension(options.since, newest, reader, options, io);
    if (index === undefined)
      throw new CountersignError('usage', 'no entry is given', {
        hint: 'give its index, or --since with an older checkpoint',
      });
    const at = readIndex(index, 0);
    const [entry] = reader.stored(at, at + 1);
    if (entry === undefined)
      throw new CountersignError('usage', `there is no entry ${at}`, { hint: `the ledger has ${reader.size}` });
    const proof = receipt(reader, at, newest);
    mkdirSync(options.out, { recursive: true });
    const files = { entry: join(options.out, `${at}.json`), receipt: join(options.out, `${at}.tlog-proof`) };
    writeFileSync(files.entry, entry.body);
    writeFileSync(files.receipt, proof);
    if (options.output === 'json') io.out(`${JSON.stringify({ index: at, ...files }, null, 2)}\n`);
    else
      io.out(
        `${files.entry}\n${files.receipt}\ncheck it with \`countersign ` +
          `ledger prove --check ${files.receipt} --key ledger.pub\`\n`,
      );
    return EXIT.yes;
  } finally {
    reader.close();
  }
}

function proveExtension(
  path: string,
  newest: string,
  reader: LedgerReader,
  options: LedgerProveOptions,
  io: Io,
): number {
  const older = readText(path, 'checkpoint');
  const keys = readVerifiers(options.key ?? join(ledgerDirectory(options.data), LEDGER_FILES.verifier));
  const proof = attempt(
    () => extension(reader, older, newest),
    `\`${path}\` is not a checkpoint that this ledger extends`,
  );
  const holds = checkExtension(proof, keys);
  if (options.output === 'json') io.out(`${JSON.stringify({ ...proof, holds }, null, 2)}\n`);
  else
    io.out(
      holds
        ? `${paint(io, 'green', 'extends')}: the ledger begins with the ` +
            `tree signed then\n${proof.hashes.map((h) => `${h}\n`).join('')}`
        : `${paint(io, 'red', 'does not extend')} the checkpoint in \`${path}\`\n`,
    );
  return holds ? EXIT.yes : EXIT.no;
}

function check(file: string, options: LedgerProveOptions, io: Io): number {
  if (options.key === undefined)
    throw new CountersignError('usage', 'a receipt must be checked with a key from another source', {
      hint: 'use --key with the ledger’s public key (`ledger.pub`)',
    });
  const entry = options.entry ?? file.replace(/\.tlog-proof$/, '.json');
  const proven = checkReceipt(
    readText(file, 'receipt'),
    Buffer.from(readText(entry, 'entry')),
    readVerifiers(options.key),
  );
  const ok = typeof proven !== 'string';
  if (options.output === 'json')
    io.out(`${JSON.stringify(ok ? { proven: true, ...proven } : { proven: false, reason: proven }, null, 2)}\n`);
  else if (typeof proven === 'string') io.out(`${paint(io, 'red', 'not proven')}: ${proven}\n`);
  else
    io.out(
      `${paint(io, 'green', 'proven')}: it is entry ${proven.index} of the first ${proven.size} of ${proven.origin}\n`,
    );
  return ok ? EXIT.yes : EXIT.no;
}

function attempt<T>(make: () => T, message: string): T {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof RangeError) throw new CountersignError('usage', `${message}: ${cause.message}`, { cause });
    throw cause;
  }
}

/** Implements `countersign ledger export DIR`: writes the whole ledger as files that others can check. */
export function ledgerExport(directory: string, options: LedgerExportOptions, io: Io): number {
  const reader = new LedgerReader(ledgerFile(options.data), options.archive).freeze();
  const progress = new Progress(io, 'entries');
  try {
    const keys = readVerifiers(join(ledgerDirectory(options.data), LEDGER_FILES.verifier));
    const { size } = reader;
    const { entries } = exportLedger(reader, keys, directory, {
      receipts: (options.receipt ?? []).map((r) => readIndex(r, 0)),
      withoutSubjects: !options.names,
      onProgress: (done) => progress.at(done, size),
    });
    progress.end();
    if (options.output === 'json') io.out(`${JSON.stringify({ directory, entries }, null, 2)}\n`);
    else
      io.out(
        `${count(entries, 'entry', 'entries')} in ${directory}\ncheck it ` +
          `with \`node ${join(directory, 'verify.mjs')} --key ledger.pub\`\n`,
      );
    return EXIT.yes;
  } finally {
    progress.end();
    reader.close();
  }
}

/** Implements `countersign ledger import DIR`: creates a data directory from an export, after checking it. */
export async function ledgerImport(from: string, options: LedgerImportOptions, io: Io): Promise<number> {
  if (!existsSync(join(from, 'manifest.json')))
    throw new CountersignError('usage', `\`${from}\` is not an export of a ledger`, {
      hint: 'create one with `countersign ledger export DIR`',
    });
  const { entries, left } = await importLedger(from, readVerifiers(options.key), options.data, options);
  if (options.output === 'json')
    io.out(`${JSON.stringify({ data: options.data, entries, left: left ?? null }, null, 2)}\n`);
  else {
    const hasKey = existsSync(join(options.data, LEDGER_FILES.key));
    io.out(
      `${count(entries, 'entry', 'entries')} in ${options.data}\n` +
        (left !== undefined
          ? `they verify, but ${left.why}: a service would refuse them; now run\n  ${left.line}\n`
          : hasKey
            ? 'they verify; start the service again\n'
            : `to continue this ledger, put its key there as \`${LEDGER_FILES.key}\`\n`),
    );
  }
  return left === undefined ? EXIT.yes : EXIT.no;
}
