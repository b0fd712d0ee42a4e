/**
 * Takes entries, gives an append-only Merkle log (RFC 6962) with signed checkpoints, and checks one offline.
 * Refuses to go on when what is stored is not what was signed: a shorter, forked or altered log is never extended.
 */
export { type Checkpoint, openCheckpoint, signCheckpoint } from './checkpoint.ts';
export { evidenceRef } from './evidence.ts';
export { LEDGER_FILES, Ledger, ledgerFile, ledgerName, openLedger } from './ledger.ts';
export { LedgerReader } from './ledger-reader.ts';
export { CompactRange, leafHash } from './merkle.ts';
export {
  createKey,
  openNote,
  parseVerifier,
  readSigner,
  type Signer as LedgerSigner,
  signNote,
  type Verifier,
  verifierText,
} from './note.ts';
export { type LedgerFinding, verifyLedger } from './verify-ledger.ts';
