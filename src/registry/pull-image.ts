import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type CountersignError, messageOf } from '../model/index.ts';

export type PullOptions = {
  /** `user:password`. */
  readonly credentials?: string | undefined;
  /** Certificates (PEM) of the registry's authority. */
  readonly ca?: string | undefined;
};

/** Makes the error for what cannot be had: why, and whether it may pass by itself. */
export type Refuse = (why: string, more?: { cause?: unknown; retry?: boolean; hint?: string }) => CountersignError;

export type Layer = { readonly mediaType?: string; readonly digest?: string; readonly size?: number };

/** An image's layers, and how to have one. */
export type Image = { readonly layers: readonly Layer[]; readonly layer: (one: Layer) => Promise<Buffer> };

type Reply = { readonly status: number; readonly headers: Readonly<Record<string, string | string[] | undefined>>; readonly body: Buffer };

const MANIFEST_TYPES = 'application/vnd.oci.image.manifest.v1+json';
const MAX_MANIFEST = 4 * 1024 * 1024; // what registries themselves allow
const MAX_LAYER = 64 * 1024 * 1024;
const TIMEOUT_MS = 60_000;

/**
 * An image of a registry by the digest of its manifest (OCI distribution 1.1), as `HOST/NAME@sha256:…`. Every byte is hashed again.
 * Throws what `refuse` makes.
 */
export async function pullImage(reference: string, options: PullOptions, refuse: Refuse): Promise<Image> {
  const match = /^([^/]+)\/(.+)@(sha256:[0-9a-f]{64})$/.exec(reference);
  if (match === null) throw refuse('it is not pinned by digest');
  const [, registry = '', name = '', digest = ''] = match;
  const get = client(registry, name, options, refuse);
  const manifest = await fetchDigest((limit) => get(`manifests/${digest}`, limit), digest, MAX_MANIFEST, refuse);
  const { layers = [] } = JSON.parse(manifest.toString('utf8')) as { layers?: readonly Layer[] };
  return {
    layers,
    layer: (one) => fetchDigest((limit) => get(`blobs/${one.digest}`, limit), one.digest ?? '', MAX_LAYER, refuse),
  };
}

/** A file of a web server by its SHA-256, as `sha256:…`. Throws what `refuse` makes. */
export async function downloadFile(url: string, digest: string, options: PullOptions, refuse: Refuse): Promise<Buffer> {
  const authorization = options.credentials === undefined ? undefined : `Basic ${Buffer.from(options.credentials).toString('base64')}`;
  const ask = (at: string, header: string | undefined, limit: number) =>
    ask1(at, header === undefined ? {} : { authorization: header }, limit, options).catch((cause: unknown) => {
      throw refuse(messageOf(cause), { cause, retry: true, hint: 'is the server reachable from here?' });
    });
  const get = async (limit: number) => {
    let at = url;
    let reply = await ask(at, authorization, limit);
    for (let i = 0; i < 3 && REDIRECTS.has(reply.status); i++) {
      at = new URL(String(reply.headers['location'] ?? ''), at).href;
      reply = await ask(at, undefined, limit);
    }
    return bodyOf(reply, refuse, 'the server');
  };
  return fetchDigest(get, digest, MAX_LAYER, refuse);
}

async function fetchDigest(get: (limit: number) => Promise<Buffer>, digest: string, limit: number, refuse: Refuse): Promise<Buffer> {
  const bytes = await get(limit);
  const have = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (have !== digest) throw refuse(`the registry gave other bytes than ${digest.slice(0, 19)}…`);
  return bytes;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

function bodyOf(reply: Reply, refuse: Refuse, who: string): Buffer {
  if (reply.status === 401 || reply.status === 403) throw refuse(`${who} wants other credentials`, { hint: 'set `credentialsFile`' });
  if (reply.status === 404) throw refuse(`${who} does not have it`);
  if (reply.status !== 200) throw refuse(`${who} answered ${reply.status}`, { retry: true });
  return reply.body;
}

const LOCAL = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

// Plain HTTP is spoken with this machine alone. A token is asked for where the registry wants one, as Docker’s clients do.
function client(registry: string, name: string, options: PullOptions, refuse: Refuse): (path: string, limit: number) => Promise<Buffer> {
  const local = LOCAL.test(registry);
  const base = `${local && options.ca === undefined ? 'http' : 'https'}://${registry}/v2/${name}/`;
  let authorization: string | undefined;
  return async (path, limit) => {
    const ask = (url: string, header: string | undefined) =>
      ask1(url, { accept: MANIFEST_TYPES, ...(header === undefined ? {} : { authorization: header }) }, limit, options).catch(
        (cause: unknown) => {
          throw refuse(messageOf(cause), { cause, retry: true, hint: 'is the registry reachable from here?' });
        },
      );
    let reply = await ask(base + path, authorization);
    if (reply.status === 401) {
      authorization = await authorize(String(reply.headers['www-authenticate'] ?? ''), name, options, ask);
      reply = await ask(base + path, authorization);
    }
    // Blobs often lie elsewhere; no credentials are taken there.
    for (let i = 0; i < 3 && REDIRECTS.has(reply.status); i++)
      reply = await ask(new URL(String(reply.headers['location'] ?? ''), base + path).href, undefined);
    return bodyOf(reply, refuse, 'the registry');
  };
}

async function authorize(
  challenge: string,
  name: string,
  options: PullOptions,
  ask: (url: string, header: string | undefined) => Promise<Reply>,
): Promise<string | undefined> {
  const basic = options.credentials === undefined ? undefined : `Basic ${Buffer.from(options.credentials).toString('base64')}`;
  if (/^basic/i.test(challenge)) return basic;
  const field = (key: string) => new RegExp(`${key}="([^"]*)"`).exec(challenge)?.[1];
  const realm = field('realm');
  if (realm === undefined) return basic;
  const url = new URL(realm);
  if (url.protocol !== 'https:' && !LOCAL.test(url.host)) return undefined; // credentials go nowhere in the clear
  const service = field('service');
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.set('scope', field('scope') ?? `repository:${name}:pull`);
  const reply = await ask(url.href, basic);
  const { token, access_token } = JSON.parse(reply.body.toString('utf8') || '{}') as { token?: string; access_token?: string };
  return token === undefined && access_token === undefined ? basic : `Bearer ${token ?? access_token}`;
}

function ask1(url: string, headers: Record<string, string>, limit: number, options: PullOptions): Promise<Reply> {
  const secure = url.startsWith('https:');
  return new Promise((done, failed) => {
    const request = (secure ? httpsRequest : httpRequest)(
      url,
      { headers, timeout: TIMEOUT_MS, ...(secure && options.ca !== undefined ? { ca: options.ca } : {}) },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > limit) request.destroy(new Error(`the answer is larger than ${limit} bytes`));
          else chunks.push(chunk);
        });
        response.on('error', failed);
        response.on('end', () => done({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }));
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', failed);
    request.end();
  });
}
