import { CountersignError, type Entry, messageOf, sha256 } from '../model/index.ts';
import { readStub } from './archived-entries.ts';
import { scanCanonical } from './canonical-scan.ts';
import { ArchivedCheck, type ArchivedContent } from './check-archived.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { LogHistory } from './log-history.ts';
import { leafHash, nodeHash, perfectSubtrees, type ReadNode, rootOf } from './merkle.ts';
import type { Verifier } from './note.ts';
import { brokenReference, type Known } from './references.ts';
import { isOpened, type StoredEntry } from './store.ts';
import { TILE_WIDTH, TreeWriter } from './tiles.ts';

/** A problem and its place: the index of the first bad entry, if it is known. */
type LedgerFinding = {
  readonly message: string;
  readonly index?: number;
  /** The ledger is not at fault, but a checkpoint that was given. */
  readonly untrusted?: true;
  /** The store cannot be read there. */
  readonly unreadable?: true;
};

/** The result of a check: how far the ledger is sound, the first problem, and notes for the reader. */
export type LedgerCheck = {
  readonly size: number;
  /** Number of entries read and hashed. */
  readonly checked: number;
  readonly root: string;
  readonly checkpoints: number;
  /** When the newest entry was recorded. */
  readonly until: string;
  readonly notes: readonly string[];
  readonly finding: LedgerFinding | undefined;
  /** Entries whose content is in an archive, with the file; `isRead` if it was checked too. Empty for a range. */
  readonly archived: readonly ArchivedContent[];
  /** Problems that SQLite finds in the store itself, in its words. */
  readonly damage: readonly string[];
};

export type VerifyOptions = {
  /** Checkpoints kept elsewhere; the ledger must extend them. */
  readonly trusted?: readonly string[];
  /**
   * Checks only the entries from this index to before that one. The rest of the tree comes from its stored nodes, which
   * must give the signed root.
   */
  readonly from?: number;
  readonly to?: number;
  readonly onProgress?: (done: number) => void;
};

type Opened = Checkpoint & {
  readonly by: readonly Verifier[];
  readonly kept: 'stored' | 'given';
  readonly note: string;
};

/**
 * Checks a ledger from its bytes. Entries must be in order and canonical, match their leaves and tiles, and come with
 * the evidence they name. Time must not go back, and every signed checkpoint must fit. The newest checkpoint must be
 * signed by one of the given keys; older ones may be by keys the ledger itself names.
 */
export function verifyLedger(
  reader: LedgerReader,
  keys: readonly Verifier[],
  options: VerifyOptions = {},
): LedgerCheck {
  const { trusted = [] } = options;
  const damage = reader.damage();
  const check = new Check(reader, keys, trusted);
  let size = 0;
  const findIn = (): LedgerFinding | undefined => {
    size = reader.size;
    const { from = 0, to = size } = options;
    const isWhole = from === 0 && to >= size;
    return (
      check.readLatest() ?? (isWhole ? check.whole(options.onProgress) : check.range(from, to, options.onProgress))
    );
  };
  const finding = readable(check, findIn);
  return {
    size,
    damage,
    checked: check.checked,
    root: check.root.toString('base64'),
    checkpoints: check.checkpoints,
    until: check.until,
    notes: check.notes,
    archived: check.archived,
    finding,
  };
}

// A page that cannot be read is a finding like any other: what comes before it is worth knowing.
function readable(check: Check, find: () => LedgerFinding | undefined): LedgerFinding | undefined {
  try {
    return find();
  } catch (thrown) {
    if (thrown instanceof CountersignError && thrown.code === 'store-damaged')
      return { index: check.checked, message: thrown.message, unreadable: true };
    // A cell of the wrong type, which SQLite may hand out: it fails where it is used.
    if (thrown instanceof TypeError || thrown instanceof SyntaxError || codeOf(thrown) === 'ERR_OUT_OF_RANGE')
      return {
        ...check.reading,
        message: `${check.reading.what} cannot be read: ${messageOf(thrown)}`,
        unreadable: true,
      };
    throw thrown;
  }
}

function codeOf(thrown: unknown): unknown {
  return (thrown as { code?: unknown }).code;
}

class Check {
  readonly notes: string[] = [];
  checked = 0;
  /** Entry or part of the store that is being read. */
  reading: { readonly what: string; readonly index?: number } = { what: 'the store' };
  root: Buffer = Buffer.alloc(0);
  until = '';
  archived: readonly ArchivedContent[] = [];
  readonly #archived: ArchivedCheck;
  readonly #reader: LedgerReader;
  readonly #keys: readonly Verifier[];
  #stored: readonly { readonly size: number; readonly note: string }[] = [];
  readonly #given: readonly string[];
  readonly #history = new LogHistory();
  #latest: Opened | undefined;
  #broken = 0;
  // Checkpoints of older names that differ: a later epoch may say that their entries were lost.
  readonly #differing: { readonly checkpoint: Opened; readonly finding: LedgerFinding }[] = [];
  #known: readonly Opened[] | undefined;

