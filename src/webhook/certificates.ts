import { webcrypto } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';

/** A server certificate with its key and the CA that clients trust; all PEM. */
export type Certificates = { readonly cert: string; readonly key: string; readonly ca: string };

const DAY_MS = 86_400_000;
const LIFETIME_DAYS = 365;
const RENEW_BEFORE_DAYS = 30;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/**
 * Returns the webhook's certificate for a host, stored in a directory. It is recreated if it is missing, for a
 * different host, not valid yet (made while the clock was ahead), or within 30 days of expiry. Its CA signs only this
 * certificate: the CA key is discarded.
 */
export async function makeCertificates(directory: string, host: string, now: Date): Promise<Certificates> {
  const kept = await readCertificates(directory, host, now);
  if (kept !== undefined) return kept;
  const made = await generateCertificates(host, now);
  mkdirSync(directory, { recursive: true, mode: 0o700 }); // may be the first write to the data directory
  writeFileSync(join(directory, 'tls.key'), made.key, { mode: 0o600 });
  writeFileSync(join(directory, 'tls.crt'), made.cert);
  writeFileSync(join(directory, 'ca.crt'), made.ca);
  return made;
}

async function readCertificates(directory: string, host: string, now: Date): Promise<Certificates | undefined> {
  const files = ['tls.crt', 'tls.key', 'ca.crt'].map((name) => join(directory, name));
  if (!files.every((file) => existsSync(file))) return undefined;
  const [cert, key, ca] = files.map((file) => readFileSync(file, 'utf8')) as [string, string, string];
  const read = { cert, key, ca };
  return (await isUsable(read, host, now)) ? read : undefined;
}

/** Tests whether a certificate is for a host, valid already, and valid for more than 30 days. */
export async function isUsable({ cert }: Certificates, host: string, now: Date): Promise<boolean> {
  const { SubjectAlternativeNameExtension, X509Certificate } = await library();
  try {
    const parsed = new X509Certificate(cert);
    const names = parsed.getExtension(SubjectAlternativeNameExtension)?.names.toJSON() ?? [];
    return (
      parsed.notBefore.getTime() <= now.getTime() &&
      parsed.notAfter.getTime() - now.getTime() > RENEW_BEFORE_DAYS * DAY_MS &&
      names.some((n) => n.value === host)
    );
  } catch {
    return false;
  }
}

/** Creates a certificate for a host, with its own authority, whose key is discarded. */
export async function generateCertificates(host: string, now: Date): Promise<Certificates> {
  const {
    BasicConstraintsExtension,
    ExtendedKeyUsage,
    ExtendedKeyUsageExtension,
    KeyUsageFlags,
    KeyUsagesExtension,
    SubjectAlternativeNameExtension,
    X509CertificateGenerator,
  } = await library();
  const caKeys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const period = {
    notBefore: new Date(now.getTime() - DAY_MS),
    notAfter: new Date(now.getTime() + LIFETIME_DAYS * DAY_MS),
  };
  const ca = await X509CertificateGenerator.createSelfSigned({
    ...period,
    serialNumber: serial(),
    name: 'CN=countersign webhook CA',
    keys: caKeys,
    signingAlgorithm: ALGORITHM,
    extensions: [new BasicConstraintsExtension(true, 0, true), new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true)],
  });
  const cert = await X509CertificateGenerator.create({
    ...period,
    serialNumber: serial(),
    subject: 'CN=countersign webhook',
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([{ type: isIP(host) === 0 ? 'dns' : 'ip', value: host }]),
    ],
  });
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key =
    '-----BEGIN PRIVATE KEY-----\n' +
    `${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END PRIVATE KEY-----\n`;
  return { cert: `${cert.toString('pem')}\n`, key, ca: `${ca.toString('pem')}\n` };
}

// Loaded on demand: threads that only serve a certificate do without its 155 files.
async function library(): Promise<typeof import('@peculiar/x509')> {
  await import('reflect-metadata'); // @peculiar/x509 requires this import first
  return import('@peculiar/x509');
}

function serial(): string {
  return `01${Buffer.from(webcrypto.getRandomValues(new Uint8Array(15))).toString('hex')}`;
}
