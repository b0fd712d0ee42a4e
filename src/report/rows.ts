import { canonicalJson } from '../model/index.ts';
import type { ChangeList, ChangeRecord } from './model.ts';
import type { Shelf } from './shelf.ts';

/** Records of changes in ledger order, rebuilt from their lines on each iteration: they are never all in memory. */
export class ChangeRows implements ChangeList {
  readonly length: number;
  readonly #shelf: Shelf;
  /** Ids, in ledger order. */
  readonly ids: readonly string[];
  /** Ids of changes that were refused for a reason. */
  readonly refused: readonly string[];
  readonly #exceptions: ReadonlyMap<string, readonly string[]>;

  /** `shelf` has the canonical JSON of each record without its exceptions, which are only known at the end. */
  constructor(
    shelf: Shelf,
    ids: readonly string[],
    refused: readonly string[],
    exceptions: ReadonlyMap<string, readonly string[]>,
  ) {
    this.refused = refused;
    this.length = ids.length;
    this.#shelf = shelf;
    this.ids = ids;
    this.#exceptions = exceptions;
  }

  *[Symbol.iterator](): Generator<ChangeRecord> {
    for (const [i, line] of this.#numbered()) yield this.#read(line, i);
  }

  /** Yields the canonical JSON of each record (RFC 8785). */
  *lines(): Generator<string> {
    for (const [i, line] of this.#numbered())
      yield this.#exceptions.has(this.ids[i] ?? '') ? canonicalJson(this.#read(line, i)) : line;
  }

  /** Returns the records with these ids, in the same order. */
  of(ids: readonly string[]): ChangeRecord[] {
    const wanted = new Set(ids);
    const found = new Map((wanted.size === 0 ? [] : this.select((id) => wanted.has(id))).map((c) => [c.id, c]));
    return ids.flatMap((id) => found.get(id) ?? []);
  }

  hasExceptions(id: string): boolean {
    return this.#exceptions.has(id);
  }

  /** Returns the records selected by id and position. Only they are read. */
  select(isWanted: (id: string, i: number) => boolean): ChangeRecord[] {
    const found: ChangeRecord[] = [];
    for (const [i, line] of this.#numbered()) if (isWanted(this.ids[i] ?? '', i)) found.push(this.#read(line, i));
    return found;
  }

  *#numbered(): Generator<readonly [number, string]> {
    let i = 0;
    for (const line of this.#shelf.lines()) yield [i++, line];
  }

  #read(line: string, i: number): ChangeRecord {
    const record = JSON.parse(line) as ChangeRecord;
    const exceptions = this.#exceptions.get(this.ids[i] ?? '');
    return exceptions === undefined ? record : { ...record, exceptions };
  }
}
