import { keyBlob, readKeyParts, readSshKey, type SshKey, sshFingerprint, verifyWireSignature } from './ssh-key.ts';
import { SshFormatError, Wire } from './ssh-wire.ts';

/**
 * An OpenSSH user certificate (PROTOCOL.certkeys) whose CA signature was verified. Times in milliseconds since 1970.
 */
export type SshCertificate = {
  /** The certified key. */
  readonly key: SshKey;
  readonly serial: bigint;
  readonly keyId: string;
  readonly principals: readonly string[];
  readonly validAfter: number;
  readonly validBefore: number;
  /** The certificate requires a PIN or fingerprint for each signature. */
  readonly verifyRequired: boolean;
  readonly authority: SshKey;
};

const SUFFIX = '-cert-v01@openssh.com';

/** Tests whether wire bytes are a certificate, not a plain key. */
export function isCertificate(blob: Uint8Array): boolean {
  try {
    return new Wire(blob).string().toString('latin1').endsWith(SUFFIX);
  } catch {
    return false;
  }
}

/**
 * Reads a certificate and verifies its CA's signature. Throws `SshFormatError` for host certificates, certificates
 * without principals, critical options other than `verify-required`, and an invalid CA signature. The caller decides
 * whether the CA is trusted, and for whom.
 */
export function readSshCertificate(blob: Buffer): SshCertificate {
  const wire = new Wire(blob);
  const certType = wire.string().toString('latin1');
  if (!certType.endsWith(SUFFIX)) throw new SshFormatError('not a certificate');
  const type = keyTypeOf(certType);
  wire.string(); // nonce
  const fieldsFrom = wire.at;
  const parts = readKeyParts(type, wire);
  const plain = keyBlob(type, blob.subarray(fieldsFrom, wire.at));
  const serial = wire.uint64();
  if (wire.uint32() !== 1) throw new SshFormatError('it is a host certificate, not a user certificate');
  const keyId = wire.text();
  const principals = new Wire(wire.string()).strings().map((p) => p.toString('utf8'));
  const [validAfter, validBefore] = [seconds(wire.uint64()), seconds(wire.uint64())];
  const verifyRequired = readCriticalOptions(wire.string());
  wire.string(); // extensions grant session rights, which do not matter for signatures
  wire.string(); // reserved
  const authority = readSshKey(wire.string());
  const signedUntil = wire.at;
  const signature = wire.string();
  wire.end();
  if (principals.length === 0) throw new SshFormatError('the certificate names no principal, so anyone could use it');
  if (verifyWireSignature(authority, signature, blob.subarray(0, signedUntil)) === undefined)
    throw new SshFormatError('the certificate was not signed by the authority it names');
  const key: SshKey = { ...parts, type, blob: plain.toString('base64'), fingerprint: sshFingerprint(plain) };
  return { key, serial, keyId, principals, validAfter, validBefore, verifyRequired, authority };
}

// `sk-ssh-ed25519-cert-v01@openssh.com` certifies `sk-ssh-ed25519@openssh.com`; other types lose the whole suffix.
function keyTypeOf(certType: string): string {
  const stem = certType.slice(0, -SUFFIX.length);
  return stem.startsWith('sk-') ? `${stem}@openssh.com` : stem;
}

// `force-command` and `source-address` restrict logins. They cannot be enforced for a signature, so such a certificate
// is refused.
function readCriticalOptions(bytes: Buffer): boolean {
  const wire = new Wire(bytes);
  let verifyRequired = false;
  while (!wire.done) {
    const name = wire.text();
    wire.string();
    if (name !== 'verify-required')
      throw new SshFormatError(
        `the certificate has the critical option \`${name.slice(0, 40)}\`, which a signature cannot satisfy`,
      );
    verifyRequired = true;
  }
  return verifyRequired;
}

function seconds(value: bigint): number {
  // beyond the range of a Date: forever
  return value > 8_640_000_000_000n ? Number.POSITIVE_INFINITY : Number(value) * 1000;
}
