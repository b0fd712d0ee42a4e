import { closeSync, fsyncSync, lchownSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { ownerOf } from './data-access.ts';

/** Replaces a private file as a whole, synced: after a power cut it is the old one or the new one. */
export function replaceFile(path: string, content: string | Uint8Array): void {
  writePrivate(`${path}.new`, content);
  sync(`${path}.new`, 'r+');
  moveFile(`${path}.new`, path);
}

/** Writes a private file for the account that owns the directory, also when run by root. */
export function writePrivate(path: string, content: string | Uint8Array): void {
  const owner = process.geteuid?.() === 0 ? ownerOf(dirname(path)) : undefined;
  if (owner !== undefined) rmSync(path, { force: true }); // root follows no link in a directory of someone else
  writeFileSync(path, content, { mode: 0o600, flag: owner === undefined ? 'w' : 'wx' });
  if (owner !== undefined) lchownSync(path, owner.uid, owner.gid);
}

/** Renames a file within its directory; the new name survives a power cut. */
export function moveFile(from: string, to: string): void {
  renameSync(from, to);
  sync(dirname(to));
}

/** Makes the content of a file, or the names in a directory, survive a power cut. */
export function sync(path: string, flags: 'r' | 'r+' = 'r'): void {
  const descriptor = openSync(path, flags);
  fsyncSync(descriptor);
  closeSync(descriptor);
}
