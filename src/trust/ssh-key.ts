import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { field, SshFormatError, unsigned, Wire } from './ssh-wire.ts';

/** An OpenSSH public key: its wire bytes in base64 (its identity), its fingerprint, and the key to verify with. */
export type SshKey = {
  readonly blob: string;
  /** `SHA256:…`, as printed by `ssh-keygen -l`. */
  readonly fingerprint: string;
  readonly type: string;
  /** Bits of an RSA modulus or of the curve. */
  readonly bits: number;
  readonly key: KeyObject;
  /** The FIDO application (relying party) of a hardware key. */
  readonly application?: string;
};

/** Statement of a FIDO authenticator in each signature (PROTOCOL.u2f). */
export type HardwareFlags = { readonly touched: boolean; readonly verified: boolean };

const CURVES: Record<string, { crv: string; bits: number; bytes: number; hash: string }> = {
  nistp256: { crv: 'P-256', bits: 256, bytes: 32, hash: 'sha256' },
  nistp384: { crv: 'P-384', bits: 384, bytes: 48, hash: 'sha384' },
  nistp521: { crv: 'P-521', bits: 521, bytes: 66, hash: 'sha512' },
};
const MIN_RSA_BITS = 2048; // NIST SP 800-131A; OpenSSH itself still accepts 1024
const MAX_RSA_BITS = 16_384; // OpenSSH's own limit; larger keys only cost time
const WEBAUTHN = 'webauthn-sk-ecdsa-sha2-nistp256@openssh.com';

/** Reads a public key line (`TYPE BASE64 [COMMENT]`). Throws `SshFormatError`; certificates are not keys. */
export function parseSshKey(line: string): SshKey {
  const [type, base64] = line.trim().split(/\s+/);
  if (type === undefined || base64 === undefined) throw new SshFormatError('not a public key line');
  const key = readSshKey(Buffer.from(base64, 'base64'));
  if (key.type !== type)
    throw new SshFormatError(`the line says \`${type.slice(0, 60)}\`, the key says \`${key.type}\``);
  return key;
}

/** Reads a public key from its wire bytes. Throws `SshFormatError`. */
export function readSshKey(blob: Buffer): SshKey {
  const wire = new Wire(blob);
  const type = wire.string().toString('latin1');
  const parts = readKeyParts(type, wire);
  wire.end();
  return { ...parts, type, blob: blob.toString('base64'), fingerprint: sshFingerprint(blob) };
}

/** Reads the fields that follow the type in a key, and in a certificate. */
export function readKeyParts(type: string, wire: Wire): Pick<SshKey, 'key' | 'bits' | 'application'> {
  switch (type) {
    case 'ssh-ed25519':
      return { key: ed25519(wire), bits: 256 };
    case 'sk-ssh-ed25519@openssh.com':
      return { key: ed25519(wire), bits: 256, application: wire.text() };
    case 'sk-ecdsa-sha2-nistp256@openssh.com':
      return { key: ecdsa('nistp256', wire), bits: 256, application: wire.text() };
    case 'ecdsa-sha2-nistp256':
    case 'ecdsa-sha2-nistp384':
    case 'ecdsa-sha2-nistp521': {
      const curve = type.slice('ecdsa-sha2-'.length);
      return { key: ecdsa(curve, wire), bits: CURVES[curve]?.bits ?? 0 };
    }
    case 'ssh-rsa':
      return rsa(wire);
    default:
      throw new SshFormatError(`keys of type \`${type.slice(0, 60)}\` are not supported`);
  }
}

/** Returns `SHA256:` and the base64 digest of the wire bytes, as OpenSSH shows keys. */
export function sshFingerprint(blob: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}

/**
 * Verifies a signature in wire form (`string algorithm, string signature, …`) over the bytes. Returns undefined if it
 * is not by this key, otherwise the authenticator's flags for a hardware key. Throws `SshFormatError` if the bytes are
 * not a signature.
 */
