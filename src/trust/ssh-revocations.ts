import { createHash } from 'node:crypto';
import type { SshCertificate } from './ssh-certificate.ts';
import { parseSshKey, type SshKey } from './ssh-key.ts';
import { SshFormatError, Wire } from './ssh-wire.ts';

/** Returns why a key or certificate is revoked, or undefined. */
export type SshRevocations = (key: SshKey, certificate?: SshCertificate) => string | undefined;

type CertificateRule = {
  /** Wire bytes of the CA in base64; empty for any CA. */
  readonly authority: string;
  readonly serials: ReadonlySet<bigint>;
  readonly ranges: readonly (readonly [bigint, bigint])[];
  readonly keyIds: ReadonlySet<string>;
};

const MAGIC = Buffer.from('SSHKRL\n\0');
const MAX_BITMAP = 1 << 20; // bytes; OpenSSH writes at most 8 KiB

/**
 * Reads a revocation file like OpenSSH's `RevokedKeys`. That is a binary key revocation list (PROTOCOL.krl: by key,
 * SHA-1 or SHA-256 fingerprint, and certificates by serial, range, bitmap or key id), or public keys, one per line.
 * Throws `SshFormatError` for anything unknown: half a revocation list revokes half of the keys.
 */
export function readSshRevocations(bytes: Uint8Array): SshRevocations {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.subarray(0, MAGIC.length).equals(MAGIC) ? readKrl(buffer) : readKeyLines(buffer.toString('utf8'));
}

function readKeyLines(text: string): SshRevocations {
  const keys = new Set<string>();
  for (const [i, line] of text.split('\n').entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    try {
      keys.add(parseSshKey(line).blob);
    } catch (thrown) {
      throw new SshFormatError(`line ${i + 1} is not a public key: ${(thrown as Error).message}`);
    }
  }
  return (key) => (keys.has(key.blob) ? 'the key is listed' : undefined);
}

function readKrl(buffer: Buffer): SshRevocations {
  const wire = new Wire(buffer);
  wire.take(MAGIC.length);
  if (wire.uint32() !== 1) throw new SshFormatError('the revocation list is not version 1');
  wire.uint64(); // number of the list
  wire.uint64(); // time of creation
  wire.uint64(); // flags: none are defined
  wire.string(); // reserved
  wire.string(); // comment
  const keys = new Set<string>();
  const sha1 = new Set<string>();
  const sha256 = new Set<string>();
  const certificates: CertificateRule[] = [];
  while (!wire.done) {
    const type = wire.byte();
    const section = wire.string();
    if (type === 1) certificates.push(readCertificates(new Wire(section)));
    else if (type === 2) for (const blob of new Wire(section).strings()) keys.add(blob.toString('base64'));
    else if (type === 3) for (const digest of new Wire(section).strings()) sha1.add(digest.toString('hex'));
    else if (type === 5) for (const digest of new Wire(section).strings()) sha256.add(digest.toString('hex'));
    else if (type === 255) refuseCritical(new Wire(section));
    else
      throw new SshFormatError(
        type === 4
          ? 'a signed revocation list is not supported'
          : `the revocation list has an unknown section of type ${type}`,
      );
  }
  const listed = (blob: string) => {
    const raw = Buffer.from(blob, 'base64');
    const digest = (hash: string) => createHash(hash).update(raw).digest('hex');
    return (
      keys.has(blob) || (sha256.size > 0 && sha256.has(digest('sha256'))) || (sha1.size > 0 && sha1.has(digest('sha1')))
    );
  };
  return (key, certificate) => {
    if (listed(key.blob)) return 'the key is listed';
    if (certificate === undefined) return undefined;
    if (listed(certificate.authority.blob)) return 'the certificate’s authority is listed';
    for (const rule of certificates) {
      if (rule.authority !== '' && rule.authority !== certificate.authority.blob) continue;
      if (rule.keyIds.has(certificate.keyId)) return 'the certificate’s key id is listed';
      const { serial } = certificate;
      if (
        serial !== 0n &&
        (rule.serials.has(serial) || rule.ranges.some(([low, high]) => low <= serial && serial <= high))
      )
        return 'the certificate’s serial number is listed';
    }
    return undefined;
  };
}

function readCertificates(wire: Wire): CertificateRule {
  const authority = wire.string().toString('base64');
  wire.string(); // reserved
  const serials = new Set<bigint>();
  const ranges: [bigint, bigint][] = [];
  const keyIds = new Set<string>();
  while (!wire.done) {
    const type = wire.byte();
    const section = new Wire(wire.string());
    if (type === 0x20) while (!section.done) serials.add(section.uint64());
    else if (type === 0x21) ranges.push([section.uint64(), section.uint64()]);
    else if (type === 0x22) for (const serial of bitmap(section)) serials.add(serial);
    else if (type === 0x23) for (const id of section.strings()) keyIds.add(id.toString('utf8'));
    else if (type === 0x39) refuseCritical(section);
    else throw new SshFormatError(`the revocation list has an unknown certificate section of type ${type}`);
  }
  return { authority, serials, ranges, keyIds };
}

function* bitmap(section: Wire): Generator<bigint> {
  const offset = section.uint64();
  const bits = section.string();
  if (bits.length > MAX_BITMAP) throw new SshFormatError('the revocation list has a bitmap larger than OpenSSH writes');
  for (let i = 0; i < bits.length * 8; i++) {
    if (((bits[bits.length - 1 - (i >> 3)] as number) >> (i & 7)) & 1) yield offset + BigInt(i);
  }
}

function refuseCritical(wire: Wire): void {
  const name = wire.text();
  if (wire.byte() !== 0)
    throw new SshFormatError(`the revocation list has the critical extension \`${name.slice(0, 40)}\``);
}
