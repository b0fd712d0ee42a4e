import 'reflect-metadata';
import {
  createPrivateKey,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
  X509Certificate as NodeCertificate,
} from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsagesExtension,
  type Name,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  X509Certificate,
} from '@peculiar/x509';
import { type Builtin, type BuiltinContext, bigint, collection, object, text, Undefined } from './builtin.ts';
import { fromJson, RegoObject, type Value } from './value.ts';

/**
 * Certificates, certificate requests and private keys. Fields are named as in Go's `crypto/x509`, which rules for OPA
 * expect.
 */
export const X509_BUILTINS: Readonly<Record<string, Builtin>> = {
  'crypto.x509.parse_certificates': ([certificates]) =>
    certificatesOf(text(certificates)).map((c) => certificateFields(c)),
  'crypto.x509.parse_and_verify_certificates': ([certificates], context) => verified(text(certificates), {}, context),
  'crypto.x509.parse_and_verify_certificates_with_options': ([certificates, options], context) =>
    verified(text(certificates), optionsOf(object(options)), context),
  'crypto.x509.parse_certificate_request': ([request]) => requestFields(text(request)),
  'crypto.x509.parse_keypair': ([certificate, key]) => keyPair(text(certificate), text(key)),
  'crypto.x509.parse_rsa_private_key': ([key]) => {
    const pem = text(key);
    if (pem === '') throw new Undefined('no key');
    const [first] = privateKeysOf(pem.startsWith('-----BEGIN') ? pem : base64(pem).toString('utf8'));
    return first === undefined ? null : fromJson(first.export({ format: 'jwk' }));
  },
  'crypto.parse_private_keys': ([keys]) => (text(keys) === '' ? null : privateKeysOf(text(keys)).map(privateKeyFields)),
};

function base64(value: string): Buffer {
  const plain = value.replace(/[\r\n]/g, '');
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(plain))
    throw new Undefined('illegal base64');
  return Buffer.from(plain, 'base64');
}

function pemBlocks(pem: string): { label: string; der: Buffer; text: string }[] {
  return [...pem.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([\s\S]*?)-----END \1-----/g)].map((m) => ({
    label: m[1] as string,
    der: Buffer.from((m[2] as string).replace(/\s/g, ''), 'base64'),
    text: m[0],
  }));
}

function orUndefined<T>(run: () => T): T {
  try {
    return run();
  } catch (thrown) {
    throw thrown instanceof Undefined ? thrown : new Undefined(String(thrown));
  }
}

// Accepts PEM, base64-encoded PEM, or one or more base64-encoded DER certificates.
function certificatesOf(input: string): X509Certificate[] {
  const decoded = input.startsWith('-----BEGIN') ? Buffer.from(input) : base64(input);
  if (!decoded.subarray(0, 10).toString('latin1').startsWith('-----BEGIN'))
    return derSequence(decoded).map((der) => orUndefined(() => new X509Certificate(der)));
  const blocks = pemBlocks(decoded.toString('utf8'));
  if (blocks.some((b) => b.label !== 'CERTIFICATE')) throw new Undefined('a PEM block is not a certificate');
  return blocks.map((b) => orUndefined(() => new X509Certificate(b.der)));
}

function derSequence(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at + 1] ?? 0;
    const more = first < 0x80 ? 0 : first & 0x7f;
    if (bytes[at] !== 0x30 || more > 4 || at + 2 + more > bytes.length) throw new Undefined('no certificate found');
    const size = more === 0 ? first : bytes.readUIntBE(at + 2, more);
    const end = at + 2 + more + size;
    if (end > bytes.length) throw new Undefined('a certificate is truncated');
    parts.push(bytes.subarray(at, end));
    at = end;
  }
  return parts;
}

