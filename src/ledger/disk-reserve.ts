import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';

const RESERVE_BYTES = 4 * 1024 * 1024; // some thousand records
const SPARE = 2; // the reserve must not be what fills the disk
const PIECE_BYTES = 64 * 1024; // as large as one entry may be
const NOTE_BYTES = 4096; // at the start of the file, never given back
const NOTE = 'countersign: ';

/**
 * A file that holds space on a disk for records which must be written when the disk is full. It gives the space back
 * piece by piece, right before it is used, so that others who wait for space do not take all of it. Its first bytes
 * hold a note, which is written in place and needs no space.
 */
export class DiskReserve {
  readonly #file: string;
  readonly #bytes: number;

  constructor(file: string, bytes = RESERVE_BYTES) {
    this.#file = file;
    this.#bytes = bytes;
  }

  /** Takes the space, as far as the disk has it. Returns whether the reserve is complete. Never throws. */
  fill(): boolean {
    let size = this.#size();
    if (size >= this.#bytes) return true;
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#file));
      if (bavail * bsize < SPARE * (this.#bytes - size)) return false;
      const descriptor = openSync(this.#file, existsSync(this.#file) ? 'r+' : 'w+', 0o600);
      try {
        // Not zeros, which a file system might not store.
        for (; size < this.#bytes; size += PIECE_BYTES) writeAll(descriptor, randomBytes(PIECE_BYTES), size);
        fsyncSync(descriptor);
      } finally {
        closeSync(descriptor);
      }
      return true;
    } catch {
      return false;
    }
  }

  /** Gives a piece back. Returns false if no more than a part of the reserve (0 to 1) is left. */
  release(keep = 0): boolean {
    const size = this.#size();
    if (size <= Math.max(NOTE_BYTES, keep * this.#bytes)) return false;
    const descriptor = openSync(this.#file, 'r+');
    try {
      ftruncateSync(descriptor, Math.max(NOTE_BYTES, size - PIECE_BYTES));
      fsyncSync(descriptor);
      return true;
    } catch {
      return false;
    } finally {
      closeSync(descriptor);
    }
  }

  /** Keeps a text of up to 4,000 bytes, also when the disk is full. Does nothing if there was no space at the start. */
  note(text: string): void {
    if (this.#size() < NOTE_BYTES) return;
    const descriptor = openSync(this.#file, 'r+');
    try {
      const bytes = Buffer.from(`${NOTE}${text}\n`);
      writeAll(descriptor, Buffer.concat([bytes, Buffer.alloc(Math.max(0, NOTE_BYTES - bytes.length), ' ')]), 0);
      fsyncSync(descriptor);
    } catch {
      // the count is in memory
    } finally {
      closeSync(descriptor);
    }
  }

  /** Returns the text that was kept; empty if there is none. */
  noted(): string {
    if (this.#size() < NOTE_BYTES) return '';
    const descriptor = openSync(this.#file, 'r');
    try {
      const bytes = Buffer.alloc(NOTE_BYTES);
      readSync(descriptor, bytes, 0, NOTE_BYTES, 0);
      const line = bytes.toString('utf8').split('\n')[0] ?? '';
      return line.startsWith(NOTE) ? line.slice(NOTE.length) : '';
    } finally {
      closeSync(descriptor);
    }
  }

  #size(): number {
    return statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0;
  }
}

/** Writes all bytes at a position. On a disk that is nearly full, one call may write only some of them. */
export function writeAll(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length; )
    written += writeSync(descriptor, bytes, written, bytes.length - written, position + written);
}

const SHORT_BYTES = 256 * 1024; // a batch of the ledger may need as much

/** Tests whether the disk of a directory has no room for further work. One that cannot be asked is not short. */
export function isDiskShort(directory: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize < SHORT_BYTES;
  } catch {
    return false;
  }
}
