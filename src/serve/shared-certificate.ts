import type { ApiServer } from '../cluster/index.ts';
import { CountersignError } from '../model/index.ts';
import { type CertificateSource, type Certificates, generateCertificates, isUsable } from '../webhook/index.ts';

type Secret = {
  readonly metadata?: { readonly resourceVersion?: string };
  readonly data?: Readonly<Record<string, string>>;
};

const ATTEMPTS = 5;

/**
 * Returns a self-made certificate that replicas share through a Secret (type kubernetes.io/tls, with `ca.crt`). The
 * first replica creates it, and it is renewed 30 days before it expires. Throws `cluster-forbidden`.
 */
export function sharedCertificate(server: ApiServer, namespace: string, name: string, host: string): CertificateSource {
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`;
  const refuse = (status: number) =>
    new CountersignError(
      'cluster-forbidden',
      `cannot store the webhook’s certificate in the Secret ${namespace}/${name} (${status})`,
      {
        hint: 'grant `get`, `create` and `update` on it, and create the namespace',
      },
    );
  return async (now) => {
    for (let attempt = 1; ; attempt++) {
      const there = await server.request('GET', `${path}/${encodeURIComponent(name)}`);
      if (there.status !== 200 && there.status !== 404) throw refuse(there.status);
      // The API server checks the certificate, so its clock counts. Replicas with different clocks agree by it, too.
      const time = server.now() ?? now;
      const kept = there.status === 200 ? readSecret(there.body as Secret) : undefined;
      if (kept !== undefined && (await isUsable(kept, host, time))) return kept;
      const made = await generateCertificates(host, time);
      const { resourceVersion } = (there.body as Secret).metadata ?? {};
      const body = {
        apiVersion: 'v1',
        kind: 'Secret',
        type: 'kubernetes.io/tls',
        metadata: { name, namespace, ...(there.status === 200 ? { resourceVersion } : {}) },
        data: { 'tls.crt': encode(made.cert), 'tls.key': encode(made.key), 'ca.crt': encode(made.ca) },
      };
      const answer =
        there.status === 200
          ? await server.request('PUT', `${path}/${encodeURIComponent(name)}`, body)
          : await server.request('POST', path, body);
      if (answer.status < 300) return made;
      if (answer.status !== 409 || attempt === ATTEMPTS) throw refuse(answer.status); // 409: another replica was faster
    }
  };
}

function readSecret({ data = {} }: Secret): Certificates {
  const text = (key: string) => Buffer.from(data[key] ?? '', 'base64').toString('utf8');
  return { cert: text('tls.crt'), key: text('tls.key'), ca: text('ca.crt') };
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}
