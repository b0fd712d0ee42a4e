import type { IncomingMessage } from 'node:http';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent, type RequestOptions, request } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';
import { CountersignError, messageOf } from '../model/index.ts';

/** Which cluster: a kubeconfig file and context, or (without a file) the pod's own account. */
export type ClusterAddress = { readonly kubeconfig: string | undefined; readonly context: string | undefined };

/** An answer of the API server. `body` is parsed JSON; `warnings` are the texts of its Warning headers. */
export type Answer = { readonly status: number; readonly body: Record<string, unknown>; readonly warnings: readonly string[] };

const CONNECTIONS = 16; // beyond this the API server only answers later, not more (measured)
const TIMEOUT_MS = 30_000;
const MAX_BODY = 256 * 1024 * 1024; // a list of 10,000 large objects
const CREDENTIALS_MS = 60_000; // tokens in files and from exec plugins rotate; they are asked for again this often

/** Connects to a cluster and asks who we are there. Throws `cluster-unreachable`, or `cluster-forbidden`. */
export async function connect(address: ClusterAddress): Promise<{ server: ApiServer; user: string }> {
  const config = loadKubeConfig(address);
  const server = new ApiServer(config);
  const review = await server.request('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'SelfSubjectReview',
  });
  const user = (review.body as { status?: { userInfo?: { username?: string } } }).status?.userInfo?.username;
  if (review.status >= 300 || user === undefined || user === 'system:anonymous') {
    throw new CountersignError(
      'cluster-forbidden',
      `the API server at \`${server.url}\` does not accept these credentials (${review.status})`,
      { hint: 'check the user of the kubeconfig’s context' },
    );
  }
  return { server, user };
}

function loadKubeConfig({ kubeconfig, context }: ClusterAddress): KubeConfig {
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) config.loadFromCluster();
    else config.loadFromFile(kubeconfig);
    if (context !== undefined) config.setCurrentContext(context);
    if (config.getCurrentCluster() === null)
      throw new Error(context === undefined ? 'it has no current context' : `it has no context \`${context}\``);
    return config;
  } catch (cause) {
    const what =
      kubeconfig === undefined
        ? 'there is no kubeconfig, and this is not a pod with an account'
        : `the kubeconfig \`${kubeconfig}\` cannot be used: ${messageOf(cause)}`;
    throw new CountersignError('config-invalid', what, {
      cause,
      hint: 'name one with --kubeconfig, `KUBECONFIG`, or `spec.target.kubeconfig`',
    });
  }
}

/**
 * Requests to one API server over one pool of kept connections. The stock client opens a connection for every
 * request, which costs three times the time and nine times the CPU; its reading of kubeconfigs and credentials is used.
 */
export class ApiServer {
  readonly url: string;
  readonly #config: KubeConfig;
  #credentials: { options: RequestOptions; agent: Agent | HttpAgent; at: number } | undefined;

  constructor(config: KubeConfig) {
    this.#config = config;
    this.url = config.getCurrentCluster()?.server ?? '';
  }

  /** Sends one request. Throws `cluster-unreachable` (retry) when there is no answer; any answer with a status is returned. */
  async request(method: string, path: string, body?: unknown, contentType = 'application/json'): Promise<Answer> {
    const { options, agent } = await this.#connection();
    const url = new URL(this.url.replace(/\/$/, '') + path);
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      ...(options.headers as Record<string, string>),
      accept: 'application/json',
      'user-agent': 'countersign',
      ...(payload === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(payload) }),
    };
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown) =>
        reject(
          new CountersignError('cluster-unreachable', `the API server at \`${this.url}\` does not answer: ${messageOf(cause)}`, {
            cause,
            recover: 'retry',
            hint: 'is it running, and is the kubeconfig’s address right?',
          }),
        );
      const start = url.protocol === 'http:' ? httpRequest : request;
      const sent = start(
        url,
        { method, headers, agent: agent as Agent, timeout: TIMEOUT_MS, ...(options.auth == null ? {} : { auth: options.auth }) },
        (response) => {
          readAnswer(response).then(resolve, fail);
        },
      );
      sent.on('timeout', () => sent.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
      sent.on('error', fail);
      sent.end(payload);
    });
  }

  close(): void {
    this.#credentials?.agent.destroy();
  }

  async #connection(): Promise<{ options: RequestOptions; agent: Agent | HttpAgent }> {
    if (this.#credentials !== undefined && Date.now() - this.#credentials.at < CREDENTIALS_MS) return this.#credentials;
    const options: RequestOptions = {};
    await this.#config.applyToHTTPSOptions(options);
    const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized } = options;
    const tls = Object.fromEntries(
      Object.entries({ ca, cert, key, pfx, passphrase, servername, rejectUnauthorized }).filter(([, value]) => value !== undefined),
    );
    const keep = this.#credentials;
    const same = keep !== undefined && JSON.stringify([keep.options.cert, keep.options.key]) === JSON.stringify([cert, key]);
    const kept = { keepAlive: true, maxSockets: CONNECTIONS, scheduling: 'fifo' as const };
    const agent = same ? keep.agent : this.url.startsWith('http:') ? new HttpAgent(kept) : new Agent({ ...kept, ...tls });
    this.#credentials = { options, agent, at: Date.now() };
    return this.#credentials;
  }
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Error(`the answer is larger than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  const warnings = (response.headersDistinct['warning'] ?? []).flatMap((line) =>
    [...line.matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)].map((m) => (m[1] ?? '').replaceAll(/\\(.)/g, '$1')),
  );
  return { status: response.statusCode ?? 0, body: parse(text), warnings };
}

function parse(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return { message: text.slice(0, 200) };
  }
}