const NAMES: readonly (readonly [string, string, boolean])[] = [
  ['Country', 'C', true],
  ['Organization', 'O', true],
  ['OrganizationalUnit', 'OU', true],
  ['Locality', 'L', true],
  ['Province', 'ST', true],
  ['StreetAddress', '2.5.4.9', true],
  ['PostalCode', '2.5.4.17', true],
  ['SerialNumber', '2.5.4.5', false],
  ['CommonName', 'CN', false],
];
const OIDS: Record<string, string> = {
  C: '2.5.4.6',
  O: '2.5.4.10',
  OU: '2.5.4.11',
  L: '2.5.4.7',
  ST: '2.5.4.8',
  CN: '2.5.4.3',
};

function nameFields(name: Name): Value {
  const fields = NAMES.map(([field, key, many]) => {
    const values = name.getField(key);
    return [field, many ? (values.length === 0 ? null : values) : (values.at(-1) ?? '')] as const;
  });
  const all = name.toJSON().flatMap((rdn) =>
    Object.entries(rdn).flatMap(([type, values]) =>
      values.map(
        (v) =>
          new RegoObject([
            ['Type', (OIDS[type] ?? type).split('.').map(Number)],
            ['Value', v],
          ]),
      ),
    ),
  );
  return new RegoObject([...fields, ['Names', all], ['ExtraNames', null]]);
}

const SIGNATURES: Record<string, number> = {
  'RSA/SHA-1': 3,
  'RSA/SHA-256': 4,
  'RSA/SHA-384': 5,
  'RSA/SHA-512': 6,
  'ECDSA/SHA-1': 9,
  'ECDSA/SHA-256': 10,
  'ECDSA/SHA-384': 11,
  'ECDSA/SHA-512': 12,
  Ed25519: 16,
};
const USAGES: Record<string, number> = {
  '2.5.29.37.0': 0,
  '1.3.6.1.5.5.7.3.1': 1,
  '1.3.6.1.5.5.7.3.2': 2,
  '1.3.6.1.5.5.7.3.3': 3,
  '1.3.6.1.5.5.7.3.4': 4,
  '1.3.6.1.5.5.7.3.5': 5,
  '1.3.6.1.5.5.7.3.6': 6,
  '1.3.6.1.5.5.7.3.7': 7,
  '1.3.6.1.5.5.7.3.8': 8,
  '1.3.6.1.5.5.7.3.9': 9,
};

const b64 = (bytes: ArrayBuffer | Uint8Array) => Buffer.from(bytes as ArrayBuffer).toString('base64');
const goTime = (date: Date) => date.toISOString().replace('.000Z', 'Z');

function alternativeNames(extension: SubjectAlternativeNameExtension | null): (readonly [string, Value])[] {
  const of = (type: string): Value => {
    const values = extension?.names.items.filter((n) => n.type === type).map((n) => n.value) ?? [];
    return values.length === 0 ? null : values;
  };
  return [
    ['DNSNames', of('dns')],
    ['EmailAddresses', of('email')],
    ['IPAddresses', of('ip')],
  ];
}

function urisOf(extension: SubjectAlternativeNameExtension | null): string[] {
  return extension?.names.items.filter((n) => n.type === 'url').map((n) => n.value) ?? [];
}

function publicKeyFields(key: KeyObject): { algorithm: number; value: Value } {
  const jwk = key.export({ format: 'jwk' }) as JsonWebKey;
  const whole = (field: string | undefined) =>
    BigInt(`0x${Buffer.from(field ?? '', 'base64url').toString('hex') || '0'}`);
  if (jwk.kty === 'RSA') return { algorithm: 1, value: fromJson({ N: whole(jwk.n), E: whole(jwk.e) }) };
  if (jwk.kty === 'EC') return { algorithm: 3, value: fromJson({ Curve: {}, X: whole(jwk.x), Y: whole(jwk.y) }) };
  return { algorithm: 4, value: Buffer.from(jwk.x ?? '', 'base64url').toString('base64') };
}

