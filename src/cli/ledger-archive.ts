import { resolve } from 'node:path';
import { type ArchiveMade, moveToArchive, prepareArchive, sharedInstead } from '../ledger/index.ts';
import { count } from '../model/index.ts';
import { byServiceOrAlone, ledgerKey } from '../open/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import type { LedgerArchiveOptions } from './ledger-commands.ts';
import { localUser } from './operate.ts';
import { instant } from './report-definition.ts';

/**
 * Implements `countersign ledger archive`: writes old content to a file elsewhere, and then moves it out of the store.
 * A running service does the second part itself, while requests wait.
 */
export async function ledgerArchive(options: LedgerArchiveOptions, io: Io): Promise<number> {
  const { data, to: place, output } = options;
  if (options.ledger !== undefined) throw sharedInstead();
  const before = instant(options.before, '');
  const made: ArchiveMade[] = [];
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const request = await prepareArchive(data, { before, place, user: localUser() }, new Date());
    if (request === undefined) break;
    if (output === 'text' && request.file === undefined) io.err('finishing what an earlier run began\n');
    const { result } = await byServiceOrAlone<ArchiveMade>(data, 'archive', request, () =>
      moveToArchive(resolve(data), request, { key: ledgerKey(options) }),
    );
    made.push(result);
    if (result.moved !== undefined) break;
  }
  const last = made.at(-1);
  if (output === 'json') io.out(`${JSON.stringify(last ?? { moved: null }, null, 2)}\n`);
  else if (last?.moved === undefined) io.out(`${last === undefined ? '' : 'finished; '}nothing more to archive\n`);
  else io.out(linesOf(last.moved, last.size, resolve(place)));
  return EXIT.yes;
}

// An interrupted run is finished first, and then what became old since.
const MOST_ROUNDS = 3;

function linesOf(moved: NonNullable<ArchiveMade['moved']>, size: ArchiveMade['size'], place: string): string {
  const { entries, pieces, first, last, file, sha256, bytes, entry } = moved;
  return (
    `${count(entries, 'entry', 'entries')} from ${first} to ${last}, with ${count(pieces, 'piece')} of evidence, in\n` +
    `  ${place}/${file} (${mib(bytes)})\n  SHA-256 ${sha256}\n` +
    `recorded in entry ${entry}; the store has ${mib(size.after)} instead of ${mib(size.before)}\n` +
    'keep a copy of the file: `countersign ledger verify` names it if it is changed or missing\n'
  );
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