  constructor(reader: LedgerReader, keys: readonly Verifier[], given: readonly string[]) {
    this.#reader = reader;
    this.#archived = new ArchivedCheck(reader);
    this.#keys = keys;
    this.#given = given;
  }

  get checkpoints(): number {
    return this.#stored.length;
  }

  readLatest(): LedgerFinding | undefined {
    this.#stored = this.#reader.checkpoints();
    const last = this.#stored.at(-1);
    if (last === undefined)
      return this.#reader.size === 0 ? undefined : { index: 0, message: 'no checkpoint of any entry was signed' };
    const opened = openCheckpoint(last.note, this.#keys);
    if (opened === undefined)
      return { message: `the newest stored checkpoint is not signed by this key${this.#renamed(last.note)}` };
    this.#latest = { ...opened, kept: 'stored', note: last.note };
    return undefined;
  }

  // An epoch or a rotation gives a checker a new line; the file of someone who checked before has the old one.
  #renamed(note: string): string {
    const name = note.slice(0, note.indexOf('\n'));
    const isOurs = this.#keys.some(({ publicKey }) => openCheckpoint(note, { name, publicKey }) !== undefined);
    return isOurs ? `, but by the same key under the name \`${name}\`: get the new line of \`ledger.pub\`` : '';
  }

