import {
  constants,
  createHmac,
  createPrivateKey,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify,
  X509Certificate,
} from 'node:crypto';
import { type Builtin, type BuiltinContext, object, text, Undefined } from './builtin.ts';
import { compare, floatOf, fromJsonText, RegoNumber, RegoObject, RegoSet, toJsonText, type Value } from './value.ts';

const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'HS256',
  'HS384',
  'HS512',
  'EdDSA',
] as const;
type Algorithm = (typeof ALGORITHMS)[number];

const asymmetric =
  (algorithm: Algorithm): Builtin =>
  ([token, key]) =>
    verifyToken(text(token), text(key), algorithm);
const symmetric =
  (algorithm: Algorithm): Builtin =>
  ([token, secret]) => {
    const parts = split(text(token));
    return verifyBytes(algorithm, Buffer.from(text(secret)), parts.signed, decode(parts.signature));
  };

/** JSON Web Tokens (RFC 7515, 7517, 7519). A token is verified only if it uses the requested algorithm. */
export const JWT_BUILTINS: Readonly<Record<string, Builtin>> = {
  'io.jwt.decode': ([token]) => decodeToken(text(token)),
  'io.jwt.decode_verify': ([token, constraints], context) => decodeVerify(text(token), object(constraints), context),
  'io.jwt.encode_sign': ([headers, payload, key]) =>
    signToken(toJsonText(headers as Value), toJsonText(payload as Value), toJsonText(key as Value)),
  'io.jwt.encode_sign_raw': ([headers, payload, key]) => signToken(text(headers), text(payload), text(key)),
  ...Object.fromEntries(
    ALGORITHMS.map((a) => [`io.jwt.verify_${a.toLowerCase()}`, a.startsWith('HS') ? symmetric(a) : asymmetric(a)]),
  ),
};

type Parts = { readonly header: string; readonly payload: string; readonly signature: string; readonly signed: Buffer };

function split(token: string): Parts {
  const parts = token.split('.');
  if (parts.length !== 3) throw new Undefined('a token must have three sections');
  const [header, payload, signature] = parts as [string, string, string];
  return { header, payload, signature, signed: Buffer.from(`${header}.${payload}`) };
}

function decode(section: string): Buffer {
  if (!/^[A-Za-z0-9_-]*={0,2}$/.test(section) || section.replace(/=+$/, '').length % 4 === 1)
    throw new Undefined('not base64url text');
  return Buffer.from(section, 'base64url');
}

function decodeObject(section: Buffer): RegoObject {
  try {
    return object(fromJsonText(section.toString('utf8')));
  } catch (thrown) {
    throw thrown instanceof SyntaxError ? new Undefined('no JSON') : thrown;
  }
}

function headerOf(parts: Parts): RegoObject {
  const header = decodeObject(decode(parts.header));
  if (header.has('enc')) throw new Undefined('encrypted tokens are not supported');
  return header;
}

