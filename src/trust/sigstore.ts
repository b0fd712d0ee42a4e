import { createHash, X509Certificate } from 'node:crypto';
import { CertificateSet, ContentInfo, id_signedData, SignedData, type SignerInfo } from '@peculiar/asn1-cms';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { toMessageSignatureBundle } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify';
import { canonicalJson } from '../model/index.ts';
import { readProtobuf } from './protobuf.ts';

/** The signer named by the certificate, and when the log saw the signature (milliseconds since 1970). */
export type SigstoreSigner = {
  readonly issuer: string;
  readonly subject: string;
  readonly loggedAt: number;
  readonly fingerprint: string;
};

/**
 * Verifies armored `SIGNED MESSAGE` signatures made by gitsign in offline mode. Throws an Error with the reason if one
 * is invalid.
 */
export type SigstoreVerifier = (bytes: Uint8Array, armored: string) => SigstoreSigner;

const MAX_ARMOR = 64 * 1024; // two certificates and a log entry have 8 KiB
const MESSAGE_DIGEST = '1.2.840.113549.1.9.4';
const CONTENT_TYPE = '1.2.840.113549.1.9.3';
const DATA = '06092a864886f70d010701'; // 1.2.840.113549.1.7.1 in DER
const SHA_256 = '2.16.840.1.101.3.4.2.1';
const LOG_ENTRY = '1.3.6.1.4.1.57264.3.1'; // gitsign: the Rekor entry as protobuf, so that no server has to be asked

/**
 * Returns a verifier for a Sigstore trusted root (JSON). Throws an Error if the root cannot be read. Keys come only
 * from the root; nothing is fetched. `logs` is the number of transparency log entries each signature needs.
 */
export function openSigstore(trustedRoot: string, options: { readonly certificateLogs: number }): SigstoreVerifier {
  const material = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(trustedRoot)));
  if (material.certificateAuthorities.length === 0 || material.tlogs.length === 0)
    throw new Error('it names no certificate authority or no transparency log');
  const verifier = new Verifier(material, {
    tlogThreshold: 1,
    timestampThreshold: 1,
    ctlogThreshold: options.certificateLogs,
  });
  return (bytes, armored) => verify(verifier, Buffer.from(bytes), readArmor(armored));
}

// The signature covers the signed attributes, which contain the digest of the content, so both must be checked. This is
// gitsign's mapping of CMS to a Sigstore bundle; CVE-2026-44310 comes from skipping a part of it.
function verify(verifier: Verifier, content: Buffer, der: Buffer): SigstoreSigner {
  const { signer, certificate } = readSignedData(der);
  if (signer.signedAttrs === undefined) throw new Error('it has no signed attributes');
  if (signer.digestAlgorithm.algorithm !== SHA_256) throw new Error('its digest is not SHA-256');
  const digest = attribute(signer, 'signedAttrs', MESSAGE_DIGEST);
  if (!Buffer.from(AsnConvert.parse(digest, OctetString).buffer).equals(sha256(content)))
    throw new Error('it does not match the content');
  if (Buffer.from(attribute(signer, 'signedAttrs', CONTENT_TYPE)).toString('hex') !== DATA)
    throw new Error('its content type is not data');
  const artifact = derSet(signer.signedAttrs.map((a) => Buffer.from(AsnConvert.serialize(a))));
  const signature = Buffer.from(signer.signature.buffer);
  const bundle = toMessageSignatureBundle({
    digest: sha256(artifact),
    signature,
    certificate,
    certificateChain: false,
  });
  const entry = readLogEntry(signer, artifact, signature, certificate);
  bundle.verificationMaterial.tlogEntries = [entry];
  return {
    ...namedBy(verifier.verify(toSignedEntity(bundle, artifact))),
    loggedAt: Number(entry.integratedTime) * 1000,
    fingerprint: new X509Certificate(certificate).fingerprint256.replaceAll(':', ''),
  };
}

/** Returns the identity in the certificate of a verified signature. Throws an Error if there is none. */
export function namedBy({ identity }: ReturnType<Verifier['verify']>): {
  readonly issuer: string;
  readonly subject: string;
} {
  const issuer = identity?.extensions?.issuer;
  const subject = identity?.subjectAlternativeName;
  if (issuer === undefined || subject === undefined) throw new Error('its certificate names no one');
  return { issuer, subject };
}

// RFC 5652 section 5.4: the signature covers the DER of the attributes as a SET. It is built from the checked
// attributes, so nothing else can have been signed.
function derSet(parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const size =
    content.length < 128
      ? Buffer.from([content.length])
      : Buffer.from([0x82, content.length >> 8, content.length & 0xff]);
  const header = content.length >= 128 && content.length < 256 ? Buffer.from([0x81, content.length]) : size;
  return Buffer.concat([Buffer.from([0x31]), header, content]);
}

function readArmor(armored: string): Buffer {
  const text = armored.replaceAll('\r\n', '\n');
  const match = /^-----BEGIN SIGNED MESSAGE-----\n([A-Za-z0-9+/=\n]+)-----END SIGNED MESSAGE-----\n?$/.exec(text);
  if (armored.length > MAX_ARMOR || match === null) throw new Error('it is not one armored CMS signature');
  return Buffer.from(match[1] ?? '', 'base64');
}

