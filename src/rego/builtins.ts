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

/** Names of every builtin that compiled rules may call in the host; those that Wasm brings itself are not here. */
const SERVED: ReadonlySet<string> = new Set([
  ...Object.keys(AT_HAND),
  ...X509_NAMES,
  ...SCHEMA_NAMES,
  ...GRAPHQL_NAMES,
]);

/**
 * Builtins by name, those with large libraries behind them loaded only where they are asked for. Throws
 * `policy-unusable` for names that are not served.
 */
export async function loadBuiltins(names: readonly string[]): Promise<Readonly<Record<string, Builtin>>> {
  const lacking = unserved(names);
  if (lacking.length > 0)
    throw new CountersignError(
      'policy-unusable',
      `the rules call builtins that are not served: ${lacking.join(', ')}`,
      {
        hint: 'build with the capabilities of `countersign policy capabilities`, so that this is found when they are compiled',
      },
    );
  return {
    ...AT_HAND,
    ...(names.some((n) => X509_NAMES.includes(n)) ? (await import('./builtins-x509.ts')).X509_BUILTINS : {}),
    ...(names.some((n) => SCHEMA_NAMES.includes(n)) ? (await import('./builtins-schema.ts')).SCHEMA_BUILTINS : {}),
    ...(names.some((n) => GRAPHQL_NAMES.includes(n)) ? (await import('./builtins-graphql.ts')).GRAPHQL_BUILTINS : {}),
  };
}

/** Builtins a module asks for that are not served, each with the reason. */
function unserved(names: readonly string[]): string[] {
  return names
    .filter((name) => !SERVED.has(name))
    .map((name) => (Object.hasOwn(REFUSED, name) ? `\`${name}\` (${REFUSED[name]})` : `\`${name}\` (unknown)`));
}

const ASKS = 'it asks the outside, so that the same change could be judged differently tomorrow';
const CHANCE = 'it gives something else each time';

/** Builtins that are refused when rules are loaded, with the reason. */
export const REFUSED: Readonly<Record<string, string>> = {
  'http.send': ASKS,
  'net.lookup_ip_addr': ASKS,
  'opa.runtime': 'it shows the machine and its environment variables',
  'rand.intn': CHANCE,
  'uuid.rfc4122': CHANCE,
  'rego.parse_module': 'it needs a Rego compiler at the gate',
};