function decodeToken(token: string): Value {
  const parts = split(token);
  const header = headerOf(parts);
  const payload = decode(parts.payload);
  if (header.get('cty') === 'JWT') return decodeToken(payload.toString('utf8').replace(/^["']+|["']+$/g, ''));
  return [header, decodeObject(payload), decode(parts.signature).toString('hex')];
}

type VerificationKey = { readonly algorithm: string; readonly id: string; readonly key: KeyObject | Buffer };

/** Reads keys from a PEM certificate or public key, a JWK, or a JWK set. */
function keysOf(source: string): VerificationKey[] {
  const pem = /^\s*-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----\s*$/.exec(source);
  if (pem !== null && (source.match(/-----BEGIN/g) ?? []).length > 1) throw new Undefined('more than one PEM block');
  try {
    if (pem?.[1] === 'CERTIFICATE') return [{ algorithm: '', id: '', key: new X509Certificate(source).publicKey }];
    if (pem?.[1] === 'PUBLIC KEY') return [{ algorithm: '', id: '', key: createPublicKey(source) }];
    if (pem !== null) throw new Undefined('not a public key');
    const parsed = JSON.parse(source) as { keys?: JsonWebKey[] } & JsonWebKey;
    const all = parsed.keys ?? [parsed];
    return all
      .filter((jwk) => jwk['alg'] === undefined || ALGORITHMS.includes(jwk['alg'] as Algorithm))
      .map((jwk) => ({
        algorithm: String(jwk['alg'] ?? ''),
        id: String(jwk['kid'] ?? ''),
        key: jwk.kty === 'oct' ? Buffer.from(String(jwk.k), 'base64url') : createPublicKey({ key: jwk, format: 'jwk' }),
      }));
  } catch (thrown) {
    throw thrown instanceof Undefined ? thrown : new Undefined('no usable key');
  }
}

function verifyBytes(algorithm: string, key: KeyObject | Buffer, signed: Buffer, signature: Buffer): boolean {
  const hash = `sha${algorithm.slice(2)}`;
  if (algorithm.startsWith('HS')) {
    if (!Buffer.isBuffer(key)) return false;
    const mac = createHmac(hash, key).update(signed).digest();
    return mac.length === signature.length && timingSafeEqual(mac, signature);
  }
  if (Buffer.isBuffer(key)) return false;
  const kind = key.asymmetricKeyType;
  try {
    if (algorithm === 'EdDSA') return kind === 'ed25519' && verify(null, signed, key, signature);
    if (algorithm.startsWith('ES'))
      return kind === 'ec' && verify(hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
    if (kind !== 'rsa') return false;
    return verify(
      hash,
      signed,
      algorithm.startsWith('PS')
        ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
        : key,
      signature,
    );
  } catch {
    return false;
  }
}

function verifyToken(token: string, source: string, algorithm: Algorithm): boolean {
  const parts = split(token);
  const keys = keysOf(source);
  const signature = decode(parts.signature);
  const header = readHeader(headerOf(parts));
  return verifyWithAny(keys, header, (key) => verifyBytes(algorithm, key, parts.signed, signature));
}

type Header = { readonly algorithm: string; readonly id: string; readonly content: string; readonly valid: boolean };

function readHeader(header: RegoObject): Header {
  const field = (name: string) => (header.has(name) ? text(header.get(name)) : '');
  field('typ');
  const known = ['alg', 'kid', 'typ', 'cty', 'crit'];
  const critical = header.get('crit');
  if (critical !== undefined && (!Array.isArray(critical) || critical.length === 0))
    throw new Undefined('`crit` must be a list');
  const unknown = header
    .sorted()
    .map(([k]) => k)
    .filter((k) => !known.includes(String(k)));
  const algorithm = field('alg');
  return {
    algorithm,
    id: field('kid'),
    content: field('cty'),
    valid: algorithm !== '' && !unknown.some((k) => ((critical as Value[] | undefined) ?? []).includes(k)),
  };
}

function verifyWithAny(
  keys: readonly VerificationKey[],
  header: Header,
  check: (key: KeyObject | Buffer) => boolean,
): boolean {
  const named = header.id === '' ? undefined : keys.find((k) => k.id === header.id);
  if (named !== undefined) return check(named.key);
  return keys.some((k) => (k.algorithm === '' || k.algorithm === header.algorithm) && check(k.key));
}

const CONSTRAINTS = ['cert', 'secret', 'alg', 'iss', 'aud', 'time'];

function decodeVerify(given: string, constraints: RegoObject, context: BuiltinContext): Value {
  const unverified: Value = [false, new RegoObject(), new RegoObject()];
  if (constraints.sorted().some(([k]) => !CONSTRAINTS.includes(String(k))))
    throw new Undefined('an unknown constraint');
  const wanted = (name: string) => (constraints.has(name) ? text(constraints.get(name)) : '');
  const [secret, algorithm, issuer, audience] = ['secret', 'alg', 'iss', 'aud'].map(wanted) as [
    string,
    string,
    string,
    string,
  ];
  const keys = constraints.has('cert') ? keysOf(text(constraints.get('cert'))) : undefined;
  if ((keys === undefined) === (secret === '')) throw new Undefined('set either `cert` or `secret`');
  const time = constraints.get('time');
  if (time !== undefined && typeof time !== 'number' && !(time instanceof RegoNumber))
    throw new Undefined('`time` must be a number');
  const now = time === undefined ? Number(context.now) : floatOf(time as number | RegoNumber);
  if (now < 0) throw new Undefined('`time` must not be negative');
  let token = given;
  for (;;) {
    const parts = split(token);
    const raw = headerOf(parts);
    const header = readHeader(raw);
    if (!header.valid || (algorithm !== '' && algorithm !== header.algorithm)) return unverified;
    const signature = decode(parts.signature);
    const check = (key: KeyObject | Buffer) => verifyBytes(header.algorithm, key, parts.signed, signature);
    if (!(keys === undefined ? check(Buffer.from(secret)) : verifyWithAny(keys, header, check))) return unverified;
    const payload = decode(parts.payload);
    if (header.content.toUpperCase() === 'JWT') {
      token = payload.toString('utf8');
      continue;
    }
    const claims = decodeObject(payload);
    return meets(claims, { issuer, audience, seconds: now / 1e9 }) ? [true, raw, claims] : unverified;
  }
}

function meets(
  claims: RegoObject,
  { issuer, audience, seconds }: { issuer: string; audience: string; seconds: number },
): boolean {
  if (issuer !== '' && claims.get('iss') !== issuer) return false;
  const aud = claims.get('aud');
  if (
    aud === undefined
      ? audience !== ''
      : typeof aud === 'string'
        ? aud !== audience
        : !(Array.isArray(aud) && aud.includes(audience))
  )
    return false;
  const moment = new RegoNumber(String(seconds));
  const claim = (name: string) => {
    const value = claims.get(name);
    if (value !== undefined && typeof value !== 'number' && !(value instanceof RegoNumber))
      throw new Undefined(`\`${name}\` must be a number`);
    return value;
  };
  const [expires, notBefore] = [claim('exp'), claim('nbf')];
  if (expires !== undefined && compare(moment, expires) !== -1) return false;
  return notBefore === undefined || compare(moment, notBefore) !== -1;
}

function signToken(headers: string, payload: string, key: string): string {
  let jwk: JsonWebKey;
  let header: RegoObject;
  try {
    const parsed = JSON.parse(key) as { keys?: JsonWebKey[] } & JsonWebKey;
    jwk = parsed.keys?.[0] ?? parsed;
    header = object(fromJsonText(headers));
  } catch {
    throw new Undefined('no JSON');
  }
  const algorithm = header.get('alg');
  if (!ALGORITHMS.includes(algorithm as Algorithm)) throw new Undefined('an unknown algorithm');
  if (header.get('typ') === undefined || header.get('typ') === 'JWT') {
    try {
      JSON.parse(payload);
    } catch {
      throw new Undefined('the payload is not JSON');
    }
  }
  const signed = `${Buffer.from(headers).toString('base64url')}.${Buffer.from(payload).toString('base64url')}`;
  return `${signed}.${signBytes(algorithm as Algorithm, jwk, Buffer.from(signed)).toString('base64url')}`;
}

function signBytes(algorithm: Algorithm, jwk: JsonWebKey, data: Buffer): Buffer {
  const hash = `sha${algorithm.slice(2)}`;
  try {
    if (algorithm.startsWith('HS')) {
      if (jwk.kty !== 'oct' || typeof jwk.k !== 'string') throw new Undefined('not a symmetric key');
      return createHmac(hash, Buffer.from(jwk.k, 'base64url')).update(data).digest();
    }
    const key = createPrivateKey({ key: jwk, format: 'jwk' });
    if (algorithm === 'EdDSA') return sign(null, data, key);
    if (algorithm.startsWith('ES')) return sign(hash, data, { key, dsaEncoding: 'ieee-p1363' });
    return sign(
      hash,
      data,
      algorithm.startsWith('PS')
        ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
        : key,
    );
  } catch {
    throw new Undefined('the key cannot sign with this algorithm');
  }
}
void RegoSet;
