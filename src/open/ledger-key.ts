import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import type { LedgerOptions } from './pass-options.ts';

/** Returns the key that signs checkpoints, as given by the options; undefined for the one in the data directory. */
export function ledgerKey({
  ledgerKey: files,
  ledgerKeyCommand: command,
  ledgerKeyPublic: publicKey,
}: LedgerOptions): LedgerKey | undefined {
  if (command === undefined) return files === undefined ? undefined : { files };
  if (publicKey === undefined || files !== undefined)
    throw new CountersignError(
      'usage',
      '--ledger-key-command requires --ledger-key-public, and excludes --ledger-key',
      {
        hint: 'give the public key in the format of `ledger.pub`',
      },
    );
  return { command: command.split(/\s+/), publicKey };
}
