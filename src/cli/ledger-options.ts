import type { Logger } from 'pino';
import type { LedgerKey } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import type { PassOptions } from './serving.ts';

/** The key that signs checkpoints, as the options name it; undefined for the one in the data directory. */
export function ledgerKey({ ledgerKey: files, ledgerKeyCommand: command, ledgerKeyPublic: publicKey }: PassOptions): LedgerKey | undefined {
  if (command === undefined) return files === undefined ? undefined : { files };
  if (publicKey === undefined || files !== undefined)
    throw new CountersignError('usage', '--ledger-key-command goes with --ledger-key-public, and not with --ledger-key', {
      hint: 'give the public key as `ledger.pub` has it',
    });
  return { command: command.split(/\s+/), publicKey };
}

/** A long ledger takes a while to be read back: ten seconds for a million entries. */
export function sayProgress(log: Logger): (done: number) => void {
  let told = Date.now();
  return (done) => {
    if (Date.now() - told < 5000) return;
    told = Date.now();
    log.info({ entries: done }, 'reading the ledger back');
  };
}
