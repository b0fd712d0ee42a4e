/** Thrown for bytes that do not have the structure they claim. */
export class SshFormatError extends Error {}

/** Reads the SSH data types of RFC 4251 section 5. Every method throws `SshFormatError` if the bytes end too early. */
export class Wire {
  #at = 0;
  readonly #bytes: Buffer;
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  get at(): number {
    return this.#at;
  }
  get done(): boolean {
    return this.#at === this.#bytes.length;
  }
  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new SshFormatError('it ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
  byte(): number {
    return this.take(1)[0] as number;
  }
  uint32(): number {
    return this.take(4).readUInt32BE();
  }
  uint64(): bigint {
    return this.take(8).readBigUInt64BE();
  }
  string(): Buffer {
    return this.take(this.uint32());
  }
  text(): string {
    return this.string().toString('utf8');
  }
  /** Reads a positive number, left-padded to `width` bytes. */
  mpint(width: number): Buffer {
    const value = unsigned(this.string());
    if (value.length > width) throw new SshFormatError('a number is too long');
    return Buffer.concat([Buffer.alloc(width - value.length), value]);
  }
  /** Reads all strings up to the end. */
  strings(): Buffer[] {
    const all: Buffer[] = [];
    while (!this.done) all.push(this.string());
    return all;
  }
  end(): void {
    if (!this.done) throw new SshFormatError('there are bytes left over');
  }
}

/** Writes a length-prefixed string (RFC 4251 section 5). */
export function field(bytes: Uint8Array | string): Buffer {
  const content = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([length, content]);
}

/** Strips the zero byte that keeps a number positive. */
export function unsigned(bytes: Buffer): Buffer {
  return bytes[0] === 0 ? bytes.subarray(1) : bytes;
}
