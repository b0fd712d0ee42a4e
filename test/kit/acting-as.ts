import { Agent, request } from 'node:https';

type Answer = { readonly status: number; readonly body: Readonly<Record<string, unknown>> };
type Client = { request(method: string, path: string, body?: unknown, type?: string): Promise<Answer> };

const agent = new Agent({ rejectUnauthorized: false });

/**
 * Sends requests as an account of kube-system, by impersonation, as `kubectl --as` does, with the rights of the account.
 * They look like those of someone who got a token of it; `isBorrowed`: of someone who has only its name.
 */
export function actingAs(url: string, account: string, isBorrowed = false, namespace = 'kube-system'): Client {
  const headers = {
    ...(isBorrowed ? {} : { 'impersonate-extra-authentication.kubernetes.io%2fcredential-id': 'JTI=made-up' }),
    authorization: 'Bearer admin-token',
    accept: 'application/json',
    'impersonate-user': `system:serviceaccount:${namespace}:${account}`,
    'impersonate-group': ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
  return {
    request: (method, path, body, type = 'application/json') =>
      new Promise((resolve, reject) => {
        const text = body === undefined ? '' : JSON.stringify(body);
        const framed = { 'content-type': type, 'content-length': Buffer.byteLength(text) };
        const sent = request(url + path, { method, agent, headers: { ...headers, ...framed } }, (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.on('error', reject);
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 0,
              body: JSON.parse(Buffer.concat(parts).toString()) as Record<string, unknown>,
            }),
          );
        });
        sent.on('error', reject);
        sent.end(text);
      }),
  };
}
