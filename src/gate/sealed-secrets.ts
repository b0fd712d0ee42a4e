import { CountersignError } from '../model/index.ts';
import type { LedgerView, Recorder } from './ports.ts';

/** An encrypted Secret about to be sent to a cluster. */
export type SealedSecret = {
  readonly environment: string;
  /** The fingerprint of its data key. */
  readonly key: string;
  /** `Secret NAMESPACE/NAME`, as sent to the cluster. */
  readonly object: string;
  /** The repository file it comes from, and the revision that gave it its content. */
  readonly file: string;
  readonly revision: string;
  /** Its approved manifest says that it moved; or the environment already has it. */
  readonly mayMove: boolean;
};

type Bound = { readonly objects: Set<string>; readonly places: Set<string> };

/**
 * Lets a data key decrypt only the objects it was encrypted for. Anyone who can read the repository can copy a
 * ciphertext, and the gate holds the key. Without this check, an approved change could have it decrypted where its
 * author may read it. SOPS' MAC does not prevent that, because it covers values, not their keys and places. When a key
 * is first seen in an environment, the objects of that file and revision are recorded; others are refused unless they
 * may move.
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
   * Records an object with its key before the key is used. Throws `decryption-failed` for an object the key was not
   * encrypted for.
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
        `${object} cannot be decrypted: its data key was encrypted ` +
          `for ${[...known.objects].sort().slice(0, 3).join(', ')}`,
        {
          hint:
            'encrypt it again with `sops`; if the Secret was renamed, ' +
            'add the annotation `countersign.dev/allow: move-secret`',
        },
      );
    await this.#ledger.record({ type: 'secret.bound', environment, key, object, file, revision }, []);
    this.#read(environment);
  }

  // Reads what this or another replica recorded since the last call.
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
