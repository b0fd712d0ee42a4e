import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { type config, enums, SignaturePacket } from 'openpgp';

/** A key or subkey as read by the library. */
export type KeyPacket = Parameters<SignaturePacket['verify']>[0];

const MAX_ARMOR = 64 * 1024; // an RSA-16384 signature has 3 KiB
const SIGNATURE_TAG = 2;
const HASHES = new Map<number | null, string>([
  [enums.hash.sha256, 'sha256'],
  [enums.hash.sha384, 'sha384'],
  [enums.hash.sha512, 'sha512'],
]);

/**
 * Reads exactly one detached binary signature packet in one armor block, otherwise returns undefined. Looser parsing
 * has been used to show one signature and verify another.
 */
export function readOpenPgpSignature(armored: string): SignaturePacket | undefined {
  const bytes = readArmor(armored);
  const body = bytes === undefined ? undefined : onlyPacket(bytes);
  if (body === undefined) return undefined;
  try {
    const packet = new SignaturePacket();
    packet.read(body);
    return packet.signatureType === enums.signature.binary ? packet : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Checks whether the key made the signature over the bytes: undefined if so, otherwise the reason. Independent of the
 * clock.
 *
 * Most commits are signed with Ed25519, which Node's own cryptography verifies with a cached key. Everything else, and
 * every doubtful case, goes to the library. `test/trust/openpgp.test.ts` compares both ways.
 */
export async function verifyOpenPgpSignature(
  packet: SignaturePacket,
  key: KeyPacket,
  bytes: Uint8Array,
  limits: typeof config,
): Promise<string | undefined> {
  const quick = isPlain(packet, key) ? verifyEd25519(packet, key, bytes) : undefined;
  if (quick !== undefined) return quick ? undefined : 'Signature verification failed';
  const data = { text: null, getBytes: () => bytes };
  const anyTime = null as unknown as Date;
  return packet.verify(key, enums.signature.binary, data, anyTime, true, limits).then(
    () => undefined,
    (thrown: Error) => thrown.message,
  );
}

// RFC 9580 section 6.2, strictly: nothing before, between or after. The checksum is optional and proves nothing.
function readArmor(armored: string): Buffer | undefined {
  if (armored.length > MAX_ARMOR) return undefined;
  const text = armored.includes('\r') ? armored.replaceAll('\r\n', '\n') : armored;
  const match =
    /^-----BEGIN PGP SIGNATURE-----\n(?:[A-Za-z]+: [^\n]*\n)*[ \t]*\n((?:[A-Za-z0-9+/]+={0,2}\n)+)(?:=[A-Za-z0-9+/]{4}\n)?-----END PGP SIGNATURE-----\s*$/.exec(
      text,
    );
  return match === null ? undefined : Buffer.from(match[1] ?? '', 'base64');
}

// RFC 9580 section 4.2: old and new headers, of definite length, and no bytes after the packet.
function onlyPacket(bytes: Buffer): Buffer | undefined {
  const first = bytes[0] ?? 0;
  if ((first & 0x80) === 0) return undefined;
  const isNew = (first & 0x40) !== 0;
  const tag = isNew ? first & 0x3f : (first >> 2) & 0x0f;
  const [length, at] = isNew ? newLength(bytes) : oldLength(bytes, first & 3);
  return tag === SIGNATURE_TAG && length !== undefined && bytes.length === at + length ? bytes.subarray(at) : undefined;
}

function newLength(bytes: Buffer): [number | undefined, number] {
  const first = bytes[1] ?? 255;
  if (first < 192) return [first, 2];
  if (first < 224) return [bytes.length < 3 ? undefined : ((first - 192) << 8) + (bytes[2] ?? 0) + 192, 3];
  return [first === 255 && bytes.length >= 6 ? bytes.readUInt32BE(2) : undefined, 6];
}

function oldLength(bytes: Buffer, type: number): [number | undefined, number] {
  const width = [1, 2, 4][type];
  if (width === undefined || bytes.length < 1 + width) return [undefined, 0];
  return [bytes.readUIntBE(1, width), 1 + width];
}

// Tests for properties the library checks besides the cryptography: if there are any, the library decides.
function isPlain(packet: SignaturePacket, key: KeyPacket): boolean {
  return (
    packet.version === 4 &&
    packet.issuerKeyID.equals(key.getKeyID()) &&
    packet.publicKeyAlgorithm === algorithmOf(key) &&
    packet.unknownSubpackets.length === 0 &&
    packet.rawNotations.every((n) => !n.critical) &&
    packet.revocationKeyClass === null
  );
}

type Ed25519Parts = {
  readonly algorithm?: number;
  readonly publicParams?: { readonly Q?: Uint8Array; readonly A?: Uint8Array };
  readonly params?: { readonly r?: Uint8Array; readonly s?: Uint8Array; readonly RS?: Uint8Array };
};

function algorithmOf(key: KeyPacket): number | undefined {
  return (key as unknown as Ed25519Parts).algorithm;
}

// RFC 9580 section 5.2.4: the data, the hashed part of the packet, and a trailer; EdDSA signs their digest.
function verifyEd25519(packet: SignaturePacket, key: KeyPacket, bytes: Uint8Array): boolean | undefined {
  const hash = HASHES.get(packet.hashAlgorithm);
  const ready = keyObject(key);
  const signature = rawSignature(packet);
  const { signatureData, signedHashValue } = packet;
  if (hash === undefined || ready === undefined || signature === undefined || signatureData === null) return undefined;
  const trailer = Buffer.from([4, 0xff, 0, 0, 0, 0]);
  trailer.writeUInt32BE(signatureData.length, 2);
  const digest = createHash(hash).update(bytes).update(signatureData).update(trailer).digest();
  return (
    signedHashValue?.[0] === digest[0] && signedHashValue?.[1] === digest[1] && verify(null, digest, ready, signature)
  );
}

function rawSignature(packet: SignaturePacket): Buffer | undefined {
  const { r, s, RS } = (packet as unknown as Ed25519Parts).params ?? {};
  if (packet.publicKeyAlgorithm === enums.publicKey.ed25519 && RS?.length === 64) return Buffer.from(RS);
  if (
    packet.publicKeyAlgorithm !== enums.publicKey.eddsaLegacy ||
    r === undefined ||
    s === undefined ||
    r.length > 32 ||
    s.length > 32
  )
    return undefined;
  return Buffer.concat([Buffer.alloc(32 - r.length), r, Buffer.alloc(32 - s.length), s]);
}

const ready = new WeakMap<KeyPacket, { readonly key: KeyObject | undefined }>();

function keyObject(packet: KeyPacket): KeyObject | undefined {
  const known = ready.get(packet) ?? { key: readKeyObject(packet) };
  ready.set(packet, known);
  return known.key;
}

function readKeyObject(packet: KeyPacket): KeyObject | undefined {
  const { algorithm, publicParams } = packet as unknown as Ed25519Parts;
  const legacy =
    algorithm === enums.publicKey.eddsaLegacy && publicParams?.Q?.length === 33 && publicParams.Q[0] === 0x40;
  const point = legacy
    ? publicParams.Q?.subarray(1)
    : algorithm === enums.publicKey.ed25519
      ? publicParams?.A
      : undefined;
  if (point?.length !== 32) return undefined;
  try {
    return createPublicKey({
      key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(point).toString('base64url') },
      format: 'jwk',
    });
  } catch {
    return undefined;
  }
}
