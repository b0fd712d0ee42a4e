import { CountersignError } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';

/** An encrypted Secret that is about to be given to a cluster. */
export type SealedSecret = {
  readonly environment: string;
  /** The fingerprint of its data key. */
  readonly key: string;
  /** `Secret NAMESPACE/NAME`, as it is given to the cluster. */
  readonly object: string;
  /** The file of the repository that it comes from, and the revision that gave it its content. */
  readonly file: string;
  readonly revision: string;
  /** Its manifest, which was approved, says that it moved; or it is what the environment already has. */
  readonly mayMove: boolean;
};

type Bound = { readonly objects: Set<string>; readonly places: Set<string> };

/**
 * Opens a data key only for the objects it was encrypted for. A ciphertext can be copied by anyone who can read the
 * repository, and the gate holds the key that opens it: without this, an approved change could have it opened where its
 * author may read it. SOPS' MAC does not prevent that: it is over values, not over the keys and places that they stand
 * at. The objects of the file and revision that a key is first seen with, in an environment, are recorded; others are
 * refused unless they may move.
 */
export class SealedSecrets {
  readonly #ledger: LedgerView & Recorder;
  readonly #bound = new Map<string, Map<string, Bound>>();
  readonly #upTo = new Map<string, number>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ledger: LedgerView & Recorder) {
    this.#ledger = ledger;
  }

  /**
   * Records an object with its key before that is used. Throws `decryption-failed` for one that it was not encrypted
   * for.
   */
  bind(secret: SealedSecret): Promise<void> {
    const turn = this.#turn.then(() => this.#bind(secret));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #bind({ environment, key, object, file, revision, mayMove }: SealedSecret): Promise<void> {
    const known = this.#read(environment).get(key);
    if (known?.objects.has(object) === true) return;
    if (known !== undefined && !mayMove && !known.places.has(placeOf(revision, file)))
      throw new CountersignError(
        'decryption-failed',
        `${object} cannot be decrypted: its data key was encrypted for ${[...known.objects].sort().slice(0, 3).join(', ')}`,
        {
          hint: 'encrypt it again with `sops`; if the Secret was renamed, set the annotation `countersign.dev/allow: move-secret` on it',
        },
      );
    await this.#ledger.record({ type: 'secret.bound', environment, key, object, file, revision }, []);
    this.#read(environment);
  }

  // What this or another replica recorded since the last time.
  #read(environment: string): Map<string, Bound> {
    const bound = this.#bound.get(environment) ?? new Map<string, Bound>();
    this.#bound.set(environment, bound);
    const upTo = this.#upTo.get(environment) ?? -1;
    let entry = this.#ledger.latest(['secret.bound'], environment);
    this.#upTo.set(environment, Math.max(upTo, entry?.index ?? -1));
    for (
      ;
      entry !== undefined && entry.index > upTo;
      entry = this.#ledger.latest(['secret.bound'], environment, entry.index)
    ) {
      const { key, object, file, revision } = entry.entry;
      const known = bound.get(key) ?? { objects: new Set(), places: new Set() };
      known.objects.add(object);
      known.places.add(placeOf(revision, file));
      bound.set(key, known);
    }
    return bound;
  }
}

function placeOf(revision: string, file: string): string {
  return `${revision} ${file}`;
}
