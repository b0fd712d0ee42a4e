import { type Entry, type EntryOf, type EntryType, sha256 } from '../model/index.ts';
import type { ReportInput } from './input.ts';

export type Indexed<E extends Entry = Entry> = { readonly index: number; readonly entry: E };
/** A verdict's entry, and its leaf in the log (SHA-256 in hex). */
export type Judged = Indexed<EntryOf<'change.judged'>> & { readonly leaf: string };

/** The entries of a report with the names behind commitments, read once and found by type and index. */
export class ReportSource {
  readonly all: readonly Indexed[];
  readonly first: number;
  readonly from: string;
  readonly to: string;
  readonly #byType = new Map<EntryType, Indexed[]>();
  readonly #names: ReadonlyMap<string, string>;
  readonly #evidence: ReportInput['evidence'];
  readonly #judged: Judged[] = [];

  constructor(input: ReportInput) {
    const { environments } = input.definition;
    this.#names = new Map(input.subjects.map((s) => [s.commitment, s.text]));
    this.#evidence = input.evidence;
    this.first = input.first;
    [this.from, this.to] = [input.from, input.to];
    const all: Indexed[] = [];
    this.all = all;
    const known = new Map<string, string>();
    for (const body of input.entries) {
      const entry = slim(JSON.parse(this.#named(body)) as Entry, known);
      const index = input.first + all.length;
      const judged =
        entry.type === 'change.judged' && this.isWithin(entry.time) ? { index, entry, leaf: leafOf(body) } : undefined;
      const one: Indexed = judged ?? { index, entry };
      all.push(one);
      const { environment } = one.entry as { environment?: string };
      // An entry without an environment concerns all of them.
      if (
        environment !== undefined &&
        environment !== '' &&
        environments.length > 0 &&
        !environments.includes(environment)
      )
        continue;
      const same = this.#byType.get(one.entry.type);
      if (same === undefined) this.#byType.set(one.entry.type, [one]);
      else same.push(one);
      if (judged !== undefined) this.#judged.push(judged);
    }
  }

  /** Returns every entry of a type from the start of the period on, including those after its end. */
  of<T extends EntryType>(type: T): readonly Indexed<EntryOf<T>>[] {
    return (this.#byType.get(type) ?? []) as unknown as readonly Indexed<EntryOf<T>>[];
  }

  /** Returns the entries of a type within the period. */
  within<T extends EntryType>(type: T): readonly Indexed<EntryOf<T>>[] {
    return this.of(type).filter(({ entry }) => this.isWithin(entry.time));
  }

  /** Every verdict of the period, in order. */
  get judged(): readonly Judged[] {
    return this.#judged;
  }

  isWithin(time: string): boolean {
    return time >= this.from && time < this.to;
  }

  at(index: number): Entry | undefined {
    return this.all[index - this.first]?.entry;
  }

  /** Throws a TypeError if it is missing. */
  evidence<T>(digest: string): T {
    const bytes = this.#evidence.get(digest);
    if (bytes === undefined) throw new TypeError(`the evidence ${digest.slice(0, 12)} is missing`);
    return JSON.parse(this.#named(bytes)) as T;
  }

  // Puts names in place of commitments; erased or withheld ones are marked.
  #named(json: string): string {
    if (!json.includes('subject:')) return json;
    return json.replace(/subject:[0-9a-f]{64}/g, (commitment) => {
      const text = this.#names.get(commitment);
      return JSON.stringify(text ?? `(erased ${commitment.slice(8, 16)})`).slice(1, -1);
    });
  }
}

const REPEATED = ['type', 'environment', 'outcome', 'purpose', 'ref'] as const;

// There may be hundreds of thousands of entries: common values are stored once, and unused fields not at all.
function slim(entry: Entry, known: Map<string, string>): Entry {
  const fields = entry as unknown as Record<string, unknown>;
  for (const name of REPEATED) {
    const text = fields[name];
    if (typeof text !== 'string') continue;
    const same = known.get(text);
    if (same === undefined) known.set(text, text);
    else fields[name] = same;
  }
  if (entry.type === 'apply.intent' || entry.type === 'apply.result') fields['evidence'] = undefined;
  if (entry.type === 'apply.intent') fields['previous'] = undefined;
  if (entry.type === 'apply.result' && entry.outcome === 'applied') fields['revision'] = undefined;
  return entry;
}

function leafOf(body: string): string {
  return sha256(`\0${body}`); // RFC 6962, section 2.1
}

/** Groups items by a key, in their original order. */
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

/** Returns each item once, in the original order. */
export function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}

/** Returns the whole seconds between two times in ISO 8601. */
export function seconds(from: string, to: string): number {
  return Math.round((Date.parse(to) - Date.parse(from)) / 1000);
}
