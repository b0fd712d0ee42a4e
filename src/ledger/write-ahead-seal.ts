import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { CountersignError, canonicalJson } from '../model/index.ts';
import { type LedgerKey, openSigners } from './open-sequencer.ts';
import { openReplicaKey } from './replica-key.ts';

/** Keys that authenticate lines of the write-ahead file, and the replica it belongs to. */
export type Seal = {
  /** The replica that owns the file: lines from another replica's file are refused. */
  readonly replica: string;
  /** Newest first; the newest authenticates new lines. */
  readonly keys: readonly Uint8Array[];
};

const PURPOSE = 'countersign.dev/write-ahead-key/v1';

/**
 * Derives the keys of the write-ahead file from the keys that sign the ledger. Each signs a text used for nothing else,
 * and the signature, which is never shown, is the secret. So a key that only a program can use works as well as a file.
 *
 * This fails for a program whose signatures differ each time. Then the replica's own key signs, and anyone who can read
 * the data directory can forge lines.
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
      'the program that signs the ledger returns different signatures for the same text: ' +
        'only `replica.key` authenticates `write-ahead.jsonl`',
    );
    return replica.sign(text);
  });
  return { replica: replica.id, keys: signatures.map((s) => new Uint8Array(hkdfSync('sha256', s, '', PURPOSE, 32))) };
}

/** One line of the file: its number, the authentication of the previous line, and its own. */
export type Sealed<T> = { readonly seq: number; readonly prev: string; readonly mac: string; readonly line: T };

export function seal<T extends object>({ replica, keys }: Seal, seq: number, prev: string, line: T): Sealed<T> {
  return { seq, prev, mac: macOf(keys[0] as Uint8Array, replica, seq, prev, line), line };
}

/** Returns a line that was sealed with one of the keys; undefined for any other. */
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
    return undefined; // not JSON, or without a canonical form
  }
}

function macOf(key: Uint8Array, replica: string, seq: number, prev: string, line: object): string {
  return createHmac('sha256', key)
    .update(`${PURPOSE}\n${canonicalJson({ line, prev, replica, seq })}`)
    .digest('hex');
}
