import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { type LedgerOptions, openLedger } from './ledger.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { type Verifier, verifierText } from './note.ts';
import { ledgerName } from './open-sequencer.ts';
import { dropNewer, historyOf, type NewEpoch, planEpoch } from './plan-epoch.ts';
import { halt } from './sequencer.ts';
import { subjectOf } from './store.ts';
import { planRotation } from './turn-keys.ts';

/**
 * An epoch that was opened: its name, its first entry, and how many entries of which name are lost, as far as a known
 * checkpoint covers them.
 */
export type OpenedEpoch = {
  readonly origin: string;
  readonly entry: number;
  readonly lost: number;
  readonly of: string;
};

/**
 * Continues a ledger whose store was restored to an older state, under a new name, and records the loss: one epoch for
 * each name that lost entries. Checks afterwards that every known checkpoint fits. Throws like `planEpoch`, and like
 * `openLedger`.
 */
export async function openEpoch(
  directory: string,
  { user, ...wanted }: Omit<NewEpoch, 'by'> & { readonly user?: string | undefined },
  options: Omit<LedgerOptions, 'newEpoch'> = {},
): Promise<readonly OpenedEpoch[]> {
  const opened: OpenedEpoch[] = [];
  const asked = user === undefined ? wanted : { ...wanted, by: subjectOf(user) };
  for (let more = 1; more > 0; more = lossesLeft(directory, asked)) {
    if (opened.length === MOST_NAMES) throw halt('after the new epoch, a known checkpoint still does not fit');
    const ledger = await openLedger(directory, begunAt(directory), { ...options, newEpoch: asked });
    const entry = ledger.read.latest(['epoch.opened'], '');
    const history = historyOf(ledger.read);
    await ledger.close();
    if (entry === undefined) throw halt('the new epoch is not on the ledger');
    const [of = '', size] = entry.entry.previous.split('\n');
    // The tree of that name may have ended long before this epoch begins.
    const end = history.endOf(of, entry.index) ?? entry.index;
    opened.push({ origin: entry.entry.origin, entry: entry.index, lost: Math.max(0, Number(size) - end), of });
  }
  dropNewer(directory);
  return opened;
}

const MOST_NAMES = 20; // names of one ledger that lost entries at once: each takes an epoch

// Asks the same question again. That nothing is lost any more is the wanted answer.
function lossesLeft(directory: string, { reason, checkpoints = [] }: NewEpoch): number {
  try {
    return 1 + planEpoch(directory, { reason, checkpoints }).more;
  } catch (thrown) {
    if (thrown instanceof CountersignError && thrown.code === 'usage') return 0;
    throw thrown;
  }
}

/** Throws `usage` if the key cannot be changed here, or if there is no old key to drop. Changes nothing. */
export function checkRotation(directory: string, dropOld: boolean, options: LedgerOptions = {}): void {
  const isHere = existsSync(join(directory, LEDGER_FILES.key));
  if (options.postgres !== undefined || options.key !== undefined || !isHere) throw keptElsewhere(directory);
  planRotation(directory, dropOld ? 'drop' : 'add');
}

/**
 * Makes a new key that signs beside the old one or, with `dropOld`, ends the old one. Returns the verifier of the key
 * that signs from then on. Checks before that the key is in the directory, and afterwards that the ledger says so and
 * that the newest checkpoint is signed as intended. A rotation that was interrupted is finished.
 */
export async function rotateKey(directory: string, dropOld: boolean, options: LedgerOptions = {}): Promise<string> {
  const origin = begunAt(directory);
  checkRotation(directory, dropOld, options);
  const ledger = await openLedger(directory, origin, { ...options, rotation: dropOld ? 'drop' : 'add' });
  const [note, history] = [ledger.read.latestCheckpoint() ?? '', historyOf(ledger.read)];
  const { verifier } = ledger;
  await ledger.close();
  // The ledger may have got a new name since the old key began to sign.
  const signs = ({ publicKey }: Verifier) => openCheckpoint(note, { name: verifier.name, publicKey }) !== undefined;
  const olderSigns = history.named.some((key) => !key.publicKey.equals(verifier.publicKey) && signs(key));
  if (!signs(verifier) || olderSigns === dropOld || (history.overlapping.length === 0) !== dropOld)
    throw halt(
      'the newest checkpoint is not signed by the keys that the rotation left',
      'run the same command again; `countersign ledger verify` says whether the ledger is consistent',
    );
  return verifierText(verifier);
}

function keptElsewhere(directory: string): CountersignError {
  return new CountersignError('usage', `the ledger’s key is not in \`${directory}\`, so it is not changed there`, {
    hint:
      'restart the service, one replica after the other, with --ledger-key NEW OLD, ' +
      'and later with --ledger-key NEW; `openssl genpkey -algorithm ed25519` makes a key',
  });
}

function begunAt(directory: string): string {
  const origin = ledgerName(directory);
  if (origin === undefined)
    throw new CountersignError('ledger-unusable', `there is no ledger in \`${directory}\``, {
      hint: 'name the service’s data directory with --data',
    });
  return origin;
}
