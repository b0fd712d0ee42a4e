import { Agent, request } from 'node:https';

type Answer = { readonly status: number; readonly body: Readonly<Record<string, unknown>> };
type Client = { request(method: string, path: string, body?: unknown, type?: string): Promise<Answer> };

const agent = new Agent({ rejectUnauthorized: false });

/**
 * Sends requests as an account of kube-system, by impersonation, as `kubectl --as` does. The rights are the account's
 * own, and it has no token of its own: this is someone who borrows the name of a controller.
 */
export function actingAs(url: string, account: string): Client {
  const headers = {
    authorization: 'Bearer admin-token',
    accept: 'application/json',
    'impersonate-user': `system:serviceaccount:kube-system:${account}`,
    'impersonate-group': ['system:serviceaccounts', 'system:serviceaccounts:kube-system', 'system:authenticated'],
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
