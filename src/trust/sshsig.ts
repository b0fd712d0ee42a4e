import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';

/** An OpenSSH public key: its wire bytes in base64 (which tell keys apart), its fingerprint and what verifies with it. */
export type SshKey = { readonly blob: string; readonly fingerprint: string; readonly type: string; readonly key: KeyObject };

/** Bytes that are not the structure they claim to be. */
export class SshFormatError extends Error {}

const CURVES: Record<string, { crv: string; bytes: number; hash: string }> = {
  'ecdsa-sha2-nistp256': { crv: 'P-256', bytes: 32, hash: 'sha256' },
  'ecdsa-sha2-nistp384': { crv: 'P-384', bytes: 48, hash: 'sha384' },
  'ecdsa-sha2-nistp521': { crv: 'P-521', bytes: 66, hash: 'sha512' },
};
const MIN_RSA_BITS = 2048; // NIST SP 800-131A; OpenSSH itself still takes 1024
const MAX_ARMOR = 64 * 1024; // an RSA-16384 signature is 6 KiB

/** Reads a public key line (`TYPE BASE64 [COMMENT]`). Throws `SshFormatError`. */
export function parseSshKey(line: string): SshKey {
  const [type, base64] = line.trim().split(/\s+/);
  if (type === undefined || base64 === undefined) throw new SshFormatError('not a public key line');
  const key = readSshKey(Buffer.from(base64, 'base64'));
  if (key.type !== type) throw new SshFormatError(`the line says \`${type}\`, the key says \`${key.type}\``);
  return key;
}

/** What an SSH signature (PROTOCOL.sshsig) says before anything was verified. */
export type SshSignature = {
  readonly publicKey: Buffer;
  readonly namespace: string;
  readonly hash: 'sha256' | 'sha512';
  readonly algorithm: string;
  readonly signature: Buffer;
};

/** Reads an armored SSH signature. Throws `SshFormatError` for a second block, trailing bytes or anything unknown. */
export function parseSshSignature(armored: string): SshSignature {
  if (armored.length > MAX_ARMOR) throw new SshFormatError('the signature is too long');
  const match = /^-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n?$/.exec(
    armored.replaceAll('\r\n', '\n'),
  );
  if (match === null) throw new SshFormatError('not one armored SSH signature');
  const wire = new Wire(Buffer.from((match[1] ?? '').replaceAll('\n', ''), 'base64'));
  if (wire.take(6).toString('latin1') !== 'SSHSIG') throw new SshFormatError('the magic is not SSHSIG');
  if (wire.uint32() !== 1) throw new SshFormatError('not version 1');
  const publicKey = wire.string();
  const namespace = wire.string().toString('utf8');
  wire.string(); // reserved
  const hash = wire.string().toString('latin1');
  if (hash !== 'sha256' && hash !== 'sha512') throw new SshFormatError('the hash is neither sha256 nor sha512');
  const inner = new Wire(wire.string());
  wire.end();
  const algorithm = inner.string().toString('latin1');
  const signature = inner.string();
  inner.end();
  return { publicKey, namespace, hash, algorithm, signature };
}

/** Whether the signature over the message is the key's, made for the namespace. The key must be the signature's own. */
export function verifySshSignature(sig: SshSignature, key: SshKey, message: Uint8Array, namespace: string): boolean {
  if (namespace === '' || sig.namespace !== namespace) return false;
  if (sig.publicKey.toString('base64') !== key.blob) return false;
  const digest = createHash(sig.hash).update(message).digest();
  const signed = Buffer.concat([
    Buffer.from('SSHSIG'),
    field(Buffer.from(sig.namespace)),
    field(Buffer.alloc(0)),
    field(Buffer.from(sig.hash)),
    field(digest),
  ]);
  return verifyBytes(sig, key, signed);
}

function verifyBytes(sig: SshSignature, key: SshKey, signed: Buffer): boolean {
  if (key.type === 'ssh-ed25519') return sig.algorithm === 'ssh-ed25519' && verify(null, signed, key.key, sig.signature);
  if (key.type === 'ssh-rsa') {
    const hash = { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' }[sig.algorithm];
    return hash !== undefined && verify(hash, signed, key.key, sig.signature);
  }
  const curve = CURVES[key.type];
  if (curve === undefined || sig.algorithm !== key.type) return false;
  const wire = new Wire(sig.signature);
  const pair = [wire.mpint(curve.bytes), wire.mpint(curve.bytes)];
  wire.end();
  return verify(curve.hash, signed, { key: key.key, dsaEncoding: 'ieee-p1363' }, Buffer.concat(pair));
}

function readSshKey(blob: Buffer): SshKey {
  const wire = new Wire(blob);
  const type = wire.string().toString('latin1');
  const key = readKeyObject(type, wire);
  wire.end();
  const fingerprint = `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
  return { blob: blob.toString('base64'), fingerprint, type, key };
}

function readKeyObject(type: string, wire: Wire): KeyObject {
  if (type === 'ssh-ed25519') return jwk({ kty: 'OKP', crv: 'Ed25519', x: wire.string().toString('base64url') });
  const curve = CURVES[type];
  if (curve !== undefined) {
    wire.string(); // the curve's name again
    const point = wire.string();
    if (point[0] !== 4 || point.length !== 1 + 2 * curve.bytes) throw new SshFormatError('the curve point is not in its plain form');
    return jwk({
      kty: 'EC',
      crv: curve.crv,
      x: point.subarray(1, 1 + curve.bytes).toString('base64url'),
      y: point.subarray(1 + curve.bytes).toString('base64url'),
    });
  }
  if (type === 'ssh-rsa') {
    const [e, n] = [unsigned(wire.string()), unsigned(wire.string())];
    if (n.length * 8 < MIN_RSA_BITS) throw new SshFormatError(`an RSA key of ${n.length * 8} bits is too weak; ${MIN_RSA_BITS} are needed`);
    return jwk({ kty: 'RSA', e: e.toString('base64url'), n: n.toString('base64url') });
  }
  throw new SshFormatError(`keys of type \`${type.slice(0, 40)}\` are not supported`);
}

function jwk(key: { kty: string; [field: string]: string }): KeyObject {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    throw new SshFormatError('the key is not a point of its curve');
  }
}

function unsigned(bytes: Buffer): Buffer {
  return bytes[0] === 0 ? bytes.subarray(1) : bytes;
}

function field(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

// RFC 4251 section 5: uint32, string and mpint.
class Wire {
  #at = 0;
  readonly #bytes: Buffer;
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new SshFormatError('it ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
  uint32(): number {
    return this.take(4).readUInt32BE();
  }
  string(): Buffer {
    return this.take(this.uint32());
  }
  mpint(width: number): Buffer {
    const value = unsigned(this.string());
    if (value.length > width) throw new SshFormatError('a number is too long');
    return Buffer.concat([Buffer.alloc(width - value.length), value]);
  }
  end(): void {
    if (this.#at !== this.#bytes.length) throw new SshFormatError('bytes are left over');
  }
}
