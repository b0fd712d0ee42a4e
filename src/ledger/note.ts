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

/** The public half of a key under a name, as other tools take it: `name+hash+base64` (C2SP signed-note). */
export type Verifier = { readonly name: string; readonly publicKey: Buffer };

/** A key that signs notes under a name (C2SP signed-note, Ed25519): held here, or asked by way of a program. */
export type Signer = Verifier & { readonly sign: (text: Buffer) => Buffer };

const ED25519 = 0x01;
// RFC 8410: an Ed25519 SubjectPublicKeyInfo up to the key
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const SIGNING_DEADLINE_MS = 10_000;

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
    return { name, publicKey: spki.subarray(SPKI_PREFIX.length), sign: (text) => sign(null, text, privateKey) };
  } catch (cause) {
    throw new CountersignError('key-unusable', 'the ledger key is not an Ed25519 private key in PEM', {
      cause,
      hint: 'restore the key file from your backup',
    });
  }
}

/**
 * A signer whose key lies elsewhere (a KMS, an HSM): the program gets the text on its standard input and answers with
 * the 64 bytes of the signature, as they are or in base64. Throws `signing-failed`, retried, when it does not.
 */
export function programSigner(verifier: Verifier, command: readonly string[]): Signer {
  const [program = '', ...args] = command;
  return {
    ...verifier,
    sign: (text) => {
      const said = ask(program, args, text);
      const signature = said.length === 64 ? said : Buffer.from(said.toString('latin1').trim(), 'base64');
      if (signature.length === 64 && verify(null, text, keyObject(verifier), signature)) return signature;
      throw new CountersignError('signing-failed', `\`${program}\` gave no good signature by the ledger’s key`, {
        recover: 'retry',
        hint: 'it must print the Ed25519 signature over its standard input, 64 bytes or their base64',
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
      `the ledger’s key could not be asked by \`${program}\`: ${messageOf(cause)}`,
      {
        cause,
        recover: 'retry',
        hint: 'does the program run here, and does it answer within ten seconds?',
      },
    );
  }
}

/** The verifier key text of a signer. */
export function verifierText({ name, publicKey }: Verifier): string {
  return `${name}+${keyId({ name, publicKey }).toString('hex')}+${Buffer.concat([Buffer.from([ED25519]), publicKey]).toString('base64')}`;
}

/** Reads verifier keys, one a line. Throws `key-unusable` for a line that is none, and for a text without any. */
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
    hint: 'it is the one line in `ledger.pub` of the service’s data directory',
  });
}

/** Signs a text that ends with a newline, by each signer in turn. */
export function signNote(text: string, ...signers: readonly Signer[]): string {
  return `${text}\n${signers.map((signer) => signatureLine(signer.name, keyId(signer), signer.sign(Buffer.from(text)))).join('')}`;
}

function signatureLine(name: string, id: Buffer, signature: Buffer): string {
  return `— ${name} ${Buffer.concat([id, signature]).toString('base64')}\n`;
}

/**
 * The text of a note and which of the verifiers signed it well; undefined where none did. Other signatures are passed
 * over.
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
      // A bad signature under a key we know is a forgery or damage, whatever stands beside it.
      if (bytes.length !== 68 || !verify(null, Buffer.from(parts.text), keyObject(verifier), bytes.subarray(4)))
        return undefined;
      by.push(verifier);
    }
  }
  return by.length === 0 ? undefined : { text: parts.text, by };
}

/** The text of a note, if the verifier's own signature on it is good; undefined otherwise. */
export function openNote(note: string, verifier: Verifier): string | undefined {
  return openSigned(note, [verifier])?.text;
}

type NoteParts = {
  readonly text: string;
  readonly signatures: readonly { readonly name: string; readonly bytes: Buffer }[];
};

const MAX_NOTE = 1_000_000; // checkpoints are a few hundred bytes, with many witnesses some thousand
const MAX_SIGNATURES = 100;

// Strict as the specification: every line after the last empty one is a signature, and nothing else is there.
/** A note taken apart, whoever signed it; undefined for what is none. */
export function splitNote(note: string): NoteParts | undefined {
  const at = note.lastIndexOf('\n\n');
  if (at < 0 || note.length > MAX_NOTE || !note.endsWith('\n') || !note.isWellFormed()) return undefined;
  const lines = note.slice(at + 2, -1).split('\n');
  if (lines.length > MAX_SIGNATURES) return undefined;
  const signatures = lines.map((line) => {
    const match = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line);
    const bytes = Buffer.from(match?.[2] ?? '', 'base64');
    // One signature has one spelling: text that decodes to the same bytes is not the text we wrote.
    return match?.[1] === undefined || bytes.length < 5 || bytes.toString('base64') !== match[2]
      ? undefined
      : { name: match[1], bytes };
  });
  return signatures.includes(undefined)
    ? undefined
    : { text: note.slice(0, at + 1), signatures: signatures as NoteParts['signatures'] };
}

const keys = new WeakMap<Verifier, KeyObject>();

/** The key of a verifier, as Node’s crypto wants it. */
export function keyObject(verifier: Verifier): KeyObject {
  const known = keys.get(verifier);
  if (known !== undefined) return known;
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, verifier.publicKey]), format: 'der', type: 'spki' });
  keys.set(verifier, key);
  return key;
}

/** The four bytes that name a key in a signature line: of its name, its type and itself (C2SP signed-note). */
export function keyId({ name, publicKey }: Verifier, type = ED25519): Buffer {
  return createHash('sha256')
    .update(`${name}\n`)
    .update(Buffer.from([type]))
    .update(publicKey)
    .digest()
    .subarray(0, 4);
}
