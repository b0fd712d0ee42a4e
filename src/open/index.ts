/**
 * Takes documents and settings. Returns one opened thing (gate, rules, rendering, ledger view, key, access to a source)
 * and the function that closes it. Decides nothing and prints nothing. Errors name the file or flag to correct.
 */

export { askService, byServiceOrAlone, makeSocket } from './control-socket.ts';
export { decrypting, opener } from './decrypting.ts';
export { answerWith, inThread } from './in-thread.ts';
export { ledgerKey } from './ledger-key.ts';
export {
  chooseEnvironment,
  gitProgram,
  openCheckout,
  openConfiguration,
  openGate,
  openPolicy,
  openTrust,
  trustOf,
} from './open-gate.ts';
export { openOwnLedger } from './open-own-ledger.ts';
export { openRendering } from './open-rendering.ts';
export { SharedRules } from './open-rules.ts';
export type { LedgerOptions, PassOptions } from './pass-options.ts';
export { environmentsOf, readLedger, recorderOf } from './read-ledger.ts';
export { readSecret } from './read-secret.ts';
export { readText, readVerifiers } from './read-verifiers.ts';
export { sourceAccess } from './source-access.ts';
