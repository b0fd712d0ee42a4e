import type { IncomingMessage } from 'node:http';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent, type RequestOptions, request } from 'node:https';
import { CountersignError, messageOf } from '../model/index.ts';
import type { ClusterAddress } from './cluster-address.ts';
import { type CredentialOptions, type Credentials, openCredentials } from './credentials.ts';

/**
 * An answer of the API server. `body` is parsed JSON; `warnings` are the texts of its Warning headers; `retryAfter` is
 * in seconds.
 */
export type Answer = {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly warnings: readonly string[];
  readonly retryAfter: number | undefined;
};

/**
 * `Accept` header for answers without spec, status and data, which saves writing and parsing them. Servers that do not
 * support it send everything.
 */
export const METADATA_ONLY = {
  object: 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json',
  list: 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json',
} as const;

/** Returns the path of an API version: in one namespace or (`''`) in all. */
export function apiPath(apiVersion: string, namespace: string): string {
  // The version in an owner reference is text written by the object's author.
  const version = apiVersion.split('/').map(encodeURIComponent).join('/');
  const base = apiVersion.includes('/') ? `/apis/${version}` : `/api/${version}`;
  return namespace === '' ? base : `${base}/namespaces/${encodeURIComponent(namespace)}`;
}

const CONNECTIONS = 16; // more connections only make the API server answer later (measured)
const LIMITS: ApiLimits = {
  quietMs: 30_000,
  totalMs: 180_000, // a list of 10,000 large objects over a slow line
  bytes: 256 * 1024 * 1024, // the same list
  lineBytes: 16 * 1024 * 1024, // one event has one object, and the API server accepts 3 MiB
};
const SOON_MS = 2000;
const CREDENTIALS_MS = 60_000; // tokens in files and from exec plugins rotate, so they are read again at this interval

/** Limits on silence, the duration and the size of one answer, and the length of a watch line. */
export type ApiLimits = {
  readonly quietMs: number;
  readonly totalMs: number;
  readonly bytes: number;
  readonly lineBytes: number;
};

/**
 * Connects to a cluster and asks for our identity there. `hasCredentialId`: the API server tells our requests from
 * those that only borrow the name (Kubernetes 1.30). Throws `cluster-unreachable` or `cluster-forbidden`.
 */
export async function connect(
  address: ClusterAddress,
  options: CredentialOptions = {},
): Promise<{ server: ApiServer; user: string; hasCredentialId: boolean }> {
  const server = new ApiServer(await openCredentials(address, options), address.serviceAccount);
  const review = await server.request('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'SelfSubjectReview',
  });
  const { username: user, extra } =
    (review.body as { status?: { userInfo?: { username?: string; extra?: object } } }).status?.userInfo ?? {};
  if (review.status >= 300 || user === undefined || user === 'system:anonymous') {
    throw new CountersignError(
      'cluster-forbidden',
      `the API server at \`${server.url}\` rejects these credentials (${review.status})`,
      { hint: 'check the user of the kubeconfig’s context' },
    );
  }
  return { server, user, hasCredentialId: Object.hasOwn(extra ?? {}, 'authentication.kubernetes.io/credential-id') };
}

/**
 * Sends requests to one API server over a pool of persistent connections. The stock client opens a connection per
 * request, which takes three times as long and nine times the CPU. Only its parsing of kubeconfigs and credentials is
 * used (`credentials.ts`).
 */
export class ApiServer {
  readonly url: string;
  readonly #from: Credentials;
  readonly #limits: ApiLimits;
  readonly #impersonated: Readonly<Record<string, string>>;
  #credentials:
    | { options: RequestOptions; agent: Agent | HttpAgent; streams: Agent | HttpAgent; at: number }
    | undefined;
  // Time stated by its last answer, and when that arrived, by a clock that never jumps.
  #told: { readonly time: number; readonly at: number } | undefined;

  constructor(from: Credentials, serviceAccount?: string, limits: ApiLimits = LIMITS) {
    this.#from = from;
    this.#limits = limits;
    this.url = from.url;
    this.#impersonated =
      serviceAccount === undefined
        ? {}
        : { 'impersonate-user': `system:serviceaccount:${serviceAccount.replace('/', ':')}` };
  }

  /** Returns the time by the API server's own clock, going by its last answer; undefined before the first. */
  now(): Date | undefined {
    return this.#told === undefined ? undefined : new Date(this.#told.time + performance.now() - this.#told.at);
  }

