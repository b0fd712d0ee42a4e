/** Files of a ledger in its data directory. */
export const LEDGER_FILES = {
  store: 'ledger.db',
  lock: 'ledger.lock',
  key: 'ledger.key',
  oldKey: 'ledger.key.old',
  verifier: 'ledger.pub',
  anchor: 'checkpoint',
  /** The checkpoint of an anchor that the ledger does not extend. */
  newer: 'newer-checkpoint',
} as const;
