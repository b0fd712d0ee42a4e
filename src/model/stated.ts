import { clusterScopes, scopeText } from './cluster-scope.ts';
import { digestOf } from './digest.ts';
import { operatorsOf, operatorText } from './operators.ts';
import type { Environment, TrustPolicy } from './schema.ts';

/** Record of an environment's document: who governs what. Addresses contain no passwords. */
export type StatedEnvironment = {
  readonly name: string;
  readonly repository: string;
  readonly branch: string;
  readonly path: string;
  /** Absent if the document names none. */
  readonly cluster?: string;
  readonly namespaces: readonly string[];
  readonly clusterScoped: readonly string[];
  readonly trust: string;
  /** SHA-256 of that TrustPolicy, keys included. */
  readonly trustDigest: string;
  readonly admission: string;
  readonly drift: string;
  readonly breakGlass: readonly string[];
  readonly controllers: readonly string[];
  readonly operators: readonly string[];
};
/** A field of an environment that changed; empty if it, or the environment, did not exist. */
export type StatedChange = {
  readonly environment: string;
  readonly what: string;
  readonly before: string;
  readonly after: string;
};
/** The evidence of `config.stated`; older versions did not record `trustPolicies`. */
export type StatedConfiguration = {
  readonly environments: readonly StatedEnvironment[];
  readonly changes: readonly StatedChange[];
  /** The complete TrustPolicies that environments name, sorted by name. */
  readonly trustPolicies?: readonly TrustPolicy[];
};

/** Describes an environment with its TrustPolicy; `shown` removes secrets from an address. */
export function stated(
  { metadata, spec }: Environment,
  policy: TrustPolicy,
  shown: (url: string) => string,
): StatedEnvironment {
  const { source, target, admission, drift, trust } = spec;
  return {
    name: metadata.name,
    repository: shown(source.url),
    branch: source.branch,
    path: source.path,
    ...(target.cluster === undefined ? {} : { cluster: target.cluster }),
    namespaces: target.namespaces,
    clusterScoped: clusterScopes(target.clusterScoped).map(scopeText),
    trust,
    trustDigest: digestOf(policy),
    admission: admission.mode,
    drift: drift.mode,
    breakGlass: admission.breakGlass.groups,
    controllers: admission.controllers,
    operators: operatorsOf(admission.operators).map(operatorText),
  };
}

/** Returns the changes, field by field, sorted by name. */
export function statedChanges(
  before: readonly StatedEnvironment[],
  after: readonly StatedEnvironment[],
): readonly StatedChange[] {
  const [was, is] = [new Map(before.map((e) => [e.name, e])), new Map(after.map((e) => [e.name, e]))];
  return [...new Set([...was.keys(), ...is.keys()])].sort().flatMap((environment) => {
    const [old, now] = [fieldsOf(was.get(environment)), fieldsOf(is.get(environment))];
    return [...new Set([...old.keys(), ...now.keys()])]
      .map((what) => ({ environment, what, before: old.get(what) ?? '', after: now.get(what) ?? '' }))
      .filter((c) => c.before !== c.after);
  });
}

function fieldsOf(environment: StatedEnvironment | undefined): ReadonlyMap<string, string> {
  if (environment === undefined) return new Map();
  const { name: _, ...fields } = environment;
  return new Map(
    Object.entries(fields).map(([key, value]) => [key, typeof value === 'string' ? value : value.join(', ')]),
  );
}