function signatureAlgorithm(given: object): number {
  const algorithm = given as { name: string; hash?: { name: string } };
  if (algorithm.name === 'Ed25519' || algorithm.name === 'EdDSA') return SIGNATURES['Ed25519'] as number;
  const kind = algorithm.name === 'ECDSA' ? 'ECDSA' : 'RSA';
  return SIGNATURES[`${kind}/${algorithm.hash?.name ?? ''}`] ?? 0;
}

function certificateFields(certificate: X509Certificate): RegoObject {
  const names = certificate.getExtension(SubjectAlternativeNameExtension);
  const basic = certificate.getExtension(BasicConstraintsExtension);
  const usages = certificate.getExtension(ExtendedKeyUsageExtension)?.usages.map(String) ?? [];
  const key = publicKeyFields(
    createPublicKey({ key: Buffer.from(certificate.publicKey.rawData), format: 'der', type: 'spki' }),
  );
  const uris = urisOf(names);
  return new RegoObject([
    ['Raw', b64(certificate.rawData)],
    ['RawSubjectPublicKeyInfo', b64(certificate.publicKey.rawData)],
    ['Signature', b64(certificate.signature)],
    ['SignatureAlgorithm', signatureAlgorithm(certificate.signatureAlgorithm)],
    ['PublicKeyAlgorithm', key.algorithm],
    ['PublicKey', key.value],
    ['Version', 3],
    ['SerialNumber', fromJson(BigInt(`0x${certificate.serialNumber}`))],
    ['Issuer', nameFields(certificate.issuerName)],
    ['Subject', nameFields(certificate.subjectName)],
    ['NotBefore', goTime(certificate.notBefore)],
    ['NotAfter', goTime(certificate.notAfter)],
    ['KeyUsage', Number(certificate.getExtension(KeyUsagesExtension)?.usages ?? 0)],
    [
      'Extensions',
      certificate.extensions.map(
        (e) =>
          new RegoObject([
            ['Id', e.type.split('.').map(Number)],
            ['Critical', e.critical],
            ['Value', b64(e.value)],
          ] as (readonly [Value, Value])[]),
      ),
    ],
    ['ExtKeyUsage', usages.length === 0 ? null : usages.flatMap((u) => (USAGES[u] === undefined ? [] : [USAGES[u]]))],
    ['BasicConstraintsValid', basic !== null],
    ['IsCA', basic?.ca ?? false],
    ['MaxPathLen', basic?.pathLength ?? (basic === null ? 0 : -1)],
    ['MaxPathLenZero', basic?.pathLength === 0],
    ...alternativeNames(names),
    ['URIs', uris.length === 0 ? null : uris.map(uriFields)],
    ['URIStrings', uris.length === 0 ? null : uris],
  ] as (readonly [Value, Value])[]);
}

function uriFields(uri: string): Value {
  const url = orUndefined(() => new URL(uri));
  return fromJson({
    Scheme: url.protocol.slice(0, -1),
    Opaque: '',
    User: null,
    Host: url.host,
    Path: url.pathname,
    Fragment: url.hash.slice(1),
    RawQuery: url.search.slice(1),
    RawPath: '',
    RawFragment: '',
    ForceQuery: false,
    OmitHost: false,
  });
}

type VerifyOptions = { readonly dnsName?: string; readonly time?: bigint; readonly usages?: readonly number[] };

const USAGE_NAMES = [
  'KeyUsageAny',
  'KeyUsageServerAuth',
  'KeyUsageClientAuth',
  'KeyUsageCodeSigning',
  'KeyUsageEmailProtection',
  'KeyUsageIPSECEndSystem',
  'KeyUsageIPSECTunnel',
  'KeyUsageIPSECUser',
  'KeyUsageTimeStamping',
  'KeyUsageOCSPSigning',
  'KeyUsageMicrosoftServerGatedCrypto',
  'KeyUsageNetscapeServerGatedCrypto',
  'KeyUsageMicrosoftCommercialCodeSigning',
  'KeyUsageMicrosoftKernelCodeSigning',
];