  whole(onProgress: (done: number) => void = () => {}): LedgerFinding | undefined {
    const tree = new TreeWriter();
    const bySize = Map.groupBy(this.#opened(), (c) => c.size);
    let sound = 0;
    const differing = this.#archived.files();
    if (differing !== undefined) return differing;
    for (const row of this.#reader.rows()) {
      const { stored, finding } = this.#checkRow(row, tree.size);
      if (finding !== undefined) return finding;
      if (LogHistory.concerns(stored.type)) this.#history.add(stored.index, stored.body);
      this.#noteBroken(stored);
      tree.append(stored.leaf);
      this.checked++;
      if (tree.size % TILE_WIDTH === 0) {
        const altered = this.#checkTiles(tree);
        if (altered !== undefined) return altered;
        if (tree.size % 8192 === 0) onProgress(tree.size);
      }
      for (const checkpoint of bySize.get(tree.size) ?? []) {
        const finding = this.#compare(checkpoint, tree.root(), sound);
        if (finding === undefined) sound = tree.size;
        else if (checkpoint.origin === this.#latest?.origin) return finding;
        else this.#differing.push({ checkpoint, finding });
      }
    }
    this.root = tree.root();
    this.archived = this.#archived.content;
    return (
      this.#archived.problem() ??
      this.#unexplained() ??
      this.#judgeNames() ??
      this.#beyond(tree.size) ??
      this.#uncovered(tree.size, sound) ??
      this.#checkSubjects()
    );
  }

  // The entry was signed as it is. The reader must know that it cannot be true.
  #noteBroken({ index, type, body }: StoredEntry): void {
    if (readStub(body) !== undefined) return;
    const known: Known = { size: index, entry: (at) => this.#entryBefore(at, index), hasEvidence: () => true };
    const problem = brokenReference(type, body, known);
    if (problem === undefined) return;
    if (this.#broken++ < BROKEN_NAMED)
      this.notes.push(`entry ${index} (${type}) cannot be true: ${problem}; nothing is derived from it`);
    else if (this.#broken === BROKEN_NAMED + 1) this.notes.push('more entries are like that');
  }

  #entryBefore(at: number, index: number): Entry | undefined {
    return at < index ? this.#reader.head(at) : undefined;
  }

  /** Checks a row, with its content from an archive if that is at hand. */
  #checkRow(row: StoredEntry, expected: number): { readonly stored: StoredEntry; readonly finding?: LedgerFinding } {
    const { index } = row;
    this.reading = { what: `entry ${expected}`, index: expected };
    if (index !== expected)
      return { stored: row, finding: { index: expected, message: `entry ${expected} is missing` } };
    if (typeof row.body !== 'string' || !(row.leaf instanceof Uint8Array)) {
      const message = `entry ${expected} is damaged: a cell has the wrong type`;
      return { stored: row, finding: { index: expected, message, unreadable: true } };
    }
    const completed = this.#archived.complete(row);
    if ('message' in completed) return { stored: row, finding: completed };
    const { stub, whole } = completed;
    if (stub !== undefined && whole === undefined) return withFinding(row, this.#goesOn(index, stub.time));
    const stored = whole ?? row;
    const finding = this.#checkEntry(stored);
    if (finding !== undefined || stub === undefined || stub.time === this.until) return withFinding(stored, finding);
    return withFinding(stored, { index, message: `the time that stands in place of entry ${index} is not its own` });
  }

  /**
   * Hashes the requested entries and takes the rest from stored nodes: a wrong node gives a root other than the signed
   * one.
   */
  range(from: number, to: number, onProgress: (done: number) => void = () => {}): LedgerFinding | undefined {
    const size = this.#latest?.size ?? 0;
    const end = Math.min(to, size);
    const nodes = this.#reader.nodes(size);
    const entries = this.#reader.rows(from, end);
    let finding: LedgerFinding | undefined;
    const hashed: ReadNode = ({ height, index }) => {
      if ((index + 1) * 2 ** height <= from || index * 2 ** height >= end) return nodes({ height, index });
      if (height > 0)
        return nodeHash(
          hashed({ height: height - 1, index: 2 * index }),
          hashed({ height: height - 1, index: 2 * index + 1 }),
        );
      const stored = entries.next().value as StoredEntry | undefined;
      finding ??=
        stored === undefined ? { index, message: `entry ${index} is missing` } : this.#checkRow(stored, index).finding;
      if (++this.checked % 8192 === 0) onProgress(this.checked);
      return stored?.leaf ?? Buffer.alloc(32);
    };
    try {
      this.root = rootOf(size, hashed);
    } catch (thrown) {
      if (!(thrown instanceof RangeError)) throw thrown;
      return { message: `the tree cannot be read: ${thrown.message}` };
    }
    if (finding !== undefined) return finding;
    if (this.#latest !== undefined && !this.root.equals(this.#latest.root))
      return { message: `the root over ${size} entries differs from the newest checkpoint` };
    for (const checkpoint of this.#opened()) {
      if (checkpoint.size > size) return this.#beyond(size);
      const differs = this.#compare(
        checkpoint,
        perfectSubtrees(0, checkpoint.size).length === 0 ? this.root : rootOf(checkpoint.size, nodes),
        0,
      );
      if (differs !== undefined) return differs;
    }
    return undefined;
  }

  // Checkpoints that can be opened now. Those by keys that only the ledger names are opened at its end.
  #opened(): readonly Opened[] {
    this.#known ??= this.#notes().flatMap(({ note, kept }) => {
      const opened = openCheckpoint(note, this.#keys);
      return opened === undefined ? [] : [{ ...opened, kept, note }];
    });
    return this.#known;
  }

  #notes(): { readonly note: string; readonly kept: Opened['kept'] }[] {
    return [
      ...this.#stored.map(({ note }) => ({ note, kept: 'stored' as const })),
      ...this.#given.map((note) => ({ note, kept: 'given' as const })),
    ];
  }

