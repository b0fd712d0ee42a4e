import { execFileSync } from 'node:child_process';
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { CountersignError, messageOf } from '../model/index.ts';

/** Public half of a named key, in the form other tools take: `name+hash+base64` (C2SP signed-note). */
export type Verifier = { readonly name: string; readonly publicKey: Buffer };

/** A key that signs notes under a name (C2SP signed-note, Ed25519). It is held here or used through a program. */
export type Signer = Verifier & { readonly sign: (text: Buffer) => Buffer };

const ED25519 = 0x01;
// RFC 8410: an Ed25519 SubjectPublicKeyInfo up to the key
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const SIGNING_DEADLINE_MS = 10_000;

/** Creates an Ed25519 private key in PEM. */
export function createKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** Reads a private key in PEM. Throws `key-unusable`. */
export function readSigner(name: string, pem: string): Signer {
  try {
    const privateKey = createPrivateKey(pem);
    if (privateKey.asymmetricKeyType !== 'ed25519') throw new Error('not Ed25519');
    const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
    return { name, publicKey: spki.subarray(SPKI_PREFIX.length), sign: (text) => sign(null, text, privateKey) };
  } catch (cause) {
    throw new CountersignError('key-unusable', 'the ledger key is not an Ed25519 private key in PEM', {
      cause,
      hint: 'restore the key file from your backup',
    });
  }
}

/**
 * Returns a signer whose key is held elsewhere, such as a KMS or an HSM. The program gets the text on standard input
 * and prints the 64 bytes of the signature, raw or in base64. Throws `signing-failed` (retry) if it does not.
 */
export function programSigner(verifier: Verifier, command: readonly string[]): Signer {
  const [program = '', ...args] = command;
  return {
    ...verifier,
    sign: (text) => {
      const said = ask(program, args, text);
      const signature = said.length === 64 ? said : Buffer.from(said.toString('latin1').trim(), 'base64');
      if (signature.length === 64 && verify(null, text, keyObject(verifier), signature)) return signature;
      throw new CountersignError('signing-failed', `\`${program}\` returned no valid signature by the ledger’s key`, {
        recover: 'retry',
        hint: 'it must print the Ed25519 signature of its standard input: 64 bytes, raw or in base64',
      });
    },
  };
}

