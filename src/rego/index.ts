/**
 * Takes rules compiled to Wasm by `opa build`, data and an input. Returns the value OPA would return. It provides every
 * builtin that depends only on its arguments. Rules that call builtins depending on the outside world or on chance are
 * refused when loaded. An instance that threw is discarded.
 */
export type { BuiltinContext } from './builtin.ts';
export { REFUSED } from './builtins.ts';
export { evaluateQuery, RegoModule } from './host.ts';
export { compare, fromJson, RegoObject, RegoSet, toJson, type Value } from './value.ts';