  #judgeNames(): LedgerFinding | undefined {
    this.reading = { what: 'a checkpoint' };
    const keys = [...this.#keys, ...this.#history.named];
    const known = new Map(this.#opened().map((c) => [c.note, c]));
    for (const { note, kept } of this.#notes()) {
      const opened = known.get(note) ?? openCheckpoint(note, keys);
      if (opened === undefined)
        return kept === 'given'
          ? { message: 'a checkpoint to verify against is not signed by a key of this ledger', untrusted: true }
          : { message: 'a stored checkpoint is not signed by a key of this ledger' };
      const { problem, lost } = this.#history.judge(opened, keys);
      if (lost === true)
        this.notes.push(
          `the ${kept} checkpoint of ${opened.size} entries by ${opened.origin} ` +
            'covers entries that the ledger itself records as lost',
        );
      else if (problem !== undefined)
        return { message: `the ${kept} checkpoint of ${opened.size} entries does not fit: ${problem}` };
      else if (opened.size <= this.#reader.size && !this.#rootAt(opened.size).equals(opened.root))
        return { message: `the root differs from the ${kept} checkpoint of ${opened.size} entries` };
    }
    if (this.#history.epoch > 1)
      this.notes.push(
        `this is epoch ${this.#history.epoch}, since entry ${this.#history.since}: ` +
          'the ledger was rolled back to an older state before it',
      );
    return undefined;
  }

  #rootAt(size: number): Buffer {
    return rootOf(size, this.#reader.nodes(this.#reader.size));
  }

  #compare(checkpoint: Opened, root: Buffer, sound: number): LedgerFinding | undefined {
    if (checkpoint.root.equals(root)) return undefined;
    if (this.#history.judge(checkpoint, this.#keys).lost === true) return undefined;
    const last = checkpoint.size - 1;
    const where = sound === last ? `entry ${sound}` : `an entry from ${sound} to ${last}`;
    return {
      index: sound,
      message:
        `${where} is not what was signed: the root differs from the ` +
        `${checkpoint.kept} checkpoint of ${checkpoint.size} entries`,
    };
  }

  #unexplained(): LedgerFinding | undefined {
    const keys = [...this.#keys, ...this.#history.named];
    return this.#differing.find(({ checkpoint }) => this.#history.judge(checkpoint, keys).lost !== true)?.finding;
  }

  #beyond(size: number): LedgerFinding | undefined {
    const beyond = this.#opened().find((c) => c.size > size && this.#history.judge(c, this.#keys).lost !== true);
    return beyond === undefined
      ? undefined
      : { index: size, message: `entry ${size} is missing: a checkpoint over ${beyond.size} entries was signed` };
  }

  #uncovered(size: number, sound: number): LedgerFinding | undefined {
    return sound === size
      ? undefined
      : { index: sound, message: `entries ${sound} to ${size - 1} are not covered by a signed checkpoint` };
  }

  #checkSubjects(): LedgerFinding | undefined {
    this.reading = { what: 'the table of names' };
    for (const subject of this.#reader.subjects())
      if (!isOpened(subject))
        return {
          message: `the name behind ${subject.commitment.slice(0, 20)}… was altered; the entries are unchanged`,
        };
    return undefined;
  }

  #checkTiles(tree: TreeWriter): LedgerFinding | undefined {
    for (const { level, n, nodes } of tree.takeFull()) {
      this.reading = { what: `tile ${level}/${n}`, index: n * TILE_WIDTH ** (level + 1) };
      const stored = this.#reader.tile(level, n);
      const index = n * TILE_WIDTH ** (level + 1);
      if (stored === undefined) return { index, message: `tile ${level}/${n} is missing` };
      const at = Buffer.from(stored).findIndex((byte, i) => byte !== nodes[i]);
      if (at < 0 && stored.length === nodes.length) continue;
      const leaf = level === 0 && at >= 0 && at < 32 * TILE_WIDTH ? index + Math.floor(at / 32) : undefined;
      return leaf === undefined
        ? { index, message: `tile ${level}/${n} was altered` }
        : { index: leaf, message: `entry ${leaf} differs from the one in tile ${level}/${n}` };
    }
    return undefined;
  }

  #checkEntry(stored: StoredEntry): LedgerFinding | undefined {
    const { index, body } = stored;
    if (!leafHash(body).equals(stored.leaf))
      return { index, message: `entry ${index} was altered: its hash is not its leaf` };
    const fields = scanCanonical(body, FIELDS);
    if (fields === undefined) return { index, message: `entry ${index} is not canonical JSON` };
    const text = (name: string) => fields.get(name)?.slice(1, -1) ?? '';
    if (text('type') !== stored.type || unquote(fields.get('environment')) !== stored.environment)
      return { index, message: `the type or environment of entry ${index} differs from the one it is filed under` };
    const earlier = this.#goesOn(index, text('time'));
    if (earlier !== undefined) return earlier;
    const evidence = fields.get('evidence');
    return evidence === undefined
      ? undefined
      : this.#checkEvidence(index, (JSON.parse(evidence) as { sha256?: unknown }).sha256);
  }

  #goesOn(index: number, time: string): LedgerFinding | undefined {
    if (time < this.until)
      return { index: index - 1, message: `entry ${index} has an earlier time than entry ${index - 1}` };
    this.until = time;
    return undefined;
  }

  #checkEvidence(index: number, digest: unknown): LedgerFinding | undefined {
    const bytes = this.#reader.evidenceBytes(String(digest));
    if (bytes === undefined) return { index, message: `the evidence of entry ${index} is missing` };
    return typeof bytes === 'string' && sha256(bytes) === digest
      ? undefined
      : { index, message: `the evidence of entry ${index} was altered` };
  }
}

const BROKEN_NAMED = 10;
const FIELDS = ['type', 'environment', 'time', 'evidence'];

function withFinding(stored: StoredEntry, finding: LedgerFinding | undefined) {
  return finding === undefined ? { stored } : { stored, finding };
}

function unquote(text: string | undefined): string {
  if (text === undefined) return '';
  return text.includes('\\') ? (JSON.parse(text) as string) : text.slice(1, -1);
}
