import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { CountersignError, canonicalJson } from '../model/index.ts';
import { type LedgerKey, openSigners } from './open-sequencer.ts';
import { openReplicaKey } from './replica-key.ts';

/** What lines of the file beside the ledger are authenticated with, and whose file it is. */
export type Seal = {
  /** The replica whose file it is: a line of another's file is not taken. */
  readonly replica: string;
  /** The newest first; lines are written with that one. */
  readonly keys: readonly Uint8Array[];
};

const PURPOSE = 'countersign.dev/write-ahead-key/v1';

/**
 * The keys for the file beside the ledger, made from those that sign the ledger: each signs a text that is used for
 * nothing else, and the signature, which nobody sees, is the secret. So a key that only a program can use serves as
 * well as a file. A program whose signatures differ each time cannot: then the replica's own key signs, and whoever
 * reads the data directory can forge lines.
 */
export function openSeal(
  directory: string,
  name: string,
  key: LedgerKey | undefined,
  warn: (message: string) => void,
): Seal {
  const replica = openReplicaKey(directory);
  const text = `${PURPOSE}\n${replica.id}\n`;
  const signatures = openSigners({ directory, origin: name, key }, name, false).map((signer) => {
    const signature = signer.sign(Buffer.from(text));
    if (key === undefined || !('command' in key) || signer.sign(Buffer.from(text)).equals(signature)) return signature;
    warn(
      'the program that signs the ledger signs one text differently each time: `write-ahead.jsonl` is authenticated by `replica.key` only',
    );
    return replica.sign(text);
  });
  return { replica: replica.id, keys: signatures.map((s) => new Uint8Array(hkdfSync('sha256', s, '', PURPOSE, 32))) };
}

/** One line of the file: its number, the authentication of the one before it, and its own. */
export type Sealed<T> = { readonly seq: number; readonly prev: string; readonly mac: string; readonly line: T };

export function seal<T extends object>({ replica, keys }: Seal, seq: number, prev: string, line: T): Sealed<T> {
  return { seq, prev, mac: macOf(keys[0] as Uint8Array, replica, seq, prev, line), line };
}

/** A line as it was sealed with one of the keys; undefined for every other. */
export function unseal<T extends object>({ replica, keys }: Seal, text: string): Sealed<T> | undefined {
  try {
    const sealed = JSON.parse(text) as Sealed<T>;
    const { seq, prev, mac, line } = sealed;
    if (!Number.isSafeInteger(seq) || typeof prev !== 'string' || typeof mac !== 'string' || typeof line !== 'object')
      return undefined;
    const given = Buffer.from(mac, 'hex');
    const isOurs = keys.some((key) => {
      const expected = Buffer.from(macOf(key, replica, seq, prev, line), 'hex');
      return given.length === expected.length && timingSafeEqual(given, expected);
    });
    return isOurs ? sealed : undefined;
  } catch (thrown) {
    if (thrown instanceof CountersignError) throw thrown;
    return undefined; // not JSON, or nothing that has a canonical form
  }
}

function macOf(key: Uint8Array, replica: string, seq: number, prev: string, line: object): string {
  return createHmac('sha256', key)
    .update(`${PURPOSE}\n${canonicalJson({ line, prev, replica, seq })}`)
    .digest('hex');
}
