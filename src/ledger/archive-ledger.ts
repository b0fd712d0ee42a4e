import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CountersignError, messageOf } from '../model/index.ts';
import { type AroundWrite, holdsAll, type ProvenArchive, proveArchive, writeArchive } from './archive-file.ts';
import { readStub, type Segment } from './archived-entries.ts';
import { archiveAddress, fileProblem } from './archives.ts';
import { openCheckpoint } from './checkpoint.ts';
import { type Ledger, type LedgerOptions, ledgerFile, openLedger } from './ledger.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { ledgerName } from './open-sequencer.ts';
import { halt } from './sequencer.ts';
import { KEPT_TRIGGERS } from './sqlite-store.ts';

/** A request to archive: up to when, and where; with a written file, unless it only finishes an interrupted run. */
export type ArchiveRequest = {
  readonly before: string;
  readonly place: string;
  readonly file: string | undefined;
  /** Who asks, according to the operating system. */
  readonly user: string;
};

/** Content that was moved, if any, and the size of the store in bytes before and after. */
export type ArchiveMade = {
  readonly moved: (ProvenArchive & { readonly file: string; readonly entry: number }) | undefined;
  readonly size: { readonly before: number; readonly after: number };
};

/** A month: what runs now, and what was written beside the ledger meanwhile, compares with younger entries. */
const YOUNGEST_MS = 30 * 24 * 3_600_000;
/** Share of free pages in the store from which it is worth making it smaller. */
const WORTH_COMPACTING = 0.1;

const straight: AroundWrite = async (_step, run) => run();

/**
 * Writes old content of a ledger into a new file, beside a running service. Returns the request that moves it out of
 * the store; undefined if there is nothing to do. Throws `usage`.
 */
export async function prepareArchive(
  data: string,
  asked: Omit<ArchiveRequest, 'file'>,
  now: Date,
  around: AroundWrite = straight,
): Promise<ArchiveRequest | undefined> {
  if (asked.before > new Date(now.getTime() - YOUNGEST_MS).toISOString())
    throw new CountersignError('usage', `entries after ${asked.before} are too young to be archived`, {
      hint: 'give --before a time at least 30 days ago',
    });
  const store = ledgerFile(data);
  const reader = new LedgerReader(store).freeze();
  try {
    if (reader.isCopy) throw sharedInstead();
    const request = { ...asked, place: resolve(asked.place) };
    if (unfinished(reader) !== undefined) return { ...request, file: undefined };
    const file = await writeArchive(reader, resolve(store), request, around);
    if (file !== undefined) return { ...request, file };
    return isLoose(reader, store) ? { ...request, file } : undefined;
  } finally {
    reader.close();
  }
}

/** The refusal for a ledger in PostgreSQL. */
export function sharedInstead(): CountersignError {
  return new CountersignError('usage', 'replicas share this ledger in PostgreSQL, from which nothing is archived yet', {
    hint: 'only a ledger in a file can be archived; let the database keep old rows on cheap storage',
  });
}

/** Throws `usage` if the archive to move to is not where this process can read it. Changes nothing. */
export function checkArchive({ place, file }: Pick<ArchiveRequest, 'place' | 'file'>): void {
  if (file === undefined || (/^segment-[0-9a-f-]+\.db$/.test(file) && existsSync(join(place, file)))) return;
  throw new CountersignError('usage', `there is no archive \`${file}\` in \`${place}\``, {
    hint: 'run the command where the service runs, so that both see the same directory; nothing was removed',
  });
}

/**
 * Moves what a written archive holds out of the store, and gives the space back. Before anything is removed, the
 * archive is read back and proven against the signed tree, and recorded on the ledger. A run that was interrupted is
 * finished first. Throws like `openLedger`, `usage` if the ledger changed since the archive was written, and
 * `ledger-inconsistent` if the archive is not proven.
 */
export async function moveToArchive(
  directory: string,
  request: ArchiveRequest,
  options: LedgerOptions = {},
  around: AroundWrite = straight,
): Promise<ArchiveMade> {
  const origin = ledgerName(directory);
  if (origin === undefined) throw new CountersignError('ledger-unusable', `there is no ledger in \`${directory}\``);
  if (options.postgres !== undefined) throw sharedInstead();
  checkArchive(request);
  const ledger = await openLedger(directory, origin, options);
  const store = join(directory, LEDGER_FILES.store);
  const db = new DatabaseSync(store, { timeout: 5000 });
  try {
    const before = statSync(store).size;
    const interrupted = unfinished(ledger.read);
    if (interrupted !== undefined) await finish(db, ledger, interrupted, around);
    const moved = request.file === undefined ? undefined : await move(db, ledger, request, request.file, around);
    await around('compact', () => compact(db));
    return { moved, size: { before, after: statSync(store).size } };
  } finally {
    db.close();
    await ledger.close();
  }
}

