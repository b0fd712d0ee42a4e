import { extname, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { CountersignError, type Entry, type EntryBody, MAX_ENTRY, type Recorded } from '../model/index.ts';
import type { Evidence } from './evidence.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import { parseVerifier, type Verifier } from './note.ts';
import type { LedgerPlace } from './open-sequencer.ts';
import { type Known, referenceProblem, refers } from './references.ts';
import { type Found, laterOf, prepare, type Sequenced } from './sequencer.ts';
import type { Sharing } from './shared-sequencer.ts';
import { type PreparedEntry, pack, type Subject, subjectOf } from './store.ts';
import type { Fault, FromWriter, ToWriter, WriterData } from './writer-thread.ts';

/** Returns the path of a ledger's store, given its data directory or the store itself. */
export function ledgerFile(path: string): string {
  return path.endsWith('.db') ? path : join(path, LEDGER_FILES.store);
}

// entries per commit: enough to share the cost of a commit, few enough to keep both threads busy
const MAX_BATCH = 2048;
const IN_FLIGHT = 3; // batches sent to the thread: one is committed while the next are on their way

const MAX_WAITING = 20_000; // entries of each kind that wait to be sent, and their bytes below
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
const REFUSALS_MS = 250; // refusals on their way may delay an entry that must not wait by about this long
const FEWEST_REFUSALS = 64; // sent together; fewer would not use what a commit costs

type Waiting = {
  entry: Entry;
  prepared: PreparedEntry;
  readonly evidence: readonly Evidence[];
  readonly resolve: (recorded: Recorded) => void;
  readonly reject: (reason: unknown) => void;
};

export type LedgerOptions = {
  readonly clock?: (() => Date) | undefined;
  readonly warn?: ((message: string) => void) | undefined;
  /** Receives how many entries have been read back while the ledger is opened. */
  readonly progress?: ((done: number) => void) | undefined;
} & Pick<LedgerPlace, 'key' | 'newEpoch' | 'rotation' | 'postgres' | 'holdFor' | 'instance'>;

/**
 * The append side of a ledger, held by one process. Entries are checked, serialised and hashed here. A separate thread
 * numbers, signs and commits them; entries that arrive meanwhile share the next commit.
 */
export class Ledger {
  /** The file that readers open. */
  readonly file: string;
  readonly read: LedgerReader;
  readonly verifier: Verifier;
  /** State of the store when it was opened. */
  readonly found: Found;
  readonly #writer: Writer;
  readonly #clock: () => Date;
  readonly #holdFor: LedgerOptions['holdFor'];
  // Commitments that are not durable yet. All others are looked up, because they may be erased at any time.
  readonly #subjects = new Map<string, string>();
  #newSubjects: Subject[] = [];
  #time: string;
  // Shared, so that other threads notice new entries.
  readonly #size = new BigInt64Array(new SharedArrayBuffer(8));
  readonly #waiting = { first: new Queue(), later: new Queue() };
  #refusalsSent = 0;
  #sentTime = '';
  #doneAt = 0;
  #msPerEntry = 1;
  #hasFailed = false;
  /** Called when the ledger takes records again, after it did not. */
  onBack: () => void = () => {};
  #isScheduled = false;
  #broken: CountersignError | undefined;
  #held: CountersignError | undefined;

  constructor(directory: string, writer: Writer, clock: () => Date, holdFor?: LedgerOptions['holdFor']) {
    this.#holdFor = holdFor;
    this.file = join(directory, LEDGER_FILES.store);
    this.read = new LedgerReader(this.file);
    this.#writer = writer;
    this.#clock = clock;
    this.verifier = parseVerifier(writer.opened.verifier);
    this.found = writer.opened.found;
    Atomics.store(this.#size, 0, BigInt(writer.opened.size));
    this.#time = writer.opened.found.lastTime;
    writer.onEnd = (error) => this.#break(error);
    writer.onSharing = ({ isAvailable }) => {
      if (isAvailable) this.#isBack();
      else this.#hasFailed = true;
    };
  }

  /** Number of durable entries. */
  get size(): number {
    return Number(Atomics.load(this.#size, 0));
  }

  /** `size` for other threads: one BigInt64. It grows before the caller of `record` gets its answer. */
  get sizeCell(): SharedArrayBuffer {
    return this.#size.buffer;
  }

  /** Number of entries that were given to the ledger and are not durable yet. */
  get backlog(): number {
    return this.#waiting.first.length + this.#waiting.later.length + this.#writer.entriesInFlight;
  }

  /** How replicas share the ledger; undefined for a ledger in a file. */
  get sharing(): Sharing | undefined {
    return this.#writer.sharing;
  }

  /**
   * Resolves once the entry and its evidence are durable and covered by a signed checkpoint. Refusals of requests let
   * everything else pass. Throws `ledger-unusable` or `ledger-inconsistent`; then nothing is acknowledged.
   */
  record(body: EntryBody, evidence: readonly Evidence[] = []): Promise<Recorded> {
    return new Promise((resolve, reject) => {
      const refusal = this.#broken ?? this.#held;
      if (refusal !== undefined) return reject(refusal);
      this.#time = laterOf(this.#clock().toISOString(), this.#time);
      const entry = { v: 1, time: this.#time, ...body } as Entry;
      const prepared = prepareOr(entry, reject);
      if (prepared === undefined) return;
      const problem = this.#problemOf(entry, evidence);
      if (problem !== undefined) return reject(unfit(entry.type, `is not recorded: ${problem}`));
      const queue = isRefusal(entry) ? this.#waiting.later : this.#waiting.first;
      if (!queue.add({ entry, prepared, evidence, resolve, reject })) return reject(new Overloaded());
      this.#schedule();
    });
  }

  /**
   * Returns a commitment to a personal text, for use in entries and evidence: `subject:` and 64 hex digits. The text
   * becomes durable with the next entry, in a table from which it can be erased. Readers put it back in place.
   */
  subject(text: string): string {
    const known = this.#subjects.get(text) ?? this.read.commitmentTo(text);
    if (known !== undefined) return known;
    const subject = subjectOf(text);
    this.#subjects.set(text, subject.commitment);
    this.#newSubjects.push(subject);
    return subject.commitment;
  }

  /** Stops signing because of this error: a checkpoint kept elsewhere shows that the ledger has changed. */
  halt(error: CountersignError): void {
    this.#break(error);
  }

  /** Pauses recording because of this error; undefined resumes it. */
  hold(error: CountersignError | undefined): void {
    this.#held = error;
  }

  /** Waits until everything submitted is recorded or refused, then releases the ledger. */
  async close(): Promise<void> {
    while (this.#waiting.first.length + this.#waiting.later.length > 0 && this.#broken === undefined) {
      this.#flush();
      await this.#writer.idle();
    }
    await this.#writer.idle();
    this.read.close(); // before the writer, which closes last and merges everything into the one file
    await this.#writer.close();
  }

  // Entries are only checked against durable entries: an entry that refers to another is written after that one was
  // acknowledged.
  #problemOf(entry: Entry, evidence: readonly Evidence[]): string | undefined {
    if (!refers(entry)) return undefined;
    const { read } = this;
    const known: Known = {
      // Other replicas record too.
      get size() {
        return read.size;
      },
      entry: (index) => read.entry(index)?.entry,
      hasEvidence: (digest) =>
        evidence.some((e) => e.ref.sha256 === digest) || read.evidenceBytes(digest) !== undefined,
    };
    // The ledger's time may be ahead of the clock; it continues from there.
    const now = Math.max(this.#clock().getTime(), Date.parse(this.#time));
    return referenceProblem(entry, known, { now, holdFor: this.#holdFor });
  }

  #schedule(): void {
    if (this.#isScheduled || this.#writer.inFlight >= IN_FLIGHT) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    const { batch, refusals } = this.#next();
    if (batch.length === 0) return;
    this.#refusalsSent += refusals;
    const sentAt = performance.now();
    const subjects = this.#newSubjects;
    this.#newSubjects = [];
    const message = {
      entries: pack(batch.map((w) => w.prepared)),
      evidence: batch.flatMap((w) => w.evidence.map(asRow)),
      subjects,
    };
    this.#writer.append(message).then(
      (done) => {
        this.#refusalsSent -= refusals;
        this.#measure(batch.length, sentAt);
        this.#isBack();
        for (const { text } of subjects) this.#subjects.delete(text);
        this.#acknowledge(batch, done);
      },
      (error: CountersignError) => {
        this.#refusalsSent -= refusals;
        this.#newSubjects.unshift(...subjects);
        this.#hasFailed = true;
        if (error.recover === 'halt') this.#broken = error;
        for (const { reject } of batch) reject(error);
        this.#flush();
      },
    );
    this.#schedule();
  }

  /** Takes what is sent next, with times that do not go back: refusals may have been overtaken. */
  #next(): { readonly batch: readonly Waiting[]; readonly refusals: number } {
    if (this.#writer.inFlight >= IN_FLIGHT) return { batch: [], refusals: 0 };
    const first = this.#waiting.first.take(MAX_BATCH);
    const quick = Math.max(FEWEST_REFUSALS, Math.floor(REFUSALS_MS / this.#msPerEntry));
    const refusals = this.#waiting.later.take(Math.min(MAX_BATCH - first.length, quick - this.#refusalsSent));
    const batch = [...first, ...refusals];
    for (const waiting of batch) {
      if (waiting.entry.time < this.#sentTime) {
        waiting.entry = { ...waiting.entry, time: this.#sentTime };
        waiting.prepared = prepare(waiting.entry);
      }
      this.#sentTime = waiting.entry.time;
    }
    return { batch, refusals: refusals.length };
  }

  #isBack(): void {
    if (!this.#hasFailed) return;
    this.#hasFailed = false;
    this.onBack();
  }

  // The time of the thread itself: a batch may have waited for the one before.
  #measure(entries: number, sentAt: number): void {
    const now = performance.now();
    const each = (now - Math.max(sentAt, this.#doneAt)) / entries;
    this.#doneAt = now;
    this.#msPerEntry = 0.5 * this.#msPerEntry + 0.5 * each;
  }

  #acknowledge(batch: readonly Waiting[], { first, size, bodies }: Sequenced): void {
    Atomics.store(this.#size, 0, BigInt(size));
    this.#flush();
    for (const [i, { entry, resolve }] of batch.entries()) {
      const body = bodies?.[i]; // recorded with a different time than given
      resolve({ index: first + i, entry: body === undefined ? entry : (JSON.parse(body) as Entry) });
    }
  }

  #break(error: CountersignError): void {
    this.#broken ??= error;
    for (const queue of [this.#waiting.first, this.#waiting.later])
      for (const { reject } of queue.take(queue.length)) reject(error);
  }
}

/** Thrown for an entry if so many wait already that it cannot be kept in memory. It was not recorded. */
export class Overloaded extends CountersignError {
  constructor() {
    super('ledger-unusable', 'too many entries wait for the ledger', {
      recover: 'retry',
      hint: 'see `countersign_ledger_backlog`, and who sends so many requests',
    });
  }
}

/** Tests for the refusal of a request. It holds without its record, so it can wait. */
export function isRefusal({ type }: Pick<EntryBody, 'type'>): boolean {
  return type === 'admission.denied' || type === 'admission.warned';
}

/** Entries in order of arrival, limited in number and size. */
class Queue {
  #items: Waiting[] = [];
  #bytes = 0;

  get length(): number {
    return this.#items.length;
  }

  /** Returns false if there is no room. A single entry of any size fits. */
  add(item: Waiting): boolean {
    const size = sizeOf(item);
    const isFull = this.#items.length >= MAX_WAITING || this.#bytes + size > MAX_WAITING_BYTES;
    if (isFull && this.#items.length > 0) return false;
    this.#items.push(item);
    this.#bytes += size;
    return true;
  }

  take(count: number): Waiting[] {
    const taken = this.#items.splice(0, Math.max(0, count));
    for (const item of taken) this.#bytes -= sizeOf(item);
    return taken;
  }
}

function sizeOf({ prepared, evidence }: Waiting): number {
  return evidence.reduce((sum, { bytes }) => sum + bytes.length, prepared.body.length);
}

// An entry that does not fit is refused here and holds up no other.
function prepareOr(entry: Entry, reject: (reason: unknown) => void): PreparedEntry | undefined {
  try {
    const prepared = prepare(entry);
    if (prepared.body.length <= MAX_ENTRY / 3 || Buffer.byteLength(prepared.body) <= MAX_ENTRY) return prepared;
    reject(unfit(entry.type, `is larger than ${MAX_ENTRY} bytes`));
  } catch (thrown) {
    reject(thrown instanceof TypeError ? unfit(entry.type, `does not fit its schema: ${thrown.message}`) : thrown);
  }
  return undefined;
}

function asRow({ ref, bytes }: Evidence): { sha256: string; bytes: string } {
  return { sha256: ref.sha256, bytes };
}

function unfit(type: string, why: string): CountersignError {
  return new CountersignError('ledger-unusable', `an entry of type \`${type}\` ${why}`);
}

/**
 * Opens or creates the ledger in a data directory. Everything stored is read back: every leaf, the last checkpoint and
 * the anchor must match the signed state.
 *
 * Throws `ledger-inconsistent` (halt) if they do not, `ledger-held` while another process holds the ledger, and
 * `key-missing` if the key that continues it is absent.
 */
export async function openLedger(directory: string, origin: string, options: LedgerOptions = {}): Promise<Ledger> {
  const clock = options.clock ?? (() => new Date());
  const { key, newEpoch, rotation, postgres, holdFor, instance } = options;
  const place = { directory, origin, key, newEpoch, rotation, postgres, holdFor, instance };
  const writer = await Writer.start({ place, startedAt: clock().getTime() }, options);
  return new Ledger(directory, writer, clock, holdFor);
}

const YOUNG_MIB = 3; // entries are short-lived; without a limit this space grows to 48

/** Main-thread side of the thread that writes. */
class Writer {
  readonly opened: { readonly verifier: string; readonly size: number; readonly found: Found };
  onEnd: (error: CountersignError) => void = () => {};
  readonly #worker: Worker;
  readonly #pending = new Map<
    number,
    { resolve: (done: Sequenced) => void; reject: (error: CountersignError) => void; readonly entries: number }
  >();
  entriesInFlight = 0;
  sharing: Sharing | undefined;
  onSharing: (sharing: Sharing) => void = () => {};
  #next = 0;
  #closed: (() => void) | undefined;
  #quiet: (() => void)[] = [];

  private constructor(
    worker: Worker,
    opened: Writer['opened'],
    sharing: Sharing | undefined,
    options: Pick<LedgerOptions, 'warn'>,
  ) {
    this.sharing = sharing;
    this.#worker = worker;
    this.opened = opened;
    for (const event of ['message', 'error', 'exit']) worker.removeAllListeners(event);
    worker.on('message', (message: FromWriter) => this.#hear(message, options));
    worker.on('error', (error) => this.#end(died(error.message)));
    worker.on('exit', () => this.#end(died('it ended')));
    worker.unref(); // an idle open ledger keeps no process alive; one with writes in flight does
  }

  static start(data: WriterData, options: Pick<LedgerOptions, 'warn' | 'progress'>): Promise<Writer> {
    const worker = new Worker(new URL(`./writer-thread${extname(import.meta.url)}`, import.meta.url), {
      workerData: data,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    let sharing: Sharing | undefined;
    return new Promise((resolve, reject) => {
      worker.on('message', (message: FromWriter) => {
        if ('sharing' in message) sharing = message.sharing;
        else if ('opened' in message) resolve(new Writer(worker, message.opened, sharing, options));
        else if ('failed' in message) reject(errorOf(message.failed));
        else if ('progress' in message) options.progress?.(message.progress);
        else if ('warning' in message) options.warn?.(message.warning);
      });
      worker.on('error', (error) => reject(died(error.message)));
      worker.on('exit', () => reject(died('it ended')));
    });
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  append(waiting: Extract<ToWriter, { id: number }>['waiting']): Promise<Sequenced> {
    const id = this.#next++;
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, entries: waiting.entries.bodies.length });
      this.entriesInFlight += waiting.entries.bodies.length;
      this.#worker.postMessage({ id, waiting } satisfies ToWriter);
    });
  }

  /** Resolves when nothing is in flight. */
  idle(): Promise<void> {
    if (this.#pending.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#quiet.push(resolve));
  }

  async close(): Promise<void> {
    await this.idle();
    if (this.#worker.threadId === -1) return;
    await new Promise<void>((resolve) => {
      this.#worker.ref();
      this.#closed = resolve;
      this.#worker.postMessage({ close: true } satisfies ToWriter);
    });
    await this.#worker.terminate();
  }

  #hear(message: FromWriter, options: Pick<LedgerOptions, 'warn'>): void {
    if ('warning' in message) options.warn?.(message.warning);
    if ('closed' in message) this.#closed?.();
    if ('sharing' in message) {
      this.sharing = message.sharing;
      this.onSharing(message.sharing);
    }
    if (!('id' in message)) return;
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    this.entriesInFlight -= pending?.entries ?? 0;
    if ('done' in message) pending?.resolve(message.done);
    else pending?.reject(errorOf(message.fault));
    if (this.#pending.size > 0) return;
    this.#worker.unref();
    for (const quiet of this.#quiet.splice(0)) quiet();
  }

  #end(error: CountersignError): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.entriesInFlight = 0;
    for (const quiet of this.#quiet.splice(0)) quiet();
    this.#closed?.();
    this.onEnd(error);
  }
}

function errorOf({ code, message, hint, recover }: Fault): CountersignError {
  return new CountersignError(code, message, { recover, ...(hint === undefined ? {} : { hint }) });
}

function died(why: string): CountersignError {
  return new CountersignError('ledger-unusable', `the ledger’s writer thread has ended: ${why}`, {
    recover: 'halt',
    hint: 'restart the service',
  });
}
