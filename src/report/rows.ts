import { canonicalJson } from '../model/index.ts';
import type { ChangeList, ChangeRecord } from './model.ts';
import type { Shelf } from './shelf.ts';

/**
 * Records of changes in the order of the ledger, made from their lines each time they are gone through: at no time are
 * all of them in memory.
 */
export class ChangeRows implements ChangeList {
  readonly length: number;
  readonly #shelf: Shelf;
  /** Ids, in the order of the ledger. */
  readonly ids: readonly string[];
  /** Ids of those that were refused for a reason. */
  readonly refused: readonly string[];
  readonly #exceptions: ReadonlyMap<string, readonly string[]>;

  /**
   * `shelf` has the canonical JSON of each record without its exceptions, which are known only when all of them are
   * there.
   */
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

  /** Canonical JSON of each (RFC 8785). */
  *lines(): Generator<string> {
    for (const [i, line] of this.#numbered())
      yield this.#exceptions.has(this.ids[i] ?? '') ? canonicalJson(this.#read(line, i)) : line;
  }

  /** Those that are named, in the order in which they are named. */
  of(ids: readonly string[]): ChangeRecord[] {
    const wanted = new Set(ids);
    const found = new Map((wanted.size === 0 ? [] : this.select((id) => wanted.has(id))).map((c) => [c.id, c]));
    return ids.flatMap((id) => found.get(id) ?? []);
  }

  hasExceptions(id: string): boolean {
    return this.#exceptions.has(id);
  }

  /** Those that are wanted by id and place. Only they are read. */
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
