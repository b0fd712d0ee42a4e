import { createHash } from 'node:crypto';
import {
  below,
  type CountersignError,
  type HttpAddress,
  hostText,
  isLoopback,
  messageOf,
  parseHttpAddress,
  parseImageReference,
  parsePlace,
} from '../model/index.ts';
import { askServer, type Limits, type Reply } from '../outgoing/index.ts';

export type PullOptions = {
  /** `user:password`. */
  readonly credentials?: string | undefined;
  /** Certificates (PEM) of the registry's authority. */
  readonly ca?: string | undefined;
  /** Other hosts it may redirect to: its storage, and its token service. */
  readonly leadsTo?: readonly string[] | undefined;
  readonly limits?: Omit<Limits, 'bytes'>;
};

/** Creates the error for failed content: the reason, and whether a retry may help. */
export type Refuse = (why: string, more?: { cause?: unknown; retry?: boolean; hint?: string }) => CountersignError;

type Layer = { readonly mediaType?: string; readonly digest?: string; readonly size?: number };

/** An image's layers, and a function that fetches one. */
export type Image = { readonly layers: readonly Layer[]; readonly layer: (one: Layer) => Promise<Buffer> };

const MANIFEST_TYPES = 'application/vnd.oci.image.manifest.v1+json';
const MAX_MANIFEST = 4 * 1024 * 1024; // the limit of registries themselves
const MAX_LAYER = 64 * 1024 * 1024;
const MAX_TOKEN = 64 * 1024;
const LIMITS = { quietMs: 60_000, totalMs: 5 * 60_000 };

/**
 * Pulls an image from a registry by the digest of its manifest (OCI distribution 1.1), as `HOST/NAME@sha256:…`. Every
 * byte is hashed again. Throws the errors that `refuse` creates.
 */
export async function pullImage(reference: string, options: PullOptions, refuse: Refuse): Promise<Image> {
  const parsed = parseImageReference(reference);
  if (parsed.kind === 'refused') throw refuse(parsed.why);
  const { registry, name, digest } = parsed.value;
  const get = client(registryAt(registry, options, refuse), name, options, refuse);
  const manifest = await fetchDigest((limit) => get(`manifests/${digest}`, limit), digest, MAX_MANIFEST, refuse);
  return {
    layers: layersIn(manifest, refuse),
    layer: (one) => fetchDigest((limit) => get(`blobs/${one.digest}`, limit), one.digest ?? '', MAX_LAYER, refuse),
  };
}

// Only digests from the manifest are used for further requests.
function layersIn(manifest: Buffer, refuse: Refuse): readonly Layer[] {
  let value: unknown;
  try {
    value = JSON.parse(manifest.toString('utf8'));
  } catch {
    throw refuse('its manifest is not JSON');
  }
  const { layers = [] } = (value ?? {}) as { layers?: unknown };
  if (!Array.isArray(layers)) throw refuse('its manifest has no layers');
  return layers.map((one: { mediaType?: unknown; digest?: unknown } | null) => {
    const { mediaType, digest } = one ?? {};
    if (typeof digest !== 'string' || !/^sha256:[0-9a-f]{64}$/.test(digest))
      throw refuse('its manifest has a layer without a SHA-256 digest');
    return { digest, ...(typeof mediaType === 'string' ? { mediaType } : {}) };
  });
}

/**
 * Downloads a file from a web server and compares its SHA-256, as `sha256:…`. Throws the errors that `refuse` creates.
 */
export async function downloadFile(url: string, digest: string, options: PullOptions, refuse: Refuse): Promise<Buffer> {
  const parsed = parseHttpAddress(url);
  if (parsed.kind === 'refused') throw refuse(parsed.why);
  if (parsed.value.scheme === 'http' && !isLoopback(parsed.value.host))
    throw refuse('plain HTTP is only allowed with this machine');
  const ask = asking(options, refuse, 'the server');
  const basic = basicOf(options);
  const get = async (limit: number) => bodyOf(await ask(parsed.value, basic, limit), refuse, 'the server');
  return fetchDigest(get, digest, MAX_LAYER, refuse);
}

async function fetchDigest(
  get: (limit: number) => Promise<Buffer>,
  digest: string,
  limit: number,
  refuse: Refuse,
): Promise<Buffer> {
  const bytes = await get(limit);
  const have = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (have !== digest) throw refuse(`the registry returned bytes that do not match ${digest.slice(0, 19)}…`);
  return bytes;
}

function bodyOf(reply: Reply, refuse: Refuse, who: string): Buffer {
  if (reply.status === 401 || reply.status === 403)
    throw refuse(`${who} rejects the credentials`, { hint: 'set `credentialsFile`' });
  if (reply.status === 404) throw refuse(`${who} does not have it`);
  if (reply.status !== 200) throw refuse(`${who} answered ${reply.status}`, { retry: true });
  return reply.body;
}

