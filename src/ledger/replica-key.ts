import { createHash, createPrivateKey, createPublicKey, randomBytes, sign, verify } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { createKey, keyObject, openSigned, type Signer, signNote, type Verifier } from './note.ts';

/** The key of one replica: it signs what the replica hands over, and nothing else. */
export type ReplicaKey = {
  /** The name that the ledger knows it by: the first 16 bytes of the SHA-256 of its public key, in hex. */
  readonly id: string;
  readonly publicKey: Buffer;
  /** Different for every process, so that counters may begin at 1 again. */
  readonly run: string;
  readonly sign: (text: string) => Buffer;
};

/** What a handed row is signed over. All of it is compared with what the leader knows by itself. */
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

/** Reads the replica's key in a data directory, and makes it at the first start. Throws `key-unusable`. */
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
    throw new CountersignError(
      'key-unusable',
      `the replica’s key \`${file}\` cannot be read as an Ed25519 private key in PEM`,
      {
        cause,
        hint: 'delete the file: the service makes another one and enrols it',
      },
    );
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

// The first lines keep statements apart. A checkpoint has its size in the second line, and an origin never equals
// these.
const ENROLMENT = 'countersign.dev/replica-enrolment/v1';
const HANDED = 'countersign.dev/handed-entries/v1';

/**
 * The statement by which whoever holds the ledger’s key lets a replica hand entries over: a note signed by the ledger’s
 * key.
 */
export function enrolmentOf({ id, publicKey }: Pick<ReplicaKey, 'id' | 'publicKey'>, signer: Signer): string {
  return signNote(`${ENROLMENT}\n${signer.name}\n${id}\n${publicKey.toString('base64')}\n`, signer);
}

/** Who is enrolled by a statement; undefined unless one of the keys signed it under this origin. */
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

/** Whether the replica with this public key (base64) signed a row. */
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
