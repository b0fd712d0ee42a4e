import { verify } from 'node:crypto';
import { CountersignError } from '../model/index.ts';
import { keyId, keyObject, splitNote, type Verifier } from './note.ts';

const COSIGNATURE = 0x04;

/**
 * Returns when a witness co-signed a checkpoint, in seconds since 1970 (C2SP tlog-cosignature v1, Ed25519); undefined
 * if it did not.
 */
export function cosignedAt(note: string, witness: Verifier): number | undefined {
  const parts = splitNote(note);
  const id = keyId(witness, COSIGNATURE);
  for (const { name, bytes } of parts?.signatures ?? []) {
    if (name !== witness.name || bytes.length !== 76 || !bytes.subarray(0, 4).equals(id)) continue;
    const time = bytes.readBigUInt64BE(4);
    const message = Buffer.from(`cosignature/v1\ntime ${time}\n${parts?.text}`);
    if (verify(null, message, keyObject(witness), bytes.subarray(12))) return Number(time);
  }
  return undefined;
}

/** Reads the verifier key of a witness (type 0x04). Throws `key-unusable`. */
export function parseWitness(text: string): Verifier {
  const [, name = '', id, encoded = ''] = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim()) ?? [];
  const key = Buffer.from(encoded, 'base64');
  const witness = { name, publicKey: key.subarray(1) };
  if (key[0] !== COSIGNATURE || key.length !== 33 || keyId(witness, COSIGNATURE).toString('hex') !== id)
    throw new CountersignError('key-unusable', 'this is not a witness key of the form `name+hash+key`', {
      hint: 'it begins with the name of the witness; its key has type 0x04 (cosignature/v1)',
    });
  return witness;
}
