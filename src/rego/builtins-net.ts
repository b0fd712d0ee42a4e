import { createHash, createHmac } from 'node:crypto';
import { isIP, isIPv4 } from 'node:net';
import { array, type Builtin, bigint, collection, object, text, Undefined } from './builtin.ts';
import { RegoObject, RegoSet, toJsonText, type Value } from './value.ts';

/** Addresses, URIs, query strings and request signatures. No builtin here uses the network. */
export const NET_BUILTINS: Readonly<Record<string, Builtin>> = {
  'net.cidr_is_valid': ([cidr]) => typeof cidr === 'string' && isDefined(() => parseCidr(cidr)),
  'net.cidr_expand': ([cidr]) => new RegoSet(expand(parseCidr(text(cidr)))),
  'net.cidr_merge': ([cidrs]) => new RegoSet(merge(collection(cidrs).map((c) => networkOf(text(c))))),
  'net.cidr_contains_matches': ([cidrs, others]) => containsMatches(cidrs as Value, others as Value),
  'uri.is_valid': ([uri]) => typeof uri === 'string' && uri !== '' && isDefined(() => parseUri(uri)),
  'uri.parse': ([uri]) => parseUri(text(uri)),
  'urlquery.encode': ([value]) => queryEscape(text(value)),
  'urlquery.decode': ([value]) => queryUnescape(text(value)),
  'urlquery.encode_object': ([value]) => encodeQuery(object(value)),
  'urlquery.decode_object': ([value]) => decodeQuery(text(value)),
  'providers.aws.sign_req': ([request, config, time]) => signAws(object(request), object(config), bigint(time)),
};

function isDefined(run: () => unknown): boolean {
  try {
    run();
    return true;
  } catch (thrown) {
    if (thrown instanceof Undefined) return false;
    throw thrown;
  }
}

/** A network: address size in bits, first address, prefix length. */
type Network = { readonly bits: 32 | 128; readonly first: bigint; readonly prefix: number };

function parseAddress(address: string): { bits: 32 | 128; value: bigint } {
  if (isIPv4(address)) {
    if (/(^|\.)0\d/.test(address)) throw new Undefined('leading zeros');
    return { bits: 32, value: address.split('.').reduce((n, part) => n * 256n + BigInt(part), 0n) };
  }
  if (isIP(address) !== 6 || address.includes('%')) throw new Undefined(`\`${address}\` is not an IP address`);
  const mapped = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  const v4 = mapped === null ? undefined : parseAddress(mapped[2] as string).value;
  const plain = v4 === undefined ? address : `${mapped?.[1]}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`;
  const [head = '', tail] = plain.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const [left, right] = [groups(head), tail === undefined ? [] : groups(tail)];
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return { bits: 128, value: all.reduce((n, group) => n * 65536n + BigInt(`0x${group}`), 0n) };
}

function parseCidr(cidr: string): Network {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(cidr);
  if (match === null || /^0\d/.test(match[2] as string)) throw new Undefined(`\`${cidr}\` is not a CIDR`);
  const { bits, value } = parseAddress(match[1] as string);
  const prefix = Number(match[2]);
  if (prefix > bits) throw new Undefined('the prefix is too long');
  const host = BigInt(bits - prefix);
  return { bits, first: (value >> host) << host, prefix };
}

const sizeOf = (n: Network) => 1n << BigInt(n.bits - n.prefix);
const lastOf = (n: Network) => n.first + sizeOf(n) - 1n;

function addressText(bits: 32 | 128, value: bigint): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((s) => String((value >> s) & 255n)).join('.');
  if (value >> 32n === 0xffffn) return addressText(32, value & 0xffffffffn); // Go prints IPv4-mapped addresses as IPv4
  const groups = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  let best = { at: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (groups[i + length] === '0') length++;
    if (length > best.length) best = { at: i, length };
  }
  if (best.at < 0) return groups.join(':');
  return `${groups.slice(0, best.at).join(':')}::${groups.slice(best.at + best.length).join(':')}`;
}

const MAX_ADDRESSES = 1n << 20n; // a rule that needs more should test for containment

function expand(network: Network): string[] {
  if (sizeOf(network) > MAX_ADDRESSES)
    throw new Error(`net.cidr_expand: a rule may not ask for ${sizeOf(network)} addresses`);
  return Array.from({ length: Number(sizeOf(network)) }, (_, i) =>
    addressText(network.bits, network.first + BigInt(i)),
  );
}