function readSignedData(der: Buffer): { signer: SignerInfo; certificate: Buffer } {
  if (der.length !== derLength(der)) throw new Error('it has bytes after its end');
  const outer = AsnConvert.parse(der, ContentInfo);
  if (outer.contentType !== id_signedData) throw new Error('it is CMS, but not signed data');
  const signed = AsnConvert.parse(outer.content, SignedData);
  if (signed.encapContentInfo.eContent !== undefined) throw new Error('it contains its own content');
  const [signer] = signed.signerInfos;
  if (signed.signerInfos.length !== 1 || signer === undefined)
    throw new Error('it does not contain exactly one signature');
  const certificates = [...(signed.certificates ?? new CertificateSet())].flatMap((c) =>
    c.certificate === undefined ? [] : [Buffer.from(AsnConvert.serialize(c.certificate))],
  );
  const serial =
    signer.sid.issuerAndSerialNumber === undefined
      ? undefined
      : Buffer.from(signer.sid.issuerAndSerialNumber.serialNumber)
          .toString('hex')
          .replace(/^(00)+/, '');
  const own = certificates.filter(
    (c) => new X509Certificate(c).serialNumber.toLowerCase().replace(/^(00)+/, '') === serial,
  );
  if (own.length !== 1 || own[0] === undefined) throw new Error('it does not contain the one certificate that made it');
  return { signer, certificate: own[0] };
}

// X.690 section 8.1.3: length of the first element including its header. The library silently reads further.
function derLength(der: Buffer): number {
  const first = der[1] ?? 0;
  const width = first & 0x7f;
  if (first < 0x80) return 2 + first;
  return width === 0 || width > 4 || der.length < 2 + width ? -1 : 2 + width + der.readUIntBE(2, width);
}

function attribute(signer: SignerInfo, where: 'signedAttrs' | 'unsignedAttrs', type: string): ArrayBuffer {
  const found = (signer[where] ?? []).filter((a) => a.attrType === type);
  const [value] = found[0]?.attrValues ?? [];
  if (found.length !== 1 || found[0]?.attrValues.length !== 1 || value === undefined) {
    if (type === LOG_ENTRY) throw new Error('it has no transparency log entry: gitsign was not in offline mode');
    throw new Error(`it does not have the attribute ${type} exactly once`);
  }
  return value;
}

// dev.sigstore.rekor.v1.TransparencyLogEntry. Its body may be absent, because it can be rebuilt from the signed data.
function readLogEntry(signer: SignerInfo, artifact: Buffer, signature: Buffer, certificate: Buffer) {
  const entry = readProtobuf(
    Buffer.from(AsnConvert.parse(attribute(signer, 'unsignedAttrs', LOG_ENTRY), OctetString).buffer),
  );
  const proof = message(entry, 6);
  const [kind, version] = [text(message(entry, 3), 1), text(message(entry, 3), 2)];
  const body = bytesOf(entry, 7);
  const made = {
    apiVersion: '0.0.1',
    kind: 'hashedrekord',
    spec: {
      data: { hash: { algorithm: 'sha256', value: sha256(artifact).toString('hex') } },
      signature: {
        content: signature.toString('base64'),
        publicKey: { content: Buffer.from(pem(certificate)).toString('base64') },
      },
    },
  };
  return {
    logIndex: String(number(entry, 1)),
    logId: { keyId: bytesOf(message(entry, 2), 1) },
    kindVersion: { kind: kind === '' ? 'hashedrekord' : kind, version: version === '' ? '0.0.1' : version },
    integratedTime: String(number(entry, 4)),
    inclusionPromise: entry.has(5) ? { signedEntryTimestamp: bytesOf(message(entry, 5), 1) } : undefined,
    inclusionProof: entry.has(6)
      ? {
          logIndex: String(number(proof, 1)),
          rootHash: bytesOf(proof, 2),
          treeSize: String(number(proof, 3)),
          hashes: (proof.get(4) ?? []).filter((h) => typeof h !== 'bigint') as Buffer[],
          checkpoint: { envelope: text(message(proof, 5), 1) },
        }
      : undefined,
    canonicalizedBody: body.length > 0 ? body : Buffer.from(canonicalJson(made)),
  };
}

type Fields = ReturnType<typeof readProtobuf>;

function bytesOf(fields: Fields, n: number): Buffer {
  const value = fields.get(n)?.at(-1) ?? Buffer.alloc(0);
  if (typeof value === 'bigint') throw new Error('the log entry has the wrong type');
  return value;
}

function message(fields: Fields, n: number): Fields {
  return readProtobuf(bytesOf(fields, n));
}

function text(fields: Fields, n: number): string {
  return bytesOf(fields, n).toString('utf8');
}

function number(fields: Fields, n: number): bigint {
  const value = fields.get(n)?.at(-1) ?? 0n;
  if (typeof value !== 'bigint') throw new Error('the log entry has the wrong type');
  return value;
}

function pem(der: Buffer): string {
  return (
    '-----BEGIN CERTIFICATE-----\n' +
    `${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`
  );
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
