import type { Entry, EntryOf } from '../model/index.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { parseVerifier, type Verifier, verifierText } from './note.ts';

type Epoch = { readonly origin: string; readonly first: number; readonly previous: string | undefined };

// Entries that change the ledger's name or keys. The search runs on bytes, because most entries do not match.
const MARK = /"type":"(?:key|epoch|log|replica)\./;

/**
 * Names and keys under which a ledger was signed, according to its own entries. Names change with epochs; keys are
 * rotated and retired. Fed with every entry, in order.
 */
export class LogHistory {
  readonly #epochs: Epoch[] = [];
  // By the bytes of the key: an epoch gives the same key another name.
  readonly #retired = new Map<string, number>();
  readonly #rotations: EntryOf<'key.rotated'>[] = [];
  readonly #enrolled = new Map<string, string>();
  #last = -1;

  /** Tests whether entries of a type matter here. */
  static concerns(type: string): boolean {
    return /^(?:key|epoch|log|replica)\./.test(type);
  }

  add(index: number, body: string): void {
    if (index <= this.#last || !MARK.test(body)) return;
    this.#last = index;
    const entry = JSON.parse(body) as Entry;
    if (entry.type === 'log.opened') this.#epochs.push({ origin: entry.origin, first: index, previous: undefined });
    if (entry.type === 'epoch.opened')
      this.#epochs.push({ origin: entry.origin, first: index, previous: entry.previous });
    if (entry.type === 'key.retired') this.#retired.set(bytesOf(entry.key), index);
    if (entry.type === 'key.rotated') this.#rotations.push(entry);
    if (entry.type === 'replica.enrolled') this.#enrolled.set(entry.replica, entry.key);
  }

  /** Returns a history that goes on by itself: entries that turn out to be unsigned are not in the original. */
  copy(): LogHistory {
    const copy = new LogHistory();
    copy.#epochs.push(...this.#epochs);
    copy.#rotations.push(...this.#rotations);
    for (const [key, index] of this.#retired) copy.#retired.set(key, index);
    for (const [replica, key] of this.#enrolled) copy.#enrolled.set(replica, key);
    copy.#last = this.#last;
    return copy;
  }

  /** Returns the public key, in base64, of a replica that may hand over entries. */
  enrolled(replica: string): string | undefined {
    return this.#enrolled.get(replica);
  }

  get epoch(): number {
    return Math.max(1, this.#epochs.length);
  }

  get origin(): string | undefined {
    return this.#epochs.at(-1)?.origin;
  }

  /** All names, the first one first. */
  get origins(): readonly string[] {
    return this.#epochs.map(({ origin }) => origin);
  }

  /** Name of the first epoch, from which later names are derived. */
  get firstOrigin(): string | undefined {
    return this.#epochs[0]?.origin;
  }

  /** Index of the first entry of the epoch. */
  get since(): number {
    return this.#epochs.at(-1)?.first ?? 0;
  }

  /** Number of an epoch's name, from 0; -1 if the ledger never had it. */
  numberOf(origin: string): number {
    return this.#epochs.findIndex((e) => e.origin === origin);
  }

  /** Returns the size at which the tree of a name ends in a ledger of `size` entries; undefined for a foreign name. */
  endOf(origin: string, size: number): number | undefined {
    const own = this.numberOf(origin);
    return own < 0 ? undefined : (this.#epochs[own + 1]?.first ?? size);
  }

  isRetired(key: Verifier): boolean {
    return this.#retired.has(bytesOf(verifierText(key)));
  }

  /** Keys that may still sign: rotated away from, but not retired. */
  get overlapping(): readonly string[] {
    return this.#rotations.map((r) => r.before).filter((key) => !this.#retired.has(bytesOf(key)));
  }

  /** Tests whether the ledger itself says that this key follows one that signed it before. */
  isRotatedTo(key: Verifier): boolean {
    return this.#rotations.some((r) => bytesOf(r.after) === bytesOf(verifierText(key)));
  }

  /** Tests whether a key signed a checkpoint that had not been retired before. */
  counts({ by, size }: Pick<Checkpoint, 'size'> & { readonly by: readonly Verifier[] }): boolean {
    return by.some((key) => !((this.#retired.get(bytesOf(verifierText(key))) ?? Number.POSITIVE_INFINITY) < size));
  }

  /**
   * Returns the problem with a checkpoint's name and keys, or undefined. `lost` is set if the checkpoint covers entries
   * that the ledger records as lost.
   */
  judge(
    checkpoint: Checkpoint & { readonly by: readonly Verifier[] },
    keys: readonly Verifier[],
  ): { problem?: string; lost?: true } {
    const next = this.#epochs.findIndex((e) => e.first >= checkpoint.size && e.first > 0);
    const epoch = this.#epochs[next < 0 ? this.#epochs.length - 1 : next - 1];
    if (!this.counts(checkpoint)) return { problem: 'only a key that had been retired before signed it' };
    if (epoch === undefined || checkpoint.origin === epoch.origin) return {};
    // An older name: its tree ended where the next epoch begins, or in entries that were lost then.
    const own = this.numberOf(checkpoint.origin);
    const after = this.#epochs[own + 1];
    if (own < 0 || after?.previous === undefined)
      return { problem: `its name is \`${checkpoint.origin}\`, which this ledger never had` };
    if (checkpoint.size > after.first && checkpoint.size <= this.#lostUpTo(own, keys)) return { lost: true };
    return {
      problem: `its name is \`${checkpoint.origin}\`, but nothing was signed under that name at that size`,
    };
  }

  // A later epoch may name a checkpoint of this one too, if it was found only then.
  #lostUpTo(own: number, keys: readonly Verifier[]): number {
    const { origin } = this.#epochs[own] as Epoch;
    const sizes = this.#epochs.slice(own + 1).map(({ previous = '' }, i) => {
      const named = openCheckpoint(previous, keys);
      return named !== undefined && (i === 0 || named.origin === origin) ? named.size : 0;
    });
    return Math.max(...sizes);
  }

  /** Keys that the ledger's own entries name, to read what was signed with them. */
  get named(): Verifier[] {
    return this.#rotations.flatMap((r) => [parseVerifier(r.before), parseVerifier(r.after)]);
  }
}

/** Returns the key in a verifier key text without its name, in base64. */
export function bytesOf(key: string): string {
  return /^[^+]+\+[0-9a-f]{8}\+(.+)$/.exec(key)?.[1] ?? key;
}
