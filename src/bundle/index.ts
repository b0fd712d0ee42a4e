/**
 * Takes Rego, ConstraintTemplates and constraints, or an archive with compiled ones. Returns a `PolicyBundle` with its
 * digest. Refuses rules that do not compile or that call unsupported builtins, constraints without a template, and
 * archives in which nothing denies.
 */
import type { BuildOptions, Built } from './build-bundle.ts';

export type { BuildOptions, Built } from './build-bundle.ts';
export { type Example, readExamples } from './examples.ts';
export type {
  Constraint,
  Entry,
  Expansion,
  Match,
  PolicyBundle,
  RuleInfo,
  Selector,
} from './policy-bundle.ts';
export { pullBundle } from './pull-bundle.ts';
export { readBundle } from './read-bundle.ts';

/** Compiles rules into a bundle; the compiler is loaded on demand. Throws `policy-unusable` with every problem. */
export async function buildBundle(options: BuildOptions): Promise<Built> {
  return (await import('./build-bundle.ts')).buildBundle(options);
}
