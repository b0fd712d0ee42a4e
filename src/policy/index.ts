/**
 * Takes compiled bundles, objects and changes; gives violations and warnings, by the conventions of Conftest,
 * Gatekeeper and our own. Rules run on threads of their own: one that fails, is undefined, takes too long or too much
 * memory is a violation with its own code, never a pass.
 */

export {
  type ChangeInput,
  changedObjects,
  changeInput,
  digestOfBundles,
  evaluateChange,
  evaluateDocuments,
  evaluateObjects,
  type Found,
  type PolicyScope,
  type RuleMemory,
  ruleInfos,
} from './evaluate.ts';
export { inventoryOf } from './inventory.ts';
export type { RequestFields } from './judge-subject.ts';
export type { NearWatch } from './near-rules.ts';
export { PolicyPool, type PoolOptions } from './policy-pool.ts';
export { applyWaivers, type Waived, type Waiver } from './waivers.ts';
