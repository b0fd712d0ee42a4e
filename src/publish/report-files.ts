import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ReportFile } from '../report/index.ts';

/**
 * Writes the files of a report into a directory. They get their final names when all are complete; existing files stay
 * until then.
 */
export class ReportFiles {
  readonly #out: string;
  readonly #open = new Map<string, number>();
  readonly #done: string[] = [];
  #manifest = '';

  constructor(out: string) {
    this.#out = out;
    mkdirSync(out, { recursive: true });
  }

  create(name: string): ReportFile {
    const handle = openSync(this.#place(name), 'w');
    this.#open.set(name, handle);
    const hash = createHash('sha256');
    const write = (bytes: Uint8Array) => {
      hash.update(bytes);
      for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
    };
    const end = () => {
      this.#close(name);
      this.#done.push(name);
      this.#manifest = hash.digest('hex');
    };
    return { write, end };
  }

  /** Writes the manifest, which comes last, and returns its SHA-256. */
  finish(): string {
    for (const name of this.#done) renameSync(this.#place(name), join(this.#out, name));
    return this.#manifest;
  }

  giveUp(): void {
    for (const name of [...this.#open.keys()]) {
      this.#close(name);
      this.#done.push(name);
    }
    for (const name of this.#done) rmSync(this.#place(name), { force: true });
  }

  #close(name: string): void {
    closeSync(this.#open.get(name) ?? -1);
    this.#open.delete(name);
  }

  #place(name: string): string {
    return join(this.#out, `${name}.new`);
  }
}
