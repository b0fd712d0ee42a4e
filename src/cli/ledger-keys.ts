import { join, resolve } from 'node:path';
import {
  LEDGER_FILES,
  ledgerName,
  type OpenedEpoch,
  openEpoch,
  postgresSchema,
  rotateKey,
  verifierText,
} from '../ledger/index.ts';
import { CountersignError, count } from '../model/index.ts';
import { byServiceOrAlone, ledgerKey, readText, readVerifiers } from '../open/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import type { NewEpochOptions, RotateKeyOptions } from './ledger-commands.ts';
import { localUser } from './operate.ts';

/**
 * Implements `countersign ledger rotate-key`: adds a new key beside the old one, and later removes the old one. A
 * running service does it itself, while requests wait.
 */
export async function ledgerRotateKey({ data, dropOld, output }: RotateKeyOptions, io: Io): Promise<number> {
  begunAt(data);
  const { key } = (
    await byServiceOrAlone(data, 'rotate-key', { dropOld, user: localUser() }, async () => ({
      key: await rotateKey(resolve(data), dropOld),
    }))
  ).result;
  // The answer is handed on to everyone who checks the ledger: it must be the key that is in use here.
  const [inUse] = readVerifiers(join(data, LEDGER_FILES.verifier));
  if (inUse === undefined || verifierText(inUse) !== key)
    throw new CountersignError('ledger-inconsistent', 'the service named a key that is not the one in `ledger.pub`', {
      recover: 'halt',
      hint: 'see who answers on the control socket, and run `countersign ledger verify`',
    });
  if (output === 'json') io.out(`${JSON.stringify({ key, dropped: dropOld }, null, 2)}\n`);
  else if (dropOld) io.out(`the old key no longer signs; checkpoints now count by\n${key}\n`);
  else
    io.out(
      `${key}\nsigns from now on, beside the old key. Give it to everyone who checks ` +
        'this ledger;\nonce they have it: `countersign ledger rotate-key --drop-old`\n',
    );
  return EXIT.yes;
}

/** Implements `countersign ledger schema`: prints the SQL for the owner of a database. */
export function ledgerSchema({ role }: { readonly role: string }, io: Io): number {
  io.out(postgresSchema(role));
  return EXIT.yes;
}

/**
 * Implements `countersign ledger new-epoch`: continues after the store was rolled back to an older state, and records
 * the loss. A running service does it itself, while requests wait.
 */
export async function ledgerNewEpoch(options: NewEpochOptions, io: Io): Promise<number> {
  const { data, output } = options;
  begunAt(data);
  const reason = options.reason.trim();
  if (reason === '') throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  const asked = {
    reason,
    checkpoints: options.checkpoint.map((file) => readText(file, 'checkpoint')),
    withoutCheckpoint: options.withoutCheckpoint === undefined ? undefined : readCount(options.withoutCheckpoint),
    user: localUser(),
  };
  const { result: epochs, isAlone } = await byServiceOrAlone<readonly OpenedEpoch[]>(data, 'new-epoch', asked, () =>
    openEpoch(resolve(data), asked, { postgres: options.ledger, key: ledgerKey(options) }),
  );
  if (output === 'json') io.out(`${JSON.stringify(epochs, null, 2)}\n`);
  else
    for (const { origin, entry, lost, of } of epochs)
      io.out(
        `entry ${entry} opens ${origin};\nit records that ` +
          (lost === 0
            ? `entries of ${of} are lost that no known checkpoint covers\n`
            : `${count(lost, 'entry', 'entries')} of ${of} ${lost === 1 ? 'is' : 'are'} lost\n`),
      );
  if (output === 'json') return EXIT.yes;
  const [key] = readVerifiers(join(data, LEDGER_FILES.verifier));
  if (key !== undefined) io.out(`give its new key line to everyone who checks this ledger:\n${verifierText(key)}\n`);
  if (isAlone) io.out('every known checkpoint fits; start the service again\n');
  return EXIT.yes;
}

function readCount(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new CountersignError('usage', `\`${text}\` is not a number of lost entries`, {
    hint: 'say about how many are lost with --without-checkpoint COUNT; if none is, no epoch is needed',
  });
}

function begunAt(data: string): string {
  const origin = ledgerName(data);
  if (origin === undefined)
    throw new CountersignError('ledger-unusable', `there is no ledger in \`${data}\``, {
      hint: 'name the service’s data directory with --data',
    });
  return origin;
}
