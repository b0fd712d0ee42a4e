/**
 * Takes Rego, ConstraintTemplates and constraints, or an archive of them compiled; gives a `PolicyBundle` with its
 * digest. Refuses what does not compile, what calls a builtin that is not served, a constraint without its template,
 * and an archive in which nothing denies.
 */
import type { BuildOptions, Built } from './build-bundle.ts';

export type { BuildOptions, Built } from './build-bundle.ts';
export { type Example, readExamples } from './examples.ts';
export type {
  BundleManifest,
  Constraint,
  Entry,
  Expansion,
  Match,
  PolicyBundle,
  RuleInfo,
  Selector,
  Template,
} from './policy-bundle.ts';
export { pullBundle } from './pull-bundle.ts';
export { readBundle } from './read-bundle.ts';

/** Compiles rules to a bundle; what that needs is loaded only here. Throws `policy-unusable` with every problem. */
export async function buildBundle(options: BuildOptions): Promise<Built> {
  return (await import('./build-bundle.ts')).buildBundle(options);
}
