/**
 * Takes compiled bundles, objects and changes. Returns violations and warnings, by the conventions of Conftest,
 * Gatekeeper and our own. Rules run on separate threads. A rule that fails, is undefined, or takes too much time or
 * memory is a violation with its own code, never a pass.
 */

export {
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
export { SharedPools } from './shared-pools.ts';
export { applyWaivers, type Waiver } from './waivers.ts';
