import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { CountersignError } from '../model/index.ts';

/** A key that signs notes under a name (C2SP signed-note v1, Ed25519). */
export type Signer = { readonly name: string; readonly privateKey: KeyObject; readonly publicKey: Buffer };

/** The public half, as other tools take it: `name+hash+base64`. */
export type Verifier = { readonly name: string; readonly publicKey: Buffer };

const ED25519 = 0x01;
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex'); // RFC 8410: an Ed25519 SubjectPublicKeyInfo up to the key

/** A new Ed25519 private key in PEM. */
export function createKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** Reads a private key in PEM. Throws `key-unusable`. */
export function readSigner(name: string, pem: string): Signer {
  try {
    const privateKey = createPrivateKey(pem);
    if (privateKey.asymmetricKeyType !== 'ed25519') throw new Error('not Ed25519');
    const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
    return { name, privateKey, publicKey: spki.subarray(SPKI_PREFIX.length) };
  } catch (cause) {
    throw new CountersignError('key-unusable', 'the ledger key is not an Ed25519 private key in PEM', {
      cause,
      hint: 'restore the key file from your backup',
    });
  }
}

/** The verifier key text of a signer. */
export function verifierText({ name, publicKey }: Verifier): string {
  return `${name}+${keyId({ name, publicKey }).toString('hex')}+${Buffer.concat([Buffer.from([ED25519]), publicKey]).toString('base64')}`;
}

/** Reads a verifier key text. Throws `key-unusable`. */
export function parseVerifier(text: string): Verifier {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  const key = Buffer.from(match?.[3] ?? '', 'base64');
  const verifier = { name: match?.[1] ?? '', publicKey: key.subarray(1) };
  if (match === null || key[0] !== ED25519 || key.length !== 33 || keyId(verifier).toString('hex') !== match[2]) {
    throw new CountersignError('key-unusable', 'this is not a verifier key of the form `name+hash+key`', {
      hint: 'it is the one line in `ledger.pub` of the service’s data directory',
    });
  }
  return verifier;
}

/** Signs a text that ends with a newline. */
export function signNote(text: string, signer: Signer): string {
  const signature = Buffer.concat([keyId(signer), sign(null, Buffer.from(text), signer.privateKey)]);
  return `${text}\n— ${signer.name} ${signature.toString('base64')}\n`;
}

/** The text of a note, if the verifier's own signature on it is good; undefined otherwise. Signatures of other keys are passed over. */
export function openNote(note: string, verifier: Verifier): string | undefined {
  const split = note.lastIndexOf('\n\n');
  if (split < 0) return undefined;
  const text = note.slice(0, split + 1);
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, verifier.publicKey]), format: 'der', type: 'spki' });
  for (const line of note.slice(split + 2).split('\n')) {
    const match = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line);
    const bytes = Buffer.from(match?.[2] ?? '', 'base64');
    // One signature has one spelling: text that decodes to the same bytes is not the text we wrote.
    if (
      match?.[1] !== verifier.name ||
      bytes.toString('base64') !== match[2] ||
      bytes.length !== 68 ||
      !bytes.subarray(0, 4).equals(keyId(verifier))
    )
      continue;
    return verify(null, Buffer.from(text), key, bytes.subarray(4)) ? text : undefined;
  }
  return undefined;
}

function keyId({ name, publicKey }: Verifier): Buffer {
  return createHash('sha256')
    .update(`${name}\n`)
    .update(Buffer.from([ED25519]))
    .update(publicKey)
    .digest()
    .subarray(0, 4);
}
