import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { replaceFile } from './replace-file.ts';

const FILE = 'write-ahead.jsonl';
const ELSEWHERE = 'write-ahead.path';

/**
 * Returns the path of the write-ahead file: in the data directory, or in one on another disk. Records that wait at the
 * place where it was before come along. Throws `ledger-unusable` if that place is gone, or records wait in both.
 */
export function placeWriteAhead(data: string, elsewhere: string | undefined): string {
  const pointer = join(data, ELSEWHERE);
  const before = existsSync(pointer) ? readFileSync(pointer, 'utf8').trim() : data;
  const place = elsewhere === undefined ? data : resolve(elsewhere);
  mkdirSync(place, { recursive: true, mode: 0o700 });
  const file = join(place, FILE);
  if (before !== place) {
    if (!existsSync(before))
      throw new CountersignError('ledger-unusable', `records may wait in \`${before}\`, which is not there`, {
        hint: `mount it; if it is lost, remove \`${pointer}\`, and records that waited there are lost too`,
      });
    bring(join(before, FILE), file);
  }
  if (place === data) rmSync(pointer, { force: true });
  else if (before !== place) replaceFile(pointer, `${place}\n`);
  return file;
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
