import { STATUS_CODES } from 'node:http';
import type { GitHttpRequest, GitHttpResponse, HttpClient } from 'isomorphic-git';
import { httpAddress } from '../model/index.ts';
import { askServer, type Limits } from '../outgoing/index.ts';

const LIMITS: Limits = { bytes: 512 * 1024 * 1024, quietMs: 30_000, totalMs: 120_000 }; // the whole pack is in memory

/**
 * Provides HTTP for isomorphic-git, with limits, a custom authority and no redirects; the library's client lacks these.
 */
export function httpClient(ca: string | undefined, limits: Limits = LIMITS): HttpClient {
  return { request: (request) => send(request, ca, limits) };
}

async function send(
  { url, method = 'GET', headers = {}, body }: GitHttpRequest,
  ca: string | undefined,
  limits: Limits,
): Promise<GitHttpResponse> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body ?? []) chunks.push(chunk);
  const question = { method: method === 'POST' ? ('POST' as const) : ('GET' as const), headers, ca };
  const sent = method === 'POST' ? { ...question, body: Buffer.concat(chunks) } : question;
  const reply = await askServer(httpAddress(url, { query: true }), sent, limits);
  return {
    url,
    method,
    statusCode: reply.status,
    statusMessage: STATUS_CODES[reply.status] ?? '', // never the server's own text
    headers: Object.fromEntries(Object.entries(reply.headers).map(([k, v]) => [k, String(v)])),
    body: once(reply.body),
  };
}

async function* once(bytes: Uint8Array): AsyncIterableIterator<Uint8Array> {
  yield bytes;
}
