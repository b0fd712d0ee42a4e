/** What a service and a single pass are both told. */
export type PassOptions = {
  config: string[];
  data: string;
  kubeconfig?: string;
  context?: string;
  origin?: string;
  ledger?: string;
  ledgerKey?: string[];
  ledgerKeyCommand?: string;
  ledgerKeyPublic?: string;
  selector?: string;
  traces?: string;
};
