import { createHash, createPrivateKey, createPublicKey, randomBytes, sign, verify } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { createKey, keyObject, openSigned, type Signer, signNote, type Verifier } from './note.ts';

/** Key of one replica. It signs only the batches that the replica hands over. */
export type ReplicaKey = {
  /** The replica's name on the ledger: the first 16 bytes of the SHA-256 of its public key, in hex. */
  readonly id: string;
  readonly publicKey: Buffer;
  /** Unique per process, so that counters may start at 1 again. */
  readonly run: string;
  readonly sign: (text: string) => Buffer;
};

/** Claim that the signature of a handed-over row covers. The leader compares all of it with its own knowledge. */
export type HandedClaim = {
  readonly origin: string;
  readonly term: string;
  readonly run: string;
  readonly counter: number;
  readonly id: string;
  readonly replica: string;
  readonly batch: string;
};

const REPLICA_KEY = 'replica.key';
const SPKI = 12; // bytes of an Ed25519 SubjectPublicKeyInfo before the key (RFC 8410)

/** Reads the replica's key in a data directory, or creates it on the first start. Throws `key-unusable`. */
export function openReplicaKey(directory: string): ReplicaKey {
  const file = join(directory, REPLICA_KEY);
  if (!existsSync(file)) writeNew(file);
  try {
    const key = createPrivateKey(readFileSync(file, 'utf8'));
    if (key.asymmetricKeyType !== 'ed25519') throw new Error('it is not an Ed25519 key');
    const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(SPKI);
    return {
      id: replicaId(publicKey),
      publicKey,
      run: randomBytes(16).toString('hex'),
      sign: (text) => sign(null, Buffer.from(text), key),
    };
  } catch (cause) {
    throw new CountersignError('key-unusable', `the replica’s key \`${file}\` is not an Ed25519 private key in PEM`, {
      cause,
      hint: 'delete the file: the service creates and enrols a new one',
    });
  }
}

function writeNew(file: string): void {
  try {
    writeFileSync(file, createKey(), { mode: 0o600, flag: 'wx' });
  } catch (thrown) {
    if ((thrown as { code?: string }).code !== 'EEXIST') throw thrown; // another thread was faster
  }
}

function replicaId(publicKey: Uint8Array): string {
  return createHash('sha256').update(publicKey).digest('hex').slice(0, 32);
}

// The first line distinguishes statements. A checkpoint has its size in the second line, and an origin never equals
// these.
const ENROLMENT = 'countersign.dev/replica-enrolment/v1';
const HANDED = 'countersign.dev/handed-entries/v1';

/**
 * Returns the enrolment statement of a replica: a note, signed with the ledger's key, that lets the replica hand over
 * entries.
 */
export function enrolmentOf(
  { id, publicKey }: Pick<ReplicaKey, 'id' | 'publicKey'>,
  ...signers: readonly [Signer, ...Signer[]]
): string {
  return signNote(`${ENROLMENT}\n${signers[0].name}\n${id}\n${publicKey.toString('base64')}\n`, ...signers);
}

/** Returns the replica that a statement enrols; undefined unless one of the keys signed it under this origin. */
export function openEnrolment(
  note: string,
  origin: string,
  keys: readonly Verifier[],
): { readonly replica: string; readonly key: string } | undefined {
  const opened = openSigned(note, keys);
  const match = /^countersign\.dev\/replica-enrolment\/v1\n([^\n]+)\n([0-9a-f]{32})\n([A-Za-z0-9+/]{43}=)\n$/.exec(
    opened?.text ?? '',
  );
  const [, named, replica = '', key = ''] = match ?? [];
  const publicKey = Buffer.from(key, 'base64');
  const isFit = named === origin && publicKey.toString('base64') === key && replicaId(publicKey) === replica;
  return isFit ? { replica, key } : undefined;
}

export function signHanded(claim: HandedClaim, key: ReplicaKey): string {
  return key.sign(textOf(claim)).toString('base64');
}

/** Tests whether the replica with this public key (base64) signed a row. */
export function isSignedBy(key: string, claim: HandedClaim, signature: string): boolean {
  const bytes = Buffer.from(signature, 'base64');
  const verifier = { name: claim.replica, publicKey: Buffer.from(key, 'base64') };
  return (
    bytes.length === 64 &&
    bytes.toString('base64') === signature &&
    verify(null, Buffer.from(textOf(claim)), keyObject(verifier), bytes)
  );
}

function textOf({ origin, term, run, counter, id, replica, batch }: HandedClaim): string {
  const digest = createHash('sha256').update(batch).digest('hex');
  return `${HANDED}\n${origin}\n${term}\n${run} ${counter}\n${id}\n${replica}\n${digest}\n`;
}
