import { CountersignError } from '../model/index.ts';
import type { Builtin } from './builtin.ts';
import { CRYPTO_BUILTINS } from './builtins-crypto.ts';
import { DATA_BUILTINS } from './builtins-data.ts';
import { JWT_BUILTINS } from './builtins-jwt.ts';
import { NET_BUILTINS } from './builtins-net.ts';
import { TEXT_BUILTINS } from './builtins-text.ts';
import { TIME_BUILTINS } from './builtins-time.ts';

const AT_HAND: Readonly<Record<string, Builtin>> = {
  ...TEXT_BUILTINS,
  ...TIME_BUILTINS,
  ...DATA_BUILTINS,
  ...NET_BUILTINS,
  ...CRYPTO_BUILTINS,
  ...JWT_BUILTINS,
};
const X509_NAMES = [
  'crypto.parse_private_keys',
  ...[
    'parse_certificates',
    'parse_and_verify_certificates',
    'parse_and_verify_certificates_with_options',
    'parse_certificate_request',
    'parse_keypair',
    'parse_rsa_private_key',
  ].map((n) => `crypto.x509.${n}`),
];
const SCHEMA_NAMES = ['json.match_schema', 'json.verify_schema'];
const GRAPHQL_NAMES = ['is_valid', 'parse', 'parse_and_verify', 'parse_query', 'parse_schema', 'schema_is_valid'].map(
  (n) => `graphql.${n}`,
);

/** Names of all builtins the host provides to compiled rules. Builtins compiled into the Wasm module are not listed. */
const SERVED: ReadonlySet<string> = new Set([
  ...Object.keys(AT_HAND),
  ...X509_NAMES,
  ...SCHEMA_NAMES,
  ...GRAPHQL_NAMES,
]);

/**
 * Loads builtins by name; those that need large libraries are imported on demand. Throws `policy-unusable` for names
 * that are not provided.
 */
export async function loadBuiltins(names: readonly string[]): Promise<Readonly<Record<string, Builtin>>> {
  const lacking = unserved(names);
  if (lacking.length > 0)
    throw new CountersignError('policy-unusable', `the rules call unsupported builtins: ${lacking.join(', ')}`, {
      hint:
        'compile them with the capabilities printed by `countersign ' +
        'policy capabilities`, so that the build reports this',
    });
  return {
    ...AT_HAND,
    ...(names.some((n) => X509_NAMES.includes(n)) ? (await import('./builtins-x509.ts')).X509_BUILTINS : {}),
    ...(names.some((n) => SCHEMA_NAMES.includes(n)) ? (await import('./builtins-schema.ts')).SCHEMA_BUILTINS : {}),
    ...(names.some((n) => GRAPHQL_NAMES.includes(n)) ? (await import('./builtins-graphql.ts')).GRAPHQL_BUILTINS : {}),
  };
}

/** Returns the requested builtins that the host does not provide, each with the reason. */
function unserved(names: readonly string[]): string[] {
  return names
    .filter((name) => !SERVED.has(name))
    .map((name) => (Object.hasOwn(REFUSED, name) ? `\`${name}\` (${REFUSED[name]})` : `\`${name}\` (unknown)`));
}

const ASKS = 'it queries the outside world, so the same change could be judged differently tomorrow';
const CHANCE = 'it returns something different each time';

/** Builtins refused when rules are loaded, each with the reason. */
export const REFUSED: Readonly<Record<string, string>> = {
  'http.send': ASKS,
  'net.lookup_ip_addr': ASKS,
  'opa.runtime': 'it exposes the machine and its environment variables',
  'rand.intn': CHANCE,
  'uuid.rfc4122': CHANCE,
  'rego.parse_module': 'it would need a Rego compiler in the gate',
};
