import type { Entry, EntryOf, EntryType } from '../model/index.ts';
import type { ReportInput } from './build-report.ts';

export type Indexed<E extends Entry = Entry> = { readonly index: number; readonly entry: E };

/** The entries of a report with the names behind commitments, read once and found by type and index. */
export class ReportSource {
  readonly all: readonly Indexed[];
  readonly first: number;
  readonly from: string;
  readonly to: string;
  readonly #byType = new Map<EntryType, Indexed[]>();
  readonly #names: ReadonlyMap<string, string>;
  readonly #evidence: ReadonlyMap<string, string>;

  constructor(input: ReportInput) {
    const { environments } = input.definition;
    this.#names = new Map(input.subjects.map((s) => [s.commitment, s.text]));
    this.#evidence = input.evidence;
    this.first = input.first;
    [this.from, this.to] = [input.from, input.to];
    this.all = input.entries.map((body, i) => ({ index: input.first + i, entry: JSON.parse(this.#named(body)) as Entry }));
    for (const one of this.all) {
      const { environment } = one.entry as { environment?: string };
      // What is of no environment is of all of them.
      if (environment !== undefined && environment !== '' && environments.length > 0 && !environments.includes(environment)) continue;
      const same = this.#byType.get(one.entry.type);
      if (same === undefined) this.#byType.set(one.entry.type, [one]);
      else same.push(one);
    }
  }

  /** Every entry of a type from the start of the period on, those after its end too. */
  of<T extends EntryType>(type: T): readonly Indexed<EntryOf<T>>[] {
    return (this.#byType.get(type) ?? []) as unknown as readonly Indexed<EntryOf<T>>[];
  }

  /** Those within the period. */
  within<T extends EntryType>(type: T): readonly Indexed<EntryOf<T>>[] {
    return this.of(type).filter(({ entry }) => this.isWithin(entry.time));
  }

  isWithin(time: string): boolean {
    return time >= this.from && time < this.to;
  }

  at(index: number): Entry | undefined {
    return this.all[index - this.first]?.entry;
  }

  /** Throws a TypeError where it is missing. */
  evidence<T>(digest: string): T {
    const bytes = this.#evidence.get(digest);
    if (bytes === undefined) throw new TypeError(`the evidence ${digest.slice(0, 12)} is missing`);
    return JSON.parse(this.#named(bytes)) as T;
  }

  // Names where commitments to them stand; what was erased, or is not handed on, is said to be.
  #named(json: string): string {
    if (!json.includes('subject:')) return json;
    return json.replace(/subject:[0-9a-f]{64}/g, (commitment) => {
      const text = this.#names.get(commitment);
      return JSON.stringify(text ?? `(erased ${commitment.slice(8, 16)})`).slice(1, -1);
    });
  }
}

/** Lists by a key, in the order in which they came. */
export function grouped<T, K>(items: readonly T[], key: (item: T) => K): ReadonlyMap<K, readonly T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const k = key(item);
    const group = groups.get(k);
    if (group === undefined) groups.set(k, [item]);
    else group.push(item);
  }
  return groups;
}

/** Each once, in the order in which they came. */
export function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}

/** Whole seconds between two times in ISO 8601. */
export function seconds(from: string, to: string): number {
  return Math.round((Date.parse(to) - Date.parse(from)) / 1000);
}
