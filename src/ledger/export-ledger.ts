import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { CountersignError, canonicalJson, sha256 } from '../model/index.ts';
import { parseCheckpoint } from './checkpoint.ts';
import { handToOwner } from './data-access.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { leafHash } from './merkle.ts';
import { type Verifier, verifierText } from './note.ts';
import { checkExport } from './offline-check.ts';
import { programSource } from './program-source.ts';
import { receipt } from './proof.ts';
import { checkReplacement, type LeftToDo, replaceStore } from './replace-store.ts';
import { halt } from './sequencer.ts';
import { SqliteStore } from './sqlite-store.ts';
import { type Batch, isOpened, type PreparedEntry, type StoredEntry, type Subject } from './store.ts';
import { takeLock } from './take-lock.ts';
import { TILE_WIDTH, TreeWriter, tileHashes, tilePath } from './tiles.ts';
import { verifyLedger } from './verify-ledger.ts';

const FORMAT = 'countersign-ledger-export/1';
const CHECKER = 'verify.mjs';

export type ExportOptions = {
  /** Entries to write receipts for. */
  readonly receipts?: readonly number[];
  /** Leave out names: entries keep their commitments and still verify. */
  readonly withoutSubjects?: boolean;
  readonly onProgress?: (done: number) => void;
};

/**
 * Writes a whole ledger as files: C2SP tiles and entries, the newest checkpoint and the earlier ones kept, evidence,
 * names, receipts, and a single-file checker. Throws `usage` if the directory is not empty, `entry-archived` if content
 * is in an archive that is not at hand, and `ledger-unusable` if no checkpoint has been signed yet.
 */
export function exportLedger(
  reader: LedgerReader,
  keys: readonly Verifier[],
  directory: string,
  options: ExportOptions = {},
): { readonly entries: number } {
  refuseFilled(directory);
  reader.requireArchives();
  const notes = reader.checkpoints();
  const newest = notes.at(-1);
  if (newest === undefined)
    throw new CountersignError('ledger-unusable', 'no checkpoint of this ledger has been signed yet');
  const files = new Files(directory);
  files.write('checkpoint', newest.note);
  files.write(LEDGER_FILES.verifier, keys.map((key) => `${verifierText(key)}\n`).join(''));
  files.write('policy', `${keys.map((key) => `log ${verifierText(key)}\n`).join('')}quorum none\n`);
  for (const { size, note } of notes.slice(0, -1)) files.write(`checkpoints/${size}`, note);
  writeEntries(reader, newest.size, files, options);
  writeTiles(reader, newest.size, files);
  if (options.withoutSubjects !== true) files.write('subjects.jsonl', [...reader.subjects()].map(subjectLine).join(''));
  for (const index of options.receipts ?? []) {
    const [entry] = reader.stored(index, index + 1);
    if (entry === undefined || index >= newest.size)
      throw new CountersignError('usage', `there is no entry ${index} under the newest checkpoint`);
    files.write(`receipts/${index}.json`, entry.body);
    files.write(`receipts/${index}.tlog-proof`, receipt(reader, index, newest.note));
  }
  files.write(CHECKER, programSource(new URL(`./offline-check${extname(import.meta.url)}`, import.meta.url)));
  files.write('README.txt', readme(newest.size));
  files.writeManifest();
  return { entries: newest.size };
}

function writeEntries(reader: LedgerReader, size: number, files: Files, options: ExportOptions): void {
  const written = new Set<string>();
  let bundle: StoredEntry[] = [];
  const flush = () => {
    const first = bundle[0];
    if (first === undefined) return;
    files.write(
      tilePath('entries', Math.floor(first.index / TILE_WIDTH), bundle.length),
      Buffer.concat(bundle.flatMap(framed)),
    );
    options.onProgress?.(first.index + bundle.length);
    bundle = [];
  };
  for (const stored of reader.stored(0, size)) {
    bundle.push(stored);
    if (bundle.length === TILE_WIDTH) flush();
    const digest = evidenceOf(stored.body);
    if (digest === undefined || written.has(digest)) continue;
    written.add(digest);
    const bytes = reader.evidenceBytes(digest);
    if (bytes !== undefined) files.write(`evidence/${digest}.json`, bytes);
  }
  flush();
}

