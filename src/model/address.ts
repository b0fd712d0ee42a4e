import { CountersignError } from './error.ts';

/** An address of a web server, taken apart: everything that a client needs, and nothing that a library could read more out of. */
export type HttpAddress = {
  readonly scheme: 'http' | 'https';
  /** A DNS name in lower case, an IPv4 address, or an IPv6 address in brackets. */
  readonly host: string;
  readonly port: number;
  /** Begins with `/`. */
  readonly path: string;
  /** Without its `?`; empty where the field takes none. */
  readonly query: string;
};

/** A mail server, taken apart. */
export type MailServerAddress = { readonly host: string; readonly port: number; readonly secure: boolean };

/** What a text was parsed into, or why it was refused. */
export type Parsed<T> = { readonly kind: 'parsed'; readonly value: T } | { readonly kind: 'refused'; readonly why: string };

const MAX_ADDRESS = 2048;
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;
// What RFC 3986 lets a path and a query hold; a percent sign begins two hexadecimal digits.
const PATH = /^(?:\/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*$/;
const QUERY = /^(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*$/;
// Percent signs that hide a control character, a dot, a slash, a backslash or another percent sign.
const HIDDEN = /%(?:[01][0-9A-Fa-f]|7[Ff]|2[EeFf5]|5[Cc])/;

/** Parses `http://HOST[:PORT][/PATH]` and the same with `https`, with `?QUERY` where `query` allows it. */
export function parseHttpAddress(text: string, { query = false }: { readonly query?: boolean } = {}): Parsed<HttpAddress> {
  if (text.length > MAX_ADDRESS) return refused(`it is longer than ${MAX_ADDRESS} characters`);
  const begin = /^(https?):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/s.exec(text);
  if (begin === null) return refused('it does not begin with `https://` or `http://`');
  const [, scheme, authority = '', path = '', asked, fragment] = begin;
  if (authority.includes('@')) return refused('it holds a user or a password, which belong into a file of their own');
  if (fragment !== undefined) return refused('it has a part after `#`');
  if (asked !== undefined && !query) return refused('it has a query (`?`), which this key does not take');
  const place = parsePlace(authority, scheme === 'https' ? 443 : 80);
  if (place.kind === 'refused') return place;
  if (!isPath(path)) return refused('its path is not plain: no spaces, `..`, `//`, backslashes or encoded slashes');
  if (!QUERY.test(asked ?? '')) return refused('its query holds characters that must be percent-encoded');
  const value: HttpAddress = { scheme: scheme as 'http' | 'https', ...place.value, path: path === '' ? '/' : path, query: asked ?? '' };
  return isReadAlike(value) ? { kind: 'parsed', value } : refused('programs read its host in different ways');
}

/** The address in its one spelling: no port where it is the scheme's own. */
function addressText({ scheme, host, port, path, query }: HttpAddress): string {
  return `${scheme}://${hostText({ scheme, host, port })}${path}${query === '' ? '' : `?${query}`}`;
}

/** Host and port as people know them, for messages. */
function hostText({ scheme, host, port }: Pick<HttpAddress, 'scheme' | 'host' | 'port'>): string {
  return port === (scheme === 'https' ? 443 : 80) ? host : `${host}:${port}`;
}

/** Parses `smtp://HOST[:PORT]` and `smtps://HOST[:PORT]`: nothing else, for libraries read options out of everything behind it. */
export function parseMailServer(text: string): Parsed<MailServerAddress> {
  const begin = /^(smtps?):\/\/(.*)$/s.exec(text);
  if (begin === null) return refused('it does not begin with `smtp://` or `smtps://`');
  const [, scheme, authority = ''] = begin;
  if (authority.includes('@')) return refused('it holds a user or a password: use `username` and `passwordFile`');
  if (/[/?#]/.test(authority)) return refused('it has more than a host and a port');
  const secure = scheme === 'smtps';
  const place = parsePlace(authority, secure ? 465 : 587); // RFC 8314 and RFC 6409
  return place.kind === 'refused' ? place : { kind: 'parsed', value: { ...place.value, secure } };
}

/** The mail server of a document as its schema took it. Throws `config-invalid`. */
export function mailServer(text: string): MailServerAddress {
  return parsedOrThrow(parseMailServer(text), 'the mail server cannot be used', 'write it as `smtps://HOST:PORT`');
}

/** Parses one plain address of a mailbox: no name, no list, no group, no comment, no quotes. */
export function parseMailbox(text: string): Parsed<string> {
  if (text.length > 254) return refused('it is longer than 254 characters');
  const [, local = '', host = ''] = /^([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64})@([^@]+)$/.exec(text) ?? [];
  if (local === '' || local.startsWith('.') || local.endsWith('.') || local.includes('..'))
    return refused('it is not one plain address, such as `people@example.com`');
  if (!NAME.test(host.toLowerCase()) || host.length > 253) return refused('its part after `@` is not the name of a host');
  return { kind: 'parsed', value: text };
}

/** The mailbox of a document as its schema took it. Throws `config-invalid`. */
export function mailbox(text: string): string {
  return parsedOrThrow(parseMailbox(text), 'the mail address cannot be used', 'write it as `people@example.com`');
}

/** Whether a host is this machine by its own name, so that nothing of what it is sent leaves it. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || (IPV4.test(host) && host.startsWith('127.'));
}

/** Parses `HOST` or `HOST:PORT`. */
export function parsePlace(text: string, defaultPort: number): Parsed<{ readonly host: string; readonly port: number }> {
  const [, host = '', written] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (!isHost(host)) return refused('its host is not a DNS name in lower case, an IPv4 address or an IPv6 address in brackets');
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

// Programs that read addresses by the rules of browsers find the same parts in it.
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
