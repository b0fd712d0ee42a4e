import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, relative, resolve, sep } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { CountersignError, messageOf, parseHttpAddress, parsePlace } from '../model/index.ts';
import { parseYaml } from '../yaml/index.ts';

const MAX_FILE = 1024 * 1024;
const HINT =
  'use a token, a token file or a client certificate; ' +
  'programs run only for the kubeconfig of --kubeconfig or KUBECONFIG';

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads a kubeconfig named by a document: one cluster, and one user with static credentials. The document's author may
 * have written the file too. So it cannot start a program, use a proxy, impersonate someone else, or read a file
 * outside the kubeconfig's directory. Throws `config-invalid`.
 */
export function documentKubeconfig(file: string, context: string | undefined): KubeConfig {
  try {
    return read(file, context);
  } catch (cause) {
    throw new CountersignError(
      'config-invalid',
      `the kubeconfig \`${file}\` of a document cannot be used: ${messageOf(cause)}`,
      {
        cause,
        hint: HINT,
      },
    );
  }
}

function read(file: string, asked: string | undefined): KubeConfig {
  const whole = fields(documentIn(textOf(file)), 'it');
  const name = asked ?? whole['current-context'];
  if (typeof name !== 'string' || name === '') throw new Error('it has no current context');
  const context = named(whole, 'contexts', 'context', name);
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [clusterOf(named(whole, 'clusters', 'cluster', text(context, 'cluster')), file)],
    users: [userOf(named(whole, 'users', 'user', text(context, 'user')), file)],
    contexts: [{ name: 'context', cluster: 'cluster', user: 'user' }],
    currentContext: 'context',
  });
  return config;
}

const CLUSTER = new Set([
  'server',
  'certificate-authority',
  'certificate-authority-data',
  'tls-server-name',
  'disable-compression',
  'extensions',
]);

function clusterOf(cluster: Fields, file: string) {
  if (cluster['insecure-skip-tls-verify'] === true)
    throw new Error('`insecure-skip-tls-verify` is set, but certificates are always verified');
  onlyKeys(cluster, CLUSTER, 'insecure-skip-tls-verify');
  const parsed = parseHttpAddress(text(cluster, 'server'));
  if (parsed.kind === 'refused') throw new Error(`\`server\` is not a valid address: ${parsed.why}`);
  if (parsed.value.scheme !== 'https') throw new Error('`server` is not `https`');
  const serverName = optionalText(cluster, 'tls-server-name');
  if (serverName !== undefined && (serverName.includes(':') || parsePlace(serverName, 443).kind === 'refused'))
    throw new Error('`tls-server-name` is not a host name');
  return {
    name: 'cluster',
    server: text(cluster, 'server').replace(/\/$/, ''),
    skipTLSVerify: false,
    ...given('caData', base64(cluster, 'certificate-authority-data')),
    ...given('caFile', beside(cluster, 'certificate-authority', file)),
    ...given('tlsServerName', serverName),
  };
}

const USER = new Set([
  'client-certificate',
  'client-certificate-data',
  'client-key',
  'client-key-data',
  'token',
  'tokenFile',
  'username',
  'password',
  'extensions',
]);

function userOf(user: Fields, file: string) {
  onlyKeys(user, USER);
  const token = optionalText(user, 'token');
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw new Error('`token` is not a single word');
  const tokenFile = beside(user, 'tokenFile', file);
  return {
    name: 'user',
    ...given('certData', base64(user, 'client-certificate-data')),
    ...given('certFile', beside(user, 'client-certificate', file)),
    ...given('keyData', base64(user, 'client-key-data')),
    ...given('keyFile', beside(user, 'client-key', file)),
    ...given('token', token),
    ...given('username', optionalText(user, 'username')),
    ...given('password', optionalText(user, 'password')),
    ...(tokenFile === undefined ? {} : { authProvider: { name: 'tokenFile', config: { tokenFile } } }),
  };
}

// Unknown keys are refused, not skipped: someone who puts `exec` beside a token must not think it has an effect.
function onlyKeys(of: Fields, known: ReadonlySet<string>, alsoFalse?: string): void {
  const other = Object.keys(of).find((key) => !known.has(key) && !(key === alsoFalse && of[key] === false));
  if (other !== undefined)
    throw new Error(
      `\`${/^[\w-]{1,60}$/.test(other) ? other : 'a key of it'}\` is not allowed in a document's kubeconfig`,
    );
}

function named(whole: Fields, list: string, key: string, name: string): Fields {
  const all = whole[list];
  const matching = Array.isArray(all) ? all.filter((one) => (one as { name?: unknown } | null)?.name === name) : [];
  if (matching.length !== 1)
    throw new Error(
      `its \`${list}\` contain \`${shown(name)}\` ${matching.length === 0 ? 'not at all' : 'more than once'}`,
    );
  return fields((matching[0] as Fields)[key], `\`${key}\``);
}

function beside(of: Fields, key: string, file: string): string | undefined {
  const name = optionalText(of, key);
  if (name === undefined) return undefined;
  const directory = dirname(file);
  const path = resolve(directory, name);
  if (!isBelow(directory, path) || !isBelow(realpathSync(directory), realpathSync(path)))
    throw new Error(`\`${key}\` is a file outside the kubeconfig's own directory`);
  if (!statSync(path).isFile()) throw new Error(`\`${key}\` is not a regular file`);
  return path;
}

function isBelow(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !way.startsWith(sep);
}

function textOf(file: string): string {
  const stat = statSync(file);
  if (!stat.isFile()) throw new Error('it is not a regular file');
  if (stat.size > MAX_FILE) throw new Error('it is larger than 1 MiB');
  return readFileSync(file, 'utf8');
}

function documentIn(source: string): unknown {
  const documents = parseYaml(source);
  if (documents.length !== 1) throw new Error(`expected one document, found ${documents.length}`);
  return documents[0]?.value;
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${what} is not a mapping`);
  return value as Fields;
}

function text(of: Fields, key: string): string {
  const value = optionalText(of, key);
  if (value === undefined || value === '') throw new Error(`\`${key}\` is missing`);
  return value;
}

function optionalText(of: Fields, key: string): string | undefined {
  const value = of[key] ?? undefined;
  if (value === undefined || typeof value === 'string') return value;
  throw new Error(`\`${key}\` is not text`);
}

function base64(of: Fields, key: string): string | undefined {
  const value = optionalText(of, key);
  if (value !== undefined && !/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(value)) throw new Error(`\`${key}\` is not base64`);
  return value;
}

function given<K extends string>(key: K, value: string | undefined): { readonly [k in K]?: string } {
  return (value === undefined ? {} : { [key]: value }) as { readonly [k in K]?: string };
}

function shown(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 60);
}
