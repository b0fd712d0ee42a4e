import type { Entry, EntryOf } from '../model/index.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { parseVerifier, type Verifier, verifierText } from './note.ts';

type Epoch = { readonly origin: string; readonly first: number; readonly previous: string | undefined };

// Entries that say under which names and keys a ledger goes on. Looked for in the bytes: most entries are none of them.
const MARK = /"type":"(?:key|epoch|log|replica)\./;

/**
 * Under which names and keys a ledger was signed, as its own entries say: names change with epochs, keys are rotated
 * and retired. Fed entry by entry, in order.
 */
export class LogHistory {
  readonly #epochs: Epoch[] = [];
  readonly #retired = new Map<string, number>();
  readonly #rotations: EntryOf<'key.rotated'>[] = [];
  readonly #enrolled = new Map<string, string>();
  #last = -1;

  /** Whether entries of a type have anything to say here. */
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
    if (entry.type === 'key.retired') this.#retired.set(entry.key, index);
    if (entry.type === 'key.rotated') this.#rotations.push(entry);
    if (entry.type === 'replica.enrolled') this.#enrolled.set(entry.replica, entry.key);
  }

  /** The public key of a replica that may hand entries over, in base64. */
  enrolled(replica: string): string | undefined {
    return this.#enrolled.get(replica);
  }

  get epoch(): number {
    return Math.max(1, this.#epochs.length);
  }

  get origin(): string | undefined {
    return this.#epochs.at(-1)?.origin;
  }

  /** The name of the first epoch, which later ones are made from. */
  get firstOrigin(): string | undefined {
    return this.#epochs[0]?.origin;
  }

  /** The index of the first entry of the epoch. */
  get since(): number {
    return this.#epochs.at(-1)?.first ?? 0;
  }

  isRetired(key: Verifier): boolean {
    return this.#retired.has(verifierText(key));
  }

  /** Keys that may sign and were rotated away from, but not retired. */
  get overlapping(): readonly string[] {
    return this.#rotations.map((r) => r.before).filter((key) => !this.#retired.has(key));
  }

  /** Whether the ledger itself says that this key follows one that it was signed by before. */
  isRotatedTo(key: Verifier): boolean {
    return this.#rotations.some((r) => r.after === verifierText(key));
  }

  /**
   * What is wrong with a checkpoint as far as names and keys go; undefined when nothing is. `lost` is set when it
   * speaks of entries that the ledger says were lost.
   */
  judge(
    checkpoint: Checkpoint & { readonly by: readonly Verifier[] },
    keys: readonly Verifier[],
  ): { problem?: string; lost?: true } {
    const next = this.#epochs.findIndex((e) => e.first >= checkpoint.size && e.first > 0);
    const epoch = this.#epochs[next < 0 ? this.#epochs.length - 1 : next - 1];
    const valid = checkpoint.by.filter(
      (key) => !((this.#retired.get(verifierText(key)) ?? Number.POSITIVE_INFINITY) < checkpoint.size),
    );
    if (valid.length === 0) return { problem: 'it is signed only by a key that was retired before it' };
    if (epoch === undefined || checkpoint.origin === epoch.origin) return {};
    // An older name: its tree ended where the epoch after it begins, or in entries that were lost then.
    const own = this.#epochs.findIndex((e) => e.origin === checkpoint.origin);
    const after = this.#epochs[own + 1];
    if (own < 0 || after?.previous === undefined)
      return { problem: `it bears the name \`${checkpoint.origin}\`, which this ledger never had` };
    const last = openCheckpoint(after.previous, keys);
    if (checkpoint.size <= (last?.size ?? after.first) && checkpoint.size > after.first) return { lost: true };
    return {
      problem: `it bears the name \`${checkpoint.origin}\`, under which nothing was signed any more at that size`,
    };
  }

  /** The keys that the ledger's own entries name, for reading what was signed under them. */
  get named(): Verifier[] {
    return this.#rotations.flatMap((r) => [parseVerifier(r.before), parseVerifier(r.after)]);
  }
}