function framed({ body }: StoredEntry): Buffer[] {
  const bytes = Buffer.from(body);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return [length, bytes];
}

function evidenceOf(body: string): string | undefined {
  return (JSON.parse(body) as { evidence?: { sha256: string } }).evidence?.sha256;
}

function writeTiles(reader: LedgerReader, size: number, files: Files): void {
  const nodes = reader.nodes(size);
  for (let [level, count] = [0, size]; count > 0; level++, count = Math.floor(count / TILE_WIDTH)) {
    for (let n = 0; n * TILE_WIDTH < count; n++) {
      const width = Math.min(TILE_WIDTH, count - n * TILE_WIDTH);
      files.write(tilePath(level, n, width), tileHashes(nodes, level, n, width));
    }
  }
}

function subjectLine({ commitment, salt, text }: Subject): string {
  return `${canonicalJson({ commitment, salt: Buffer.from(salt).toString('hex'), text })}\n`;
}

/** Files under a directory, with the digest of each for the manifest. */
class Files {
  readonly #directory: string;
  readonly #digests: Record<string, string> = {};

  constructor(directory: string) {
    this.#directory = directory;
  }

  write(name: string, content: string | Uint8Array): void {
    const file = join(this.#directory, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    this.#digests[name] = sha256(content);
  }

  writeManifest(): void {
    const names = Object.keys(this.#digests).sort();
    const files = Object.fromEntries(names.map((name) => [name, this.#digests[name]]));
    writeFileSync(join(this.#directory, 'manifest.json'), `${JSON.stringify({ files, format: FORMAT })}\n`);
  }
}

function refuseFilled(directory: string): void {
  if (existsSync(directory) && readdirSync(directory).length > 0)
    throw new CountersignError('usage', `\`${directory}\` is not empty`, {
      hint: 'name a directory that does not exist yet',
    });
}

function readme(size: number): string {
  return `The ledger of a Countersign gate: ${size} entries.

  node verify.mjs --key LEDGER.PUB

checks that every entry, tile, receipt and checkpoint matches what was signed. It needs
Node 20 or later and nothing else. LEDGER.PUB is the ledger's public key. Get it from
another source: the copy in this directory proves nothing on its own.

  checkpoint, checkpoints/  signed notes (C2SP tlog-checkpoint)
  tile/                     hashes and entries (C2SP tlog-tiles)
  evidence/                 files that entries name by SHA-256
  subjects.jsonl            names behind commitments, unless they were erased
  receipts/                 entries with their proofs (C2SP tlog-proof)
  policy                    the ledger's keys (C2SP tlog-policy)

Other programs can read it too: "fsck" of Tessera, and golang.org/x/mod/sumdb.
`;
}

export type ImportOptions = {
  /** Put it in place of the store that is there; everything else in the directory stays. */
  readonly replace?: boolean;
  /** The export may have fewer entries than the directory's checkpoint covers. */
  readonly behind?: boolean;
};

/**
 * Creates a data directory from an export, for example on another machine, after checking everything; or the store of
 * one that is there. An export does not contain the key. Until the key is added, the ledger can be read but not
 * continued. What was made is checked before it is put in place; `left` says why a service would still refuse it.
 * Throws `usage`, `ledger-held`, and `ledger-inconsistent` with the first problem.
 */
export async function importLedger(
  from: string,
  keys: readonly Verifier[],
  directory: string,
  { replace = false, behind = false }: ImportOptions = {},
): Promise<{ readonly entries: number; readonly left: LeftToDo | undefined }> {
  const isFilled = existsSync(directory) && readdirSync(directory).length > 0;
  if (isFilled && !replace)
    throw new CountersignError('usage', `\`${directory}\` is not empty`, {
      hint: 'name a directory that does not exist yet; --replace makes only the store in a data directory again',
    });
  const { ok, lines } = checkExport(from, keys.map(verifierText).join('\n'));
  if (!ok)
    throw new CountersignError('ledger-inconsistent', `the export is incomplete or altered: ${lines.at(-1)}`, {
      hint: 'check that --key is this ledger’s key',
    });
  const making = `${directory}.importing`;
  const lock = isFilled ? takeLock(join(directory, LEDGER_FILES.lock)) : undefined;
  try {
    rmSync(making, { recursive: true, force: true });
    mkdirSync(making, { recursive: true, mode: 0o700 });
    const size = await fill(from, making);
    confirm(making, keys);
    const left = isFilled ? checkReplacement(making, directory, { keys, behind }) : undefined;
    if (isFilled) replaceStore(directory, making);
    else {
      rmSync(directory, { recursive: true, force: true }); // remove the directory if it is empty
      renameSync(making, directory);
    }
    handToOwner(directory);
    return { entries: size, left };
  } finally {
    rmSync(making, { recursive: true, force: true });
    lock?.close();
  }
}

// Reads the new store back, as the service would.
function confirm(directory: string, keys: readonly Verifier[]): void {
  const reader = new LedgerReader(join(directory, LEDGER_FILES.store));
  try {
    const { finding, damage } = verifyLedger(reader, keys);
    const problem = finding?.message ?? damage[0];
    if (problem !== undefined) throw halt(`the store made from the export does not verify: ${problem}`);
  } finally {
    reader.close();
  }
}

async function fill(from: string, directory: string): Promise<number> {
  const file = join(directory, LEDGER_FILES.store);
  const store = new SqliteStore(file, 'import');
  const newest = readFileSync(join(from, 'checkpoint'), 'utf8');
  const size = parseCheckpoint(newest.slice(0, newest.lastIndexOf('\n\n') + 1))?.size ?? 0;
  const notes = [...earlierNotes(from), { size, note: newest }];
  const subjects = readSubjects(from);
  const tree = new TreeWriter();
  for (let at = 0; at < size; ) {
    // A checkpoint is stored with the entries that it is the first to cover.
    const entries = readTile(from, at, size);
    for (const { leaf } of entries) tree.append(leaf);
    const evidence = entries.flatMap(({ body }) => readEvidence(from, body));
    const end = at + entries.length;
    const covering = notes.filter((n) => n.size > at && n.size <= end);
    await store.add(
      { first: at, entries, evidence, subjects: at === 0 ? subjects : [], tiles: tree.takeFull() },
      covering,
    );
    at = end;
  }
  await store.close();
  syncToDisk(file);
  writeFileSync(join(directory, LEDGER_FILES.verifier), readFileSync(join(from, LEDGER_FILES.verifier)));
  writeFileSync(join(directory, LEDGER_FILES.anchor), newest);
  return size;
}

function syncToDisk(file: string): void {
  const descriptor = openSync(file, 'r+');
  fsyncSync(descriptor);
  closeSync(descriptor);
}

function earlierNotes(from: string): { size: number; note: string }[] {
  const folder = join(from, 'checkpoints');
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((name) => ({ size: Number(name), note: readFileSync(join(folder, name), 'utf8') }));
}

function readTile(from: string, first: number, size: number): PreparedEntry[] {
  const file = join(from, tilePath('entries', Math.floor(first / TILE_WIDTH), Math.min(TILE_WIDTH, size - first)));
  const bytes = readFileSync(file);
  const entries: PreparedEntry[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 2 + bytes.readUInt16BE(at);
    const body = bytes.subarray(at + 2, end).toString('utf8');
    const { type, environment = '' } = JSON.parse(body) as { type: string; environment?: string };
    entries.push({ body, leaf: leafHash(body), type, environment });
    at = end;
  }
  return entries;
}

function readEvidence(from: string, body: string): Batch['evidence'] {
  const digest = evidenceOf(body);
  const file = join(from, 'evidence', `${digest}.json`);
  return digest === undefined || !existsSync(file) ? [] : [{ sha256: digest, bytes: readFileSync(file, 'utf8') }];
}

function readSubjects(from: string): Subject[] {
  const file = join(from, 'subjects.jsonl');
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => {
    const { commitment, salt, text } = JSON.parse(line) as { commitment: string; salt: string; text: string };
    const subject = { commitment, salt: Buffer.from(salt, 'hex'), text };
    if (!isOpened(subject))
      throw new CountersignError('ledger-inconsistent', `a name in \`${file}\` does not match its commitment`);
    return subject;
  });
}
