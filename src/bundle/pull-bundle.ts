import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { CountersignError, messageOf } from '../model/index.ts';

export type PullOptions = {
  /** `user:password`. */
  readonly credentials?: string | undefined;
  /** Certificates (PEM) of the registry's authority. */
  readonly ca?: string | undefined;
};

type Manifest = { readonly layers?: readonly { readonly mediaType?: string; readonly digest?: string; readonly size?: number }[] };
type Reply = { readonly status: number; readonly headers: Readonly<Record<string, string | string[] | undefined>>; readonly body: Buffer };

const MANIFEST_TYPES = 'application/vnd.oci.image.manifest.v1+json';
const SIGNATURE_TYPE = 'application/vnd.countersign.bundle.signature.v1';
const MAX_MANIFEST = 4 * 1024 * 1024; // what registries themselves allow
const MAX_LAYER = 64 * 1024 * 1024;
const TIMEOUT_MS = 60_000;

/**
 * Pulls a bundle from a registry by the digest of its manifest (OCI distribution 1.1): the first layer that is a gzipped
 * tar, and a signature layer where there is one. Every byte is hashed again. Throws `policy-unusable`, with `retry` where
 * the registry is away.
 */
export async function pullBundle(
  reference: string,
  options: PullOptions,
): Promise<{ readonly archive: Uint8Array; readonly signature: string | undefined }> {
  const match = /^([^/]+)\/(.+)@(sha256:[0-9a-f]{64})$/.exec(reference);
  if (match === null) throw refuse(reference, 'it is not pinned by digest');
  const [, registry = '', name = '', digest = ''] = match;
  const get = client(registry, name, options, reference);
  const manifest = JSON.parse(
    (await fetchDigest(get, `manifests/${digest}`, digest, MAX_MANIFEST, reference)).toString('utf8'),
  ) as Manifest;
  const layers = manifest.layers ?? [];
  const bundle =
    layers.find((l) => /tar\+gzip|\.tar\.gz|rego\.v1\.tar/.test(l.mediaType ?? '')) ?? layers.find((l) => l.mediaType !== SIGNATURE_TYPE);
  if (bundle?.digest === undefined) throw refuse(reference, 'its manifest has no layer with a bundle');
  const layer = (one: { readonly digest?: string }) => fetchDigest(get, `blobs/${one.digest}`, one.digest ?? '', MAX_LAYER, reference);
  const archive = await layer(bundle);
  const signature = layers.find((l) => l.mediaType === SIGNATURE_TYPE);
  return { archive, signature: signature === undefined ? undefined : (await layer(signature)).toString('utf8') };
}

async function fetchDigest(
  get: (path: string, limit: number) => Promise<Buffer>,
  path: string,
  digest: string,
  limit: number,
  reference: string,
): Promise<Buffer> {
  const bytes = await get(path, limit);
  const have = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (have !== digest) throw refuse(reference, `the registry gave other bytes than ${digest.slice(0, 19)}…`);
  return bytes;
}

function refuse(reference: string, why: string, more: { cause?: unknown; retry?: boolean; hint?: string } = {}): CountersignError {
  return new CountersignError('policy-unusable', `the policy bundle \`${reference}\` cannot be pulled: ${why}`, {
    cause: more.cause,
    hint: more.hint ?? 'compare the reference with what `oras resolve` prints',
    ...(more.retry === true ? { recover: 'retry' as const } : {}),
  });
}

const LOCAL = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

// Plain HTTP is spoken with this machine alone. A token is asked for where the registry wants one, as Docker’s clients do.
function client(registry: string, name: string, options: PullOptions, reference: string): (path: string, limit: number) => Promise<Buffer> {
  const local = LOCAL.test(registry);
  const base = `${local && options.ca === undefined ? 'http' : 'https'}://${registry}/v2/${name}/`;
  let authorization: string | undefined;
  return async (path, limit) => {
    const ask = (url: string, header: string | undefined) =>
      ask1(url, { accept: MANIFEST_TYPES, ...(header === undefined ? {} : { authorization: header }) }, limit, options).catch(
        (cause: unknown) => {
          throw refuse(reference, messageOf(cause), { cause, retry: true, hint: 'is the registry reachable from here?' });
        },
      );
    let reply = await ask(base + path, authorization);
    if (reply.status === 401) {
      authorization = await authorize(String(reply.headers['www-authenticate'] ?? ''), name, options, ask);
      reply = await ask(base + path, authorization);
    }
    // Blobs often lie elsewhere; no credentials are taken there.
    for (let i = 0; i < 3 && [301, 302, 307, 308].includes(reply.status); i++)
      reply = await ask(new URL(String(reply.headers['location'] ?? ''), base + path).href, undefined);
    if (reply.status === 401 || reply.status === 403)
      throw refuse(reference, 'the registry wants other credentials', { hint: 'set `credentialsFile`' });
    if (reply.status === 404) throw refuse(reference, 'the registry does not have it');
    if (reply.status !== 200) throw refuse(reference, `the registry answered ${reply.status}`, { retry: true });
    return reply.body;
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
