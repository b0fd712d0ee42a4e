import { dirname, join } from 'node:path';
import {
  type Comparison,
  compareWith,
  importLine,
  keptNotes,
  LEDGER_FILES,
  type LedgerCheck,
  LedgerReader,
  ledgerFile,
  openCheckpoint,
  unusableNote,
  verifyLedger,
} from '../ledger/index.ts';
import { CountersignError, count } from '../model/index.ts';
import { readText, readVerifiers } from '../open/index.ts';
import { EXIT, type Io, Progress, paint, plain } from '../terminal/index.ts';
import type { LedgerVerifyOptions } from './ledger-commands.ts';

/**
 * Implements `countersign ledger verify`: checks every entry, tile and checkpoint, and the store itself. Names the
 * first bad entry, and says what of a damaged store still stands.
 */
export function ledgerVerify(options: LedgerVerifyOptions, io: Io): number {
  try {
    return verifyIn(options, io);
  } catch (thrown) {
    // The first page tells where everything else is.
    if (!(thrown instanceof CountersignError) || thrown.code !== 'store-damaged') throw thrown;
    const { message } = thrown;
    if (options.output === 'json') io.out(asJson({ size: 0, checked: 0, damage: [message], finding: { message } }));
    else io.out(`${paint(io, 'red', 'damaged')}: ${message}\n${lostLines(options.data)}`);
    return EXIT.no;
  }
}

function verifyIn(options: LedgerVerifyOptions, io: Io): number {
  const directory = ledgerDirectory(options.data);
  const keys = readVerifiers(options.key ?? join(directory, LEDGER_FILES.verifier));
  const kept = options.checkpoint.length === 0 ? keptNotes(directory) : [];
  const trusted = [...options.checkpoint.map((path) => readText(path, 'checkpoint')), ...kept.map(({ note }) => note)];
  const reader = new LedgerReader(ledgerFile(options.data), options.archive).freeze();
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
    const unread = kept.find(({ note }) => openCheckpoint(note, keys) === undefined);
    if (result.finding?.untrusted === true && unread?.file !== undefined) throw unusableNote(unread.file, unread.note);
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
    else {
      io.out(logLines(result, { from, to, name: keys[0]?.name ?? '' }, io));
      io.out(damageLines(result, reader.isCopy, options.data, io));
      for (const one of compared) io.out(comparisonLine(one, size, io));
    }
    return result.finding === undefined && result.damage.length === 0 && !isForked ? EXIT.yes : EXIT.no;
  } finally {
    progress.end();
    reader.close();
  }
}

type Asked = { readonly from: number; readonly to: number; readonly name: string };

function logLines({ finding, checked, size, ...result }: LedgerCheck, { from, to, name }: Asked, io: Io): string {
  if (finding === undefined) {
    const what =
      checked === size ? count(size, 'entry', 'entries') : `entries ${from} to ${Math.min(to, size) - 1} of ${size}`;
    return (
      `${paint(io, 'green', 'consistent')}: ${what}, ` +
      `${count(result.checkpoints, 'checkpoint')} by ${name}\nroot ${result.root}\n` +
      result.archived.map((part) => `${archivedLine(part)}\n`).join('') +
      result.notes.map((note) => `${paint(io, 'yellow', 'note')}: ${note}\n`).join('')
    );
  }
  const state = finding.unreadable ? 'can be read' : finding.index === 1 ? 'is unchanged' : 'are unchanged';
  const before =
    finding.index === undefined || from > 0 ? '' : `${count(finding.index, 'entry', 'entries')} before it ${state}\n`;
  return `${paint(io, 'red', finding.unreadable ? 'damaged' : 'not consistent')}: ${finding.message}\n${before}`;
}

function archivedLine({ entries, since, until, file, place, isRead }: LedgerCheck['archived'][number]): string {
  const what = `${count(entries, 'entry', 'entries')} from ${since.slice(0, 10)} to ${until.slice(0, 10)}`;
  const where = plain(join(place, file));
  return isRead
    ? `archived: ${what}, in ${where}: every byte was checked`
    : `archived: ${what}, in ${where}, which is not at hand: their leaf hashes are proven, their content was not read`;
}

function damageLines({ damage, finding, checked, size }: LedgerCheck, isCopy: boolean, data: string, io: Io): string {
  const [first, ...others] = damage;
  if (first === undefined && finding?.unreadable !== true) return '';
  const said =
    first === undefined || finding?.unreadable === true
      ? ''
      : `${paint(io, 'red', 'damaged')}: SQLite finds errors in \`${ledgerFile(data)}\`: ${plain(first)}` +
        `${others.length === 0 ? '' : ` (and ${others.length} more)`}\n`;
  if (isCopy) return `${said}it is a copy: start the service, which rebuilds it from the database\n`;
  if (finding !== undefined) return `${said}${lostLines(data)}`;
  if (checked < size) return `${said}run it without --from and --to to see what still stands\n`;
  return (
    `${said}all ${count(size, 'entry', 'entries')}, with their evidence and names, can be read and are what was ` +
    'signed\nto rebuild the store from them, stop the service and run:\n' +
    `  countersign ledger export EXPORT --data ${data}\n  ${importLine(ledgerDirectory(data))}\n`
  );
}

function lostLines(data: string): string {
  return (
    'restore the newest backup of the data directory, or rebuild the store from the newest export:\n' +
    `  ${importLine(ledgerDirectory(data))}\n` +
    'if that has fewer entries, add --behind, and record the loss with `countersign ledger new-epoch`\n'
  );
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