export function verifyWireSignature(
  key: SshKey,
  signature: Buffer,
  bytes: Buffer,
): { readonly algorithm: string; readonly flags?: HardwareFlags } | undefined {
  const wire = new Wire(signature);
  const algorithm = wire.string().toString('latin1');
  const raw = wire.string();
  if (key.application !== undefined) return verifyHardware(key, key.application, algorithm, raw, wire, bytes);
  wire.end();
  if (key.type === 'ssh-rsa') {
    const hash = { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' }[algorithm]; // never `ssh-rsa`: that is SHA-1
    return hash !== undefined && verify(hash, bytes, key.key, raw) ? { algorithm } : undefined;
  }
  if (algorithm !== key.type) return undefined;
  if (key.type === 'ssh-ed25519') return verify(null, bytes, key.key, raw) ? { algorithm } : undefined;
  return verifyEcdsa(key.type.slice('ecdsa-sha2-'.length), key.key, raw, bytes) ? { algorithm } : undefined;
}

// PROTOCOL.u2f: the authenticator signs SHA-256(application), flags, counter and SHA-256(message), never the message
// itself.
function verifyHardware(
  key: SshKey,
  application: string,
  algorithm: string,
  raw: Buffer,
  wire: Wire,
  bytes: Buffer,
): { algorithm: string; flags: HardwareFlags } | undefined {
  const flags = wire.byte();
  const counter = wire.take(4);
  const webauthn = algorithm === WEBAUTHN && key.type === 'sk-ecdsa-sha2-nistp256@openssh.com';
  if (!webauthn && algorithm !== key.type) return undefined;
  const [extensions, message] = webauthn ? webauthnMessage(wire, flags, bytes) : [Buffer.alloc(0), bytes];
  wire.end();
  const signed = Buffer.concat([
    sha256(Buffer.from(application)),
    Buffer.from([flags]),
    counter,
    extensions,
    sha256(message),
  ]);
  const good =
    key.type === 'sk-ssh-ed25519@openssh.com'
      ? verify(null, signed, key.key, raw)
      : verifyEcdsa('nistp256', key.key, raw, signed);
  return good ? { algorithm, flags: { touched: (flags & 0x01) !== 0, verified: (flags & 0x04) !== 0 } } : undefined;
}

// A browser signs a JSON text that names the challenge and origin. It must begin exactly as OpenSSH expects.
function webauthnMessage(wire: Wire, flags: number, bytes: Buffer): [Buffer, Buffer] {
  const origin = wire.text();
  const clientData = wire.string();
  const extensions = wire.string();
  const start = `{"type":"webauthn.get","challenge":"${bytes.toString('base64url')}","origin":"${origin}"`;
  const text = clientData.toString('utf8');
  if (origin.includes('"') || !text.startsWith(start) || !/^[,}]/.test(text.slice(start.length)))
    throw new SshFormatError('the browser signed something different');
  if ((flags & 0x40) !== 0 || ((flags & 0x80) !== 0) !== extensions.length > 0)
    throw new SshFormatError('the flags contradict the extensions');
  return [extensions, clientData];
}

function verifyEcdsa(curveName: string, key: KeyObject, raw: Buffer, bytes: Buffer): boolean {
  const curve = CURVES[curveName];
  if (curve === undefined) return false;
  const pair = new Wire(raw);
  const [r, s] = [pair.mpint(curve.bytes), pair.mpint(curve.bytes)];
  pair.end();
  return verify(curve.hash, bytes, { key, dsaEncoding: 'ieee-p1363' }, Buffer.concat([r, s]));
}

function ed25519(wire: Wire): KeyObject {
  return jwk({ kty: 'OKP', crv: 'Ed25519', x: wire.string().toString('base64url') });
}

function ecdsa(name: string, wire: Wire): KeyObject {
  const curve = CURVES[name];
  if (curve === undefined || wire.text() !== name) throw new SshFormatError('the key names a different curve');
  const point = wire.string();
  if (point[0] !== 4 || point.length !== 1 + 2 * curve.bytes) throw new SshFormatError('the curve point is compressed');
  return jwk({
    kty: 'EC',
    crv: curve.crv,
    x: point.subarray(1, 1 + curve.bytes).toString('base64url'),
    y: point.subarray(1 + curve.bytes).toString('base64url'),
  });
}

function rsa(wire: Wire): { key: KeyObject; bits: number } {
  const [e, n] = [unsigned(wire.string()), unsigned(wire.string())];
  const bits = n.length * 8 - Math.clz32(n[0] ?? 0) + 24;
  if (bits < MIN_RSA_BITS)
    throw new SshFormatError(`an RSA key of ${bits} bits is too weak; ${MIN_RSA_BITS} are needed`);
  if (bits > MAX_RSA_BITS || e.length > 4) throw new SshFormatError('the RSA key is larger than OpenSSH allows');
  return { key: jwk({ kty: 'RSA', e: e.toString('base64url'), n: n.toString('base64url') }), bits };
}

function jwk(key: { kty: string; [field: string]: string }): KeyObject {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    throw new SshFormatError('the key is not a point of its curve');
  }
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Returns the wire bytes of a key from its type and the fields in a certificate. */
export function keyBlob(type: string, fields: Uint8Array): Buffer {
  return Buffer.concat([field(type), fields]);
}
