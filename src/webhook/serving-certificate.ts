import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError, messageOf } from '../model/index.ts';
import { type Certificates, makeCertificates } from './certificates.ts';

/** Source of the webhook's certificate. Read repeatedly, so that a newer one is used without a restart. */
export type CertificateSource = (now: Date) => Promise<Certificates>;

/** Returns a source that creates its own certificate in a directory and renews it 30 days before it expires. */
export function selfMade(directory: string, host: string): CertificateSource {
  return (now) => makeCertificates(directory, host, now);
}

/**
 * Returns a source that reads the files of a mounted Secret of type kubernetes.io/tls: `tls.crt`, `tls.key` and
 * `ca.crt`, by which the API server trusts it (cert-manager writes all three). Throws `config-invalid` if they do not
 * match or are not valid now.
 */
export function fromFiles(directory: string, host: string): CertificateSource {
  return async (now) => {
    const refuse = (why: string, cause?: unknown) =>
      new CountersignError('config-invalid', `the certificate in \`${directory}\` cannot be used: ${why}`, {
        cause,
        hint: 'provide tls.crt, tls.key and ca.crt, as written by cert-manager',
      });
    let read: Certificates;
    try {
      const [cert, key] = ['tls.crt', 'tls.key'].map((name) => readFileSync(join(directory, name), 'utf8')) as [
        string,
        string,
      ];
      read = { cert, key, ca: caOf(directory, cert) };
    } catch (cause) {
      throw refuse(messageOf(cause), cause);
    }
    let leaf: X509Certificate;
    try {
      leaf = new X509Certificate(read.cert);
    } catch (cause) {
      throw refuse('tls.crt is not a certificate', cause);
    }
    if (leaf.validFromDate.getTime() > now.getTime())
      throw refuse(`it is not valid before ${leaf.validFromDate.toISOString()}, and it is ${now.toISOString()}`);
    if (leaf.validToDate.getTime() < now.getTime())
      throw refuse(`it expired on ${leaf.validToDate.toISOString().slice(0, 10)}`);
    if (leaf.checkHost(host) === undefined && leaf.checkIP(host) === undefined)
      throw refuse(`it is not for \`${host}\``);
    return read;
  };
}

// Without ca.crt, the certificate must be self-signed.
function caOf(directory: string, cert: string): string {
  try {
    return readFileSync(join(directory, 'ca.crt'), 'utf8');
  } catch {
    return cert;
  }
}
