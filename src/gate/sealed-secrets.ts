import { CountersignError } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';

/** An encrypted Secret that is about to be given to a cluster. */
export type SealedSecret = {
  readonly environment: string;
  /** The fingerprint of its data key. */
  readonly key: string;
  /** `Secret NAMESPACE/NAME`, and the same of every object of its file, which SOPS encrypts under one key. */
  readonly object: string;
  readonly together: readonly string[];
  /** Whoever gave it this name held the data key, or the manifest, which was approved, says that it moved. */
  readonly mayMove: boolean;
};

/**
 * Opens a data key only for the objects it was encrypted for. A ciphertext can be copied by anyone who can read the repository, and the
 * gate holds the key that opens it: without this, an approved change could have it opened where its author may read it. The first
 * objects that a key is seen with are recorded; others are refused unless they may move.
 */
export class SealedSecrets {
  readonly #ledger: LedgerView & Recorder;
  readonly #objects = new Map<string, Set<string>>();
  #upTo = -1;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ledger: LedgerView & Recorder) {
    this.#ledger = ledger;
  }

  /** Records what a key is first seen with, before it is used. Throws `decryption-failed` for an object it was not encrypted for. */
  bind(secret: SealedSecret): Promise<void> {
    const turn = this.#turn.then(() => this.#bind(secret));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #bind({ environment, key, object, together, mayMove }: SealedSecret): Promise<void> {
    this.#catchUp();
    const known = this.#objects.get(key);
    if (known?.has(object) === true) return;
    if (known !== undefined && !mayMove)
      throw new CountersignError(
        'decryption-failed',
        `${object} cannot be decrypted: its data key was encrypted for ${[...known].sort().slice(0, 3).join(', ')}`,
        {
          hint: 'encrypt it again with `sops`; if the Secret was renamed, set the annotation `countersign.dev/allow: move-secret` on it',
        },
      );
    const objects = [...new Set([object, ...together])].sort().slice(0, MAX_OBJECTS);
    await this.#ledger.record({ type: 'secret.bound', by: environment, key, objects }, []);
    this.#objects.set(key, new Set([...(known ?? []), ...objects]));
  }

  // Another replica may have recorded some.
  #catchUp(): void {
    const since: { index: number; key: string; objects: readonly string[] }[] = [];
    let bound = this.#ledger.latest(['secret.bound'], '');
    while (bound !== undefined && bound.index > this.#upTo) {
      since.push({ index: bound.index, key: bound.entry.key, objects: bound.entry.objects });
      bound = this.#ledger.latest(['secret.bound'], '', bound.index);
    }
    for (const { index, key, objects } of since.reverse()) {
      this.#objects.set(key, new Set([...(this.#objects.get(key) ?? []), ...objects]));
      this.#upTo = index;
    }
  }
}

const MAX_OBJECTS = 150; // of one file; names may be long, and an entry has 64 KiB