  #hearTime(date: string | undefined, begun: number): void {
    const time = Date.parse(date ?? '');
    const now = performance.now();
    // The header states whole seconds, and says little if the answer was long under way.
    if (!Number.isNaN(time) && now - begun < SOON_MS) this.#told = { time: time + 500, at: (begun + now) / 2 };
  }

  /**
   * Sends one request. Throws `cluster-unreachable` (retry) if there is no answer; any answer with a status is
   * returned.
   */
  async request(
    method: string,
    path: string,
    body?: unknown,
    contentType = 'application/json',
    accept = 'application/json',
  ): Promise<Answer> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      accept,
      ...(payload === undefined
        ? {}
        : { 'content-type': contentType, 'content-length': String(Buffer.byteLength(payload)) }),
    };
    try {
      const begun = performance.now();
      const response = await this.#send(method, path, headers, payload, undefined, 'agent');
      this.#hearTime(response.headers.date, begun);
      return await readAnswer(response, this.#limits.bytes);
    } catch (cause) {
      throw this.#unreachable(cause);
    }
  }

  /**
   * Follows a streaming answer (a watch) and passes on each line as it arrives. Resolves with the status when the
   * server ends it. Throws `cluster-unreachable` if it breaks off or is silent for `quietMs`.
   */
  async follow(
    path: string,
    onLine: (line: string) => void,
    signal: AbortSignal,
    quietMs: number,
    accept = 'application/json',
  ): Promise<number> {
    const quiet = new AbortController();
    let timer = setTimeout(() => quiet.abort(), quietMs);
    try {
      const response = await this.#send(
        'GET',
        path,
        { accept },
        undefined,
        AbortSignal.any([signal, quiet.signal]),
        'streams',
      );
      const status = response.statusCode ?? 0;
      let rest = '';
      const text = new TextDecoder();
      for await (const chunk of response as AsyncIterable<Buffer>) {
        clearTimeout(timer);
        timer = setTimeout(() => quiet.abort(), quietMs);
        if (status !== 200) continue;
        const lines = (rest + text.decode(chunk, { stream: true })).split('\n');
        rest = lines.pop() ?? '';
        if (rest.length > this.#limits.lineBytes)
          throw new Error(`a line of the answer is longer than ${this.#limits.lineBytes} characters`);
        for (const line of lines) onLine(line);
      }
      return status;
    } catch (cause) {
      throw this.#unreachable(quiet.signal.aborted ? new Error(`no data for ${Math.round(quietMs / 1000)} s`) : cause);
    } finally {
      clearTimeout(timer);
    }
  }

  async #send(
    method: string,
    path: string,
    more: Readonly<Record<string, string>>,
    payload: string | undefined,
    signal: AbortSignal | undefined,
    pool: 'agent' | 'streams',
  ): Promise<IncomingMessage> {
    const url = urlOf(this.url, path);
    const { options, [pool]: agent } = await this.#connection();
    const { quietMs, totalMs } = this.#limits;
    const headers = {
      ...(options.headers as Record<string, string>),
      ...this.#impersonated,
      accept: 'application/json',
      'user-agent': 'countersign',
      ...more,
    };
    return new Promise((resolve, reject) => {
      const start = url.protocol === 'http:' ? httpRequest : request;
      // An abort signal for each of thousands of requests costs more than the socket's own timer.
      const until = signal === undefined ? { timeout: quietMs } : { signal };
      const sent = start(url, {
        method,
        headers,
        agent: agent as Agent,
        ...until,
        ...(options.auth == null ? {} : { auth: options.auth }),
      });
      // An answer without a length would count as complete when its socket ends, so the answer itself is destroyed,
      // with the reason.
      let answer: IncomingMessage | undefined;
      const end = (why: string) => {
        reject(new Error(why));
        (answer ?? sent).destroy(new Error(why));
      };
      sent.on('timeout', () => end(`no answer within ${quietMs / 1000} s`));
      // A slow trickle never counts as silence, hence a total limit. Watches have their own.
      const whole =
        signal === undefined
          ? setTimeout(() => end(`no complete answer within ${totalMs / 1000} s`), totalMs)
          : undefined;
      sent.on('close', () => clearTimeout(whole));
      sent.on('response', (response) => {
        answer = response;
        if ((response.headers['content-encoding'] ?? 'identity') === 'identity') resolve(response);
        else end('its answer uses an encoding that was not requested');
      });
      sent.on('error', reject);
      sent.end(payload);
    });
  }

  #unreachable(cause: unknown): CountersignError {
    if (cause instanceof CountersignError && cause.code === 'cluster-refused') return cause;
    if (isCertificateProblem(cause))
      return new CountersignError(
        'certificate-refused',
        `the certificate of the API server at \`${this.url}\` is not accepted: ${reasonOf(cause)}`,
        {
          cause,
          recover: 'retry',
          hint: 'check `certificate-authority` in the kubeconfig, and the clock of this machine',
        },
      );
    return new CountersignError(
      'cluster-unreachable',
      `the API server at \`${this.url}\` does not answer: ${reasonOf(cause)}`,
      {
        cause,
        recover: 'retry',
        hint: 'check that it is running and that the address in the kubeconfig is right',
      },
    );
  }

  close(): void {
    this.#credentials?.agent.destroy();
    this.#credentials?.streams.destroy();
  }

  async #connection(): Promise<{ options: RequestOptions; agent: Agent | HttpAgent; streams: Agent | HttpAgent }> {
    if (this.#credentials !== undefined && performance.now() - this.#credentials.at < CREDENTIALS_MS)
      return this.#credentials;
    const options = await this.#from.read();
    const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized } = options;
    const tls = Object.fromEntries(
      Object.entries({ ca, cert, key, pfx, passphrase, servername, rejectUnauthorized }).filter(
        ([, value]) => value !== undefined,
      ),
    );
    const keep = this.#credentials;
    const same =
      keep !== undefined && JSON.stringify([keep.options.cert, keep.options.key]) === JSON.stringify([cert, key]);
    // There is only one server, so the agent's key for its sockets need not be built from all certificates each time.
    const pool = (more: object) =>
      Object.assign(this.url.startsWith('http:') ? new HttpAgent(more) : new Agent({ ...more, ...tls }), {
        getName: () => this.url,
      });
    const agent = same ? keep.agent : pool({ keepAlive: true, maxSockets: CONNECTIONS, scheduling: 'fifo' });
    // Watches hold a connection each and must not use up those that requests need.
    const streams = same ? keep.streams : pool({});
    this.#credentials = { options, agent, streams, at: performance.now() };
    return this.#credentials;
  }
}

