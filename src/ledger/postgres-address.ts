import { readFileSync } from 'node:fs';
import { CountersignError, type Parsed, parseFileName, parsePlace } from '../model/index.ts';
import type { Host } from './postgres-hosts.ts';

/**
 * Parsed address of a PostgreSQL database: only the fields a client needs, so that its library can interpret nothing
 * else.
 */
export type DatabaseAddress = {
  readonly user: string;
  /** Undefined if it comes from `PGPASSWORD` or `.pgpass`. */
  readonly password: string | undefined;
  /** The servers of a database with standbys; at least one. */
  readonly hosts: readonly [Host, ...Host[]];
  readonly database: string;
  /** Undefined if the address does not say: then `PGSSLMODE` decides, and without that there is no TLS. */
  readonly tls:
    | { readonly rootFile?: string; readonly certFile?: string; readonly keyFile?: string }
    | 'off'
    | undefined;
};

const MAX_ADDRESS = 2048;
const MAX_HOSTS = 8;
const OPTIONS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'target_session_attrs'] as const;
type Option = (typeof OPTIONS)[number];
// All of these verify the certificate and the host name. An unverified certificate gives no protection from someone who
// can answer in the server's place.
const VERIFYING = new Set(['require', 'verify-ca', 'verify-full']);

/** Reads `--ledger`. Throws `config-invalid` without quoting the address, which may contain a password. */
export function databaseAddress(text: string): DatabaseAddress {
  const parsed = parseDatabaseAddress(text);
  if (parsed.kind === 'parsed') return parsed.value;
  throw new CountersignError('config-invalid', `the address of the ledger’s database cannot be used: ${parsed.why}`, {
    hint: 'write it as `postgres://USER@HOST[:PORT]/DATABASE`, with `?sslmode=verify-full&sslrootcert=FILE` for TLS',
  });
}

/** Parses `postgres://USER[:PASSWORD]@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?OPTIONS]`, also with `postgresql://`. */
export function parseDatabaseAddress(text: string): Parsed<DatabaseAddress> {
  if (text.length > MAX_ADDRESS) return refused(`it is longer than ${MAX_ADDRESS} characters`);
  const parts = /^postgres(?:ql)?:\/\/([^@/?#:]*)(?::([^@/?#]*))?@([^@/?#]*)\/([^@/?#]*)(?:\?([^#]*))?$/.exec(text);
  if (parts === null) return refused('it does not have the form `postgres://USER@HOST/DATABASE`');
  const [user, password, database] = [decoded(parts[1] ?? ''), decoded(parts[2] ?? ''), decoded(parts[4] ?? '')];
  if (user === undefined || password === undefined || database === undefined)
    return refused('its user, password or database contains control characters, or a `%` that encodes nothing');
  if (user === '' || database === '') return refused('it names no user or no database');
  const hosts = parseHosts(parts[3] ?? '');
  if (hosts.kind === 'refused') return hosts;
  const tls = parseOptions(parts[5] ?? '');
  if (tls.kind === 'refused') return tls;
  return {
    kind: 'parsed',
    value: { user, password: password === '' ? undefined : password, hosts: hosts.value, database, tls: tls.value },
  };
}

function parseHosts(text: string): Parsed<DatabaseAddress['hosts']> {
  const parsed = text.split(',').map((place) => parsePlace(place, 5432));
  const hosts: Host[] = [];
  for (const place of parsed) {
    if (place.kind === 'refused') return place;
    hosts.push(place.value);
  }
  const names = new Set(hosts.map(({ host, port }) => `${host}:${port}`));
  if (hosts.length > MAX_HOSTS || names.size < hosts.length)
    return refused(`it names a host twice, or more than ${MAX_HOSTS}`);
  return { kind: 'parsed', value: hosts as [Host, ...Host[]] };
}

function parseOptions(query: string): Parsed<DatabaseAddress['tls']> {
  const given = new Map<Option, string>();
  for (const part of query === '' ? [] : query.split('&')) {
    const [name, value] = [OPTIONS.find((o) => part.startsWith(`${o}=`)), decoded(part.slice(part.indexOf('=') + 1))];
    if (name === undefined || value === undefined) return refused(`it has an option other than ${OPTIONS.join(', ')}`);
    if (given.has(name)) return refused(`it has \`${name}\` twice`);
    given.set(name, value);
  }
  // The service always writes, so this only spells out what it does anyway.
  const target = given.get('target_session_attrs');
  if (target !== undefined && target !== 'read-write' && target !== 'primary')
    return refused('its `target_session_attrs` must be `read-write`');
  given.delete('target_session_attrs');
  const mode = given.get('sslmode');
  if (mode === 'disable' && given.size === 1) return { kind: 'parsed', value: 'off' };
  if (mode === undefined && given.size === 0) return { kind: 'parsed', value: undefined };
  if (mode === undefined || !VERIFYING.has(mode))
    return refused(
      'its `sslmode` must be `disable`, or one of `require`, ' +
        '`verify-ca` and `verify-full`, which verify the certificate',
    );
  for (const [name, file] of given)
    if (parseFileName(file).kind === 'refused') return refused(`its \`${name}\` is not a file name`);
  if (given.has('sslcert') !== given.has('sslkey')) return refused('`sslcert` and `sslkey` must be set together');
  return {
    kind: 'parsed',
    value: {
      ...file('rootFile', given.get('sslrootcert')),
      ...file('certFile', given.get('sslcert')),
      ...file('keyFile', given.get('sslkey')),
    },
  };
}

function file<K extends string>(key: K, name: string | undefined): { readonly [k in K]?: string } {
  return (name === undefined ? {} : { [key]: name }) as { readonly [k in K]?: string };
}

/**
 * Reads the files an address names and returns TLS options for the library. Throws `key-missing` if one cannot be read.
 */
export function tlsOptions(
  tls: DatabaseAddress['tls'],
): { readonly ca?: string; readonly cert?: string; readonly key?: string } | false | undefined {
  if (tls === undefined) return undefined;
  if (tls === 'off') return false;
  const { rootFile, certFile, keyFile } = tls;
  return {
    ...(rootFile === undefined || rootFile === 'system' ? {} : { ca: textOf(rootFile) }),
    ...(certFile === undefined ? {} : { cert: textOf(certFile) }),
    ...(keyFile === undefined ? {} : { key: textOf(keyFile) }),
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new CountersignError('key-missing', `the file \`${path}\` for the ledger’s database cannot be read`, {
      cause,
    });
  }
}

function decoded(text: string): string | undefined {
  try {
    const plain = decodeURIComponent(text);
    return /\p{Cc}/u.test(plain) ? undefined : plain;
  } catch {
    return undefined;
  }
}

function refused(why: string): { readonly kind: 'refused'; readonly why: string } {
  return { kind: 'refused', why };
}
