import { existsSync, renameSync } from 'node:fs';
import { CountersignError, type Entry, type EntryBody, messageOf, spellEntry } from '../model/index.ts';
import { readStub, StubTally } from './archived-entries.ts';
import {
  type Checkpoint,
  type Instance,
  newInstance,
  openCheckpoint,
  parseCheckpoint,
  signCheckpointAs,
} from './checkpoint.ts';
import { readData } from './data-access.ts';
import { bytesOf, LogHistory } from './log-history.ts';
import { leafHash } from './merkle.ts';
import { type Signer, splitNote, type Verifier, verifierText } from './note.ts';
import { writePrivate } from './replace-file.ts';
import {
  type Batch,
  CommitUnknown,
  cannotWrite,
  type PreparedEntry,
  type Store,
  type StoredEntry,
  type Subject,
} from './store.ts';
import { type Tile, TreeWriter } from './tiles.ts';

/** Entries waiting to be recorded together. */
export type Waiting = Pick<Batch, 'entries' | 'evidence' | 'subjects'>;

/** A batch that is durable and covered by a signed checkpoint. */
export type Sequenced = {
  readonly first: number;
  readonly size: number;
  readonly note: string;
  /** The entries, if they were given a different time. */
  readonly bodies?: readonly string[];
};

/** State that a sequencer found when it opened. */
export type Found = { readonly entries: number; readonly unanchored: number; readonly lastTime: string };

/** Content of an epoch's entry. `previous` is called once the store was read back, for the lost entries' checkpoint. */
type EpochWords = {
  readonly reason: string;
  readonly previous: () => string;
  readonly by?: Subject | undefined;
  readonly claimedLost?: number | undefined;
};

export type SequencerOptions = {
  readonly store: Store;
  /** The store's name in error messages. */
  readonly name: string;
  /** The signing key, followed by those that still sign beside it. */
  readonly signers: readonly [Signer, ...Signer[]];
  /** Keys that signed earlier. */
  readonly verifiers: readonly Verifier[];
  /** Where the newest checkpoint is kept outside the store. */
  readonly anchor: string;
  readonly clock: () => Date;
  /** Time of the first entries recorded; defaults to the clock. */
  readonly openedAt?: Date;
  /** The process that signs. */
  readonly instance?: Instance;
  readonly warn: (message: string) => void;
  readonly progress?: (done: number) => void;
  /** Begin a new epoch under the signers' name. */
  readonly newEpoch?: EpochWords;
};

const PAGE = 2000;
/**
 * One checkpoint per hour is kept, and the newest. Later checkpoints imply earlier ones, and each takes time to check.
 */
export const KEPT_EVERY_MS = 3_600_000;
const SETTLE_MS = 20_000;

/**
 * Numbers entries, maintains the tree, signs and commits. Checkpoints are made only here, by a single sequencer per
 * ledger.
 */
export class Sequencer {
  readonly #options: SequencerOptions;
  readonly #instance: Instance;
  #tree: TreeWriter;
  #history: LogHistory;
  #latest: { size: number; note: string } | undefined;
  #keptAt = 0;
  #replaceable: number | undefined;
  #unsettled: { readonly batch: Batch; readonly tree: TreeWriter } | undefined;
  #lastTime: string;
  readonly #read: Omit<Found, 'lastTime'>;

  private constructor(options: SequencerOptions, read: ReadBack) {
    this.#options = options;
    this.#instance = options.instance ?? newInstance(options.clock());
    this.#tree = read.tree;
    this.#history = read.history;
    this.#latest = read.latest;
    this.#lastTime = read.lastTime;
    this.#read = { entries: read.tree.size, unanchored: read.tree.size - read.anchored };
  }

  /**
   * Reads the whole store back and compares it with the signed state: every leaf, every tile, the last checkpoint and
   * the anchor. Starts a ledger if the store is empty. Throws `ledger-inconsistent` (halt) on any difference.
   */
  static async open(options: SequencerOptions): Promise<Sequencer> {
    const read = await readBack(options);
    const sequencer = new Sequencer(options, read);
    await sequencer.#begin();
    return sequencer;
  }

  get size(): number {
    return this.#tree.size;
  }

