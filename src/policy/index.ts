/**
 * Takes a compiled bundle of Rego rules, then objects and changes; gives violations and warnings.
 * Refuses a bundle without deny rules or with builtins we do not have; a rule that fails to run is an error, never a pass.
 */

export { type ChangeInput, changeInput, evaluateChange, evaluateObjects, type PolicyScope } from './evaluate.ts';
export { loadBundle, type PolicyBundle } from './load-bundle.ts';
