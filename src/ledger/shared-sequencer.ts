import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { CountersignError, canonicalJson, type Entry, type EntryBody, entryProblem, MAX_ENTRY } from '../model/index.ts';
import { openCheckpoint, signCheckpoint } from './checkpoint.ts';
import { LogHistory } from './log-history.ts';
import { leafHash } from './merkle.ts';
import type { Signer } from './note.ts';
import { type Handed, PostgresTables } from './postgres.ts';
import {
  cannotTell,
  checkAnchor,
  type Found,
  firstWords,
  halt,
  KEPT_EVERY_MS,
  laterOf,
  prepare,
  readAnchor,
  readBack,
  type Sequenced,
  type SequencerOptions,
  type Waiting,
  writeAnchor,
} from './sequencer.ts';
import { SqliteStore } from './sqlite-store.ts';
import { type Batch, CommitUnknown, cannotWrite, type PreparedEntry } from './store.ts';
import { TreeWriter } from './tiles.ts';

export type SharedOptions = Omit<SequencerOptions, 'store'> & {
  readonly url: string;
  /** The copy that this replica reads from. */
  readonly copy: string;
};

const PAGE = 1000;
const TICK_MS = 500;
const LOOK_MS = 50;
const DEADLINE_MS = 20_000;
const SWEEP_EVERY = 120; // ticks: once a minute

/**
 * A ledger in PostgreSQL that several replicas write to. One of them, the holder of the database's advisory lock, numbers,
 * signs and commits; the others hand their entries to it. Each keeps a copy that it hashes as it grows, so that nobody
 * who can change the database can change what a replica reads.
 */
export class SharedSequencer {
  readonly #options: SharedOptions;
  readonly #tables: PostgresTables;
  #copy: SqliteStore;
  #tree = new TreeWriter();
  #history = new LogHistory();
  #latest: { size: number; note: string } | undefined;
  #lastTime = '';
  #keptAt = 0;
  #copyKeptAt = 0;
  #replaceable: number | undefined;
  #hasBegun = false;
  #broken: CountersignError | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;
  #wake: () => void = () => {};
  found: Found = { entries: 0, unanchored: 0, lastTime: '' };

  private constructor(options: SharedOptions) {
    this.#options = options;
    this.#tables = new PostgresTables(options.url, () => this.#wake());
    this.#copy = new SqliteStore(options.copy, 'copy');
  }

  /** Connects, brings the copy up to date and checks it. Throws as `Sequencer.open` does, and `ledger-unusable` where the database is not there. */
  static async open(options: SharedOptions): Promise<SharedSequencer> {
    const sequencer = new SharedSequencer(options);
    try {
      await sequencer.#open();
      return sequencer;
    } catch (thrown) {
      await sequencer.close();
      throw thrown;
    }
  }

  get size(): number {
    return this.#tree.size;
  }

  /** The name that the ledger goes by now: another replica may have opened a new epoch. */
  get origin(): string {
    return this.#signers[0].name;
  }