  /** State of the store when it was opened, with the time of the newest entry since. */
  get found(): Found {
    return { ...this.#read, lastTime: this.#lastTime };
  }

  /** Makes entries durable, in order, under a new checkpoint. If it throws, none of them is acknowledged. */
  async append(waiting: Waiting): Promise<Sequenced> {
    await this.#settle();
    const first = this.#tree.size;
    const tree = this.#tree.copy();
    for (const { leaf } of waiting.entries) tree.append(leaf);
    const note = this.#signed(tree);
    const batch: Batch = {
      ...waiting,
      first,
      tiles: tree.takeFull(),
      checkpoint: {
        size: tree.size,
        note,
        ...(this.#replaceable === undefined ? {} : { replaces: this.#replaceable }),
      },
    };
    try {
      await this.#options.store.commit(batch);
    } catch (thrown) {
      if (!(thrown instanceof CommitUnknown)) throw thrown;
      this.#unsettled = { batch, tree };
      await this.#settle();
      if (this.#tree.size === first) throw cannotWrite(thrown.cause);
      return { first, size: this.#tree.size, note };
    }
    this.#adopt(batch, tree);
    return { first, size: tree.size, note };
  }

  #signed(tree: TreeWriter): string {
    return signCheckpointAs(this.#instance, tree.size, tree.root(), ...this.#options.signers);
  }

  #adopt(batch: Batch, tree: TreeWriter): void {
    this.#tree = tree;
    this.#latest = { size: batch.checkpoint.size, note: batch.checkpoint.note };
    this.#replaceable = undefined;
    if (this.#isDue()) this.#keptAt = this.#options.clock().getTime();
    else this.#replaceable = batch.checkpoint.size;
    for (const [i, { body, type }] of batch.entries.entries())
      if (LogHistory.concerns(type)) this.#history.add(batch.first + i, body);
    this.#writeAnchor();
  }

  // Tests whether to keep the checkpoint being made. Otherwise each replaces the one before.
  #isDue(): boolean {
    const age = this.#options.clock().getTime() - this.#keptAt;
    return age < 0 || age >= KEPT_EVERY_MS;
  }

  // After a commit with unknown outcome, the store tells whether it took place. Nothing is signed before that.
  async #settle(): Promise<void> {
    if (this.#unsettled === undefined) return;
    const { batch, tree } = this.#unsettled;
    const { store } = this.#options;
    await retried(() => store.reopen());
    const kept = await store.size();
    if (kept === batch.first) {
      this.#unsettled = undefined;
      return;
    }
    const same =
      kept === batch.first + batch.entries.length &&
      (await store.latestCheckpoint())?.note === batch.checkpoint.note &&
      (await this.#isStored(batch));
    if (!same)
      throw halt(
        `after an interrupted commit, ${this.#options.name} holds ${kept} entries, but not the ones that were written`,
      );
    this.#unsettled = undefined;
    this.#adopt(batch, tree);
  }

  async #isStored(batch: Batch): Promise<boolean> {
    const stored = await this.#options.store.entries(batch.first, batch.entries.length);
    return stored.length === batch.entries.length && stored.every((s, i) => s.body === batch.entries[i]?.body);
  }

  async #begin(): Promise<void> {
    for (const body of firstWords(this.#options, this.#tree.size, this.#history, this.#latest?.note))
      await this.#say(body);
    if (this.#latest !== undefined) this.#writeAnchor();
  }

  async #say(body: EntryBody): Promise<void> {
    const { openedAt, clock } = this.#options;
    const time = laterOf((openedAt ?? clock()).toISOString(), this.#lastTime);
    this.#lastTime = time;
    const subjects = namedIn(body, this.#options.newEpoch);
    await this.append({ entries: [prepare({ v: 1, time, ...body } as Entry)], evidence: [], subjects });
  }

  #writeAnchor(): void {
    writeAnchor(this.#options, this.#latest?.note ?? '');
  }
}

/**
 * Writes the newest checkpoint outside the store. A store that is rolled back no longer fits it. An old anchor remains
 * valid.
 */
export function writeAnchor({ anchor, warn }: Pick<SequencerOptions, 'anchor' | 'warn'>, note: string): void {
  try {
    writePrivate(`${anchor}.new`, note);
    renameSync(`${anchor}.new`, anchor);
  } catch (thrown) {
    // The commit is recorded anyway: reporting it as failed would do more harm.
    warn(`cannot write the ledger’s anchor \`${anchor}\`: ${messageOf(thrown)}`);
  }
}

/**
 * Returns the entries a ledger records first. A new ledger states its name. A ledger whose key changed states that,
 * signed by both keys, and that a key which is gone is retired. Throws `key-missing` for a key that does not continue
 * the ledger.
 */
export function firstWords(
  { signers, verifiers, newEpoch, name }: Pick<SequencerOptions, 'signers' | 'verifiers' | 'newEpoch' | 'name'>,
  size: number,
  history: LogHistory,
  latest: string | undefined,
): EntryBody[] {
  const [signer] = signers;
  if (newEpoch !== undefined) {
    const { reason, previous, by, claimedLost } = newEpoch;
    const claims = {
      ...(by === undefined ? {} : { claimedBy: by.commitment }),
      ...(claimedLost === undefined ? {} : { claimedLost }),
    };
    const epoch = history.epoch + 1;
    return [{ type: 'epoch.opened', origin: signer.name, epoch, reason, previous: previous(), ...claims }];
  }
  if (size === 0) return [{ type: 'log.opened', origin: signer.name }];
  const given = signers.map(verifierText);
  const [after = '', ...others] = given;
  const signedBy = (openCheckpoint(latest ?? '', [...signers, ...verifiers])?.by ?? []).map(verifierText);
  const before = signedBy.includes(after) ? undefined : others.find((key) => signedBy.includes(key));
  if (before === undefined && !signedBy.includes(after)) throw unknownKey(name);
  return [
    ...(before === undefined ? [] : [{ type: 'key.rotated', before, after } as const]),
    ...history.overlapping
      .filter((key) => !given.some((one) => bytesOf(one) === bytesOf(key)))
      .map((key) => ({ type: 'key.retired', key }) as const),
  ];
}

/** Returns the personal texts behind the commitments in an entry that a ledger records first. */
export function namedIn({ type }: EntryBody, newEpoch: EpochWords | undefined): readonly Subject[] {
  return type === 'epoch.opened' && newEpoch?.by !== undefined ? [newEpoch.by] : [];
}

/** Serialises an entry for storage. Throws a TypeError if it does not fit its schema. */
export function prepare(entry: Entry): PreparedEntry {
  const body = spellEntry(entry);
  return { body, leaf: leafHash(body), type: entry.type, environment: 'environment' in entry ? entry.environment : '' };
}

/** Returns the later of two times in ISO 8601. Time on a ledger never goes back, even if the clock does. */
export function laterOf(a: string, b: string): string {
  return a > b ? a : b;
}

export type ReadBack = {
  readonly tree: TreeWriter;
  readonly history: LogHistory;
  readonly latest: { size: number; note: string } | undefined;
  readonly anchored: number;
  readonly lastTime: string;
};

export async function readBack(options: SequencerOptions): Promise<ReadBack> {
  const { store, name, signers, verifiers } = options;
  const keys = [...signers, ...verifiers];
  const latest = await store.latestCheckpoint();
  const last = latest === undefined ? undefined : openCheckpoint(latest.note, keys);
  if (latest !== undefined && last === undefined)
    throw halt(`the last checkpoint of ${name} is not signed by this ledger’s key`);
  const anchor = readAnchor(options, keys);
  const tree = new TreeWriter();
  const history = new LogHistory();
  const stubs = new StubTally();
  let body = '';
  for await (const stored of allEntries(store)) {
    checkEntry(stored, tree.size, name);
    stubs.add(stored);
    tree.append(stored.leaf);
    history.add(stored.index, stored.body);
    body = stored.body;
    if (tree.size % PAGE === 0) {
      await keepTiles(store, tree.takeFull(), name);
      options.progress?.(tree.size);
    }
    for (const checkpoint of [last, anchor])
      if (checkpoint?.size === tree.size && !checkpoint.root.equals(tree.root()) && !isLost(checkpoint, history, keys))
        throw halt(`${name} is not the ledger that was signed: its root differs at ${tree.size} entries`);
  }
  await keepTiles(store, tree.takeFull(), name);
  const gone = stubs.problem();
  if (gone !== undefined) throw halt(`${name} was altered: ${gone.message}`);
  if (last !== undefined && last.size !== tree.size)
    throw halt(`${name} holds ${tree.size} entries, but its last checkpoint was signed over ${last.size}`);
  if (last === undefined && tree.size > 0)
    throw halt(`${name} holds ${tree.size} entries, but no checkpoint over them was signed`);
  const { problem } = last === undefined ? {} : history.judge(last, keys);
  if (problem !== undefined) throw halt(`the last checkpoint of ${name} does not count: ${problem}`);
  if (anchor !== undefined && options.newEpoch === undefined) checkAnchor(anchor, tree.size, history, keys, name);
  const lastTime = body === '' ? '' : String((JSON.parse(body) as { time?: unknown }).time);
  return { tree, history, latest, anchored: Math.min(anchor?.size ?? 0, tree.size), lastTime };
}

async function* allEntries(store: Store): AsyncGenerator<StoredEntry> {
  for (let from = 0; ; from += PAGE) {
    const page = await store.entries(from, PAGE);
    yield* page;
    if (page.length < PAGE) return;
  }
}

function checkEntry(stored: StoredEntry, expected: number, name: string): void {
  if (stored.index !== expected) throw halt(`entry ${expected} is missing from ${name}`);
  // The leaf of an archived entry is proven by the root, and what stands in its place by the tally.
  if (readStub(stored.body) === undefined && !leafHash(stored.body).equals(stored.leaf))
    throw halt(`entry ${stored.index} (${stored.type}) of ${name} was altered`);
}

// Missing tiles can be rebuilt from the leaves; a ledger older than tiles has none. A tile that differs was altered.
async function keepTiles(store: Store, tiles: readonly Tile[], name: string): Promise<void> {
  const missing: Tile[] = [];
  for (const tile of tiles) {
    const stored = await store.tile(tile.level, tile.n);
    if (stored === undefined) missing.push(tile);
    else if (!Buffer.from(stored).equals(tile.nodes)) throw halt(`tile ${tile.level}/${tile.n} of ${name} was altered`);
  }
  if (missing.length > 0) await store.addTiles(missing);
}

type Opened = Checkpoint & { readonly by: readonly Verifier[] };

export function readAnchor(
  { anchor, newEpoch }: Pick<SequencerOptions, 'anchor' | 'newEpoch'>,
  keys: readonly Verifier[],
): Opened | undefined {
  if (!existsSync(anchor) || newEpoch !== undefined) return undefined;
  const note = readData(anchor);
  // After a power cut, a file that was just replaced can be empty. That says no more than a missing file.
  if (note.trim() === '') return undefined;
  const opened = openCheckpoint(note, keys);
  if (opened === undefined) throw unusableNote(anchor, note);
  return opened;
}

/** Returns the error for a file beside a store whose checkpoint no key of the ledger opens. */
export function unusableNote(file: string, note: string): CountersignError {
  const isDamaged = parseCheckpoint(splitNote(note)?.text ?? '') === undefined;
  return halt(
    `the checkpoint in \`${file}\` is ${isDamaged ? 'damaged' : 'not signed by this ledger’s key'}`,
    `${isDamaged ? '' : 'if it belongs to a different ledger, '}remove the file: the store has a ` +
      'checkpoint of its own. Without the file, only an anchor elsewhere notices that the store was restored to an ' +
      'older state',
  );
}

function isLost(checkpoint: Opened, history: LogHistory, keys: readonly Verifier[]): boolean {
  return history.judge(checkpoint, keys).lost === true;
}

/** Checks a checkpoint kept elsewhere against the names and the size of a ledger. Throws `ledger-inconsistent`. */
export function checkAnchor(
  anchor: Opened,
  size: number,
  history: LogHistory,
  keys: readonly Verifier[],
  name: string,
): void {
  const { problem, lost } = history.judge(anchor, keys);
  if (lost === true) return;
  if (anchor.size > size)
    throw halt(
      `${name} holds ${size} entries, but ${anchor.size} were signed: it was rolled back to an older state`,
      'restore the newer state; if it is lost, run `countersign ledger new-epoch --reason "…"` on this data ' +
        'directory: it continues from here and records the loss',
    );
  if (problem !== undefined) throw halt(`a checkpoint of ${name} kept elsewhere does not fit: ${problem}`);
}

async function retried(task: () => Promise<void>): Promise<void> {
  for (const end = Date.now() + SETTLE_MS; ; ) {
    try {
      return await task();
    } catch (thrown) {
      if (Date.now() > end) throw cannotTell(thrown);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

export function cannotTell(cause: unknown): CountersignError {
  return new CountersignError('ledger-unusable', `the ledger’s store failed during a commit: ${messageOf(cause)}`, {
    cause,
    recover: 'retry',
    hint: 'nothing more is signed until the store can be read again',
  });
}

function unknownKey(name: string): CountersignError {
  return new CountersignError('key-missing', `the given key does not continue ${name}`, {
    recover: 'halt',
    hint: 'give the key that signed it; to change keys, give the old one too (`countersign ledger rotate-key`)',
  });
}

export function halt(
  message: string,
  hint = 'run `countersign ledger verify`; nothing more is signed until this is resolved',
): CountersignError {
  return new CountersignError('ledger-inconsistent', message, { recover: 'halt', hint });
}
