/** Which ledger a command writes to, and the key that signs it. */
export type LedgerOptions = {
  data: string;
  ledger?: string;
  ledgerKey?: string[];
  ledgerKeyCommand?: string;
  ledgerKeyPublic?: string;
};

/** The options that a service and a single pass share. */
export type PassOptions = LedgerOptions & {
  config: string[];
  kubeconfig?: string;
  context?: string;
  cluster?: string;
  origin?: string;
  selector?: string;
  traces?: string;
  writeAhead?: string;
};
