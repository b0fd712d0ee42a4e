import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';

/** Lines that are kept in order, to be read from the first one on as often as one likes. */
export type Shelf = {
  readonly add: (line: string) => void;
  readonly lines: () => Iterable<string>;
};

/** Keeps them in memory: some kilobytes for each change. */
export function memoryShelf(): Shelf {
  const kept: string[] = [];
  return { add: (line) => void kept.push(line), lines: () => kept };
}

const PIECE = 1024 * 1024;

/**
 * Keeps them in a file of its own, so that a report of any size is never in memory whole; `close` takes the file away.
 */
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
    const end = whole.lastIndexOf(0x0a) + 1; // a character of several bytes never holds one that ends a line
    if (end > 0) yield* whole.toString('utf8', 0, end - 1).split('\n');
    rest = whole.subarray(end);
  }
}
