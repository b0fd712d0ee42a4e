/**
 * Takes rules compiled to Wasm by `opa build`, data and an input; gives the value that OPA itself would give. Brings
 * every builtin that needs nothing but its arguments; refuses, when rules are loaded, those that ask the outside or
 * chance. An instance out of which something was thrown is never used again.
 */
export type { BuiltinContext } from './builtin.ts';
export { REFUSED } from './builtins.ts';
export { evaluateQuery, type Limits, RegoModule, type Within } from './host.ts';
export { compare, fromJson, RegoObject, RegoSet, toJson, type Value } from './value.ts';
