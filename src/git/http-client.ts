import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { GitHttpRequest, GitHttpResponse, HttpClient } from 'isomorphic-git';

const TIMEOUT_MS = 120_000;

/** HTTP as isomorphic-git wants it, with an authority of one's own; the library's client takes none. */
export function httpClient(ca: string | undefined): HttpClient {
  return { request: (request) => send(request, ca) };
}

async function send({ url, method = 'GET', headers = {}, body }: GitHttpRequest, ca: string | undefined): Promise<GitHttpResponse> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body ?? []) chunks.push(chunk);
  const payload = Buffer.concat(chunks);
  return new Promise((resolve, reject) => {
    const request = url.startsWith('https:') ? requestHttps : requestHttp;
    const sent = request(
      url,
      { method, headers: { ...headers, 'content-length': payload.length }, timeout: TIMEOUT_MS, ...(ca === undefined ? {} : { ca }) },
      (response) =>
        resolve({
          url,
          method,
          statusCode: response.statusCode ?? 0,
          statusMessage: response.statusMessage ?? '',
          headers: Object.fromEntries(Object.entries(response.headers).map(([k, v]) => [k, String(v)])),
          body: response as unknown as AsyncIterableIterator<Uint8Array>,
        }),
    );
    sent.on('timeout', () => sent.destroy(new Error('the server does not answer')));
    sent.on('error', reject);
    sent.end(payload);
  });
}
