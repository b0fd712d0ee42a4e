/**
 * Takes entries and returns an append-only Merkle log (RFC 6962) with signed checkpoints. Also checks such a log
 * offline. Refuses to continue if the stored data is not the signed data: a shorter, forked or altered log is never
 * extended.
 */
export { type Anchor, AnchorKeeper } from './anchors.ts';
export {
  type ArchiveMade,
  type ArchiveRequest,
  checkArchive,
  moveToArchive,
  prepareArchive,
  sharedInstead,
} from './archive-ledger.ts';
export type { Unread } from './archives.ts';
export {
  type Instance as LedgerInstance,
  newInstance,
  openCheckpoint,
  signCheckpoint,
} from './checkpoint.ts';
export { type Comparison, compareWith } from './compare.ts';
export { parseWitness } from './cosignature.ts';
export { ownerOf } from './data-access.ts';
export { isDiskShort } from './disk-reserve.ts';
export type { EntryFilter } from './entry-filter.ts';
export { evidenceRef } from './evidence.ts';
export { exportLedger, importLedger } from './export-ledger.ts';
export { type Forgotten, forgetOn } from './forget.ts';
export { Ledger, ledgerFile, openLedger } from './ledger.ts';
export { LEDGER_FILES } from './ledger-files.ts';
export { LedgerReader } from './ledger-reader.ts';
export { CompactRange, leafHash } from './merkle.ts';
export {
  createKey,
  openNote,
  openSigned,
  parseVerifier,
  parseVerifiers,
  readSigner,
  signNote,
  type Verifier,
  verifierText,
} from './note.ts';
export { type LedgerKey, ledgerName, openSigner } from './open-sequencer.ts';
export { fileAnchor, timestampAnchor, witnessAnchor } from './outside-anchors.ts';
export { keptNotes, planEpoch } from './plan-epoch.ts';
export { databaseAddress } from './postgres-address.ts';
export { postgresSchema } from './postgres-schema.ts';
export { programSource } from './program-source.ts';
export { checkExtension, checkReceipt, extension, receipt } from './proof.ts';
export { checkRotation, type OpenedEpoch, openEpoch, rotateKey } from './renew-ledger.ts';
export { unusableNote } from './sequencer.ts';
export { importLine } from './store-trouble.ts';
export { type LedgerCheck, verifyLedger } from './verify-ledger.ts';
export { WriteAhead } from './write-ahead.ts';
export { placeWriteAhead } from './write-ahead-place.ts';
export { openSeal } from './write-ahead-seal.ts';
