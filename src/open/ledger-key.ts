import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import type { LedgerOptions } from './pass-options.ts';

/** The key that signs checkpoints, as the options name it; undefined for the one in the data directory. */
export function ledgerKey({
  ledgerKey: files,
  ledgerKeyCommand: command,
  ledgerKeyPublic: publicKey,
}: LedgerOptions): LedgerKey | undefined {
  if (command === undefined) return files === undefined ? undefined : { files };
  if (publicKey === undefined || files !== undefined)
    throw new CountersignError(
      'usage',
      '--ledger-key-command goes with --ledger-key-public, and not with --ledger-key',
      {
        hint: 'give the public key as `ledger.pub` has it',
      },
    );
  return { command: command.split(/\s+/), publicKey };
}