// Names in a path are encoded, but dots are not: a URL would climb with them, even if spelled `%2e`.
function urlOf(server: string, path: string): URL {
  const url = new URL(server.replace(/\/$/, '') + path);
  const [asked = ''] = path.split('?', 1);
  if (url.hash !== '' || !url.pathname.endsWith(asked))
    throw new CountersignError('cluster-refused', `\`${asked.slice(0, 200)}\` is not a path of the API server`, {
      hint: 'correct the name, namespace or `apiVersion` in it',
    });
  return url;
}

async function readAnswer(response: IncomingMessage, most: number): Promise<Answer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > most) throw new Error(`the answer is larger than ${most} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  const warnings = (response.headersDistinct['warning'] ?? []).flatMap((line) =>
    [...line.matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)].map((m) => (m[1] ?? '').replaceAll(/\\(.)/g, '$1')),
  );
  const retryAfter = Number(response.headers['retry-after']);
  const body = text === '' ? {} : parse(text);
  const isGood = response.statusCode !== undefined && response.statusCode >= 200 && response.statusCode < 300;
  // an empty list would mean that nothing exists
  if (body === undefined && isGood) throw new Error('the answer is not JSON');
  return {
    status: response.statusCode ?? 0,
    body: body ?? {}, // only the API server's own answers are repeated
    warnings,
    retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : undefined,
  };
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

// An HTTP parser quotes nothing, but the names in a certificate are chosen by the server.
// OpenSSL's reasons why a chain is not accepted, as Node names them.
const CERTIFICATE_PROBLEM = /^(?:CERT_|ERR_TLS_CERT|(?:DEPTH_ZERO_)?SELF_SIGNED_CERT|UNABLE_TO_(?:GET|VERIFY)_)/;

function isCertificateProblem(thrown: unknown): boolean {
  const { code } = (thrown ?? {}) as { code?: unknown };
  return typeof code === 'string' && CERTIFICATE_PROBLEM.test(code);
}

function reasonOf(thrown: unknown): string {
  const { code } = thrown as { code?: unknown };
  return typeof code === 'string' && code.startsWith('ERR_TLS_CERT')
    ? 'its certificate is for a different name'
    : messageOf(thrown);
}