// A bare IPv4 address stands for its classful network, as in OPA. A bare IPv6 address is refused.
function networkOf(given: string): Network {
  if (given.includes('/')) return parseCidr(given);
  const { bits, value } = parseAddress(given);
  if (bits === 128) throw new Undefined('an IPv6 address needs a prefix length');
  const prefix = value >> 31n === 0n ? 8 : value >> 30n === 2n ? 16 : value >> 29n === 6n ? 24 : undefined;
  if (prefix === undefined) throw new Undefined('the address has no network class');
  return { bits, first: value, prefix };
}

// As in OPA: a range that touches no other stays as written. The others are merged into the fewest networks that cover
// them.
function merge(networks: readonly Network[]): string[] {
  type Range = { bits: 32 | 128; first: bigint; last: bigint; network: Network | undefined };
  const ranges: Range[] = networks
    .map((n) => {
      const host = BigInt(n.bits - n.prefix);
      const first = (n.first >> host) << host;
      return { bits: n.bits, first, last: first + sizeOf(n) - 1n, network: n as Network | undefined };
    })
    .sort(
      (a, b) =>
        a.bits - b.bits ||
        (a.last < b.last ? -1 : a.last > b.last ? 1 : a.first < b.first ? -1 : a.first > b.first ? 1 : 0),
    );
  for (let i = ranges.length - 1; i > 0; i--) {
    const [before, here] = [ranges[i - 1] as Range, ranges[i] as Range];
    if (before.bits !== here.bits || here.first - 1n > before.last) continue;
    ranges.splice(i - 1, 2, {
      bits: here.bits,
      first: smaller(before.first, here.first),
      last: here.last,
      network: undefined,
    });
  }
  return ranges.flatMap((r) =>
    r.network === undefined ? coverOf(r) : [`${addressText(r.bits, r.network.first)}/${r.network.prefix}`],
  );
}

const smaller = (a: bigint, b: bigint): bigint => {
  if (a < b) return a;
  return b;
};

function coverOf({ bits, first, last }: { bits: 32 | 128; first: bigint; last: bigint }): string[] {
  const found: string[] = [];
  for (let at = first; at <= last; ) {
    let host = 0;
    while (host < bits && at % (1n << BigInt(host + 1)) === 0n && at + (1n << BigInt(host + 1)) - 1n <= last) host++;
    found.push(`${addressText(bits, at)}/${bits - host}`);
    at += 1n << BigInt(host);
  }
  return found;
}

function contains(outer: Network, inner: string): boolean {
  const other = inner.includes('/')
    ? parseCidr(inner)
    : (({ bits, value }) => ({ bits, first: value, prefix: bits }) as Network)(parseAddress(inner));
  return outer.bits === other.bits && outer.first <= other.first && lastOf(other) <= lastOf(outer);
}

function containsMatches(cidrs: Value, others: Value): Value {
  const found = new RegoSet();
  for (const [index, cidr] of candidates(cidrs))
    for (const [otherIndex, other] of candidates(others))
      if (contains(parseCidr(cidr), other)) found.add([index, otherIndex]);
  return found;
}

// Accepts a string, or strings (or arrays that begin with one) in an array, set or object. Each comes with the key it
// is reported under.
function candidates(value: Value): [Value, string][] {
  const first = (v: Value): string => text(Array.isArray(v) ? v[0] : v);
  if (typeof value === 'string') return [[value, value]];
  if (value instanceof RegoSet) return value.sorted().map((v) => [v, first(v)]);
  if (value instanceof RegoObject) return value.sorted().map(([k, v]) => [k, first(v)]);
  return array(value).map((v, i) => [i, first(v)]);
}

type Uri = {
  scheme: string;
  opaque: string;
  user: string | undefined;
  host: string;
  port: string;
  path: string;
  rawPath: string;
  query: string | undefined;
  fragment: string | undefined;
};

