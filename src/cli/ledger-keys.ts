import { chmodSync, copyFileSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createKey, LEDGER_FILES, ledgerName, openLedger, postgresSchema, verifierText } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { ledgerKey, readText } from '../open/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import type { NewEpochOptions, RotateKeyOptions } from './ledger-commands.ts';

/** Implements `countersign ledger rotate-key`: adds a new key beside the old one, and later removes the old one. */
export async function ledgerRotateKey(options: RotateKeyOptions, io: Io): Promise<number> {
  const origin = begunAt(options.data);
  const key = join(options.data, LEDGER_FILES.key);
  const old = join(options.data, LEDGER_FILES.oldKey);
  if (options.dropOld) {
    if (!existsSync(old)) throw new CountersignError('usage', 'there is no old key to drop');
    // The old key is only removed once no other process holds the ledger and the retirement is recorded.
    renameSync(old, `${old}.dropped`);
    await reopened(options.data, origin, () => renameSync(`${old}.dropped`, old));
    rmSync(`${old}.dropped`);
  } else {
    if (existsSync(old))
      throw new CountersignError('usage', 'an older key still signs beside the current one', {
        hint: 'drop that first, with --drop-old',
      });
    await (await openLedger(options.data, origin)).close(); // check that it is intact, and not held by another process
    // In this order there is always a key, even if this is interrupted.
    writeFileSync(`${key}.new`, createKey(), { mode: 0o600 });
    copyFileSync(key, old);
    chmodSync(old, 0o600);
    renameSync(`${key}.new`, key);
    await reopened(options.data, origin, () => renameSync(old, key));
  }
  const ledger = await openLedger(options.data, origin);
  const verifier = verifierText(ledger.verifier);
  await ledger.close();
  if (options.output === 'json') io.out(`${JSON.stringify({ key: verifier, dropped: options.dropOld }, null, 2)}\n`);
  else if (options.dropOld) io.out(`the old key no longer signs; checkpoints now count by\n${verifier}\n`);
  else
    io.out(
      `${verifier}\nsigns from now on, beside the old key. Give it to everyone who checks ` +
        'this ledger;\nonce they have it: `countersign ledger rotate-key --drop-old`\n',
    );
  return EXIT.yes;
}

async function reopened(data: string, origin: string, undo: () => void): Promise<void> {
  try {
    await (await openLedger(data, origin)).close();
  } catch (thrown) {
    undo();
    throw thrown;
  }
}

/** Implements `countersign ledger schema`: prints the SQL for the owner of a database. */
export function ledgerSchema({ role }: { readonly role: string }, io: Io): number {
  io.out(postgresSchema(role));
  return EXIT.yes;
}

/**
 * Implements `countersign ledger new-epoch`: continues after the store was rolled back to an older state, and records
 * the loss.
 */
export async function ledgerNewEpoch(options: NewEpochOptions, io: Io): Promise<number> {
  const before = begunAt(options.data);
  const ledger = await openLedger(options.data, before, {
    newEpoch: {
      reason: options.reason,
      newest: options.checkpoint === undefined ? undefined : readText(options.checkpoint, 'checkpoint'),
    },
    postgres: options.ledger,
    key: ledgerKey(options),
  });
  const { name } = ledger.verifier;
  const at = ledger.size - 1;
  await ledger.close();
  if (options.output === 'json') io.out(`${JSON.stringify({ origin: name, entry: at }, null, 2)}\n`);
  else io.out(`entry ${at} opens ${name};\nit contains the last checkpoint of ${before}\n`);
  return EXIT.yes;
}

function begunAt(data: string): string {
  const origin = ledgerName(data);
  if (origin === undefined)
    throw new CountersignError('ledger-unusable', `there is no ledger in \`${data}\``, {
      hint: 'name the service’s data directory with --data',
    });
  return origin;
}