function optionsOf(given: RegoObject): VerifyOptions {
  let options: VerifyOptions = {};
  for (const [key, value] of given.sorted()) {
    if (key === 'DNSName') options = { ...options, dnsName: text(value) };
    else if (key === 'CurrentTime') options = { ...options, time: bigint(value) };
    else if (key === 'MaxConstraintComparisons') bigint(value);
    else if (key === 'KeyUsages') {
      const usages = collection(value).map((v) => USAGE_NAMES.indexOf(text(v)));
      if (usages.includes(-1)) throw new Undefined('an unknown key usage');
      options = { ...options, usages };
    } else throw new Undefined('invalid key option');
  }
  return options;
}

// The first certificate is the root, the last is the leaf. RFC 5280 section 6, without name constraints.
function verified(input: string, options: VerifyOptions, context: BuiltinContext): Value {
  try {
    const all = certificatesOf(input);
    if (all.length < 2) throw new Undefined('at least two certificates are needed');
    const chain = chainFrom(all.at(-1) as X509Certificate, all.slice(1, -1), all[0] as X509Certificate, {
      ...options,
      time: options.time ?? context.now,
    });
    return [true, chain.map((c) => certificateFields(c))];
  } catch (thrown) {
    if (thrown instanceof Undefined) return [false, []];
    throw thrown;
  }
}

