import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { CountersignError, canonicalJson, type Entry, type EntryBody, sha256 } from '../model/index.ts';
import { type Instance, signCheckpointAs } from './checkpoint.ts';
import { KnownKeys } from './known-keys.ts';
import { LogHistory } from './log-history.ts';
import { leafHash } from './merkle.ts';
import type { Signer, Verifier } from './note.ts';
import { type Judged, judgeRow, signedRow, type Term, UNAUTHENTICATED } from './outbox.ts';
import { type OutboxRow, PostgresTables, TakenBack } from './postgres.ts';
import { Fenced } from './postgres-term.ts';
import type { Bounds, Known } from './references.ts';
import { enrolmentOf, type ReplicaKey } from './replica-key.ts';
import {
  cannotTell,
  checkAnchor,
  type Found,
  firstWords,
  halt,
  KEPT_EVERY_MS,
  laterOf,
  namedIn,
  prepare,
  readAnchor,
  readBack,
  type Sequenced,
  type SequencerOptions,
  type Waiting,
  writeAnchor,
} from './sequencer.ts';
import { SqliteStore } from './sqlite-store.ts';
import { type Batch, CommitUnknown, cannotWrite, isOpened, type PreparedEntry } from './store.ts';
import { TreeWriter } from './tiles.ts';

export type SharedOptions = Omit<SequencerOptions, 'store'> & {
  readonly url: string;
  /** The copy this replica reads from. */
  readonly copy: string;
  readonly instance: Instance;
  /** Signs batches that this replica hands over. */
  readonly replica: ReplicaKey;
  /** Longest duration of break-glass in milliseconds, by environment. */
  readonly holdFor?: Bounds['holdFor'];
  /** Receives who sequences, when that changes. */
  readonly onSharing?: (sharing: Sharing) => void;
  /** How often a replica looks by itself, without being notified. */
  readonly tickMs?: number;
};

/** How a replica shares its ledger. */
export type Sharing = {
  /** Id of this replica. */
  readonly replica: string;
  /** Id of the replica that sequences, as the database names it; empty if none does. */
  readonly sequencer: string;
  /** Whether records get onto the ledger: the database answers, and a replica sequences. */
  readonly isAvailable: boolean;
};

const REPLICA_ID = /^[0-9a-f]{32}$/; // other text in the database is not shown
const OLDER = 'a replica of an older version';
const PAGE = 1000;
const TICK_MS = 500;
const LOOK_MS = 50;
const DEADLINE_MS = 20_000;
const SWEEP_EVERY = 120; // ticks: once a minute
const REFUSED_EVERY_MS = 60_000; // however many rows are refused, the ledger grows by one entry a minute
// A flood of rows is processed for this long at a time; own entries are recorded in between.
const TAKING_MS = 300;
const ATTEMPTS = 5;

/**
 * A ledger in PostgreSQL that several replicas write to. One replica, the leader of the current term, numbers, signs
 * and commits; the others hand it their entries.
 *
 * Each replica keeps a copy and hashes it as it grows, so changes to the database cannot change what a replica reads.
 * Handed-over batches are signed by the replica and checked before they are recorded: the role that writes to the
 * database does not have the ledger's signature.
 */
export class SharedSequencer {
  readonly #options: SharedOptions;
  readonly #tables: PostgresTables;
  #copy: SqliteStore;
  #tree = new TreeWriter();
  #history = new LogHistory();
  // Keys that entries under a signed root named.
  #named: readonly Verifier[] = [];
  #latest: { size: number; note: string } | undefined;
  #lastTime = '';
  #keptAt = 0;
  #copyKeptAt = 0;
  #replaceable: number | undefined;
  #hasBegun = false;
  // Whether the database was never reached since the start.
  #isByCopy = false;
  #broken: CountersignError | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;
  #term: Term | undefined;
  #counter = 0;
  #refused: { count: number; first: Extract<Judged, { kind: 'refused' }> } | undefined;
  #refusedAt = Number.NEGATIVE_INFINITY;
  #wake: () => void = () => {};
  #isCalled = false;
  #sharing = '';
  found: Found = { entries: 0, unanchored: 0, lastTime: '' };

  private constructor(options: SharedOptions) {
    this.#options = options;
    this.#tables = new PostgresTables(options.url, (what) => this.#notified(what));
    this.#tables.warn = (message) => this.#options.warn(message);
    this.#copy = new SqliteStore(options.copy, 'copy');
  }

