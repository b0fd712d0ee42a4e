import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';

/** Lines stored in order, which can be read repeatedly from the start. */
export type Shelf = {
  readonly add: (line: string) => void;
  readonly lines: () => Iterable<string>;
};

/** Returns a shelf in memory: some kilobytes per change. */
export function memoryShelf(): Shelf {
  const kept: string[] = [];
  return { add: (line) => void kept.push(line), lines: () => kept };
}

const PIECE = 1024 * 1024;

/** Returns a shelf in a file, so that a report of any size is never entirely in memory; `close` deletes the file. */
export function fileShelf(file: string): Shelf & { readonly close: () => void } {
  const handle = openSync(file, 'w+', 0o600);
  let pending = '';
  let size = 0;
  const flush = () => {
    const bytes = Buffer.from(pending);
    for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at, bytes.length - at, size + at);
    size += bytes.length;
    pending = '';
  };
  return {
    add: (line) => {
      pending += `${line}\n`;
      if (pending.length >= PIECE) flush();
    },
    lines: () => {
      flush();
      return linesFrom(handle, size);
    },
    close: () => {
      closeSync(handle);
      rmSync(file, { force: true });
    },
  };
}

function* linesFrom(handle: number, size: number): Generator<string> {
  const piece = Buffer.alloc(PIECE);
  let rest = Buffer.alloc(0);
  for (let at = 0; at < size; ) {
    const read = readSync(handle, piece, 0, Math.min(PIECE, size - at), at);
    if (read === 0) throw new Error('a file that was put aside is shorter than it was');
    at += read;
    const whole = Buffer.concat([rest, piece.subarray(0, read)]);
    const end = whole.lastIndexOf(0x0a) + 1; // a multi-byte character never contains a line end
    if (end > 0) yield* whole.toString('utf8', 0, end - 1).split('\n');
    rest = whole.subarray(end);
  }
}
