import { CountersignError, messageOf } from '../model/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { Ledger } from './ledger.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { rootOf } from './merkle.ts';
import { parseVerifiers, type Verifier } from './note.ts';
import { historyOf } from './plan-epoch.ts';
import { halt } from './sequencer.ts';

/** A place outside the store that keeps the newest checkpoint, ideally run by another administrator. */
export interface Anchor {
  /** Shown to people and written into entries; contains no credentials. */
  readonly name: string;
  /** Reads the checkpoint kept there; undefined before the first. Throws (retry) while the place cannot be reached. */
  read(): Promise<string | undefined>;
  /** Stores a newer checkpoint. */
  write(note: string): Promise<void>;
}

/** A place that cannot be reached, since when, and why. */
type UnreachedAnchor = { readonly name: string; readonly since: string; readonly reason: string };

const STALE_MS = 24 * 3_600_000;

/**
 * Compares a checkpoint kept elsewhere with the ledger. Throws `ledger-inconsistent` (halt) if the ledger is behind the
 * checkpoint or does not extend it: then the ledger was rolled back, or it is a different ledger.
 */
function checkAgainst(reader: LedgerReader, keys: readonly Verifier[], note: string, place: string): void {
  const history = historyOf(reader);
  const known = [...keys, ...history.named];
  const checkpoint = openCheckpoint(note, known);
  if (checkpoint === undefined)
    throw halt(
      `the checkpoint kept in ${place} is not signed by this ledger’s key`,
      'is this the right --data and key? If the data directory was lost, make it again from an export ' +
        '(`countersign ledger import`) or a backup; a new ledger needs a different place for its anchor',
    );
  const { problem, lost } = history.judge(checkpoint, known);
  if (lost === true) return;
  const { size } = reader;
  if (checkpoint.size > size)
    throw halt(
      `the ledger holds ${size} entries, but the checkpoint kept in ${place} ` +
        `covers ${checkpoint.size}: the ledger was rolled back to an older state`,
      'restore the newer state; if it is lost, run `countersign ledger new-epoch --reason "…"` on this data ' +
        'directory: it continues from here and records the loss',
    );
  if (problem !== undefined) throw halt(`the checkpoint kept in ${place} does not fit: ${problem}`, LOST_OR_OTHER);
  if (!rootOf(checkpoint.size, reader.nodes(size)).equals(checkpoint.root))
    throw halt(
      `the ledger does not extend the checkpoint of ${checkpoint.size} ` +
        `entries kept in ${place}: it is a different ledger`,
      'find the copy that it belongs to with `countersign ledger verify --against OTHER`, and continue with that one',
    );
}

const LOST_OR_OTHER =
  'if entries under that name are lost, run `countersign ledger new-epoch --reason "…"` on this data directory; it ' +
  'refuses if that would not help';

/**
 * Keeps checkpoints in several places. It first checks that the checkpoints found there still fit, and reports a place
 * that has not been reached for a long time.
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
  // Checkpoints found when this process began: those of its predecessor.
  readonly #before = new Map<string, string>();
  // Places that could not be reached or written at the last try.
  readonly #away = new Map<string, UnreachedAnchor>();
  #anchored = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(parts: {
    ledger: Ledger;
    keyText: string;
    anchors: readonly Anchor[];
    clock: () => Date;
    warn: (message: string) => void;
    /** Replicas share the ledger. Its database decides which of them signs, and they take turns. */
    isShared?: boolean;
    /** Receives a checkpoint that the ledger does not extend, to be kept for an investigation. */
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

  /** Places that could not be reached at the last try. */
  get unreached(): readonly UnreachedAnchor[] {
    return [...this.#away.values()];
  }

  /**
   * Runs before anything is signed: every checkpoint that can be read must fit. A place that cannot be reached is
   * reported and retried later.
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
   * Stores the newest checkpoint in every place and records where it is. Never throws: a place that contradicts the
   * ledger halts the ledger.
   */
  keep(): Promise<void> {
    this.#running = this.#running.then(() => this.#keep());
    return this.#running;
  }

  async #keep(): Promise<void> {
    const note = this.#ledger.read.latestCheckpoint();
    const newest = note === undefined ? undefined : openCheckpoint(note, this.#keys);
    // Skip if only the entries about the last anchoring are new.
    if (note === undefined || newest === undefined || newest.size - this.#anchored <= this.#anchors.length) return;
    for (const anchor of this.#anchors) {
      try {
        const fits = await this.#tryRead(anchor);
        if (!fits) continue;
        await anchor.write(note);
        this.#away.delete(anchor.name);
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

  // A checkpoint that appeared while this process signs, but that it did not make, comes from a second process that
  // signs too.
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
      `another service signs this ledger: instance ${theirs.id} since ${theirs.since}, ` +
        `according to the checkpoint kept in ${place}`,
      'stop one of them: is its data directory a copy? `countersign ledger verify --against` shows where they diverge',
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
    const begun = this.#away.get(anchor.name)?.since ?? new Date(now).toISOString();
    this.#away.set(anchor.name, { name: anchor.name, since: begun, reason: messageOf(thrown) });
    if (since === undefined) this.#reached.set(anchor.name, now);
    const late = since !== undefined && now - since > STALE_MS ? '; nothing has been stored there for a day' : '';
    this.#warn(`cannot store the checkpoint in ${anchor.name}: ${messageOf(thrown)}${late}`);
  }
}