async function move(
  db: DatabaseSync,
  ledger: Ledger,
  { before, place, user }: ArchiveRequest,
  file: string,
  around: AroundWrite,
): Promise<ArchiveMade['moved']> {
  const path = join(place, file);
  const proven = prove(path, ledger);
  attached(db, path, () => {
    if (!holdsAll(db, ledger.read.firstAt(before)))
      throw new CountersignError('usage', `the ledger changed since \`${path}\` was written`, {
        hint: 'run the command again; nothing was removed from the ledger',
      });
  });
  const { index } = await around('record', () =>
    ledger.record({ type: 'segment.archived', user: ledger.subject(user), before, file, place, ...proven }),
  );
  await around('move', () => attached(db, path, () => replace(db, index, proven.entries)));
  return { ...proven, file, entry: index };
}

// The record is there, and its entries are still in the store.
async function finish(db: DatabaseSync, ledger: Ledger, { index, entry }: Segment, around: AroundWrite): Promise<void> {
  const path = join(entry.place, entry.file);
  const problem = fileProblem(path, entry, index);
  if (problem !== undefined) throw halt(problem, 'put an unchanged copy of it there; nothing was removed');
  prove(path, ledger);
  await around('move', () => attached(db, path, () => replace(db, index, entry.entries)));
}

function prove(path: string, ledger: Ledger): ProvenArchive {
  const signed = openCheckpoint(ledger.read.latestCheckpoint() ?? '', ledger.verifier);
  if (signed === undefined) throw halt('the newest checkpoint is not signed by this ledger’s key');
  return proveArchive(path, ledger.read, signed.root);
}

/** Returns the newest archive on record whose entries are still in the store, if its file is at hand. */
function unfinished(reader: LedgerReader): Segment | undefined {
  const last = reader.latest(['segment.archived'], '');
  if (last === undefined || !existsSync(join(last.entry.place, last.entry.file))) return undefined;
  const [row] = reader.rows(last.entry.first, last.entry.first + 1);
  return row === undefined || readStub(row.body) !== undefined ? undefined : last;
}

function attached<T>(db: DatabaseSync, file: string, work: () => T): T {
  db.prepare('ATTACH ? AS archive').run(archiveAddress(file));
  try {
    return work();
  } finally {
    db.exec('DETACH archive');
  }
}

/**
 * Puts stubs in place of archived entries, and removes evidence that no entry in the store names any more. INVARIANT:
 * every byte removed is equal to one in the archive. Only this transaction lifts the triggers that keep entries.
 */
function replace(db: DatabaseSync, segment: number, entries: number): void {
  db.exec('BEGIN IMMEDIATE');
  try {
    db.exec('DROP TRIGGER entry_is_fixed; DROP TRIGGER evidence_is_kept');
    const { changes } = db
      .prepare(
        `UPDATE entry SET body = (entry.body ->> '$.time') || ' ' || CAST(? AS TEXT) FROM archive.entry AS kept
         WHERE kept.seq = entry.seq AND kept.body = entry.body`,
      )
      .run(BigInt(segment));
    if (Number(changes) !== entries) throw halt('the archive and the store differ', 'nothing was removed');
    db.exec(`DELETE FROM evidence
      WHERE EXISTS (
        SELECT 1 FROM archive.evidence AS kept WHERE kept.sha256 = evidence.sha256 AND kept.bytes = evidence.bytes
      )
      AND sha256 NOT IN (
        SELECT named FROM (SELECT CASE WHEN body LIKE '{%' THEN body ->> '$.evidence.sha256' END AS named FROM entry)
        WHERE named IS NOT NULL
      )`);
    db.exec(KEPT_TRIGGERS);
    db.exec('COMMIT');
  } catch (thrown) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw thrown;
  }
}

function isLoose(reader: LedgerReader, store: string): boolean {
  if (reader.latest(['segment.archived'], '') === undefined) return false;
  const db = new DatabaseSync(store, { readOnly: true, timeout: 5000 });
  try {
    return shareFree(db) > WORTH_COMPACTING;
  } finally {
    db.close();
  }
}

function shareFree(db: DatabaseSync): number {
  const read = (pragma: string) => Number(Object.values(db.prepare(`PRAGMA ${pragma}`).get() ?? {})[0]);
  return read('freelist_count') / Math.max(1, read('page_count'));
}

// The content is archived by now; space that is not given back is no reason to call that a failure of it.
function compact(db: DatabaseSync): void {
  try {
    if (shareFree(db) > WORTH_COMPACTING) db.exec('VACUUM');
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `archived, but the space is not given back: ${messageOf(cause)}`, {
      cause,
      hint: 'free space for a second store, on its disk and in TMPDIR, and run the command again',
    });
  }
}
