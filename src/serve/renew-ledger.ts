import { extname, resolve } from 'node:path';
import type { ControlAnswer } from '../http/index.ts';
import {
  type ArchiveMade,
  checkArchive,
  checkRotation,
  openEpoch,
  planEpoch,
  rotateKey,
  sharedInstead,
} from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { inThread, ledgerKey } from '../open/index.ts';
import type { ArchiveTask } from './archive-thread.ts';
import type { LedgerPauses } from './ledger-pauses.ts';
import type { Serving } from './open-serving.ts';

type Asked = Readonly<Record<string, unknown>>;

/** Changes the ledger's key in a pause of the service. What cannot work is refused before the pause. */
export async function rotateInPause(
  asked: Asked,
  { options, log }: Serving,
  pauses: LedgerPauses,
): Promise<ControlAnswer> {
  const [data, dropOld] = [resolve(options.data), asked['dropOld'] === true];
  const place = { postgres: options.ledger, key: ledgerKey(options) };
  checkRotation(data, dropOld, place);
  log.warn({ user: String(asked['user'] ?? ''), dropOld }, 'the ledger’s key changes, as requested by a user');
  const key = await pauses.ask('the ledger’s key changed', () => rotateKey(data, dropOld, place));
  return { ok: true, result: { key } };
}

/** Opens a new epoch in a pause of the service. What would not help is refused before the pause. */
export async function epochInPause(
  asked: Asked,
  { options, log }: Serving,
  pauses: LedgerPauses,
): Promise<ControlAnswer> {
  if (options.ledger !== undefined)
    throw new CountersignError('usage', 'replicas that run share this ledger: a new epoch needs it alone', {
      hint: 'scale the replicas to 0, run the same command with --ledger URL, and scale up again',
    });
  const data = resolve(options.data);
  const epoch = epochOf(asked);
  planEpoch(data, epoch);
  log.warn(
    { user: String(asked['user'] ?? ''), reason: epoch.reason },
    'the ledger gets a new epoch, as requested by a user',
  );
  const result = await pauses.ask('the ledger has a new epoch', () =>
    openEpoch(data, epoch, { key: ledgerKey(options) }),
  );
  return { ok: true, result };
}

const ARCHIVING_MS = 30 * 60_000;

/** Moves what a command has written to an archive out of the store, in a pause of the service. */
export async function archiveInPause(
  asked: Asked,
  { options, log }: Serving,
  pauses: LedgerPauses,
): Promise<ControlAnswer> {
  if (options.ledger !== undefined) throw sharedInstead();
  const text = (name: string) => String(asked[name] ?? '');
  const file = asked['file'] === undefined ? undefined : text('file');
  const request = { before: text('before'), place: text('place'), file, user: text('user') };
  checkArchive(request);
  const task: ArchiveTask = { data: resolve(options.data), request, key: ledgerKey(options) };
  log.warn(request, 'old entries are archived, as requested by a user');
  // In a thread of its own: probes are answered meanwhile.
  const result = await pauses.ask('old entries were archived', () =>
    inThread<ArchiveMade>(new URL(`./archive-thread${extname(import.meta.url)}`, import.meta.url), task, {
      ms: ARCHIVING_MS,
    }),
  );
  return { ok: true, result };
}

function epochOf(asked: Asked): Parameters<typeof openEpoch>[1] & { readonly reason: string } {
  const { reason, checkpoints, withoutCheckpoint, user } = asked;
  const isNotes = (value: unknown): value is string[] =>
    Array.isArray(value) && value.every((note) => typeof note === 'string');
  if (typeof reason !== 'string' || reason.trim() === '')
    throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  return {
    reason,
    checkpoints: isNotes(checkpoints) ? checkpoints : [],
    withoutCheckpoint: typeof withoutCheckpoint === 'number' ? withoutCheckpoint : undefined,
    user: typeof user === 'string' ? user : undefined,
  };
}