  get #signers(): readonly [Signer, ...Signer[]] {
    const { signers, newEpoch } = this.#options;
    const name = newEpoch === undefined ? this.#history.origin : undefined;
    return name === undefined ? signers : (signers.map((signer) => ({ ...signer, name })) as [Signer, ...Signer[]]);
  }

  /** As `Sequencer.append`: resolves once the entries are committed, whoever sequenced them. */
  append(waiting: Waiting): Promise<Sequenced> {
    return this.#inTurn(async () => {
      if (this.#broken !== undefined) throw this.#broken;
      const id = randomUUID();
      if (!this.#tables.isConnected) await this.#tables.connect();
      return (await this.#leads()) ? this.#sequence(id, waiting) : this.#handOver(id, waiting);
    });
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#wake();
    await this.#turn.catch(() => {});
    await this.#tables.close();
    await this.#copy.close();
  }

  // Everything over the one connection happens one after the other.
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(task, task);
    this.#turn = turn.catch((thrown) => {
      if (thrown instanceof CountersignError && thrown.recover === 'halt') this.#broken ??= thrown;
    });
    return turn;
  }

  async #open(): Promise<void> {
    const { newEpoch, verifiers, name } = this.#options;
    await this.#tables.connect();
    if (newEpoch !== undefined) await this.#discardCopy();
    await this.#readCopy();
    const had = this.#tree.size;
    await this.#catchUp();
    const keys = [...this.#signers, ...this.#options.signers, ...verifiers];
    const anchor = newEpoch === undefined ? readAnchor(this.#options, keys) : undefined;
    if (anchor !== undefined) checkAnchor(anchor, this.#tree.size, this.#history, keys, name);
    this.found = {
      entries: this.#tree.size,
      unanchored: this.#tree.size - Math.min(anchor?.size ?? had, this.#tree.size),
      lastTime: this.#lastTime,
    };
    await this.#waitForBeginning();
    this.#timer = setInterval(() => void this.#inTurn(() => this.#tick()).catch(() => {}), TICK_MS);
  }

  // A copy that does not fit is made again: the database is what counts, and the anchor is not in the copy.
  async #readCopy(): Promise<void> {
    const { newEpoch: _, ...options } = this.#options;
    const read = await readBack({ ...options, store: this.#copy, anchor: '' }).catch(async (thrown: unknown) => {
      if (!(thrown instanceof CountersignError) || thrown.code !== 'ledger-inconsistent') throw thrown;
      this.#options.warn(`the copy of the ledger is made again: ${thrown.message}`);
      await this.#discardCopy();
      return undefined;
    });
    if (read === undefined) return;
    this.#tree = read.tree;
    this.#history = read.history;
    this.#latest = read.latest;
    this.#lastTime = read.lastTime;
  }

  async #discardCopy(): Promise<void> {
    await this.#copy.close();
    for (const end of ['', '-wal', '-shm']) rmSync(`${this.#options.copy}${end}`, { force: true });
    this.#copy = new SqliteStore(this.#options.copy, 'copy');
  }

  async #waitForBeginning(): Promise<void> {
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      // A new epoch is this replica's to open; otherwise it is enough that somebody has begun.
      if ((await this.#leads()) || (this.#tree.size > 0 && this.#options.newEpoch === undefined)) return;
      if (Date.now() > end) throw cannotTell(new Error('another replica holds it; stop the replicas, or wait until one has begun'));
      await this.#notice(LOOK_MS);
      await this.#catchUp();
    }
  }

  /** Whether this replica sequences now. When it begins to, it says what there is to say first, and takes what was handed over. */
  async #leads(): Promise<boolean> {
    if (!(await this.#tables.lead())) {
      this.#hasBegun = false;
      return false;
    }
    if (this.#hasBegun) return true;
    await this.#catchUp();
    this.#hasBegun = true;
    const { newEpoch, ...options } = this.#options;
    const isOpened = this.#history.origin === options.signers[0].name;
    const words = firstWords(
      newEpoch !== undefined && !isOpened ? this.#options : options,
      this.#tree.size,
      this.#history,
      this.#latest?.note,
    );
    for (const body of words) await this.#sequence(randomUUID(), { entries: [this.#stamped(body)], evidence: [], subjects: [] });
    return true;
  }

  #stamped(body: EntryBody): PreparedEntry {
    return prepare({ v: 1, time: laterOf(this.#options.clock().toISOString(), this.#lastTime), ...body } as Entry);
  }

  async #tick(): Promise<void> {
    if (this.#broken !== undefined) return;
    if (!this.#tables.isConnected) await this.#tables.connect();
    await this.#catchUp();
    if (await this.#leads()) await this.#takeHanded();
    if (++this.#ticks % SWEEP_EVERY !== 0) return;
    await this.#tables.sweep();
    this.#copy.keepSubjects(await this.#tables.commitments());
  }

  // --- sequencing ---

  async #sequence(id: string, waiting: Waiting): Promise<Sequenced> {
    const { entries, bodies } = this.#inOrder(waiting.entries);
    const first = this.#tree.size;
    const done = await this.#commit({ ...waiting, entries }, [{ id, first }]).catch(async (thrown: unknown) => {
      if (!(thrown instanceof CommitUnknown)) throw thrown;
      return this.#settled(id, thrown.cause);
    });
    return { ...done, ...(bodies === undefined ? {} : { bodies }) };
  }

  // Time on a ledger never goes back, whatever the clocks of replicas do.
  #inOrder(entries: readonly PreparedEntry[]): { readonly entries: readonly PreparedEntry[]; readonly bodies?: readonly string[] } {
    const first = entries[0];
    if (first === undefined || timeOf(first.body) >= this.#lastTime) return { entries };
    const moved = entries.map(({ body, type, environment }): PreparedEntry => {
      const entry = JSON.parse(body) as Entry;
      const text = canonicalJson({ ...entry, time: laterOf(entry.time, this.#lastTime) });
      return { body: text, leaf: leafHash(text), type, environment };
    });
    return { entries: moved, bodies: moved.map((e) => e.body) };
  }

  async #commit(waiting: Waiting, ids: readonly { id: string; first: number }[]): Promise<Sequenced> {
    const first = this.#tree.size;
    const tree = this.#tree.copy();
    for (const { leaf } of waiting.entries) tree.append(leaf);
    const note = signCheckpoint(tree.size, tree.root(), ...this.#signers);
    const replaces = this.#replaceable === undefined ? {} : { replaces: this.#replaceable };
    const batch: Batch = { ...waiting, first, tiles: tree.takeFull(), checkpoint: { size: tree.size, note, ...replaces } };
    await this.#tables.commit(batch, ids);
    const age = this.#options.clock().getTime() - this.#keptAt;
    const isKept = age < 0 || age >= KEPT_EVERY_MS;
    this.#replaceable = isKept ? undefined : tree.size;
    if (isKept) this.#keptAt = this.#options.clock().getTime();
    for (const [i, { body, type }] of batch.entries.entries()) if (LogHistory.concerns(type)) this.#history.add(first + i, body);
    await this.#adopt(batch, tree, note);
    return { first, size: tree.size, note };
  }

  // After a commit whose end is not known: once connected again, the database says whether it took place.
  async #settled(id: string, cause: unknown): Promise<Sequenced> {
    this.#replaceable = undefined; // whether the last one is there is not known: it stays
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      try {
        await this.#tables.connect();
        const first = await this.#tables.takenAt(id);
        await this.#catchUp();
        if (first === undefined) throw cannotWrite(cause);
        return { first, size: this.#tree.size, note: this.#latest?.note ?? '' };
      } catch (thrown) {
        if (!(thrown instanceof CountersignError) || thrown.recover !== 'retry' || this.#tables.isConnected || Date.now() > end)
          throw thrown;
        await this.#notice(4 * LOOK_MS);
      }
    }
  }

  // What the others handed over goes on in one commit, in the order in which it came.
  async #takeHanded(): Promise<void> {
    const all = await this.#tables.handed();
    const handed = all.filter(({ batch }) => isFit(batch));
    for (const { id } of all.filter((h) => !handed.includes(h))) {
      this.#options.warn('a replica handed over what is no entry; it is not recorded');
      await this.#tables.takeBack(id);
    }
    if (handed.length === 0) return;
    const ids: { id: string; first: number }[] = [];
    const entries: PreparedEntry[] = [];
    for (const { id, batch } of handed) {
      ids.push({ id, first: this.#tree.size + entries.length });
      for (const { body, type, environment } of batch.entries) {
        const entry = JSON.parse(body) as Entry;
        const last = entries.at(-1);
        const text = canonicalJson({ ...entry, time: laterOf(entry.time, last === undefined ? this.#lastTime : timeOf(last.body)) });
        entries.push({ body: text, leaf: leafHash(text), type, environment });
      }
    }
    const once = <T>(items: readonly T[], key: (item: T) => string) => [...new Map(items.map((item) => [key(item), item])).values()];
    const evidence = once(
      handed.flatMap((h) => h.batch.evidence),
      (e) => e.sha256,
    );
    const subjects = once(
      handed.flatMap((h) => h.batch.subjects),
      (s) => s.commitment,
    );
    await this.#commit({ entries, evidence, subjects }, ids);
  }

  // --- handing over ---

  async #handOver(id: string, waiting: Waiting): Promise<Sequenced> {
    const handed: Handed = { ...waiting, entries: waiting.entries.map(({ body, type, environment }) => ({ body, type, environment })) };
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      try {
        if (!this.#tables.isConnected) await this.#tables.connect();
        const first = await this.#tables.takenAt(id);
        if (first !== undefined) return await this.#taken(first, waiting.entries.length);
        await this.#tables.hand(id, handed);
        if (await this.#leads()) await this.#takeHanded();
        else await this.#notice(LOOK_MS);
        if (Date.now() > end && (await this.#tables.takeBack(id))) throw cannotTell(new Error('no replica sequences'));
      } catch (thrown) {
        const isLost = thrown instanceof CommitUnknown || !this.#tables.isConnected;
        if (!isLost || Date.now() > end) throw thrown instanceof CommitUnknown ? cannotTell(thrown.cause) : thrown;
        await this.#notice(4 * LOOK_MS);
      }
    }
  }

  async #taken(first: number, count: number): Promise<Sequenced> {
    await this.#catchUp();
    const stored = await this.#copy.entries(first, count);
    return { first, size: this.#tree.size, note: this.#latest?.note ?? '', bodies: stored.map((s) => s.body) };
  }

  // --- the copy ---

  /** Takes over what others committed, hashing it: it must give the root that was signed. */
  async #catchUp(): Promise<void> {
    const { name } = this.#options;
    for (;;) {
      const { entries, checkpoint } = await this.#tables.since(this.#tree.size, PAGE);
      const size = checkpoint?.size ?? 0;
      if (size < this.#tree.size && this.#options.newEpoch === undefined)
        throw halt(
          `${name} holds ${size} entries, but ${this.#tree.size} were signed: it was put back to an older state`,
          'if that was on purpose, `countersign ledger new-epoch` goes on from here and says what was lost; otherwise bring the newer state back',
        );
      if (entries.length === 0) return;
      const tree = this.#tree.copy();
      for (const { index, body, leaf, type } of entries) {
        if (index !== tree.size) throw halt(`entry ${tree.size} is missing from ${name}`);
        if (!leafHash(body).equals(leaf)) throw halt(`entry ${index} (${type}) of ${name} was altered`);
        tree.append(leaf);
        if (LogHistory.concerns(type)) this.#history.add(index, body);
      }
      const isWhole = checkpoint !== undefined && tree.size === checkpoint.size;
      if (checkpoint === undefined || tree.size > checkpoint.size) throw halt(`entries of ${name} are under no signed checkpoint`);
      if (isWhole) this.#checkRoot(checkpoint.note, tree);
      const bodies = entries.map((e) => e.body);
      const evidence = await this.#tables.evidence([...new Set(bodies.flatMap(evidenceIn))]);
      const commitments = [...bodies, ...evidence.map((e) => e.bytes)].flatMap((text) => text.match(/subject:[0-9a-f]{64}/g) ?? []);
      const subjects = await this.#tables.subjects([...new Set(commitments)]);
      await this.#adopt(
        { first: this.#tree.size, entries, evidence, subjects, tiles: tree.takeFull() },
        tree,
        isWhole ? checkpoint.note : undefined,
      );
      if (isWhole) return;
    }
  }

  #checkRoot(note: string, tree: TreeWriter): void {
    const { name, verifiers } = this.#options;
    const opened = openCheckpoint(note, [...this.#signers, ...verifiers, ...this.#history.named]);
    if (opened === undefined) throw halt(`the last checkpoint of ${name} is not signed by this ledger’s key`);
    if (opened.size !== tree.size || !opened.root.equals(tree.root()))
      throw halt(`${name} is not the ledger that was signed: its root differs at ${tree.size} entries`);
  }

  async #adopt(batch: Omit<Batch, 'checkpoint'>, tree: TreeWriter, note: string | undefined): Promise<void> {
    const notes = note === undefined ? [] : [{ size: tree.size, note }];
    await this.#copy.add(batch, notes, note === undefined ? undefined : this.#dropped());
    this.#tree = tree;
    this.#lastTime = timeOf(batch.entries.at(-1)?.body ?? '') || this.#lastTime;
    if (note === undefined) return;
    this.#latest = { size: tree.size, note };
    writeAnchor(this.#options, note);
  }

  // The copy too keeps one checkpoint an hour, and the newest.
  #dropped(): number | undefined {
    const now = this.#options.clock().getTime();
    if (Math.abs(now - this.#copyKeptAt) < KEPT_EVERY_MS) return this.#latest?.size;
    this.#copyKeptAt = now;
    return undefined;
  }

  #notice(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

// What another replica hands over is checked as if it came from here: a defect there must not hold everybody up.
function isFit({ entries }: Handed): boolean {
  return (
    Array.isArray(entries) &&
    entries.every(({ body, type, environment }) => {
      try {
        const { v, time, ...fields } = JSON.parse(body) as Record<string, unknown> & { type: string };
        const isFiled = fields.type === type && ((fields as { environment?: string }).environment ?? '') === environment;
        return v === 1 && typeof time === 'string' && isFiled && entryProblem(fields) === undefined && Buffer.byteLength(body) <= MAX_ENTRY;
      } catch {
        return false;
      }
    })
  );
}

function evidenceIn(body: string): string[] {
  const digest = /"evidence":\{"sha256":"([0-9a-f]{64})"/.exec(body)?.[1];
  return digest === undefined ? [] : [digest];
}

// Canonical JSON: the top-level `time` is followed by a key that comes after it.
function timeOf(body: string): string {
  return body === '' ? '' : String((JSON.parse(body) as { time?: unknown }).time);
}
