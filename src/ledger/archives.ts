import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { CountersignError, messageOf } from '../model/index.ts';
import type { Segment, Stub } from './archived-entries.ts';
import { leafHash } from './merkle.ts';

type OpenArchive = { readonly db: DatabaseSync; readonly body: StatementSync; readonly evidence: StatementSync };

/** Columns that the store keeps of an archived entry, besides its stub. */
export type ArchivedRow = { readonly leaf: Uint8Array; readonly type: string };

/** An archived entry whose file is not at hand. */
export type Unread = { readonly index: number; readonly type: string; readonly time: string; readonly place: string };

/** Files with archived entries. Each is looked for in the given directory, then where the ledger says it was put. */
export class Archives {
  readonly #segments: readonly Segment[];
  readonly #directory: string | undefined;
  readonly #rowOf: (index: number) => ArchivedRow;
  readonly #opened = new Map<number, OpenArchive>();

  constructor(segments: readonly Segment[], directory: string | undefined, rowOf: (index: number) => ArchivedRow) {
    this.#segments = segments;
    this.#directory = directory;
    this.#rowOf = rowOf;
  }

  segment(index: number): Segment | undefined {
    return this.#segments.find((s) => s.index === index);
  }

  /** Returns the path of a segment's file if it is at hand. */
  fileOf({ entry }: Segment): string | undefined {
    const places = [...(this.#directory === undefined ? [] : [this.#directory]), entry.place];
    return places.map((place) => join(place, entry.file)).find((file) => existsSync(file));
  }

  /** Tests whether the file with the content of an archived entry can be found. */
  hasAtHand({ segment }: Stub): boolean {
    if (this.#opened.has(segment)) return true;
    const said = this.segment(segment);
    return said !== undefined && this.fileOf(said) !== undefined;
  }

  unread(index: number, { segment, time }: Stub): Unread {
    const { place = '', file = '' } = this.segment(segment)?.entry ?? {};
    return { index, type: this.#rowOf(index).type, time, place: join(place, file) };
  }

  /** Returns the bytes of an archived entry. Throws `entry-archived` if its file is not at hand. */
  content(index: number, stub: Stub): string {
    const { leaf, type } = this.#rowOf(index);
    const said = this.segment(stub.segment)?.entry;
    if (!this.hasAtHand(stub)) {
      const where = said === undefined ? '' : ` in \`${said.file}\`, which is not in \`${said.place}\``;
      throw new CountersignError('entry-archived', `entry ${index} (${type} of ${stub.time}) is archived${where}`, {
        hint: 'bring the file back to that directory, or give the directory it is in with --archive',
      });
    }
    const body = this.body(stub.segment, index);
    // INVARIANT: content from an archive is used only if it hashes to the leaf in the store.
    if (body !== undefined && leafHash(body).equals(leaf)) return body;
    const problem = body === undefined ? 'missing from' : 'altered in';
    throw new CountersignError('ledger-inconsistent', `entry ${index} is ${problem} the archive \`${said?.file}\``, {
      recover: 'halt',
      hint: 'put an unchanged copy of the archive in its place',
    });
  }

  /** Returns the bytes of an archived entry as they are in the file; undefined if that is not at hand, or lacks it. */
  body(segment: number, index: number): string | undefined {
    return this.#read(segment, (archive) => archive.body.get(index)?.['body']) as string | undefined;
  }

  /** Returns archived evidence, from any file at hand. */
  evidence(digest: string): string | undefined {
    for (const { index } of this.#segments) {
      const bytes = this.#read(index, (archive) => archive.evidence.get(digest)?.['bytes']);
      if (bytes !== undefined) return bytes as string;
    }
    return undefined;
  }

  /** Returns the problem with a file at hand, or with one that is not in the given directory. Reads it whole. */
  problem(segment: Segment): string | undefined {
    const { index, entry } = segment;
    const file = this.fileOf(segment);
    if (file !== undefined) return fileProblem(file, entry, index);
    if (this.#directory === undefined) return undefined;
    const places = `neither in \`${this.#directory}\` nor in \`${entry.place}\``;
    return `the archive \`${entry.file}\` of entry ${index} is ${places}`;
  }

  close(): void {
    for (const { db } of this.#opened.values()) db.close();
    this.#opened.clear();
  }

  #read<T>(index: number, read: (archive: OpenArchive) => T): T | undefined {
    const opened = this.#opened.get(index);
    const segment = opened === undefined ? this.segment(index) : undefined;
    const file = segment === undefined ? undefined : this.fileOf(segment);
    try {
      const archive = opened ?? (file === undefined ? undefined : openArchive(file));
      if (archive === undefined) return undefined;
      this.#opened.set(index, archive);
      return read(archive);
    } catch (cause) {
      throw new CountersignError(
        'ledger-unusable',
        `cannot read the archive \`${this.segment(index)?.entry.file}\`: ${messageOf(cause)}`,
        {
          cause,
          hint: 'put an unchanged copy of it there; `countersign ledger verify` compares it with the ledger',
        },
      );
    }
  }
}

/** Returns the address of an archive for SQLite: never written, and without locks, which some storage lacks. */
export function archiveAddress(file: string): string {
  return `${pathToFileURL(file).href}?immutable=1`;
}

function openArchive(file: string): OpenArchive {
  const db = new DatabaseSync(new URL(archiveAddress(file)), { readOnly: true });
  try {
    return {
      db,
      body: db.prepare('SELECT body FROM entry WHERE seq = ?'),
      evidence: db.prepare('SELECT bytes FROM evidence WHERE sha256 = ?'),
    };
  } catch (thrown) {
    db.close();
    throw thrown;
  }
}

/** Returns the SHA-256 and the size of a file. */
export function measure(file: string): { readonly sha256: string; readonly bytes: number } {
  const hash = createHash('sha256');
  const descriptor = openSync(file, 'r');
  try {
    const chunk = Buffer.alloc(1024 * 1024);
    for (let bytes = 0; ; ) {
      const read = readSync(descriptor, chunk);
      if (read === 0) return { sha256: hash.digest('hex'), bytes };
      hash.update(chunk.subarray(0, read));
      bytes += read;
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Returns the difference between an archive and what the ledger says of it, or undefined. */
export function fileProblem(file: string, said: Segment['entry'], index: number): string | undefined {
  const { size } = statSync(file);
  if (size !== said.bytes) return `the archive \`${file}\` has ${size} bytes, not the ${said.bytes} of entry ${index}`;
  if (measure(file).sha256 !== said.sha256)
    return `the archive \`${file}\` was changed: it is not that of entry ${index}`;
  return undefined;
}
