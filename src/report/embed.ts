import { createHash } from 'node:crypto';
import { Compressor } from './compressor.ts';

/** A file embedded in a PDF, compressed, in chunks. `size` is its uncompressed size; `md5` and `sha256` are in hex. */
export type Embedded = {
  readonly deflated: Buffer[];
  readonly size: number;
  readonly md5: string;
  readonly sha256: string;
};

const LEVEL = 6;

/** Compresses data in chunks, so that only the result is in memory. */
export class Embedding {
  readonly #chunks: Buffer[] = [];
  readonly #compressor = new Compressor('zlib', LEVEL, (chunk) => void this.#chunks.push(chunk));
  readonly #md5 = createHash('md5');
  readonly #sha256 = createHash('sha256');
  #size = 0;

  write(bytes: Uint8Array): void {
    this.#size += bytes.length;
    this.#md5.update(bytes);
    this.#sha256.update(bytes);
    this.#compressor.write(bytes);
  }

  /** Resolves when it can accept more. */
  settle(): Promise<void> {
    return this.#compressor.settle();
  }

  async end(): Promise<Embedded> {
    await this.#compressor.end();
    const [md5, sha256] = [this.#md5.digest('hex'), this.#sha256.digest('hex')];
    return { deflated: this.#chunks, size: this.#size, md5, sha256 };
  }
}

type Ref = { write(bytes: Uint8Array): void; end(): void };
/** The part of a PDF document used here. */
export type Document = {
  ref(data: object): Ref;
  addNamedEmbeddedFile(name: string, spec: Ref): void;
  readonly _root: { readonly data: Record<string, unknown> };
};

/**
 * Moves such a file into a PDF (ISO 32000-1, section 7.11.4; ISO 19005-3, section 6.8) in its compressed form. It is
 * then no longer available here.
 */
export function attach(
  doc: Document,
  file: Embedded,
  about: { readonly name: string; readonly type: string; readonly description: string; readonly date: Date },
): void {
  const text = (value: string): object => Object(value); // pdfkit writes String objects as text, and strings as names
  const body = doc.ref({
    Type: 'EmbeddedFile',
    Subtype: about.type.replace('/', '#2F'),
    Filter: 'FlateDecode',
    Params: { CreationDate: about.date, ModDate: about.date, CheckSum: text(file.md5), Size: file.size },
  });
  for (const piece of file.deflated.splice(0)) body.write(piece);
  body.end();
  const spec = doc.ref({
    Type: 'Filespec',
    AFRelationship: 'Data',
    F: text(about.name),
    UF: text(about.name),
    EF: { F: body },
    Desc: text(about.description),
  });
  spec.end();
  doc.addNamedEmbeddedFile(about.name, spec);
  const { data } = doc._root;
  data['AF'] = [...((data['AF'] as readonly Ref[] | undefined) ?? []), spec];
}
