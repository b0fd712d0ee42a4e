import { resolve } from 'node:path';
import { type Ledger, ledgerName, openLedger } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { ledgerKey } from './ledger-key.ts';
import type { LedgerOptions } from './pass-options.ts';

/**
 * Opens the ledger of a data directory to write to it, while no service runs on it. The caller closes it. Throws
 * `ledger-unusable` if there is none, and what opening a ledger throws.
 */
export async function openOwnLedger(options: LedgerOptions): Promise<Ledger> {
  const origin = ledgerName(options.data);
  if (origin === undefined)
    throw new CountersignError('ledger-unusable', `there is no ledger in \`${options.data}\``, {
      hint: 'name the data directory of the service with --data',
    });
  return openLedger(resolve(options.data), origin, { key: ledgerKey(options), postgres: options.ledger });
}