  /**
   * Connects, updates the copy and checks it. If the database cannot be reached, it goes on with an earlier copy, and
   * records nothing until it can. Throws like `Sequencer.open`, and `ledger-unusable` if there is no copy either.
   */
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

  /** Current name of the ledger: another replica may have opened a new epoch. */
  get origin(): string {
    return this.#signers[0].name;
  }

  get #signers(): readonly [Signer, ...Signer[]] {
    const { signers, newEpoch } = this.#options;
    const name = newEpoch === undefined ? this.#history.origin : undefined;
    return name === undefined ? signers : (signers.map((signer) => ({ ...signer, name })) as [Signer, ...Signer[]]);
  }

  /** Works like `Sequencer.append`: resolves once the entries are committed, on whichever replica. */
  append(waiting: Waiting): Promise<Sequenced> {
    return this.#inTurn(async () => {
      if (this.#broken !== undefined) throw this.#broken;
      if (!this.#isReady) await this.#reconnect();
      if (!(await this.#leads())) return this.#handOver(randomUUID(), waiting);
      return this.#sequence(waiting).catch((thrown: unknown) => {
        if (!(thrown instanceof Fenced)) throw thrown;
        return this.#handOver(randomUUID(), waiting); // nothing was written: the new leader takes it
      });
    });
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#wake();
    await this.#turn.catch(() => {});
    await this.#tables.close();
    await this.#copy.close();
  }

  // Runs everything over the one connection in sequence.
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(task, task);
    this.#turn = turn.catch((thrown) => {
      if (thrown instanceof CountersignError && thrown.recover === 'halt') this.#broken ??= thrown;
    });
    return turn;
  }

  // The database may be an older one by now, and others must hear of it before one of them leads.
  async #reconnect(): Promise<void> {
    if (!this.#tables.isConnected) await this.#tables.connect();
    if (this.#isByCopy) await this.#begin();
    else await this.#catchUp();
  }

  // The leader takes what was handed over as soon as it hears of it; the others copy what it committed.
  #notified(what: string): void {
    this.#wake();
    if (what === 'lost') this.#tellSharing();
    const task = this.#tables.leads
      ? what === 'handed' && (() => this.#takeHanded())
      : what === 'taken' && (() => this.#catchUp());
    if (task === false || this.#isCalled || this.#timer === undefined || this.#broken !== undefined) return;
    this.#isCalled = true;
    const run = async () => {
      this.#isCalled = false;
      if (this.#isReady) await task();
    };
    void this.#inTurn(run).catch(() => {}); // the next tick tries again
  }

  get #isReady(): boolean {
    return this.#tables.isConnected && !this.#isByCopy;
  }

  #tellSharing(): void {
    const { replica, onSharing } = this.#options;
    const { isConnected, leads, lastLeader } = this.#tables;
    const named = lastLeader?.replica ?? '';
    const other =
      named === '' && lastLeader !== undefined
        ? OLDER
        : lastLeader?.isLive === true && REPLICA_ID.test(named)
          ? named
          : '';
    const sequencer = !isConnected || this.#broken !== undefined ? '' : leads && this.#hasBegun ? replica.id : other;
    const sharing = { replica: replica.id, sequencer, isAvailable: sequencer !== '' };
    const told = JSON.stringify(sharing);
    if (told === this.#sharing) return;
    this.#sharing = told;
    onSharing?.(sharing);
  }

  async #open(): Promise<void> {
    const { newEpoch } = this.#options;
    const away = await this.#tables.connect().catch((thrown: unknown) => {
      const mayReturn = thrown instanceof CountersignError && thrown.recover === 'retry';
      if (!mayReturn || newEpoch !== undefined) throw thrown;
      return thrown;
    });
    if (newEpoch !== undefined) await this.#discardCopy();
    await this.#readCopy();
    if (away === undefined) await this.#begin();
    else if (this.#tree.size === 0) throw away;
    else this.#beginByCopy(away);
    this.#timer = setInterval(
      () => void this.#inTurn(() => this.#tick()).catch(() => {}),
      this.#options.tickMs ?? TICK_MS,
    );
  }

  // Break-glass must be decided while the database is away. Nothing else is: records are refused until it is back, and
  // only then the anchor tells whether the copy is the newest.
  #beginByCopy({ message }: CountersignError): void {
    this.#isByCopy = true;
    this.found = { entries: this.#tree.size, unanchored: 0, lastTime: this.#lastTime };
    this.#options.warn(`goes on with its own copy of the ledger, ${this.#tree.size} entries: ${message}`);
    this.#tellSharing();
  }

  async #begin(): Promise<void> {
    const { newEpoch, verifiers, name } = this.#options;
    const had = this.#tree.size;
    await this.#catchUp().catch(async (thrown: unknown) => {
      const isDifferent = thrown instanceof CountersignError && thrown.code === 'ledger-inconsistent';
      if (!isDifferent || !(await this.#hasNewerEpoch())) throw thrown;
      await this.#beginEpoch(thrown);
    });
    const keys = [...this.#signers, ...this.#options.signers, ...verifiers, ...this.#keys.underAll(this.#history)];
    const anchor = newEpoch === undefined ? readAnchor(this.#options, keys) : undefined;
    if (anchor !== undefined) checkAnchor(anchor, this.#tree.size, this.#history, keys, name);
    this.found = {
      entries: this.#tree.size,
      unanchored: this.#tree.size - Math.min(anchor?.size ?? had, this.#tree.size),
      lastTime: this.#lastTime,
    };
    await this.#waitForBeginning();
    this.#isByCopy = false;
    this.#tellSharing();
  }

  // A copy that does not fit is rebuilt: the database is authoritative, and the anchor is not part of the copy.
  async #readCopy(): Promise<void> {
    const { newEpoch: _, ...options } = this.#options;
    const read = await readBack({ ...options, store: this.#copy, anchor: '' }).catch(async (thrown: unknown) => {
      if (!(thrown instanceof CountersignError) || thrown.code !== 'ledger-inconsistent') throw thrown;
      this.#options.warn(`rebuilding the copy of the ledger: ${thrown.message}`);
      await this.#discardCopy();
      return undefined;
    });
    if (read === undefined) return;
    this.#tree = read.tree;
    this.#history = read.history;
    this.#named = read.history.named;
    this.#latest = read.latest;
    this.#lastTime = read.lastTime;
  }

  async #discardCopy(): Promise<void> {
    await this.#copy.close();
    for (const end of ['', '-wal', '-shm']) rmSync(`${this.#options.copy}${end}`, { force: true });
    this.#copy = new SqliteStore(this.#options.copy, 'copy');
  }

  // Tests whether the database has an epoch that the copy has not: another replica recorded what was lost.
  async #hasNewerEpoch(): Promise<boolean> {
    if (this.#options.newEpoch !== undefined || !this.#tables.isConnected) return false;
    const index = await this.#tables.lastOf('epoch.opened');
    if (index === undefined) return false;
    const [there, here] = [await this.#tables.leafAt(index), this.#copy.body(index)];
    return there !== undefined && (here === undefined || !leafHash(here).equals(there));
  }

  // The copy has entries that the epoch records as lost. It is kept aside, and made again; what the copy had must be
  // what was lost.
  async #beginEpoch(thrown: unknown): Promise<void> {
    const { name, copy } = this.#options;
    const had = this.#latest;
    this.#options.warn(
      `a new epoch was opened on ${name}: the copy is made again, and the one before is kept as \`${copy}.before\``,
    );
    await this.#copy.close();
    for (const end of ['', '-wal', '-shm']) {
      rmSync(`${copy}.before${end}`, { force: true });
      if (existsSync(`${copy}${end}`)) renameSync(`${copy}${end}`, `${copy}.before${end}`);
    }
    this.#copy = new SqliteStore(copy, 'copy');
    [this.#tree, this.#history, this.#named, this.#latest] = [new TreeWriter(), new LogHistory(), [], undefined];
    this.#lastTime = '';
    await this.#catchUp();
    const opened = had === undefined ? undefined : this.#keys.open(had.note);
    if (opened === undefined || this.#history.origin === undefined) throw thrown;
    checkAnchor(opened, this.#tree.size, this.#history, this.#keys.underAll(this.#history), name);
  }

  async #waitForBeginning(): Promise<void> {
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      // A new epoch must be opened by this replica; otherwise it suffices that some replica has begun the ledger.
      if ((await this.#leads()) || (this.#tree.size > 0 && this.#options.newEpoch === undefined)) return;
      if (Date.now() > end)
        throw cannotTell(
          new Error('another replica holds it; stop the replicas, or wait until one has begun the ledger'),
        );
      await this.#notice(LOOK_MS);
      await this.#catchUp();
    }
  }

  /**
   * Tests whether this replica is the leader now. A new leader first records its opening entries and takes the batches
   * handed over.
   */
  async #leads(): Promise<boolean> {
    if (!this.#tables.leads && !(await this.#beginTerm())) return false;
    if (this.#hasBegun) return true;
    await this.#catchUp();
    if (this.#tree.size === 0 && (await this.#tables.hasEntries()))
      throw halt(
        `${this.#options.name} holds entries, but no checkpoint over them signed by this ledger’s key`,
        'give the key that signed it. If rows of `checkpoint` were deleted, ' +
          'first start a replica that has a copy: it restores the newest one',
      );
    this.#hasBegun = true;
    const { newEpoch, ...options } = this.#options;
    const isOpened = this.#history.origin === options.signers[0].name;
    const words = firstWords(
      newEpoch !== undefined && !isOpened ? this.#options : { ...options, signers: this.#signers },
      this.#tree.size,
      this.#history,
      this.#latest?.note,
    );
    for (const body of words)
      await this.#sequence({ entries: [this.#stamped(body)], evidence: [], subjects: namedIn(body, newEpoch) });
    if (newEpoch !== undefined) await this.#tables.dropCheckpointsAbove(this.#tree.size); // of the lost entries
    return true;
  }

  // The number is generated here and kept only in memory. A row signed for another term, or already taken in this one,
  // does not count again, even if tables are edited.
  async #beginTerm(): Promise<boolean> {
    this.#hasBegun = false;
    const nonce = randomBytes(32).toString('hex');
    if (!(await this.#tables.lead(nonce, this.#options.replica.id))) return false;
    this.#term = { nonce, since: this.#options.clock().getTime(), taken: new Map() };
    return true;
  }

  #stamped(body: EntryBody): PreparedEntry {
    return prepare({ v: 1, time: laterOf(this.#options.clock().toISOString(), this.#lastTime), ...body } as Entry);
  }

  async #tick(): Promise<void> {
    if (this.#broken !== undefined) return;
    if (this.#isReady) await this.#catchUp();
    else await this.#reconnect();
    const isLeader = (await this.#leads()) && (await this.#tables.beat());
    this.#tellSharing();
    if (isLeader) await this.#takeHanded();
    if (++this.#ticks % SWEEP_EVERY !== 0) return;
    await this.#tables.sweep();
    if (this.#hasBegun) await this.#dropForeignCheckpoints();
    this.#copy.keepSubjects(await this.#tables.commitments());
  }

  // --- sequencing ---

  async #sequence(waiting: Waiting): Promise<Sequenced> {
    const { entries, bodies } = this.#inOrder(waiting.entries);
    const first = this.#tree.size;
    const done = await this.#commit({ ...waiting, entries }, []).catch(async (thrown: unknown) => {
      if (!(thrown instanceof CommitUnknown)) throw thrown;
      return this.#settled(first, entries, thrown.cause);
    });
    return { ...done, ...(bodies === undefined ? {} : { bodies }) };
  }

  // Time on a ledger never goes back, even if the clocks of replicas do.
  #inOrder(entries: readonly PreparedEntry[]): {
    readonly entries: readonly PreparedEntry[];
    readonly bodies?: readonly string[];
  } {
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
    const note = this.#signed(tree);
    const replaces = this.#replaceable === undefined ? {} : { replaces: this.#replaceable };
    const batch: Batch = {
      ...waiting,
      first,
      tiles: tree.takeFull(),
      checkpoint: { size: tree.size, note, ...replaces },
    };
    await this.#tables.commit(batch, ids);
    const age = this.#options.clock().getTime() - this.#keptAt;
    const isKept = age < 0 || age >= KEPT_EVERY_MS;
    this.#replaceable = isKept ? undefined : tree.size;
    if (isKept) this.#keptAt = this.#options.clock().getTime();
    for (const [i, { body, type }] of batch.entries.entries())
      if (LogHistory.concerns(type)) this.#history.add(first + i, body);
    await this.#adopt(batch, tree, note);
    return { first, size: tree.size, note };
  }

  // After a commit with unknown outcome: once reconnected, the signed tree tells whether it took place.
  async #settled(first: number, entries: readonly PreparedEntry[], cause: unknown): Promise<Sequenced> {
    this.#replaceable = undefined; // it is unknown whether the last one is there: keep it
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      try {
        if (!this.#tables.isConnected) await this.#tables.connect();
        await this.#tables.settle();
        await this.#catchUp();
        if (!this.#stands(first, entries)) throw cannotWrite(cause);
        return { first, size: this.#tree.size, note: this.#latest?.note ?? '' };
      } catch (thrown) {
        if (
          !(thrown instanceof CountersignError) ||
          thrown.recover !== 'retry' ||
          this.#tables.isConnected ||
          Date.now() > end
        )
          throw thrown;
        await this.#notice(4 * LOOK_MS);
      }
    }
  }

  #signed(tree: TreeWriter): string {
    return signCheckpointAs(this.#options.instance, tree.size, tree.root(), ...this.#signers);
  }

  // Tests whether exactly these entries are at that position.
  #stands(first: number, entries: readonly PreparedEntry[]): boolean {
    return entries.every(({ body }, i) => this.#copy.body(first + i) === body);
  }

  // --- batches from other replicas ---

  /**
   * Records the batches handed over, in order of arrival, one commit at a time. Batches that cannot be recorded are set
   * aside.
   */
  async #takeHanded(): Promise<void> {
    for (const end = Date.now() + TAKING_MS; Date.now() < end; ) {
      const { rows, tooLarge } = await this.#tables.handed();
      const large = tooLarge.map(
        (id): Judged => ({
          kind: 'refused',
          id,
          replica: UNAUTHENTICATED,
          reason: 'it is too large',
          digest: sha256(id),
        }),
      );
      const done = await this.#takeRows(rows, large);
      if (done === 0) break;
      if (Date.now() >= end) setImmediate(() => this.#notified('handed')); // the rest, after own entries
    }
    await this.#tellRefused();
  }

  async #takeRows(rows: readonly OutboxRow[], large: readonly Judged[]): Promise<number> {
    const judged = [...large];
    const term = this.#term as Term;
    const taken = new Map(term.taken); // counters take effect once the rows are recorded, and all at once within a page
    for (const row of rows) {
      const one = judgeRow(row, this.#judging({ ...term, taken }));
      if (one.kind === 'batch') taken.set(one.who, one.counter);
      if (one.kind === 'enrolment') await this.#enrol(one);
      judged.push(one);
    }
    const refused = judged.filter((one) => one.kind === 'refused');
    for (const one of refused) this.#setAside(one);
    await this.#tables.drop(
      judged.filter((one) => one.kind === 'refused' || one.kind === 'enrolment').map((one) => one.id),
    );
    const batches = judged.filter((one) => one.kind === 'batch');
    if (batches.length > 0) await this.#takeBatches(batches);
    for (const { who, counter } of batches) term.taken.set(who, counter);
    return judged.filter((one) => one.kind !== 'early').length;
  }

  #judging(term: Term) {
    const keys: readonly Verifier[] = [...this.#signers, ...this.#options.verifiers, ...this.#history.named];
    return {
      origin: this.origin,
      term,
      keys: keys.filter((key) => !this.#history.isRetired(key)),
      enrolled: (replica: string) => this.#history.enrolled(replica),
      known: this.#known,
      bounds: {
        now: Math.max(this.#options.clock().getTime(), Date.parse(this.#lastTime) || 0),
        holdFor: this.#options.holdFor,
      },
    };
  }

  get #known(): Known {
    return {
      size: this.#tree.size,
      entry: (index) => {
        const body = this.#copy.body(index);
        return body === undefined ? undefined : (JSON.parse(body) as Entry);
      },
      hasEvidence: (digest) => this.#copy.hasEvidence(digest),
    };
  }

  async #enrol({ replica, key, statement }: Extract<Judged, { kind: 'enrolment' }>): Promise<void> {
    if (this.#history.enrolled(replica) === key) return;
    const body: EntryBody = { type: 'replica.enrolled', replica, key, statement };
    await this.#sequence({ entries: [this.#stamped(body)], evidence: [], subjects: [] });
  }

  #setAside(one: Extract<Judged, { kind: 'refused' }>): void {
    if (this.#refused === undefined) {
      this.#refused = { count: 0, first: one };
      this.#options.warn(`the batch handed over by ${one.replica} is not recorded: ${one.reason}`);
    }
    this.#refused.count++;
  }

  async #tellRefused(): Promise<void> {
    const now = performance.now();
    if (this.#refused === undefined || now - this.#refusedAt < REFUSED_EVERY_MS) return;
    const { count, first } = this.#refused;
    const { replica, reason, digest } = first;
    const body: EntryBody = { type: 'record.refused', source: 'outbox', replica, reason, digest, count };
    await this.#sequence({ entries: [this.#stamped(body)], evidence: [], subjects: [] });
    this.#refusedAt = now;
    this.#refused = undefined;
  }

  async #takeBatches(handed: readonly Extract<Judged, { kind: 'batch' }>[]): Promise<void> {
    const ids: { id: string; first: number }[] = [];
    const entries: PreparedEntry[] = [];
    for (const { id, batch } of handed) {
      ids.push({ id, first: this.#tree.size + entries.length });
      for (const { body, type, environment } of batch.entries) {
        const entry = JSON.parse(body) as Entry;
        const last = entries.at(-1);
        const text = canonicalJson({
          ...entry,
          time: laterOf(entry.time, last === undefined ? this.#lastTime : timeOf(last.body)),
        });
        entries.push({ body: text, leaf: leafHash(text), type, environment });
      }
    }
    const once = <T>(items: readonly T[], key: (item: T) => string) => [
      ...new Map(items.map((item) => [key(item), item])).values(),
    ];
    const evidence = once(
      handed.flatMap((h) => h.batch.evidence),
      (e) => e.sha256,
    );
    const subjects = once(
      handed.flatMap((h) => h.batch.subjects),
      (s) => s.commitment,
    );
    await this.#commit({ entries, evidence, subjects }, ids).catch(async (thrown: unknown) => {
      if (!(thrown instanceof TakenBack)) throw thrown;
      // One batch was taken back meanwhile. Record each alone: the others are not held up, and their counters are
      // already used.
      if (handed.length > 1) for (const one of handed) await this.#takeBatches([one]);
    });
  }

  // --- handing over ---

  /** Resolves once the entries are on the signed ledger. The tables only give hints about that. */
  async #handOver(id: string, waiting: Waiting): Promise<Sequenced> {
    const since = this.#tree.size;
    let signedFor: string | undefined;
    let attempts = 0;
    let isHanded = false;
    for (const end = Date.now() + DEADLINE_MS; ; ) {
      try {
        if (!this.#tables.isConnected) await this.#reconnect();
        const state = await this.#tables.stateOf(id);
        if (state.first !== undefined) {
          await this.#catchUp();
          const taken = this.#foundAt(state.first, since, waiting);
          if (taken !== undefined) return taken;
          await this.#tables.dropTaken(id); // someone else wrote that
        }
        // A leader that is gone takes nothing; one of an older version does not say whether it is there.
        const { leader } = state;
        const term = leader?.isLive === true || leader?.replica === '' ? leader.nonce : undefined;
        const leads = state.leader?.isLive !== true && (await this.#leads());
        const isOver = Date.now() > end;
        if (leads || isOver || !state.waits || term !== signedFor) {
          if (isHanded) {
            // The batch is no longer in `outbox`: it is on the ledger by now, or never will be.
            await this.#tables.takeBack(id);
            await this.#catchUp();
            const recorded = this.#find(since, waiting);
            if (recorded !== undefined) return recorded;
          }
          if (leads) return await this.#sequence(waiting);
          if (isOver) throw cannotTell(new Error('no replica is the leader'));
          if (isHanded && term !== undefined && signedFor === term && ++attempts > ATTEMPTS) throw notTaken();
          isHanded ||= term !== undefined;
          signedFor = await this.#handSigned(id, waiting, term);
        }
        await this.#notice(LOOK_MS);
      } catch (thrown) {
        const isLost = thrown instanceof CommitUnknown || thrown instanceof Fenced || !this.#tables.isConnected;
        if (!isLost || Date.now() > end) throw thrown instanceof CommitUnknown ? cannotTell(thrown.cause) : thrown;
        await this.#notice(4 * LOOK_MS);
      }
    }
  }

  /** Signs for a term and hands over, once this replica is enrolled. Returns the term; undefined if it is too early. */
  async #handSigned(id: string, waiting: Waiting, term: string | undefined): Promise<string | undefined> {
    const { replica } = this.#options;
    if (term === undefined) return undefined;
    if (this.#history.enrolled(replica.id) === undefined) {
      await this.#tables.hand(randomUUID(), { enrolment: enrolmentOf(replica, ...this.#signers) });
      for (const end = Date.now() + DEADLINE_MS / 4; this.#history.enrolled(replica.id) === undefined; ) {
        if (Date.now() > end) return undefined;
        await this.#notice(LOOK_MS);
        await this.#catchUp();
      }
    }
    const at = { origin: this.origin, term, counter: ++this.#counter };
    await this.#tables.hand(id, signedRow(id, waiting, at, replica));
    return term;
  }

  #foundAt(first: number, since: number, { entries }: Waiting): Sequenced | undefined {
    if (first < since) return undefined;
    const bodies: string[] = [];
    for (const [i, { body }] of entries.entries()) {
      const stored = this.#copy.body(first + i);
      if (stored === undefined || !isSameLater(stored, body)) return undefined;
      bodies.push(stored);
    }
    return { first, size: this.#tree.size, note: this.#latest?.note ?? '', bodies };
  }

  // If no row says where the entries are, search those added since the handover.
  #find(since: number, waiting: Waiting): Sequenced | undefined {
    for (let at = since; at < this.#tree.size; at++) {
      const found = this.#foundAt(at, since, waiting);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  // --- the copy ---

  /** Copies entries that others committed and hashes them: the result must be the signed root. */
  async #catchUp(): Promise<void> {
    const { name } = this.#options;
    for (;;) {
      const isSigned = (stored: { readonly size: number; readonly note: string }) => this.#isSigned(stored);
      const covers = this.#options.newEpoch === undefined || this.#hasBegun ? 'all' : 'what is there';
      const { entries, checkpoint } = await this.#tables.since(this.#tree.size, PAGE, isSigned, covers);
      const size = checkpoint?.size ?? 0;
      if (size < this.#tree.size && this.#options.newEpoch === undefined) {
        if (await this.#putBack()) continue;
        if (await this.#hasNewerEpoch()) throw newerEpoch(name);
        // Replicas that have not seen it signed must not sign something else in its place.
        if (this.#latest !== undefined) await this.#tables.restore(this.#latest).catch(() => {});
        throw rolledBack(name, size, this.#tree.size);
      }
      if (entries.length === 0 && size > this.#tree.size) {
        if ((await this.#tables.leafAt(size - 1)) === undefined) throw rolledBack(name, this.#tree.size, size);
        throw halt(`entry ${this.#tree.size} is missing from ${name}`);
      }
      if (entries.length === 0) return;
      const [tree, history] = [this.#tree.copy(), this.#history.copy()];
      for (const { index, body, leaf, type } of entries) {
        if (index !== tree.size) throw halt(`entry ${tree.size} is missing from ${name}`);
        if (!leafHash(body).equals(leaf)) throw halt(`entry ${index} (${type}) of ${name} was altered`);
        tree.append(leaf);
        if (LogHistory.concerns(type)) history.add(index, body);
      }
      const isWhole = checkpoint !== undefined && tree.size === checkpoint.size;
      if (isWhole) this.#checkRoot(checkpoint.note, tree, history);
      const bodies = entries.map((e) => e.body);
      const evidence = (await this.#tables.evidence([...new Set(bodies.flatMap(evidenceIn))])).filter(
        (e) => sha256(e.bytes) === e.sha256,
      );
      const commitments = [...bodies, ...evidence.map((e) => e.bytes)].flatMap(
        (text) => text.match(/subject:[0-9a-f]{64}/g) ?? [],
      );
      const subjects = (await this.#tables.subjects([...new Set(commitments)])).filter(isOpened);
      await this.#adopt(
        { first: this.#tree.size, entries, evidence, subjects, tiles: tree.takeFull() },
        tree,
        isWhole ? checkpoint.note : undefined,
      );
      this.#history = history;
      if (isWhole) this.#named = history.named;
      if (isWhole) return;
    }
  }

  #isSigned({ size, note }: { readonly size: number; readonly note: string }): boolean {
    if (note === this.#latest?.note) return size === this.#latest.size;
    const opened = this.#keys.open(note);
    return opened?.size === size && this.#keys.mayBeNewest(opened, this.#history);
  }

  // A checkpoint is opened by keys that are trusted without the entries below it.
  get #keys(): KnownKeys {
    const { signers, verifiers } = this.#options;
    return new KnownKeys(signers[0].name, [...signers, ...verifiers, ...this.#named]);
  }

  // The service's role may delete checkpoints but no entries. If the last entry is there, only its checkpoint is gone.
  async #putBack(): Promise<boolean> {
    const { size } = this.#tree;
    const body = this.#copy.body(size - 1);
    const leaf = await this.#tables.leafAt(size - 1);
    if (this.#latest?.size !== size || body === undefined || leaf === undefined || !leafHash(body).equals(leaf))
      return false;
    this.#options.warn(`the checkpoint over ${size} entries was deleted from ${this.#options.name}; restored it`);
    await this.#tables.restore(this.#latest);
    return true;
  }

  async #dropForeignCheckpoints(): Promise<void> {
    const count = await this.#tables.dropCheckpointsAbove(this.#tree.size);
    if (count > 0)
      this.#options.warn(
        `removed ${count === 1 ? '1 row' : `${count} rows`} of \`checkpoint\` that this ledger did not sign`,
      );
  }

  #checkRoot(note: string, tree: TreeWriter, history: LogHistory): void {
    const { name } = this.#options;
    const opened = this.#keys.open(note);
    if (opened === undefined) throw halt(`the last checkpoint of ${name} is not signed by this ledger’s key`);
    if (opened.size !== tree.size || !opened.root.equals(tree.root()))
      throw halt(`${name} is not the ledger that was signed: its root differs at ${tree.size} entries`);
    const { problem } = history.judge(opened, this.#keys.underAll(history));
    if (problem !== undefined) throw halt(`the last checkpoint of ${name} does not count: ${problem}`);
  }

  async #adopt(batch: Omit<Batch, 'checkpoint'>, tree: TreeWriter, note: string | undefined): Promise<void> {
    const notes = note === undefined ? [] : [{ size: tree.size, note }];
    await this.#copy.add(batch, notes, note === undefined ? undefined : this.#dropped());
    this.#tree = tree;
    this.#lastTime = timeOf(batch.entries.at(-1)?.body ?? '') || this.#lastTime;
    if (note === undefined) return;
    this.#latest = { size: tree.size, note };
    // A new epoch states the newest checkpoint of the one before, which may be the anchor.
    if (this.#options.newEpoch === undefined || this.#hasBegun) writeAnchor(this.#options, note);
  }

  // The copy too keeps one checkpoint per hour, and the newest.
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

// The time may have been advanced so that ledger time does not go back; everything else must be equal.
function isSameLater(stored: string, given: string): boolean {
  if (stored === given) return true;
  const [a, b] = [JSON.parse(stored) as Entry, JSON.parse(given) as Entry];
  return a.time >= b.time && canonicalJson({ ...a, time: '' }) === canonicalJson({ ...b, time: '' });
}

function rolledBack(name: string, holds: number, signed: number): CountersignError {
  return halt(
    `${name} holds ${holds} entries, but ${signed} were signed: it was rolled back to an older state`,
    'if that was on purpose, or a standby without them was promoted, `countersign ledger new-epoch` continues ' +
      'from here and records the loss; otherwise restore the newer state',
  );
}

function newerEpoch(name: string): CountersignError {
  return halt(
    `${name} has a new epoch, and this replica has entries that were lost`,
    'start this replica again: it makes its copy again, if what it has is what the epoch records as lost',
  );
}

function notTaken(): CountersignError {
  return new CountersignError('ledger-unusable', 'batches disappear from `outbox` without being recorded', {
    recover: 'retry',
    hint:
      'see why the leader refuses them with `countersign ledger show ' +
      '--type record.refused`; if it does not, someone else deletes rows',
  });
}

function evidenceIn(body: string): string[] {
  const digest = /"evidence":\{"sha256":"([0-9a-f]{64})"/.exec(body)?.[1];
  return digest === undefined ? [] : [digest];
}

// In canonical JSON, the top-level `time` is followed by a key that sorts after it.
function timeOf(body: string): string {
  return body === '' ? '' : String((JSON.parse(body) as { time?: unknown }).time);
}