// Plain HTTP is only allowed with this machine.
function registryAt(registry: string, { ca }: PullOptions, refuse: Refuse): HttpAddress {
  const isHere = isLoopback(registry.replace(/:\d+$/, '')) && ca === undefined;
  const place = parsePlace(registry, isHere ? 80 : 443);
  if (place.kind === 'refused') throw refuse(place.why);
  return { scheme: isHere ? 'http' : 'https', ...place.value, path: '/v2', query: '' };
}

type Ask = (to: HttpAddress, authorization: string | undefined, limit: number, accept?: string) => Promise<Reply>;

// Files are often stored elsewhere. Only named hosts are allowed, and they get no credentials.
function asking({ ca, leadsTo = [], limits = LIMITS }: PullOptions, refuse: Refuse, who: string): Ask {
  return (to, authorization, limit, accept) => {
    const headers = {
      ...(accept === undefined ? {} : { accept }),
      ...(authorization === undefined ? {} : { authorization }),
    };
    return askServer(to, { headers, ca, leadsTo }, { ...limits, bytes: limit }).catch((cause: CountersignError) => {
      const isAway = cause.recover === 'retry';
      const hint = isAway
        ? `check that ${who} is reachable from here`
        : 'add the hosts it may redirect to as `leadsTo`';
      throw refuse(messageOf(cause), { cause, retry: isAway, hint });
    });
  };
}

// Requests a token if the registry requires one, like Docker’s clients.
function client(
  at: HttpAddress,
  name: string,
  options: PullOptions,
  refuse: Refuse,
): (path: string, limit: number) => Promise<Buffer> {
  const ask = asking(options, refuse, 'the registry');
  let authorization: string | undefined;
  return async (path, limit) => {
    const to = below(at, `/${name}/${path}`);
    let reply = await ask(to, authorization, limit, MANIFEST_TYPES);
    if (reply.status === 401) {
      authorization = await authorize(String(reply.headers['www-authenticate'] ?? ''), at, name, options, ask, refuse);
      reply = await ask(to, authorization, limit, MANIFEST_TYPES);
    }
    return bodyOf(reply, refuse, 'the registry');
  };
}

async function authorize(
  challenge: string,
  at: HttpAddress,
  name: string,
  options: PullOptions,
  ask: Ask,
  refuse: Refuse,
): Promise<string | undefined> {
  const basic = basicOf(options);
  const field = (key: string) => new RegExp(`\\b${key}="([^"]*)"`).exec(challenge)?.[1];
  const realm = field('realm');
  if (/^basic/i.test(challenge) || realm === undefined) return basic;
  const to = tokenService(realm, at, options, refuse);
  const service = field('service');
  const scope = field('scope') ?? `repository:${name}:pull`;
  const query = new URLSearchParams({ ...(service === undefined ? {} : { service }), scope }).toString();
  const reply = await ask({ ...to, query: to.query === '' ? query : `${to.query}&${query}` }, basic, MAX_TOKEN);
  const token = reply.status === 200 ? tokenIn(reply.body) : undefined;
  return token === undefined ? basic : `Bearer ${token}`;
}

// The registry names its token service. Credentials are sent there only if that is the registry itself or a named host.
function tokenService(realm: string, at: HttpAddress, { leadsTo = [] }: PullOptions, refuse: Refuse): HttpAddress {
  const url = URL.parse(realm);
  const parsed = url === null ? undefined : parseHttpAddress(url.href, { query: true });
  if (parsed?.kind !== 'parsed') throw refuse('the token service of the registry is not a valid address');
  const to = parsed.value;
  if (to.scheme === 'http' && !(isLoopback(to.host) && at.scheme === 'http'))
    throw refuse('the token service of the registry does not use TLS');
  if (hostText(to) !== hostText(at) && !leadsTo.includes(hostText(to)))
    throw refuse('the token service of the registry is on a host that is not allowed', {
      hint: 'add that host as `leadsTo` (for Docker Hub: `auth.docker.io`)',
    });
  return to;
}

function tokenIn(body: Buffer): string | undefined {
  try {
    const { token, access_token } = JSON.parse(body.toString('utf8')) as { token?: unknown; access_token?: unknown };
    const one = token ?? access_token;
    return typeof one === 'string' && /^[\x21-\x7e]+$/.test(one) ? one : undefined;
  } catch {
    return undefined;
  }
}

function basicOf({ credentials }: PullOptions): string | undefined {
  return credentials === undefined ? undefined : `Basic ${Buffer.from(credentials).toString('base64')}`;
}
