import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import type { LogHistory } from './log-history.ts';
import type { Verifier } from './note.ts';

/** A checkpoint whose signature is verified, with the keys that signed it. */
export type OpenedCheckpoint = Checkpoint & { readonly by: readonly Verifier[] };

/**
 * The public keys that sign a ledger, under each of its names: a new epoch keeps the keys and changes the name, and a
 * replica may meet a checkpoint under a name that it has not read yet.
 */
export class KnownKeys {
  readonly #keys: readonly Verifier[];
  readonly #base: string;

  /** `keys` have a name of this ledger; `origin` is any of its names. */
  constructor(origin: string, keys: readonly Verifier[]) {
    this.#base = parseName(origin).base;
    const byBytes = new Map(keys.map(({ publicKey, name }) => [publicKey.toString(), { publicKey, name }]));
    this.#keys = [...byBytes.values()];
  }

  /** Opens a checkpoint that one of the keys signed, under any name of this ledger; undefined otherwise. */
  open(note: string): OpenedCheckpoint | undefined {
    const name = note.slice(0, Math.max(0, note.indexOf('\n')));
    return parseName(name).base === this.#base ? openCheckpoint(note, this.under(name)) : undefined;
  }

  /** The keys under a name. */
  under(name: string): Verifier[] {
    return this.#keys.map(({ publicKey }) => ({ publicKey, name }));
  }

  /** The keys under every name that a ledger had. */
  underAll(history: LogHistory): Verifier[] {
    return history.origins.flatMap((name) => this.under(name));
  }

  /**
   * Tests whether a checkpoint may be the newest one of a ledger of which only the entries in `history` are known. What
   * only a retired key signed, and what covers entries that were lost, is not; a name that is not known yet may be.
   */
  mayBeNewest(opened: OpenedCheckpoint, history: LogHistory): boolean {
    if (!history.counts(opened)) return false;
    if (history.numberOf(opened.origin) < 0) return true;
    const { problem, lost } = history.judge(opened, this.underAll(history));
    return problem === undefined && lost !== true;
  }
}

/** Returns the name of the epoch after one: `NAME/epoch-2` after `NAME`. */
export function nextName(origin: string): string {
  const { base, epoch } = parseName(origin);
  return `${base}/epoch-${epoch + 1}`;
}

function parseName(origin: string): { readonly base: string; readonly epoch: number } {
  const [, base = origin, epoch = '1'] = /^(.*)\/epoch-(\d+)$/s.exec(origin) ?? [];
  return { base, epoch: Number(epoch) };
}
