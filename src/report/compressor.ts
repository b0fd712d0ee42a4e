import { once } from 'node:events';
import { createDeflate, createDeflateRaw, type Deflate, type DeflateRaw } from 'node:zlib';

/** Compresses data in chunks, off this thread, and passes on the output as it arrives. */
export class Compressor {
  readonly #deflate: Deflate | DeflateRaw;
  readonly #ended: Promise<unknown>;

  /** `zlib`: RFC 1950, as in a PDF; `raw`: RFC 1951, as in a zip. `level`: 1 to 9. */
  constructor(form: 'zlib' | 'raw', level: number, take: (bytes: Buffer<ArrayBuffer>) => void) {
    this.#deflate = form === 'zlib' ? createDeflate({ level }) : createDeflateRaw({ level });
    this.#deflate.on('data', take);
    this.#ended = once(this.#deflate, 'end');
  }

  write(bytes: Uint8Array): void {
    this.#deflate.write(bytes);
  }

  /** Resolves when it can accept more. */
  async settle(): Promise<void> {
    if (this.#deflate.writableNeedDrain) await once(this.#deflate, 'drain');
  }

  async end(): Promise<void> {
    this.#deflate.end();
    await this.#ended;
  }
}
