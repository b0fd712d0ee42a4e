import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError, messageOf } from '../model/index.ts';
import { type Certificates, makeCertificates } from './certificates.ts';

/** Where the webhook's certificate comes from. Read again and again, so that a newer one is taken without a pause. */
export type CertificateSource = (now: Date) => Promise<Certificates>;

/** A certificate of our own making, kept in a directory and made anew 30 days before its end. */
export function selfMade(directory: string, host: string): CertificateSource {
  return (now) => makeCertificates(directory, host, now);
}

/**
 * Files as a Secret of the type kubernetes.io/tls has them when it is mounted: `tls.crt`, `tls.key` and, for the API
 * server to trust it by, `ca.crt` (cert-manager writes all three). Throws `config-invalid` where they do not fit
 * together or are of no use now.
 */
export function fromFiles(directory: string, host: string): CertificateSource {
  return async (now) => {
    const refuse = (why: string, cause?: unknown) =>
      new CountersignError('config-invalid', `the certificate in \`${directory}\` cannot be used: ${why}`, {
        cause,
        hint: 'tls.crt, tls.key and ca.crt, as cert-manager writes them',
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
      throw refuse('tls.crt is no certificate', cause);
    }
    if (leaf.validToDate.getTime() < now.getTime())
      throw refuse(`it ended on ${leaf.validToDate.toISOString().slice(0, 10)}`);
    if (leaf.checkHost(host) === undefined && leaf.checkIP(host) === undefined)
      throw refuse(`it is not for \`${host}\``);
    return read;
  };
}

// Without ca.crt the certificate has to speak for itself, as one that signed itself does.
function caOf(directory: string, cert: string): string {
  try {
    return readFileSync(join(directory, 'ca.crt'), 'utf8');
  } catch {
    return cert;
  }
}