function chainFrom(
  leaf: X509Certificate,
  between: readonly X509Certificate[],
  root: X509Certificate,
  options: VerifyOptions,
): X509Certificate[] {
  const now = Number((options.time ?? 0n) / 1_000_000n);
  const node = (c: X509Certificate) => new NodeCertificate(Buffer.from(c.rawData));
  const inTime = (c: X509Certificate) => c.notBefore.getTime() <= now && now <= c.notAfter.getTime();
  const wanted = options.usages ?? [1];
  const serves = (c: X509Certificate) => {
    const usages = c.getExtension(ExtendedKeyUsageExtension)?.usages.map((u) => USAGES[String(u)]);
    return usages === undefined || usages.includes(0) || wanted.includes(0) || wanted.some((w) => usages.includes(w));
  };
  const issued = (child: X509Certificate, parent: X509Certificate) =>
    (parent.getExtension(BasicConstraintsExtension)?.ca ?? false) &&
    node(child).checkIssued(node(parent)) &&
    node(child).verify(node(parent).publicKey);
  const climb = (at: X509Certificate, path: readonly X509Certificate[]): X509Certificate[] | undefined => {
    if (!inTime(at) || !serves(at)) return undefined;
    if (issued(at, root) && inTime(root)) return [...path, at, root];
    for (const next of between) {
      if (path.includes(next) || next === at || !issued(at, next)) continue;
      const length = next.getExtension(BasicConstraintsExtension)?.pathLength;
      if (length !== undefined && path.length > length) continue;
      const found = climb(next, [...path, at]);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  if (options.dnsName !== undefined && options.dnsName !== '' && node(leaf).checkHost(options.dnsName) === undefined)
    throw new Undefined('another name');
  const chain = climb(leaf, []);
  if (chain === undefined) throw new Undefined('no chain leads to the root');
  return chain;
}

function requestFields(input: string): Value {
  const decoded = input.startsWith('-----BEGIN CERTIFICATE REQUEST-----') ? Buffer.from(input) : base64(input);
  const block = pemBlocks(decoded.toString('utf8'))[0];
  if (block !== undefined && block.label !== 'CERTIFICATE REQUEST') throw new Undefined('not a certificate request');
  const request = orUndefined(() => new Pkcs10CertificateRequest(block?.der ?? decoded));
  const key = publicKeyFields(
    createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki' }),
  );
  const names = request.extensions.find((e) => e instanceof SubjectAlternativeNameExtension) ?? null;
  const uris = urisOf(names);
  return new RegoObject([
    ['Raw', b64(request.rawData)],
    ['RawSubjectPublicKeyInfo', b64(request.publicKey.rawData)],
    ['Signature', b64(request.signature)],
    ['SignatureAlgorithm', signatureAlgorithm(request.signatureAlgorithm)],
    ['PublicKeyAlgorithm', key.algorithm],
    ['PublicKey', key.value],
    ['Version', 0],
    ['Subject', nameFields(request.subjectName)],
    [
      'Extensions',
      request.extensions.map(
        (e) =>
          new RegoObject([
            ['Id', e.type.split('.').map(Number)],
            ['Critical', e.critical],
            ['Value', b64(e.value)],
          ] as (readonly [Value, Value])[]),
      ),
    ],
    ...alternativeNames(names),
    ['URIs', uris.length === 0 ? null : uris.map(uriFields)],
  ] as (readonly [Value, Value])[]);
}

function privateKeysOf(input: string): KeyObject[] {
  const pem = /^[A-Za-z0-9+/=\s]+$/.test(input) && input.length % 4 === 0 ? base64(input).toString('utf8') : input;
  return pemBlocks(pem)
    .filter((b) => ['RSA PRIVATE KEY', 'PRIVATE KEY', 'EC PRIVATE KEY'].includes(b.label))
    .map((b) => orUndefined(() => createPrivateKey(b.text)));
}

function privateKeyFields(key: KeyObject): Value {
  const jwk = key.export({ format: 'jwk' }) as JsonWebKey;
  const whole = (field: string | undefined) =>
    BigInt(`0x${Buffer.from(field ?? '', 'base64url').toString('hex') || '0'}`);
  if (jwk.kty === 'RSA')
    return fromJson({
      N: whole(jwk.n),
      E: whole(jwk.e),
      D: whole(jwk.d),
      Primes: [whole(jwk.p), whole(jwk.q)],
      Precomputed: { Dp: whole(jwk.dp), Dq: whole(jwk.dq), Qinv: whole(jwk.qi), CRTValues: [] },
    });
  if (jwk.kty === 'EC') return fromJson({ Curve: {}, X: whole(jwk.x), Y: whole(jwk.y), D: whole(jwk.d) });
  return Buffer.concat([Buffer.from(jwk.d ?? '', 'base64url'), Buffer.from(jwk.x ?? '', 'base64url')]).toString(
    'base64',
  );
}

// Accepts PEM or DER, either also in base64. The key must belong to the first certificate.
function keyPair(certificate: string, key: string): Value {
  const decoded = (value: string) => (value.startsWith('-----BEGIN ') ? Buffer.from(value) : base64(value));
  const chain = certificatesOf(
    certificate.startsWith('-----BEGIN ') ? certificate : decoded(certificate).toString('base64'),
  );
  const raw = decoded(key);
  // Misspelled labels are accepted too: Go takes any label that ends in `PRIVATE KEY`.
  const isPem = raw.subarray(0, 10).toString('latin1') === '-----BEGIN';
  const secret = orUndefined(() =>
    isPem ? createPrivateKey(raw) : createPrivateKey({ key: raw, format: 'der', type: 'pkcs8' }),
  );
  const [first] = chain;
  if (first === undefined || !createPublicKey(secret).equals(new NodeCertificate(Buffer.from(first.rawData)).publicKey))
    throw new Undefined('the key does not belong to the certificate');
  return new RegoObject([
    ['Certificate', chain.map((c) => b64(c.rawData))],
    ['PrivateKey', privateKeyFields(secret)],
    ['OCSPStaple', null],
    ['SignedCertificateTimestamps', null],
    ['SupportedSignatureAlgorithms', null],
    ['Leaf', certificateFields(first)],
  ] as (readonly [Value, Value])[]);
}