function ask(program: string, args: readonly string[], text: Buffer): Buffer {
  try {
    return execFileSync(program, args, {
      input: text,
      timeout: SIGNING_DEADLINE_MS,
      maxBuffer: 4096,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
  } catch (cause) {
    throw new CountersignError(
      'signing-failed',
      `\`${program}\` could not sign with the ledger’s key: ${messageOf(cause)}`,
      {
        cause,
        recover: 'retry',
        hint: 'check that the program runs here and answers within ten seconds',
      },
    );
  }
}

/** Returns a signer's key as verifier key text. */
export function verifierText({ name, publicKey }: Verifier): string {
  return (
    `${name}+${keyId({ name, publicKey }).toString('hex')}+` +
    `${Buffer.concat([Buffer.from([ED25519]), publicKey]).toString('base64')}`
  );
}

/**
 * Reads verifier keys, one per line. Throws `key-unusable` for a line that is not a key, and for a text without keys.
 */
export function parseVerifiers(text: string): Verifier[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length === 0) throw noVerifier();
  return lines.map(parseVerifier);
}

/** Reads a verifier key text. Throws `key-unusable`. */
export function parseVerifier(text: string): Verifier {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  const key = Buffer.from(match?.[3] ?? '', 'base64');
  const verifier = { name: match?.[1] ?? '', publicKey: key.subarray(1) };
  if (match === null || key[0] !== ED25519 || key.length !== 33 || keyId(verifier).toString('hex') !== match[2])
    throw noVerifier();
  return verifier;
}

function noVerifier(): CountersignError {
  return new CountersignError('key-unusable', 'this is not a verifier key of the form `name+hash+key`', {
    hint: 'it is the only line of `ledger.pub` in the service’s data directory',
  });
}

/** Signs a text that ends with a newline, with each signer in turn. */
export function signNote(text: string, ...signers: readonly Signer[]): string {
  return (
    `${text}\n` +
    `${signers.map((signer) => signatureLine(signer.name, keyId(signer), signer.sign(Buffer.from(text)))).join('')}`
  );
}

function signatureLine(name: string, id: Buffer, signature: Buffer): string {
  return `— ${name} ${Buffer.concat([id, signature]).toString('base64')}\n`;
}

/**
 * Returns the text of a note and the verifiers with a valid signature on it; undefined if there are none. Other
 * signatures are ignored.
 */
export function openSigned(
  note: string,
  verifiers: readonly Verifier[],
): { readonly text: string; readonly by: readonly Verifier[] } | undefined {
  const parts = splitNote(note);
  if (parts === undefined) return undefined;
  const by: Verifier[] = [];
  for (const verifier of verifiers) {
    const id = keyId(verifier);
    for (const { name, bytes } of parts.signatures) {
      if (name !== verifier.name || !bytes.subarray(0, 4).equals(id)) continue;
      // An invalid signature under a key we know is a forgery or damage, even if other signatures are valid.
      if (bytes.length !== 68 || !verify(null, Buffer.from(parts.text), keyObject(verifier), bytes.subarray(4)))
        return undefined;
      by.push(verifier);
    }
  }
  return by.length === 0 ? undefined : { text: parts.text, by };
}

/** Returns the text of a note if the verifier's signature on it is valid; undefined otherwise. */
export function openNote(note: string, verifier: Verifier): string | undefined {
  return openSigned(note, [verifier])?.text;
}

type NoteParts = {
  readonly text: string;
  readonly signatures: readonly { readonly name: string; readonly bytes: Buffer }[];
};

const MAX_NOTE = 1_000_000; // checkpoints have a few hundred bytes, or a few thousand with many witnesses
const MAX_SIGNATURES = 100;

// As strict as the specification: every line after the last empty one is a signature, and nothing else follows.
/** Splits a note into text and signatures without checking them. Returns undefined if it is not a note. */
export function splitNote(note: string): NoteParts | undefined {
  const at = note.lastIndexOf('\n\n');
  if (at < 0 || note.length > MAX_NOTE || !note.endsWith('\n') || !note.isWellFormed()) return undefined;
  const lines = note.slice(at + 2, -1).split('\n');
  if (lines.length > MAX_SIGNATURES) return undefined;
  const signatures = lines.map((line) => {
    const match = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line);
    const bytes = Buffer.from(match?.[2] ?? '', 'base64');
    // A signature has exactly one spelling: a different text that decodes to the same bytes is not ours.
    return match?.[1] === undefined || bytes.length < 5 || bytes.toString('base64') !== match[2]
      ? undefined
      : { name: match[1], bytes };
  });
  return signatures.includes(undefined)
    ? undefined
    : { text: note.slice(0, at + 1), signatures: signatures as NoteParts['signatures'] };
}

const keys = new WeakMap<Verifier, KeyObject>();

/** Returns a verifier's key for Node's crypto. */
export function keyObject(verifier: Verifier): KeyObject {
  const known = keys.get(verifier);
  if (known !== undefined) return known;
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, verifier.publicKey]), format: 'der', type: 'spki' });
  keys.set(verifier, key);
  return key;
}

/**
 * Returns the four bytes that identify a key in a signature line: a hash of its name, type and bytes (C2SP
 * signed-note).
 */
export function keyId({ name, publicKey }: Verifier, type = ED25519): Buffer {
  return createHash('sha256')
    .update(`${name}\n`)
    .update(Buffer.from([type]))
    .update(publicKey)
    .digest()
    .subarray(0, 4);
}