/** Splits a URI reference like Go's `net/url` (RFC 3986) and refuses the same input. */
function splitUri(given: string): Uri {
  if (/[\u0000-\u001f\u007f]/.test(given)) throw new Undefined('control characters');
  const [beforeFragment = '', ...fragments] = given.split('#');
  const fragment = fragments.length === 0 ? undefined : percentDecoded(fragments.join('#'), 'fragment');
  if (beforeFragment === '' && fragment === undefined && given === '')
    return {
      scheme: '',
      opaque: '',
      user: undefined,
      host: '',
      port: '',
      path: '',
      rawPath: '',
      query: undefined,
      fragment,
    };
  const match = /^([a-zA-Z][a-zA-Z0-9+.-]*):/.exec(beforeFragment);
  if (match === null && /^:/.test(beforeFragment)) throw new Undefined('missing scheme');
  const scheme = (match?.[1] ?? '').toLowerCase();
  let rest = beforeFragment.slice(match?.[0].length ?? 0);
  let query: string | undefined;
  const mark = rest.indexOf('?');
  if (mark >= 0) {
    query = rest.slice(mark + 1);
    rest = rest.slice(0, mark);
  }
  const none = { scheme, user: undefined, host: '', port: '', query, fragment };
  if (!rest.startsWith('/')) {
    if (scheme !== '') return { ...none, opaque: rest, path: '', rawPath: '' };
    if (/^[^/]*:/.test(rest)) throw new Undefined('the first path segment has a colon');
  }
  if (!rest.startsWith('//') || (scheme === '' && rest.startsWith('///')))
    return { ...none, opaque: '', path: percentDecoded(rest, 'path'), rawPath: rest };
  const slash = rest.indexOf('/', 2);
  const authority = rest.slice(2, slash < 0 ? undefined : slash);
  const path = slash < 0 ? '' : rest.slice(slash);
  const at = authority.lastIndexOf('@');
  const user = at < 0 ? undefined : authority.slice(0, at);
  if (user !== undefined && !/^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/.test(user))
    throw new Undefined('invalid user information');
  const { host, port } = splitHost(authority.slice(at + 1));
  return { scheme, opaque: '', user, host, port, path: percentDecoded(path, 'path'), rawPath: path, query, fragment };
}

