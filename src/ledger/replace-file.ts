import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Replaces a private file as a whole, synced: after a power cut it is the old one or the new one. */
export function replaceFile(path: string, content: string | Uint8Array): void {
  writeFileSync(`${path}.new`, content, { mode: 0o600 });
  sync(`${path}.new`, 'r+');
  moveFile(`${path}.new`, path);
}

/** Renames a file within its directory; the new name survives a power cut. */
export function moveFile(from: string, to: string): void {
  renameSync(from, to);
  sync(dirname(to), 'r');
}

function sync(path: string, flags: 'r' | 'r+'): void {
  const descriptor = openSync(path, flags);
  fsyncSync(descriptor);
  closeSync(descriptor);
}
