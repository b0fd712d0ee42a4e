import { CountersignError, messageOf } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { Ledger } from './ledger.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { LogHistory } from './log-history.ts';
import { rootOf } from './merkle.ts';
import { parseVerifiers, type Verifier } from './note.ts';
import { halt } from './sequencer.ts';

/** A place outside of the store that remembers the newest checkpoint, best under another administrator. */
export interface Anchor {
  /** For people and entries; no credentials. */
  readonly name: string;
  /** The checkpoint that is kept there; undefined before the first. Throws (retry) while the place is not reached. */
  read(): Promise<string | undefined>;
  /** Keeps a newer one. */
  write(note: string): Promise<void>;
}

const STALE_MS = 24 * 3_600_000;

/**
 * Holds a checkpoint that was kept elsewhere against a ledger. Throws `ledger-inconsistent` (halt) for one that the
 * ledger is behind of, or does not extend: it was put back, or is another.
 */
function checkAgainst(reader: LedgerReader, keys: readonly Verifier[], note: string, place: string): void {
  const history = new LogHistory();
  for (const type of ['log.opened', 'epoch.opened', 'key.rotated', 'key.retired'] as const)
    for (const { index } of reader.all(type, ''))
      for (const { body } of reader.stored(index, index + 1)) history.add(index, body);
  const known = [...keys, ...history.named];
  const checkpoint = openCheckpoint(note, known);
  if (checkpoint === undefined) throw halt(`the checkpoint kept in ${place} is not signed by this ledger’s key`);
  const { problem, lost } = history.judge(checkpoint, known);
  if (lost === true) return;
  const { size } = reader;
  if (checkpoint.size > size)
    throw halt(
      `the ledger holds ${size} entries, but the checkpoint kept in ${place} is over ${checkpoint.size}: it was put back to an older state`,
      'bring the newer state back; if it is lost, `countersign ledger new-epoch --checkpoint FILE`, with what is kept there, goes on from here and says what was lost',
    );
  if (problem !== undefined) throw halt(`the checkpoint kept in ${place} does not fit: ${problem}`);
  if (!rootOf(checkpoint.size, reader.nodes(size)).equals(checkpoint.root))
    throw halt(
      `the ledger does not extend the checkpoint of ${checkpoint.size} entries that is kept in ${place}: it is another ledger`,
    );
}

/**
 * Keeps checkpoints in several places, looks first whether what is there still fits, and says when a place has not been
 * reached for long.
 */
export class AnchorKeeper {
  readonly #ledger: Ledger;
  readonly #keys: readonly Verifier[];
  readonly #anchors: readonly Anchor[];
  readonly #clock: () => Date;
  readonly #warn: (message: string) => void;
  readonly #onConflict: (note: string) => void;
  readonly #isShared: boolean;
  readonly #reached = new Map<string, number>();
  // What was there when this process began: its predecessor's.
  readonly #before = new Map<string, string>();
  #anchored = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(parts: {
    ledger: Ledger;
    keyText: string;
    anchors: readonly Anchor[];
    clock: () => Date;
    warn: (message: string) => void;
    /** Replicas share the ledger: its database decides which of them signs, and they take turns. */
    isShared?: boolean;
    /** Is handed a checkpoint that the ledger does not extend, to be kept for whoever looks into it. */
    onConflict?: (note: string) => void;
  }) {
    this.#ledger = parts.ledger;
    this.#keys = parseVerifiers(parts.keyText);
    this.#anchors = parts.anchors;
    this.#clock = parts.clock;
    this.#warn = parts.warn;
    this.#isShared = parts.isShared ?? false;
    this.#onConflict = parts.onConflict ?? (() => {});
  }

  /**
   * Before anything is signed: what can be read must fit. A place that is not reached is told, and asked again later.
   */
  async check(): Promise<void> {
    for (const anchor of this.#anchors) {
      await this.#tryRead(anchor).catch((thrown: unknown) => {
        this.#isHalt(thrown);
        throw thrown;
      });
    }
  }

  /**
   * Keeps the newest checkpoint everywhere, and records where it is. Never throws: a place that contradicts the ledger
   * halts the ledger.
   */
  keep(): Promise<void> {
    this.#running = this.#running.then(() => this.#keep());
    return this.#running;
  }

  async #keep(): Promise<void> {
    const note = this.#ledger.read.latestCheckpoint();
    const newest = note === undefined ? undefined : openCheckpoint(note, this.#keys);
    // What only says that it was kept the last time is not worth keeping again.
    if (note === undefined || newest === undefined || newest.size - this.#anchored <= this.#anchors.length) return;
    for (const anchor of this.#anchors) {
      try {
        const fits = await this.#tryRead(anchor);
        if (!fits) continue;
        await anchor.write(note);
        this.#reached.set(anchor.name, this.#clock().getTime());
        this.#anchored = newest.size;
        await this.#ledger.record({
          type: 'checkpoint.anchored',
          anchor: anchor.name,
          size: newest.size,
          root: newest.root.toString('base64'),
        });
      } catch (thrown) {
        if (this.#isHalt(thrown)) return;
        this.#missed(anchor, thrown);
      }
    }
  }

  async #tryRead(anchor: Anchor): Promise<boolean> {
    let there: string | undefined;
    try {
      there = await anchor.read();
    } catch (thrown) {
      this.#missed(anchor, thrown);
      return false;
    }
    if (!this.#before.has(anchor.name)) this.#before.set(anchor.name, there ?? '');
    if (there !== undefined) {
      try {
        checkAgainst(this.#ledger.read, this.#keys, there, anchor.name);
        this.#checkInstance(there, anchor.name);
      } catch (thrown) {
        this.#onConflict(there);
        throw thrown;
      }
    }
    this.#reached.set(anchor.name, this.#clock().getTime());
    return true;
  }

  // A checkpoint that came while this process signs, and is not its own, is by another process that signs too.
  #checkInstance(there: string, place: string): void {
    const mine = openCheckpoint(this.#ledger.read.latestCheckpoint() ?? '', this.#keys)?.instance;
    const theirs = openCheckpoint(there, this.#keys)?.instance;
    if (
      this.#isShared ||
      mine === undefined ||
      theirs === undefined ||
      theirs.id === mine.id ||
      this.#before.get(place) === there
    )
      return;
    throw halt(
      `another service signs this ledger: instance ${theirs.id} since ${theirs.since}, by the checkpoint kept in ${place}`,
      'stop one of them: is its data directory a copy? `countersign ledger verify --against` says where they part',
    );
  }

  #isHalt(thrown: unknown): boolean {
    if (!(thrown instanceof CountersignError) || thrown.recover !== 'halt') return false;
    this.#warn(thrown.message);
    this.#ledger.halt(thrown);
    return true;
  }

  #missed(anchor: Anchor, thrown: unknown): void {
    const since = this.#reached.get(anchor.name);
    const now = this.#clock().getTime();
    if (since === undefined) this.#reached.set(anchor.name, now);
    const late = since !== undefined && now - since > STALE_MS ? '; nothing was kept there for a day' : '';
    this.#warn(`the checkpoint cannot be kept in ${anchor.name}: ${messageOf(thrown)}${late}`);
  }
}