function splitHost(authority: string): { host: string; port: string } {
  if (authority.startsWith('[') && !authority.includes(']')) throw new Undefined('missing closing bracket');
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority);
  if (match === null) throw new Undefined('invalid host or port');
  const host = match[1] as string;
  if (host.startsWith('[')) return { host: percentDecoded(host.slice(1, -1), 'host'), port: match[2] ?? '' };
  if (/[ "<>\\^`{|}]/.test(host)) throw new Undefined('invalid character in the host');
  return { host: percentDecoded(host, 'host'), port: match[2] ?? '' };
}

function percentDecoded(part: string, where: 'path' | 'host' | 'fragment' | 'query'): string {
  if (/%(?![0-9A-Fa-f]{2})/.test(part)) throw new Undefined('invalid escape');
  if (where === 'host' && /%(?!25|[89A-Fa-f])/i.test(part) && /%[0-7]/.test(part.replace(/%25/g, '')))
    throw new Undefined('invalid escape in the host');
  const bytes: number[] = [];
  const raw = Buffer.from(where === 'query' ? part.replaceAll('+', ' ') : part);
  for (let i = 0; i < raw.length; i++) {
    if (raw[i] === 37) {
      bytes.push(Number.parseInt(raw.toString('latin1', i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(raw[i] as number);
  }
  return Buffer.from(bytes).toString('utf8');
}

function parseUri(given: string): RegoObject {
  const uri = splitUri(given);
  const fields: [string, string | undefined][] = [
    ['scheme', uri.scheme],
    ['hostname', uri.host],
    ['port', uri.port],
    ['path', uri.path],
    ['raw_path', rawPathOf(uri)],
    ['raw_query', uri.query],
    ['fragment', uri.fragment],
  ];
  return new RegoObject(fields.flatMap(([k, v]) => (v === undefined || v === '' ? [] : [[k, v] as const])));
}

// Keeps the path as written only if escaping the decoded path gives a different text.
function rawPathOf({ path, rawPath }: Uri): string {
  const written = encodeURI(path).replace(/[?#;,[\]]/g, (c) =>
    c === ';' || c === ',' ? c : `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return written === rawPath || /%(2[17-9A]|2a)/i.test(rawPath) ? path : rawPath;
}

function queryEscape(value: string): string {
  return encodeURIComponent(value)
    .replace(/%20/g, '+')
    .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function queryUnescape(value: string): string {
  return percentDecoded(value, 'query');
}

function encodeQuery(value: RegoObject): string {
  return value
    .sorted()
    .flatMap(([key, v]) =>
      (typeof v === 'string' ? [v] : collection(v)).map((one) => `${queryEscape(text(key))}=${queryEscape(text(one))}`),
    )
    .join('&');
}

function decodeQuery(query: string): RegoObject {
  const found = new Map<string, string[]>();
  for (const pair of query.split('&').filter((p) => p !== '')) {
    if (pair.includes(';')) throw new Undefined('a semicolon is not a separator');
    const equals = pair.indexOf('=');
    const key = queryUnescape(equals < 0 ? pair : pair.slice(0, equals));
    found.set(key, [...(found.get(key) ?? []), equals < 0 ? '' : queryUnescape(pair.slice(equals + 1))]);
  }
  return new RegoObject(found);
}

const REQUEST_KEYS = new Set([
  'method',
  'url',
  'body',
  'enable_redirect',
  'force_json_decode',
  'force_yaml_decode',
  'headers',
  'raw_body',
  'tls_use_system_certs',
  'tls_ca_cert',
  'tls_ca_cert_file',
  'tls_ca_cert_env_variable',
  'tls_client_cert',
  'tls_client_cert_file',
  'tls_client_cert_env_variable',
  'tls_client_key',
  'tls_client_key_file',
  'tls_client_key_env_variable',
  'tls_insecure_skip_verify',
  'tls_server_name',
  'timeout',
  'cache',
  'force_cache',
  'force_cache_duration_seconds',
  'raise_error',
  'caching_mode',
  'max_retry_attempts',
  'cache_ignored_headers',
]);

/**
 * Signs a request with AWS Signature Version 4 (https://docs.aws.amazon.com/general/latest/gr/sigv4_signing.html). It
 * sends nothing.
 */
function signAws(request: RegoObject, config: RegoObject, time: bigint): Value {
  const setting = (name: string) => text(config.get(name));
  const [service, accessKey, secretKey, region] = [
    'aws_service',
    'aws_access_key',
    'aws_secret_access_key',
    'aws_region',
  ].map(setting) as [string, string, string, string];
  const session = config.get('aws_session_token');
  const unsigned = config.get('disable_payload_signing') ?? false;
  if (typeof unsigned !== 'boolean') throw new Undefined('`disable_payload_signing` must be true or false');
  if (request.sorted().some(([key]) => !REQUEST_KEYS.has(text(key))))
    throw new Undefined('an unknown key in the request');
  const url = splitUri(text(request.get('url')));
  const method = text(request.get('method'));
  const headers = request.has('headers') ? object(request.get('headers')) : new RegoObject();
  const body = request.get('body');
  const raw = request.get('raw_body');
  const payload = raw !== undefined ? (typeof raw === 'string' ? raw : '') : body === undefined ? '' : toJsonText(body);
  const stamp = new Date(Number(time / 1_000_000n)).toISOString().replace(/[-:]|\.\d+/g, '');
  const day = stamp.slice(0, 8);
  const hash = (data: string) => createHash('sha256').update(data).digest('hex');
  const content = unsigned ? 'UNSIGNED-PAYLOAD' : hash(payload);
  const host = url.port === '' ? url.host : `${url.host}:${url.port}`;
  const added = new Map([
    ['host', host],
    ['x-amz-date', stamp],
  ]);
  if (service === 's3' || service === 'glacier') added.set('x-amz-content-sha256', content);
  if (typeof session === 'string' && session !== '') added.set('x-amz-security-token', session);
  const signed = new Map(added);
  for (const [key, value] of headers.sorted()) {
    const name = text(key).toLowerCase();
    if (!['authorization', 'user-agent', 'x-amzn-trace-id'].includes(name))
      signed.set(name, typeof value === 'string' ? value : '');
  }
  const names = [...signed.keys()].sort();
  const canonical = [
    method,
    url.rawPath,
    url.query ?? '',
    ...names.map((n) => `${n}:${signed.get(n)}`),
    '',
    names.join(';'),
    content,
  ].join('\n');
  const scope = `${day}/${region}/${service}/aws4_request`;
  const mac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest();
  const key = [region, service, 'aws4_request'].reduce((k, part) => mac(k, part), mac(`AWS4${secretKey}`, day));
  const signature = mac(key, `AWS4-HMAC-SHA256\n${stamp}\n${scope}\n${hash(canonical)}`).toString('hex');
  const out = new RegoObject(headers.sorted().map(([k, v]) => [k, typeof v === 'string' ? v : ''] as const));
  out.set(
    'Authorization',
    `AWS4-HMAC-SHA256 Credential=${accessKey}/${scope},SignedHeaders=${names.join(';')},Signature=${signature}`,
  );
  for (const [name, value] of added) out.set(name, value);
  const answer = new RegoObject(request.sorted());
  answer.set('headers', out);
  return answer;
}
