import { createHash } from 'node:crypto';
import { isCertificate, readSshCertificate, type SshCertificate } from './ssh-certificate.ts';
import { type HardwareFlags, readSshKey, type SshKey, verifyWireSignature } from './ssh-key.ts';
import { field, SshFormatError, Wire } from './ssh-wire.ts';

const MAX_ARMOR = 64 * 1024; // an RSA-16384 signature with a certificate has 12 KiB

/** Content of an SSH signature (PROTOCOL.sshsig) before verification. */
export type SshSignature = {
  /** Wire bytes of a key, or of a certificate. */
  readonly publicKey: Buffer;
  readonly namespace: string;
  readonly hash: 'sha256' | 'sha512';
  /** Wire bytes: algorithm, signature and, for hardware keys, flags and counter. */
  readonly signature: Buffer;
};

/** Reads an armored SSH signature. Throws `SshFormatError` for a second block, trailing bytes or anything unknown. */
export function parseSshSignature(armored: string): SshSignature {
  if (armored.length > MAX_ARMOR) throw new SshFormatError('the signature is too long');
  const match = /^-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n?$/.exec(
    armored.includes('\r') ? armored.replaceAll('\r\n', '\n') : armored,
  );
  if (match === null) throw new SshFormatError('not one armored SSH signature');
  const wire = new Wire(Buffer.from(match[1] ?? '', 'base64'));
  if (wire.take(6).toString('latin1') !== 'SSHSIG') throw new SshFormatError('the magic is not SSHSIG');
  if (wire.uint32() !== 1) throw new SshFormatError('not version 1');
  const publicKey = wire.string();
  const namespace = wire.text();
  wire.string(); // reserved
  const hash = wire.string().toString('latin1');
  if (hash !== 'sha256' && hash !== 'sha512') throw new SshFormatError('the hash is neither sha256 nor sha512');
  const signature = wire.string();
  wire.end();
  return { publicKey, namespace, hash, signature };
}

/** A signature whose cryptography passed, with its key or certificate. */
export type VerifiedSshSignature = {
  readonly key: SshKey;
  readonly algorithm: string;
  readonly hash: string;
  readonly flags?: HardwareFlags;
  readonly certificate?: SshCertificate;
};

/**
 * Verifies the signature over the message with the key it carries. `known` caches keys by wire bytes in base64. Returns
 * undefined if it is invalid or for a different namespace. The caller decides whose key it is. Throws `SshFormatError`.
 */
export function verifySshSignature(
  sig: SshSignature,
  message: Uint8Array,
  namespace: string,
  known?: (blob: string) => SshKey | undefined,
): VerifiedSshSignature | undefined {
  if (namespace === '' || sig.namespace !== namespace) return undefined;
  const certificate = isCertificate(sig.publicKey) ? readSshCertificate(sig.publicKey) : undefined;
  const key = certificate?.key ?? known?.(sig.publicKey.toString('base64')) ?? readSshKey(sig.publicKey);
  const verified = verifyWireSignature(key, sig.signature, signedBytes(sig, message));
  return verified === undefined
    ? undefined
    : { key, hash: sig.hash, ...verified, ...(certificate === undefined ? {} : { certificate }) };
}

function signedBytes(sig: SshSignature, message: Uint8Array): Buffer {
  const digest = createHash(sig.hash).update(message).digest();
  return Buffer.concat([Buffer.from('SSHSIG'), field(sig.namespace), field(''), field(sig.hash), field(digest)]);
}
