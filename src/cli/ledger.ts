import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Comparison, compareWith, LEDGER_FILES, LedgerReader, ledgerFile, verifyLedger } from '../ledger/index.ts';
import { CountersignError, count } from '../model/index.ts';
import { readText, readVerifiers } from '../open/index.ts';
import { EXIT, type Io, Progress, paint } from '../terminal/index.ts';
import type { LedgerVerifyOptions } from './ledger-commands.ts';

/** Implements `countersign ledger verify`: checks every entry, tile and checkpoint, and names the first bad entry. */
export function ledgerVerify(options: LedgerVerifyOptions, io: Io): number {
  const directory = ledgerDirectory(options.data);
  const beside = join(directory, LEDGER_FILES.anchor);
  const keys = readVerifiers(options.key ?? join(directory, LEDGER_FILES.verifier));
  const trusted = options.checkpoint.map((path) => readText(path, 'checkpoint'));
  if (trusted.length === 0 && existsSync(beside)) trusted.push(readText(beside, 'checkpoint'));
  const reader = new LedgerReader(ledgerFile(options.data)).freeze();
  const progress = new Progress(io, 'entries');
  try {
    const { size } = reader;
    const from = readIndex(options.from, 0);
    const to = readIndex(options.to, size);
    if (from >= to && size > 0)
      throw new CountersignError('usage', `there are no entries from ${from} to before ${to}`);
    const result = verifyLedger(reader, keys, {
      trusted,
      from,
      to,
      onProgress: (done) => progress.at(done, to - from),
    });
    progress.end();
    if (result.finding?.untrusted === true)
      throw new CountersignError('checkpoint-untrusted', result.finding.message, {
        hint: 'check that the checkpoint is of this ledger, and that --key is this ledger’s key',
      });
    const compared = options.against.map((place) => ({
      place,
      ...compareWith(reader, keys, place.replace(/^file:/, '')),
    }));
    const isForked = compared.some((c) => c.kind === 'fork' || c.kind === 'unknown');
    if (options.output === 'json')
      io.out(asJson({ ...result, finding: result.finding ?? null, ...(compared.length === 0 ? {} : { compared }) }));
    else if (result.finding === undefined) {
      const checked =
        result.checked === result.size
          ? count(result.size, 'entry', 'entries')
          : `entries ${from} to ${Math.min(to, size) - 1} of ${size}`;
      io.out(
        `${paint(io, 'green', 'consistent')}: ${checked}, ` +
          `${count(result.checkpoints, 'checkpoint')} by ${keys[0]?.name}\nroot ${result.root}\n`,
      );
      for (const note of result.notes) io.out(`${paint(io, 'yellow', 'note')}: ${note}\n`);
    } else {
      io.out(`${paint(io, 'red', 'not consistent')}: ${result.finding.message}\n`);
      if (result.finding.index !== undefined && from === 0)
        io.out(`${count(result.finding.index, 'entry', 'entries')} before it are unchanged\n`);
    }
    if (options.output !== 'json') for (const one of compared) io.out(comparisonLine(one, size, io));
    return result.finding === undefined && !isForked ? EXIT.yes : EXIT.no;
  } finally {
    progress.end();
    reader.close();
  }
}

function comparisonLine(
  { kind, size, at, instance, place }: Comparison & { readonly place: string },
  mine: number,
  io: Io,
): string {
  const by = instance === undefined ? '' : `, signed by instance ${instance.id} since ${instance.since}`;
  const where = paint(io, 'dim', `  ${place}`);
  switch (kind) {
    case 'same':
      return `the other copy is identical: ${count(size, 'entry', 'entries')}${where}\n`;
    case 'goes-on':
      return `the other copy continues this one: ${count(size, 'entry', 'entries')}, ${size - mine} more${where}\n`;
    case 'behind':
      return (
        'this copy continues the other one: ' +
        `${count(size, 'entry', 'entries')} there, ${mine - size} more here${where}\n`
      );
    case 'unknown':
      return (
        `${paint(io, 'yellow', 'cannot be determined')}: the checkpoint covers ` +
        `${count(size, 'entry', 'entries')}, but ${mine} are here${by}; compare with that copy itself${where}\n`
      );
    case 'fork': {
      const parting = at === undefined ? `before entry ${size}` : `at entry ${at}`;
      return (
        `${paint(io, 'red', 'fork')}: the copies diverge ${parting}; ` +
        `this one has ${count(mine, 'entry', 'entries')}, the other ${size}${by}${where}\n`
      );
    }
  }
}

/** Returns the directory of a ledger, given the directory or the store in it. */
export function ledgerDirectory(data: string): string {
  return data.endsWith('.db') ? dirname(data) : data;
}

/** Parses the index of an entry. */
export function readIndex(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^\d{1,15}$/.test(text))
    throw new CountersignError('usage', `\`${text}\` is not the index of an entry`, { hint: 'entries count from 0' });
  return Number(text);
}

function asJson(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
