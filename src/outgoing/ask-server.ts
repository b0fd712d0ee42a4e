import { type ClientRequest, type IncomingMessage, type RequestOptions, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import {
  addressText,
  CountersignError,
  type HttpAddress,
  hostText,
  isLoopback,
  parseHttpAddress,
} from '../model/index.ts';

/** One request, ready to send. */
export type Question = {
  readonly method?: 'GET' | 'POST' | 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** Certificates (PEM) of the server's authority. */
  readonly ca?: string | undefined;
  /**
   * Hosts (`HOST` or `HOST:PORT`) the server may redirect to, without credentials. If absent, no redirect is followed.
   */
  readonly leadsTo?: readonly string[];
  readonly signal?: AbortSignal | undefined;
};

/** Limits on the size of an answer, the time without progress, and the total time. */
export type Limits = { readonly bytes: number; readonly quietMs: number; readonly totalMs: number };

/** An answer within its limits. The body of an error (status 400 and above) may be truncated. */
export type Reply = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: Buffer;
};

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 3;
const MAX_REFUSAL = 16 * 1024; // enough for an error code; the rest of an error body is discarded

/**
 * Sends a request to a web server and waits for the whole answer. Throws `forge-unreachable` (retry) if there is none
 * in time. Throws `forge-refused` for a forbidden redirect, an oversized answer, or an encoding that was not requested.
 */
export async function askServer(address: HttpAddress, question: Question, limits: Limits): Promise<Reply> {
  const end = performance.now() + limits.totalMs;
  let reply = await askOnce(address, question, limits, end);
  let at = address;
  for (let i = 0; REDIRECTS.has(reply.status); i++) {
    if (question.leadsTo === undefined) throw unreachable(address, 'it redirects elsewhere, which is not allowed');
    if (i === MAX_REDIRECTS) throw refusedBy(address, `redirects more than ${MAX_REDIRECTS} times`);
    at = target(reply, at, address, question.leadsTo);
    const { authorization: _, ...headers } = question.headers ?? {};
    reply = await askOnce(at, { ...question, headers }, limits, end);
  }
  return reply;
}

/** Returns an error code from a server if it has the form of one; other text is never repeated. */
export function remoteCode(text: unknown): string | undefined {
  return typeof text === 'string' && /^[A-Za-z][A-Za-z0-9]{0,63}$/.test(text) ? text : undefined;
}

// Returns the target of a redirect if it may be followed: over TLS or on this machine, to the same host or one named
// for it.
function target(reply: Reply, at: HttpAddress, asked: HttpAddress, leadsTo: readonly string[]): HttpAddress {
  const { location } = reply.headers;
  const url = typeof location === 'string' ? URL.parse(location, addressText(at)) : null;
  const parsed = url === null ? undefined : parseHttpAddress(url.href, { query: true });
  if (parsed?.kind !== 'parsed') throw refusedBy(asked, 'redirects to an invalid address');
  const to = parsed.value;
  if (to.scheme === 'http' && !(isLoopback(to.host) && at.scheme === 'http'))
    throw refusedBy(asked, 'redirects to an address without TLS');
  if (hostText(to) !== hostText(asked) && !leadsTo.includes(hostText(to)))
    throw refusedBy(asked, 'redirects to a host that is not allowed', 'add the hosts it may redirect to as `leadsTo`');
  return to;
}

function askOnce(address: HttpAddress, question: Question, limits: Limits, end: number): Promise<Reply> {
  const { method = 'GET', headers = {}, body, ca, signal } = question;
  const { scheme, host, port, path, query } = address;
  const payload = body === undefined ? undefined : Buffer.from(body as Uint8Array);
  return new Promise((resolve, reject) => {
    const sent = start(scheme === 'https' ? requestHttps : requestHttp, {
      method,
      host: host.replace(/^\[(.*)\]$/, '$1'),
      port,
      path: query === '' ? path : `${path}?${query}`,
      headers: {
        'user-agent': 'countersign',
        'accept-encoding': 'identity',
        ...headers,
        host: hostText(address),
        ...(payload === undefined ? {} : { 'content-length': String(payload.length) }),
      },
      agent: false, // one connection per request, closed with it
      timeout: limits.quietMs,
      ...(scheme === 'https' && ca !== undefined ? { ca } : {}),
    });
    const timer = setTimeout(() => fail(late(address, limits.totalMs)), Math.max(0, end - performance.now()));
    const onAbort = () => fail(unreachable(address, 'it was cancelled'));
    // However it ends, the socket ends too, even if the server keeps sending.
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      sent.destroy();
    };
    const fail = (error: Error) => {
      reject(error);
      settle();
    };
    const succeed = (reply: Reply) => {
      resolve(reply);
      settle();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    sent.on('timeout', () => fail(late(address, limits.quietMs)));
    sent.on('error', (cause) => fail(unreachable(address, codeOf(cause))));
    sent.on('response', (response) => take(response, address, limits.bytes, succeed, fail));
    sent.end(payload);
  });
}

// A key file with a line break is not a valid header.
function start(request: typeof requestHttp, options: RequestOptions & { readonly ca?: string }): ClientRequest {
  try {
    return request(options);
  } catch {
    throw new CountersignError(
      'config-invalid',
      'a token or another header contains characters that HTTP does not allow',
      {
        hint: 'check the token files: one line each',
      },
    );
  }
}

function take(
  response: IncomingMessage,
  address: HttpAddress,
  limit: number,
  succeed: (reply: Reply) => void,
  fail: (error: Error) => void,
): void {
  const status = response.statusCode ?? 0;
  const encoding = response.headers['content-encoding'];
  const isRefusal = status >= 400;
  const most = isRefusal ? Math.min(limit, MAX_REFUSAL) : limit;
  const chunks: Buffer[] = [];
  let size = 0;
  const done = () => succeed({ status, headers: response.headers, body: Buffer.concat(chunks) });
  const isEncoded = encoding !== undefined && encoding !== 'identity';
  if (isEncoded && !isRefusal) fail(refusedBy(address, 'answers with an encoding that was not requested'));
  else if (isEncoded || REDIRECTS.has(status)) done(); // such a body is not read
  response.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= most) chunks.push(chunk);
    else if (isRefusal) done();
    else fail(refusedBy(address, `answers with more than ${most} bytes`));
  });
  response.on('end', () => (response.complete ? done() : fail(unreachable(address, 'it broke off'))));
  response.on('error', (cause) => fail(unreachable(address, codeOf(cause))));
}

function late(address: HttpAddress, ms: number): CountersignError {
  return unreachable(address, `no answer within ${ms / 1000} s`);
}

function unreachable(address: HttpAddress, why: string): CountersignError {
  return new CountersignError('forge-unreachable', `${hostText(address)} does not answer: ${why}`, {
    hint: 'check the address, and that it is reachable from here',
    recover: 'retry',
  });
}

function refusedBy(address: HttpAddress, what: string, hint?: string): CountersignError {
  return new CountersignError('forge-refused', `${hostText(address)} ${what}`, hint === undefined ? {} : { hint });
}

// Node's codes for sockets, TLS and HTTP (`ECONNREFUSED`, `CERT_HAS_EXPIRED`, `HPE_INVALID_CONSTANT`).
function codeOf(thrown: unknown): string {
  const { code } = thrown as { code?: unknown };
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{0,63}$/.test(code) ? code : 'it broke off';
}
