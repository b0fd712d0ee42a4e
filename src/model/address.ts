import { CountersignError } from './error.ts';

/** A parsed address of a web server: only the fields a client needs, so that a library can interpret nothing else. */
export type HttpAddress = {
  readonly scheme: 'http' | 'https';
  /** A DNS name in lower case, an IPv4 address, or an IPv6 address in brackets. */
  readonly host: string;
  readonly port: number;
  /** Begins with `/`. */
  readonly path: string;
  /** Without its `?`; empty if the field takes none. */
  readonly query: string;
};

/** A parsed mail server address. */
export type MailServerAddress = { readonly host: string; readonly port: number; readonly secure: boolean };

/** Result of parsing a text, or why it was refused. */
export type Parsed<T> =
  | { readonly kind: 'parsed'; readonly value: T }
  | { readonly kind: 'refused'; readonly why: string };

const MAX_ADDRESS = 2048;
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;
// Characters that RFC 3986 allows in a path and a query; a percent sign begins two hexadecimal digits.
const PATH = /^(?:\/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*$/;
const QUERY = /^(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*$/;
// Percent signs that hide a control character, a dot, a slash, a backslash or another percent sign.
const HIDDEN = /%(?:[01][0-9A-Fa-f]|7[Ff]|2[EeFf5]|5[Cc])/;

/** Parses `http://HOST[:PORT][/PATH]`, also with `https`, and with `?QUERY` if `query` allows it. */
export function parseHttpAddress(
  text: string,
  { query = false }: { readonly query?: boolean } = {},
): Parsed<HttpAddress> {
  if (text.length > MAX_ADDRESS) return refused(`it is longer than ${MAX_ADDRESS} characters`);
  const begin = /^(https?):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/s.exec(text);
  if (begin === null) return refused('it does not begin with `https://` or `http://`');
  const [, scheme, authority = '', path = '', asked, fragment] = begin;
  if (authority.includes('@')) return refused('it contains a user or a password, which belong in a separate file');
  if (fragment !== undefined) return refused('it has a part after `#`');
  if (asked !== undefined && !query) return refused('it has a query (`?`), which this key does not allow');
  const place = parsePlace(authority, scheme === 'https' ? 443 : 80);
  if (place.kind === 'refused') return place;
  if (!isPath(path)) return refused('its path is not plain: no spaces, `..`, `//`, backslashes or encoded slashes');
  if (!QUERY.test(asked ?? '')) return refused('its query contains characters that must be percent-encoded');
  const value: HttpAddress = {
    scheme: scheme as 'http' | 'https',
    ...place.value,
    path: path === '' ? '/' : path,
    query: asked ?? '',
  };
  return isReadAlike(value) ? { kind: 'parsed', value } : refused('programs interpret its host differently');
}

/** Returns the address in a validated document. Throws `config-invalid` for texts from elsewhere. */
export function httpAddress(text: string, options: { readonly query?: boolean } = {}): HttpAddress {
  return parsedOrThrow(
    parseHttpAddress(text, options),
    'the address cannot be used',
    'write it as `https://HOST/PATH`',
  );
}

/** Returns the canonical spelling of an address: no port if it is the scheme's default. */
export function addressText({ scheme, host, port, path, query }: HttpAddress): string {
  return `${scheme}://${hostText({ scheme, host, port })}${path}${query === '' ? '' : `?${query}`}`;
}

/** Returns host and port for messages. */
export function hostText({ scheme, host, port }: Pick<HttpAddress, 'scheme' | 'host' | 'port'>): string {
  return port === (scheme === 'https' ? 443 : 80) ? host : `${host}:${port}`;
}

/**
 * Returns an address below another: `path` begins with `/`, and the caller percent-encodes every part that is not ours.
 */
export function below(address: HttpAddress, path: string, query = ''): HttpAddress {
  return { ...address, path: path === '' ? address.path : `${address.path.replace(/\/$/, '')}${path}`, query };
}

/**
 * Parses `smtp://HOST[:PORT]` and `smtps://HOST[:PORT]` and nothing else, because libraries read options from the rest.
 */
export function parseMailServer(text: string): Parsed<MailServerAddress> {
  const begin = /^(smtps?):\/\/(.*)$/s.exec(text);
  if (begin === null) return refused('it does not begin with `smtp://` or `smtps://`');
  const [, scheme, authority = ''] = begin;
  if (authority.includes('@')) return refused('it contains a user or a password: use `username` and `passwordFile`');
  if (/[/?#]/.test(authority)) return refused('it has more than a host and a port');
  const secure = scheme === 'smtps';
  const place = parsePlace(authority, secure ? 465 : 587); // RFC 8314 and RFC 6409
  return place.kind === 'refused' ? place : { kind: 'parsed', value: { ...place.value, secure } };
}

/** Returns the mail server in a validated document. Throws `config-invalid`. */
export function mailServer(text: string): MailServerAddress {
  return parsedOrThrow(parseMailServer(text), 'the mail server cannot be used', 'write it as `smtps://HOST:PORT`');
}

/** Parses one plain mailbox address: no name, list, group, comment or quotes. */
export function parseMailbox(text: string): Parsed<string> {
  if (text.length > 254) return refused('it is longer than 254 characters');
  const [, local = '', host = ''] = /^([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64})@([^@]+)$/.exec(text) ?? [];
  // a program would take a leading dash for an option
  if (local === '' || /^[.-]|\.$|\.\./.test(local))
    return refused('it is not a single plain address, such as `people@example.com`');
  if (!NAME.test(host.toLowerCase()) || host.length > 253) return refused('its part after `@` is not a host name');
  return { kind: 'parsed', value: text };
}

/** Returns the mailbox in a validated document. Throws `config-invalid`. */
export function mailbox(text: string): string {
  return parsedOrThrow(parseMailbox(text), 'the mail address cannot be used', 'write it as `people@example.com`');
}

/** Parses the path of a project at a forge: `OWNER/NAME`, or more parts for nested groups. */
export function parseProject(text: string): Parsed<readonly string[]> {
  const parts = text.split('/');
  if (
    text.length > 512 ||
    parts.length < 2 ||
    parts.some((part) => !/^[\w.][\w.-]{0,254}$/.test(part) || /^\.{1,2}$/.test(part))
  )
    return refused('it is not `OWNER/NAME` of letters, digits, dots, dashes and underscores');
  return { kind: 'parsed', value: parts };
}

/** Returns the parts of a project's path. Throws `config-invalid`. */
export function projectParts(text: string): readonly string[] {
  return parsedOrThrow(parseProject(text), 'the project cannot be used', 'write it as `OWNER/NAME`');
}

/** Parses `HOST[:PORT]` as a name to compare others with. */
export function parseHost(text: string): Parsed<string> {
  const [scheme] = /^[a-z]{1,10}:\/\//i.exec(text) ?? [];
  if (scheme !== undefined) return refused(`leave out \`${scheme}\``);
  const place = parsePlace(text, 443);
  return place.kind === 'refused' ? place : { kind: 'parsed', value: text };
}

/** Content of `HOST/NAME@sha256:…`: an image in a registry, by the digest of its manifest. */
export type ImageReference = { readonly registry: string; readonly name: string; readonly digest: string };

// OCI distribution 1.1: the name of a repository.
const IMAGE_NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Parses `HOST[:PORT]/NAME@sha256:…`. */
export function parseImageReference(text: string): Parsed<ImageReference> {
  const [, registry = '', name = '', digest = ''] = /^([^/@]+)\/([^@]+)@(.+)$/s.exec(text) ?? [];
  if (!DIGEST.test(digest)) return refused('it is not pinned by digest');
  const host = parseHost(registry);
  if (host.kind === 'refused') return host;
  if (name.length > 255 || !IMAGE_NAME.test(name)) return refused('its name is not a repository name');
  return { kind: 'parsed', value: { registry, name, digest } };
}

/** Parses the address of a chart: `oci://HOST/NAME`, or the address of a file. */
export function parseChartAddress(text: string): Parsed<{ readonly host: string }> {
  if (text.startsWith('oci://')) {
    const image = parseImageReference(`${text.slice('oci://'.length)}@sha256:${'0'.repeat(64)}`);
    return image.kind === 'refused' ? image : { kind: 'parsed', value: { host: image.value.registry } };
  }
  const file = parseHttpAddress(text);
  return file.kind === 'refused'
    ? file
    : { kind: 'parsed', value: { host: /^https?:\/\/([^/]+)/.exec(text)?.[1] ?? '' } };
}

/** A Git repository: over HTTP, over SSH, or a path on this machine. */
export type GitSource =
  | { readonly by: 'http'; readonly address: HttpAddress }
  | { readonly by: 'ssh'; readonly user: string; readonly host: string; readonly port: number; readonly path: string }
  | { readonly by: 'path'; readonly path: string };

const SSH_USER = /^[A-Za-z_][\w.-]{0,63}$/;

/** Parses `https://…`, `ssh://USER@HOST[:PORT]/PATH`, `USER@HOST:PATH`, `file:///PATH` or a path. */
export function parseGitSource(text: string): Parsed<GitSource> {
  if (/^https?:/i.test(text)) {
    const parsed = parseHttpAddress(text);
    return parsed.kind === 'refused' ? parsed : { kind: 'parsed', value: { by: 'http', address: parsed.value } };
  }
  const [, user = '', authority = '', path = ''] = /^ssh:\/\/([^@/]*)@([^/]*)(\/.*)$/s.exec(text) ?? [];
  if (user !== '') return overSsh(user, authority, path);
  const scp = /^([^@/:]+)@([^/:]+):([^:]*)$/s.exec(text);
  if (scp !== null) return overSsh(scp[1] ?? '', scp[2] ?? '', `/${(scp[3] ?? '').replace(/^\//, '')}`);
  const local = text.startsWith('file:///') ? text.slice('file://'.length) : text;
  // Git takes `NAME::…` for a program to run, `-…` for an option and `HOST:…` for SSH.
  if (local.includes(':'))
    return refused('it is neither an address over HTTPS or SSH (`ssh://USER@HOST/PATH`) nor a path');
  const plain = parseFileName(local);
  return plain.kind === 'refused' ? plain : { kind: 'parsed', value: { by: 'path', path: local } };
}

function overSsh(user: string, authority: string, path: string): Parsed<GitSource> {
  if (!SSH_USER.test(user)) return refused('its user is not a plain name');
  const place = parsePlace(authority, 22);
  if (place.kind === 'refused') return place;
  if (
    path.length > MAX_ADDRESS ||
    !/^(?:\/~?[A-Za-z0-9._+@,=][A-Za-z0-9._+@,=-]*)+\/?$/.test(path) ||
    /\/\.\.?(?:\/|$)/.test(path)
  )
    return refused('its path is not plain: letters, digits, dots, dashes and slashes, no `..`');
  return { kind: 'parsed', value: { by: 'ssh', user, ...place.value, path } };
}

/** Parses the name of a file on this machine in a document. */
export function parseFileName(text: string): Parsed<string> {
  if (text === '' || text.length > 4096) return refused('it is empty or longer than 4096 characters');
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text)) return refused('it contains control characters');
  if (text.startsWith('-')) return refused('it begins with a dash, like an option: write `./` before it');
  return { kind: 'parsed', value: text };
}

/**
 * Parses the name of a file that is passed to SSH, which has its own syntax for quotes, percent signs, dollars and
 * backslashes.
 */
export function parseSshFileName(text: string): Parsed<string> {
  return /["%$\\]/.test(text)
    ? refused('it contains one of `"`, `%`, `$` and `\\`, which have a special meaning in SSH')
    : parseFileName(text);
}

/** Parses a path inside a repository; with `up`, it may begin with `../`. */
export function parseRepositoryPath(text: string, up = false): Parsed<string> {
  const plain = parseFileName(text);
  if (plain.kind === 'refused') return plain;
  if (text === '.') return plain;
  if (/[\\:]/.test(text) || text.startsWith('/'))
    return refused('it is not a path inside the repository, with `/` between its parts');
  const parts = (up ? text.replace(/^(?:\.\.\/)+/, '') : text.replace(/^\.\//, '')).replace(/\/$/, '').split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..' || part.startsWith('-')))
    return refused('it has a part that is empty, `.`, `..`, or begins with a dash');
  return plain;
}

/** Parses a branch name (git-check-ref-format(1)). */
export function parseBranch(text: string): Parsed<string> {
  const isPlain =
    text.length <= 255 &&
    /^[^\p{Cc}\p{Cf}\p{Z} ~^:?*[\\]+$/u.test(text) &&
    !/\.\.|@\{|\/\/|\/\.|\.lock(?:\/|$)/.test(text);
  if (!isPlain || /^[-./@]/.test(text) || /[./]$/.test(text)) return refused('it is not a branch name');
  return { kind: 'parsed', value: text };
}

/** Tests whether a host name stands for this machine, so that data sent to it does not leave the machine. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || (IPV4.test(host) && host.startsWith('127.'));
}

/** Tests whether a host is a literal IP address, so that no name server decides where it leads. */
export function isIpAddress(host: string): boolean {
  return isHost(host) && (host.startsWith('[') || IPV4.test(host));
}

/** Tests whether a text is a range of addresses in CIDR notation (RFC 4632, RFC 4291), such as `10.0.0.0/24`. */
export function isCidr(text: string): boolean {
  const [, address = '', bits = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const isSix = address.includes(':');
  return isIpAddress(isSix ? `[${address}]` : address) && Number(bits) <= (isSix ? 128 : 32);
}

/** Parses `HOST` or `HOST:PORT`. */
export function parsePlace(
  text: string,
  defaultPort: number,
): Parsed<{ readonly host: string; readonly port: number }> {
  const [, host = '', written] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (!isHost(host))
    return refused('its host is not a DNS name in lower case, an IPv4 address or an IPv6 address in brackets');
  if (written === undefined) return { kind: 'parsed', value: { host, port: defaultPort } };
  const port = Number(written);
  if (!/^[1-9]\d{0,4}$/.test(written) || port > 65_535) return refused('its port is not a number from 1 to 65535');
  return { kind: 'parsed', value: { host, port } };
}

function isHost(host: string): boolean {
  if (host.startsWith('[')) return /^\[[0-9a-f:]{2,39}\]$/.test(host) && hostnameOf(host) === host;
  if (host.length > 253 || !NAME.test(host)) return false;
  // Numbers in other spellings (`0x7f.1`, `2130706433`) are IPv4 addresses to some programs and names to others.
  return hostnameOf(host) === host;
}

function isPath(path: string): boolean {
  if (!PATH.test(path) || HIDDEN.test(path) || path.includes('//')) return false;
  return !path.split('/').some((part) => part === '.' || part === '..');
}

// Checks that programs that follow the browsers' rules find the same parts in the address.
function isReadAlike(address: HttpAddress): boolean {
  const text = addressText(address);
  const read = URL.parse(text);
  return read !== null && read.href === text && read.hostname === address.host;
}

function hostnameOf(host: string): string | undefined {
  return URL.parse(`http://${host}/`)?.hostname;
}

function refused(why: string): { readonly kind: 'refused'; readonly why: string } {
  return { kind: 'refused', why };
}

function parsedOrThrow<T>(parsed: Parsed<T>, what: string, hint: string): T {
  if (parsed.kind === 'parsed') return parsed.value;
  throw new CountersignError('config-invalid', `${what}: ${parsed.why}`, { hint });
}
