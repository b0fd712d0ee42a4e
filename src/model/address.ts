import { CountersignError } from './error.ts';

/** A mail server, taken apart. */
export type MailServerAddress = { readonly host: string; readonly port: number; readonly secure: boolean };

/** What a text was parsed into, or why it was refused. */
export type Parsed<T> = { readonly kind: 'parsed'; readonly value: T } | { readonly kind: 'refused'; readonly why: string };

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;
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
function parsePlace(text: string, defaultPort: number): Parsed<{ readonly host: string; readonly port: number }> {
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
