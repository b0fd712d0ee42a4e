import { chmodSync, closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { CountersignError, messageOf, sha256 } from '../model/index.ts';
import { ARCHIVED_TYPES, StaysHash } from './archived-entries.ts';
import { archiveAddress, measure } from './archives.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { CompactRange, leafHash } from './merkle.ts';
import { moveFile, sync } from './replace-file.ts';
import { halt } from './sequencer.ts';
import { ARCHIVE } from './sqlite-store.ts';

const SCHEMA = `
  PRAGMA page_size = 8192;
  PRAGMA user_version = ${ARCHIVE};
  CREATE TABLE entry (
    seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, body TEXT NOT NULL, type TEXT NOT NULL, environment TEXT NOT NULL
  ) STRICT;
  CREATE TABLE evidence (sha256 TEXT PRIMARY KEY, bytes TEXT NOT NULL) STRICT, WITHOUT ROWID;
`;

const TYPES = ARCHIVED_TYPES.map((type) => `'${type}'`).join(', ');

/**
 * Returns the query for what can be archived before an index. Stays: the newest of each kind, which the service reads
 * when it starts; requests that only `enforce` would have refused, which are exceptions in the register; and entries
 * that others name.
 */
function archivable(store: string): string {
  return `
    SELECT seq, leaf, body, type, environment FROM ${store}.entry
    WHERE seq < ? AND type IN (${TYPES}) AND body LIKE '{%'
      AND (type <> 'admission.denied' OR CASE WHEN body LIKE '{%' THEN body ->> '$.mode' END = 'enforce')
      AND seq NOT IN (SELECT max(seq) FROM ${store}.entry WHERE type IN (${TYPES}) GROUP BY type, environment)
      AND seq NOT IN (
        SELECT CAST(substr(json_extract(body, '$.exception'), 2) AS INTEGER) FROM ${store}.entry
        WHERE type IN ('exception.settled', 'exception.assigned')
      )
      AND seq NOT IN (
        SELECT detail.value ->> 'admission' FROM ${store}.entry AS drift, json_each(drift.body, '$.details') AS detail
        WHERE drift.type = 'drift.found' AND detail.value ->> 'admission' IS NOT NULL
      )`;
}

/** Does one write, or one step of it that ends with a write. A test fails before or after it. */
export type AroundWrite = <T>(step: ArchiveStep, run: () => T | Promise<T>) => Promise<T>;
type ArchiveStep = 'write' | 'place' | 'record' | 'move' | 'compact';

/**
 * Copies entries of a store that are older than a time, and all evidence that they name, into a new file, synced to
 * disk. Returns its name; undefined if there is nothing to archive. Changes nothing in the store.
 */
export async function writeArchive(
  reader: LedgerReader,
  store: string,
  asked: { readonly before: string; readonly place: string },
  around: AroundWrite,
): Promise<string | undefined> {
  const { before, place } = asked;
  const making = join(place, 'segment.new');
  try {
    mkdirSync(place, { recursive: true, mode: 0o700 });
    const range = await around('write', () => copyInto(making, store, reader.firstAt(before)));
    if (range === undefined) return undefined;
    const file = `segment-${range.first}-${range.last}-${measure(making).sha256.slice(0, 16)}.db`;
    await around('place', () => {
      moveFile(making, join(place, file));
    });
    return file;
  } catch (cause) {
    if (cause instanceof CountersignError) throw cause;
    throw new CountersignError('usage', `cannot write the archive to \`${place}\`: ${messageOf(cause)}`, {
      cause,
      hint: 'free some space, or name a different directory; nothing was removed from the ledger',
    });
  } finally {
    if (existsSync(making)) rmSync(making);
  }
}

function copyInto(
  file: string,
  store: string,
  end: number,
): { readonly first: number; readonly last: number } | undefined {
  for (const ending of ['', '-journal']) rmSync(`${file}${ending}`, { force: true });
  closeSync(openSync(file, 'wx', 0o600));
  const db = new DatabaseSync(file);
  try {
    db.exec(SCHEMA);
    db.prepare('ATTACH ? AS store').run(`${pathToFileURL(store).href}?mode=ro`);
    db.exec('BEGIN');
    db.prepare(`INSERT INTO entry ${archivable('store')} ORDER BY seq`).run(end);
    db.exec(`INSERT INTO evidence SELECT sha256, bytes FROM store.evidence
      WHERE sha256 IN (SELECT body ->> '$.evidence.sha256' FROM entry) ORDER BY sha256`);
    db.exec('COMMIT');
    const range = db.prepare('SELECT min(seq) AS first, max(seq) AS last FROM entry').get();
    if (range?.['first'] === null) return undefined;
    return { first: Number(range?.['first']), last: Number(range?.['last']) };
  } finally {
    db.close();
    chmodSync(file, 0o400);
    sync(file);
  }
}

/** Content of an archive that was read back and proven, as `segment.archived` records it. */
export type ProvenArchive = {
  readonly first: number;
  readonly last: number;
  readonly entries: number;
  readonly pieces: number;
  readonly stays: string;
  readonly sha256: string;
  readonly bytes: number;
};

/**
 * Reads an archive back: each entry hashes to its leaf in the store, the leaves give the root that was signed, and each
 * piece of evidence hashes to its digest and is there. Throws `ledger-inconsistent` if any of it is not so.
 */
export function proveArchive(file: string, reader: LedgerReader, root: Buffer): ProvenArchive {
  const db = new DatabaseSync(new URL(archiveAddress(file)), { readOnly: true });
  try {
    const entries = db.prepare('SELECT seq, body, type, environment FROM entry ORDER BY seq').iterate();
    const { leaves, ...proven } = proveEntries(file, reader, entries);
    if (!leaves.equals(root)) throw unproven(file, 'the leaves in the store do not give the signed root');
    return { ...proven, pieces: proveEvidence(file, db), ...measure(file) };
  } finally {
    db.close();
  }
}

function proveEntries(file: string, reader: LedgerReader, archived: ReturnType<StatementSync['iterate']>) {
  const tree = new CompactRange();
  const stays = new StaysHash();
  let [first, last, entries] = [-1, -1, 0];
  let next = archived.next();
  for (const { index, leaf, type, environment } of reader.rows()) {
    tree.append(leaf);
    if (next.done === true || Number(next.value['seq']) !== index) continue;
    const { body, type: kind, environment: where } = next.value as Record<string, string>;
    if (!leafHash(body ?? '').equals(leaf) || kind !== type || where !== environment)
      throw unproven(file, `entry ${index} in it is not the one in the ledger`);
    stays.add({ index, type, environment }, (JSON.parse(body ?? '') as { time: string }).time);
    if (entries++ === 0) first = index;
    last = index;
    next = archived.next();
  }
  if (next.done !== true) throw unproven(file, 'it has entries that the ledger lacks');
  return { leaves: tree.root(), first, last, entries, stays: stays.digest() };
}

function proveEvidence(file: string, db: DatabaseSync): number {
  let pieces = 0;
  for (const { sha256: digest, bytes } of db.prepare('SELECT sha256, bytes FROM evidence').iterate()) {
    if (sha256(String(bytes)) !== digest)
      throw unproven(file, `the evidence ${String(digest).slice(0, 12)} was altered`);
    pieces++;
  }
  const missing = db
    .prepare(
      `SELECT count(*) AS n FROM (SELECT body ->> '$.evidence.sha256' AS named FROM entry)
       WHERE named IS NOT NULL AND named NOT IN (SELECT sha256 FROM evidence)`,
    )
    .get();
  if (Number(missing?.['n']) > 0) throw unproven(file, 'evidence of its entries is missing');
  return pieces;
}

function unproven(file: string, why: string): CountersignError {
  return halt(`the archive \`${file}\` is not proven: ${why}`, 'nothing was removed from the ledger');
}

/** Tests whether an archive holds exactly what can be archived before an index of the store that `db` has open. */
export function holdsAll(db: DatabaseSync, end: number): boolean {
  const differing = db.prepare(`
    SELECT (SELECT count(*) FROM (${archivable('main')})) AS chosen,
      (SELECT count(*) FROM archive.entry) AS archived,
      (SELECT count(*) FROM (SELECT * FROM archive.entry EXCEPT ${archivable('main')})) AS differ`);
  const { chosen, archived, differ } = differing.get(end, end) ?? {};
  return chosen === archived && differ === 0;
}
