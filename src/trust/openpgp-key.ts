import { config, enums, type Key, type KeyID, readKeys, type SignaturePacket, type Subkey } from 'openpgp';

/** A revocation contained in an OpenPGP key itself. Times in milliseconds since 1970. */
export type KeyRevocation = {
  /** Compromised, or without a reason: nothing the key ever signed is trusted. */
  readonly hard: boolean;
  readonly at: number;
};

/** One OpenPGP primary key with its whole history. Its revocations are extracted and judged by time. */
export type OpenPgpKey = {
  readonly fingerprint: string;
  readonly key: Key;
  readonly revocations: readonly KeyRevocation[];
  /** Revocations of subkeys by key id in hex. */
  readonly subkeyRevocations: ReadonlyMap<string, readonly KeyRevocation[]>;
};

/** Why a key cannot sign at a moment. */
export type KeyRefusal = {
  readonly code: 'key-expired' | 'key-not-yet-valid' | 'key-not-valid' | 'algorithm-too-weak';
  readonly reason: string;
};

const MAX_KEYS = 1000; // keys and exports in one armored text; the keyring of a whole company
const MAX_TEXT = 4 * 1024 * 1024; // that keyring, with photographs

/**
 * Returns the library's own limits, with the policy's for RSA. The library already excludes DSA, ElGamal, secp256k1,
 * MD5, RIPEMD and SHA-1 over data.
 */
export function openPgpConfig(minimumRsaBits: number): typeof config {
  return { ...config, minRSABits: minimumRsaBits };
}

/**
 * Reads armored public keys and merges exports of the same key. An export after a renewal contains only the newest
 * self-signature, which would invalidate everything the key signed before. Throws an Error for private and unreadable
 * keys.
 */
export async function readOpenPgpKeys(armored: string, minimumRsaBits: number): Promise<OpenPgpKey[]> {
  if (armored.length > MAX_TEXT) throw new Error(`it is longer than ${MAX_TEXT} characters`);
  const blocks = armored.split(/(?=-----BEGIN PGP)/).filter((b) => b.includes('-----BEGIN PGP'));
  if (blocks.length > MAX_KEYS) throw new Error(`it contains more than ${MAX_KEYS} keys`);
  const merged = new Map<string, Key>();
  for (const block of blocks) {
    const keys = await readKeys({ armoredKeys: block }).catch((cause: Error) => {
      // the library may also throw TypeErrors for bad bytes
      throw new Error(`it is not an OpenPGP public key: ${cause.message}`, { cause });
    });
    for (const key of keys) {
      if (key.isPrivate()) throw new Error('it is a private key');
      const fingerprint = key.getFingerprint().toUpperCase();
      const earlier = merged.get(fingerprint);
      merged.set(fingerprint, earlier === undefined ? key : await earlier.update(key));
      if (merged.size > MAX_KEYS) throw new Error(`it contains more than ${MAX_KEYS} keys`);
    }
  }
  if (merged.size === 0) throw new Error('it contains no OpenPGP public key');
  return Promise.all([...merged].map(([fingerprint, key]) => withoutRevocations(fingerprint, key, minimumRsaBits)));
}

/** Returns the key or subkey with the id if it may sign at the moment, otherwise the reason. Ignores revocations. */
export async function signingKeyAt(
  key: OpenPgpKey,
  id: KeyID,
  at: number,
  minimumRsaBits: number,
): Promise<KeyRefusal | undefined> {
  const limits = openPgpConfig(minimumRsaBits);
  // A renewed key may have lost its older self-signatures. It is judged at the earliest moment its remaining ones
  // cover.
  const moment = Math.max(at, historyBegins(key.key, id));
  try {
    if (key.key.getCreationTime().getTime() > at)
      return { code: 'key-not-yet-valid', reason: 'the key was created later' };
    await key.key.getSigningKey(id, new Date(moment), undefined, limits);
    return undefined;
  } catch (thrown) {
    const reason = (thrown as Error).message
      .replace(/^Error verifying .*?: /, '')
      .replace(/^Could not find valid signing key packet in key [0-9a-f]+: /, '');
    if (/expired/i.test(reason)) return { code: 'key-expired', reason: 'the key had expired' };
    if (/too short|not supported|disallow|is considered too weak|insecure|rejected/i.test(reason))
      return { code: 'algorithm-too-weak', reason };
    return { code: 'key-not-valid', reason };
  }
}

function historyBegins(key: Key, id: KeyID): number {
  const own = earliest(key.users.flatMap((u) => u.selfCertifications));
  const subkey = key.subkeys.find((s) => s.getKeyID().equals(id));
  return subkey === undefined ? own : Math.max(own, earliest(subkey.bindingSignatures));
}

function earliest(signatures: readonly SignaturePacket[]): number {
  return signatures.reduce(
    (time, s) => Math.min(time, s.created?.getTime() ?? 0),
    signatures.length === 0 ? 0 : Number.POSITIVE_INFINITY,
  );
}

async function withoutRevocations(fingerprint: string, key: Key, minimumRsaBits: number): Promise<OpenPgpKey> {
  const primary = key.keyPacket;
  const limits = openPgpConfig(minimumRsaBits);
  const holds = async (signature: SignaturePacket, type: enums.signature, data: object) =>
    signature.verify(primary, type, data, null as unknown as Date, false, limits).then(
      () => [{ hard: isHard(signature), at: signature.created?.getTime() ?? 0 }],
      () => [],
    );
  const read = async (signatures: readonly SignaturePacket[], type: enums.signature, data: object) =>
    (await Promise.all(signatures.map((s) => holds(s, type, data)))).flat();
  const revocations = await read(key.revocationSignatures, enums.signature.keyRevocation, { key: primary });
  const subkeyRevocations = new Map<string, readonly KeyRevocation[]>();
  for (const subkey of key.subkeys) {
    const found = await read(subkey.revocationSignatures, enums.signature.subkeyRevocation, {
      key: primary,
      bind: subkey.keyPacket,
    });
    if (found.length > 0) subkeyRevocations.set(idOf(subkey), found);
    subkey.revocationSignatures = [];
  }
  key.revocationSignatures = [];
  return { fingerprint, key, revocations, subkeyRevocations };
}

function idOf(subkey: Subkey): string {
  return subkey.getKeyID().toHex();
}

// RFC 9580 section 5.2.3.31: superseded and retired mean that the key was good until then; anything else revokes it
// entirely.
function isHard(signature: SignaturePacket): boolean {
  const { keyRetired, keySuperseded } = enums.reasonForRevocation;
  return signature.reasonForRevocationFlag !== keyRetired && signature.reasonForRevocationFlag !== keySuperseded;
}
