import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { replaceFile } from './replace-file.ts';

const FILE = 'write-ahead.jsonl';
const ELSEWHERE = 'write-ahead.path';

// Says in a place on another disk whose it is: the mount point of a disk that is not there is an empty directory.
const MARK = 'write-ahead.of';

/**
 * Returns the path of the write-ahead file: in the data directory, or in one on another disk. Records that wait at the
 * place where it was before come along. Throws `ledger-unusable` if that place is gone or another one, if records wait
 * in both, or if the place belongs to another data directory.
 */
export function placeWriteAhead(data: string, elsewhere: string | undefined): string {
  const pointer = join(data, ELSEWHERE);
  const before = existsSync(pointer) ? readFileSync(pointer, 'utf8').trim() : data;
  const place = elsewhere === undefined ? data : resolve(elsewhere);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const own = ownMark(data);
  if (before !== data && markIn(before) !== own)
    throw new CountersignError('ledger-unusable', `records may wait in \`${before}\`, which is not there`, {
      hint: `mount that disk; if it is lost, remove \`${pointer}\`, and records that waited there are lost too`,
    });
  mkdirSync(place, { recursive: true, mode: 0o700 });
  const file = join(place, FILE);
  if (before === place) return file;
  if (place !== data) claim(place, own);
  bring(join(before, FILE), file);
  if (place === data) rmSync(pointer, { force: true });
  else replaceFile(pointer, `${place}\n`);
  if (before !== data) rmSync(join(before, MARK), { force: true });
  return file;
}

// A data directory has the same mark wherever its file lies.
function ownMark(data: string): string {
  const known = markIn(data);
  if (known !== undefined) return known;
  const mark = randomBytes(16).toString('hex');
  replaceFile(join(data, MARK), `${mark}\n`);
  return mark;
}

function markIn(place: string): string | undefined {
  const file = join(place, MARK);
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

function claim(place: string, own: string): void {
  const known = markIn(place);
  if (known === own) return;
  if (known !== undefined)
    throw new CountersignError('ledger-unusable', `\`${place}\` belongs to another data directory`, {
      hint:
        'give each replica its own --write-ahead; if that data directory is gone, keep a copy of what is there, ' +
        `and remove \`${join(place, MARK)}\``,
    });
  replaceFile(join(place, MARK), `${own}\n`);
}

function bring(from: string, to: string): void {
  if (sizeOf(from) === 0) return;
  const text = readFileSync(from);
  // A process that ended after the first step left the same records in both.
  if (sizeOf(to) > 0 && !readFileSync(to).equals(text))
    throw new CountersignError('ledger-unusable', `records wait in \`${from}\` and in \`${to}\``, {
      hint: 'start the service once with its previous --write-ahead, so that they go onto the ledger, and then again',
    });
  replaceFile(to, text);
  writeFileSync(from, '');
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
