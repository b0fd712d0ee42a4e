import { appendFileSync, closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  CountersignError,
  canonicalJson,
  type Entry,
  type EntryBody,
  type EntryType,
  isDiskFull,
  messageOf,
  Recent,
  type Recorded,
  sha256,
  within,
} from '../model/index.ts';
import { DiskReserve, writeAll } from './disk-reserve.ts';
import { type Evidence, evidenceRef } from './evidence.ts';
import { isRefusal, Overloaded } from './ledger.ts';
import { CLOCK_TOLERANCE_MS } from './references.ts';
import { laterOf } from './sequencer.ts';
import { type Seal, seal, unseal } from './write-ahead-seal.ts';

/** The append side of a ledger as other rooms use it, and the reading needed to find an entry again. */
type Recorder = {
  record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded>;
  subject(text: string): string;
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before?: number,
    since?: string,
  ): Recorded | undefined;
  entry(index: number): Recorded | undefined;
  /** Number of durable entries. */
  recorded(): number;
};

/** Position up to which the file has been processed: a line's number and its authentication. */
type Mark = { readonly seq: number; readonly mac: string };

type Line = {
  readonly body: EntryBody;
  readonly evidence: readonly Evidence[];
  /** Texts behind commitments that the ledger may not have yet. */
  readonly names: Readonly<Record<string, string>>;
  /** ISO 8601. */
  readonly at: string;
  /** Number of entries on the ledger when the line was written. */
  readonly after: number;
};
/** A line that is refused, as it was found. */
type Refused = { readonly text: string; readonly reason: string };
/** `original`: the same record as given to the ledger, which did not answer in time. */
type Beside = Line & {
  readonly seq: number;
  readonly mac: string;
  readonly original: Promise<Recorded> | undefined;
  /** Whether it was recorded or set aside. It stays until all lines before it were, too. */
  isDone: boolean;
};

type Options = {
  readonly seal: Seal;
  readonly warn: (message: string) => void;
  readonly clock: () => Date;
  /** How long to wait for the ledger, in milliseconds. */
  readonly patience?: number;
  /** Space kept on the disk of the file. */
  readonly reserveBytes?: number;
};

/** Records that could be written nowhere; their requests were refused. */
type Missing = {
  readonly count: number;
  readonly since: string;
  readonly until: string;
  readonly reason: string;
};

const PATIENCE_MS = 1000; // a fifth of the time the API server allows for an admission request
const MERGE_MS = 1000;
const NOTED_EVERY_MS = 250;
// an hour without a ledger produces some thousand lines; a flood must not fill the disk
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_REFUSALS = 5000; // in the file; they are valid without a record, so the rest is left to others
const AT_ONCE = 500; // lines given to the ledger together
const NAMES = 5000;
const SUBJECT_MS = 1000; // an erased name gets a new commitment from then on
const SLACK_MS = 10_000; // how long before, at most, the ledger was given it
const LOOK_BACK = 20_000; // entries searched for a line that was merged before a crash

/**
 * Records that must be durable while the ledger is unavailable go into a file next to it, one JSON document per line,
 * synced. They go onto the ledger before anything else is recorded, in order, once.
 *
 * Each line is numbered and authenticated together with the one before, and the ledger holds the number of the newest
 * line it took. Lines that were altered, removed, moved, copied from elsewhere or restored are not recorded as facts,
 * but as `record.refused`.
 */
export class WriteAhead {
  readonly #file: string;
  readonly #recorder: Recorder;
  readonly #options: Options;
  readonly #names = new Recent<string>(NAMES);
  readonly #subjects = new Recent<{ readonly commitment: string; readonly at: number }>(NAMES);
  #beside: Beside[] = [];
  #refused: Refused[] = [];
  #bytes = 0;
  // The newest line on the ledger, and the newest processed since.
  #merged: Mark;
  #passed: Mark;
  #newest: Mark & { readonly at: string };
  #descriptor: number | undefined;
  // `first` resolves when only refusals are left.
  #merging: { readonly first: Promise<void>; readonly all: Promise<void> } | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #reserve: DiskReserve;
  #isReserveUsed = false;
  #missing: Missing | undefined;
  #notedAt = Number.NEGATIVE_INFINITY;

  /** Reads the lines an earlier process left. Throws `ledger-unusable` if the file cannot be read. */
  constructor(file: string, recorder: Recorder, options: Options) {
    this.#file = file;
    this.#recorder = recorder;
    this.#options = options;
    const { lines, bytes } = readLines(file, options.warn);
    this.#merged = this.#markOnLedger();
    this.#passed = this.#merged;
    this.#newest = { ...this.#merged, at: '' };
    this.#bytes = bytes;
    this.#readBack(lines);
    this.#reserve = new DiskReserve(`${file}.reserve`, options.reserveBytes);
    this.#fillReserve();
    this.#missing = missingIn(this.#reserve.noted());
    if (lines.length > 0 || this.#missing !== undefined) this.#goOn();
  }

  /** Number of records in the write-ahead file. */
  get waiting(): number {
    return this.#beside.length;
  }

  /** Like the ledger's own method, but cached briefly: admission asks for the same few accounts thousands of times. */
  subject(text: string): string {
    const known = this.#subjects.get(text);
    if (known !== undefined && performance.now() - known.at < SUBJECT_MS) return known.commitment;
    const commitment = this.#recorder.subject(text);
    this.#names.set(commitment, text);
    this.#subjects.set(text, { commitment, at: performance.now() });
    return commitment;
  }

  /** Like the ledger's own method, after the records in the file. It does not wait for refusals. */
  async record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded> {
    if (this.#refused.length > 0 || this.#missing !== undefined || this.#beside.some(mustBeFirst))
      await this.#start().first;
    return this.#recorder.record(body, evidence);
  }

  /**
   * Resolves once the record is durable: on the ledger, or (undefined) in the file. Throws if neither can be written,
   * and for a refusal if too many wait already.
   */
  async recordSurely(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded | undefined> {
    if (isRefusal(body)) return this.#recordRefusal(body, evidence);
    if (this.#beside.some(mustBeFirst)) {
      this.#append({ body, evidence, original: undefined });
      return undefined;
    }
    const original = this.#recorder.record(body, evidence);
    original.catch(() => {});
    try {
      const recorded = await within(this.#options.patience ?? PATIENCE_MS, original, () => undefined);
      if (recorded !== undefined) return recorded;
      this.#append({ body, evidence, original });
    } catch (thrown) {
      // the ledger is available and refuses
      if (thrown instanceof CountersignError && thrown.recover !== 'retry') throw thrown;
      this.#append({ body, evidence, original: undefined });
    }
    return undefined;
  }

  // No request waits for the record of its refusal, so a slow ledger is no reason to use the file.
  async #recordRefusal(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded | undefined> {
    if (this.#beside.length === 0)
      try {
        return await this.#recorder.record(body, evidence);
      } catch (thrown) {
        if (thrown instanceof Overloaded) throw thrown;
        if (thrown instanceof CountersignError && thrown.recover !== 'retry') throw thrown;
      }
    if (this.#beside.length >= MAX_REFUSALS) throw new Overloaded();
    this.#append({ body, evidence, original: undefined });
    return undefined;
  }

  /**
   * Moves all records from the file onto the ledger, refusals last. Throws like the ledger; records that are not on it
   * stay in the file.
   */
  merge(): Promise<void> {
    return this.#start().all;
  }

  #start(): { readonly first: Promise<void>; readonly all: Promise<void> } {
    if (this.#merging !== undefined) return this.#merging;
    const { promise: first, resolve, reject } = Promise.withResolvers<void>();
    first.catch(() => {}); // no one may wait for it
    const all = this.#merge(resolve).finally(() => {
      this.#merging = undefined;
    });
    all.then(resolve, reject);
    this.#merging = { first, all };
    return this.#merging;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    if (!this.#isMerged)
      await this.merge().catch((thrown) =>
        this.#options.warn(`records stay in the write-ahead file until the next start: ${messageOf(thrown)}`),
      );
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  get #isMerged(): boolean {
    return (
      this.#beside.length === 0 &&
      this.#refused.length === 0 &&
      this.#missing === undefined &&
      this.#passed.seq === this.#merged.seq
    );
  }

  // The ledger itself holds which lines it took. Restoring an older file does not restore that.
  #markOnLedger(): Mark {
    let found = this.#recorder.latest(['ahead.merged'], '');
    while (found !== undefined) {
      const { entry } = found;
      if (entry.type === 'ahead.merged' && entry.replica === this.#options.seal.replica)
        return { seq: entry.last, mac: entry.mac };
      found = this.#recorder.latest(['ahead.merged'], '', found.index);
    }
    return { seq: 0, mac: '' };
  }

  /** Sorts the lines of an earlier process into those to record and those to refuse. */
  #readBack(texts: readonly string[]): void {
    const read = texts.map((text) => ({ text, sealed: unseal<Line>(this.#options.seal, text) }));
    const isLastBatch =
      read.findLast(({ sealed }) => (sealed?.seq ?? Number.POSITIVE_INFINITY) <= this.#merged.seq)?.sealed?.mac ===
      this.#merged.mac;
    for (const { text, sealed } of read) {
      const refuse = (reason: string) => this.#refused.push({ text, reason });
      const { seq, mac } = this.#newest;
      if (sealed === undefined)
        refuse(
          isOlderForm(text)
            ? 'it has the older form, without authentication'
            : 'it is not authenticated by this service’s key',
        );
      else if (sealed.seq <= this.#merged.seq) {
        // A process that was killed after a merge leaves all the lines it merged.
        if (!isLastBatch) refuse('the ledger already has it: an older file was restored');
      } else if (sealed.seq <= seq) refuse('it is duplicated or out of order');
      else if (sealed.seq === seq + 1 && sealed.prev !== mac) refuse('it does not follow the line before it');
      else {
        if (sealed.seq > seq + 1) this.#refused.push({ text: '', reason: missing(seq + 1, sealed.seq - 1) });
        const problem = this.#timeProblem(sealed.line, this.#newest.at);
        if (problem === undefined)
          this.#beside.push({ ...sealed.line, seq: sealed.seq, mac: sealed.mac, original: undefined, isDone: false });
        else refuse(problem);
        this.#newest = {
          seq: sealed.seq,
          mac: sealed.mac,
          at: problem === undefined ? sealed.line.at : this.#newest.at,
        };
      }
    }
    if (this.#refused.length > 0)
      this.#options.warn(
        `${this.#refused.length === 1 ? '1 record' : `${this.#refused.length} records`} ` +
          `in \`${this.#file}\` refused: ${this.#refused[0]?.reason}`,
      );
  }

  #timeProblem({ at, after }: Line, before: string): string | undefined {
    const size = this.#recorder.recorded();
    if (after > size) return `it was written when the ledger had ${after} entries, but the ledger has ${size}`;
    const last = Date.parse(this.#recorder.entry(size - 1)?.entry.time ?? '') || 0;
    const now = this.#options.clock().getTime();
    if (!(Date.parse(at) <= Math.max(now, last) + CLOCK_TOLERANCE_MS)) return 'its time is in the future';
    if (at < before) return 'its time is earlier than that of the line before it';
    const seen = Date.parse(this.#recorder.entry(after - 1)?.entry.time ?? '') || 0;
    // If the ledger's own time is ahead of the clock, it proves nothing.
    return seen <= now && Date.parse(at) < seen - CLOCK_TOLERANCE_MS
      ? 'its time is earlier than the ledger’s was when it was written'
      : undefined;
  }

  async #merge(onlyRefusalsLeft: () => void): Promise<void> {
    const before = this.#passed.seq;
    await this.#tellRefused();
    await this.#tellMissing();
    while (this.#beside.length > 0) {
      for (let lines = this.#undone(mustBeFirst); lines.length > 0; lines = this.#undone(mustBeFirst))
        await this.#recordLines(lines);
      if (this.#beside.length > 0) onlyRefusalsLeft();
      await this.#recordLines(this.#undone(() => true));
    }
    const count = this.#passed.seq - before;
    await this.#tellRefused();
    await this.#markMerged();
    // written meanwhile
    if (this.#beside.length > 0 || this.#missing !== undefined) return this.#merge(onlyRefusalsLeft);
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#fillReserve();
    if (this.#descriptor === undefined && !existsSync(this.#file)) return;
    const descriptor = this.#open();
    ftruncateSync(descriptor, 0);
    fsyncSync(descriptor);
    this.#bytes = 0;
    this.#options.warn(
      `the ledger is back: ${count === 1 ? '1 record' : `${count} records`} from the write-ahead file are on it now`,
    );
  }

  #undone(which: (line: Beside) => boolean): Beside[] {
    return this.#beside.filter((line) => !line.isDone && which(line)).slice(0, AT_ONCE);
  }

  // Together, so that they share a commit. The ledger keeps their order.
  async #recordLines(lines: readonly Beside[]): Promise<void> {
    const recorded = await Promise.allSettled(lines.map((line) => this.#recordLine(line)));
    for (let line = this.#beside[0]; line?.isDone === true; line = this.#beside[0]) {
      this.#passed = { seq: line.seq, mac: line.mac };
      this.#beside.shift();
    }
    const failed = recorded.find((r) => r.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  async #recordLine(line: Beside): Promise<void> {
    const isHeard = line.original !== undefined && (await line.original.then(yes, no));
    if (!isHeard && !this.#isOnLedger(line))
      await this.#recorder.record(...this.#late(line)).catch((thrown) => this.#setAside(line, thrown));
    line.isDone = true;
  }

  // From now on the file may be emptied, and is not merged again.
  async #markMerged(): Promise<void> {
    const passed = this.#newest.seq > this.#passed.seq && this.#beside.length === 0 ? this.#newest : this.#passed;
    if (passed.seq === this.#merged.seq) return;
    const { replica } = this.#options.seal;
    await this.#recorder.record(
      { type: 'ahead.merged', replica, first: this.#merged.seq + 1, last: passed.seq, mac: passed.mac },
      [],
    );
    this.#merged = { seq: passed.seq, mac: passed.mac };
    this.#passed = this.#merged;
  }

  // Refused lines are kept, and recorded on the ledger by their digest: one entry per reason, however many lines.
  async #tellRefused(): Promise<void> {
    for (const [reason, lines] of Map.groupBy(this.#refused, (r) => r.reason)) {
      const texts = lines.map((l) => l.text).filter((text) => text !== '');
      if (texts.length > 0)
        appendFileSync(`${this.#file}.refused`, texts.map((text) => `${text}\n`).join(''), { mode: 0o600 });
      const digest = sha256(texts.join('\n'));
      const { replica } = this.#options.seal;
      this.#refused = this.#refused.filter((r) => r.reason !== reason || !lines.includes(r));
      await this.#recorder
        .record({ type: 'record.refused', source: 'write-ahead', replica, reason, digest, count: lines.length }, [])
        .catch((thrown) => {
          // The lines are already kept; only the entry is missing.
          this.#refused.push(...lines.map((l) => ({ ...l, text: '' })));
          throw thrown;
        });
    }
  }

  // A line the ledger will never accept, such as one of another version, must not block the rest. It is kept and
  // reported.
  #setAside({ original: _, seq: __, mac: ___, isDone: ____, ...line }: Beside, thrown: unknown): void {
    if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
    this.#refused.push({ text: JSON.stringify(line), reason: messageOf(thrown).slice(0, 300) });
    const aside = `${this.#file}.refused`;
    this.#options.warn(
      `a record in the write-ahead file does not fit the ledger, and was moved to \`${aside}\`: ${messageOf(thrown)}`,
    );
  }

  // Adds the time of the record, and commitments that the ledger can open.
  #late({ body, evidence, names, at }: Line): [EntryBody, readonly Evidence[]] {
    const named = (text: string) =>
      Object.entries(names).reduce(
        (t, [commitment, name]) => t.replaceAll(commitment, this.#recorder.subject(name)),
        text,
      );
    if (body.type === 'admission.allowed' || body.type === 'admission.proven') {
      const [again] = evidence.map(({ bytes }) => evidenceRef(JSON.parse(named(bytes))));
      return again === undefined ? [body, evidence] : [{ ...body, evidence: again.ref }, [again]];
    }
    return [{ ...(JSON.parse(named(JSON.stringify(body))) as EntryBody), at } as EntryBody, evidence];
  }

  // A process killed between the two steps may have left the line it had just merged.
  #isOnLedger({ body, at }: Line): boolean {
    const environment = (body as { environment?: string }).environment ?? '';
    const since = new Date(Date.parse(at) - SLACK_MS).toISOString();
    let found = this.#recorder.latest([body.type], environment, undefined, since);
    for (
      let looked = 0;
      found !== undefined && looked < LOOK_BACK && Date.parse(found.entry.time) >= Date.parse(at) - SLACK_MS;
      looked++
    ) {
      if (isSame(found.entry, body)) return true;
      found = this.#recorder.latest([body.type], environment, found.index, since);
    }
    return false;
  }

  #append({ body, evidence, original }: Pick<Beside, 'body' | 'evidence' | 'original'>): void {
    const spelled = canonicalJson(body);
    const names = Object.fromEntries(
      [...[spelled, ...evidence.map((e) => e.bytes)].join(' ').matchAll(/subject:[0-9a-f]{64}/g)].flatMap(
        ([commitment]) => {
          const name = this.#names.get(commitment);
          return name === undefined ? [] : [[commitment, name]];
        },
      ),
    );
    const at = laterOf(this.#options.clock().toISOString(), this.#newest.at);
    const line: Line = { body, evidence, names, at, after: this.#recorder.recorded() };
    const sealed = seal(
      this.#options.seal,
      this.#newest.seq + 1,
      this.#newest.mac,
      JSON.parse(JSON.stringify(line)) as Line,
    );
    const bytes = Buffer.from(`${JSON.stringify(sealed)}\n`);
    if (this.#bytes + bytes.length > MAX_BYTES)
      throw this.#lost(
        `the ledger is unavailable, and \`${this.#file}\` is full`,
        'bring the ledger back: it then takes these records',
      );
    try {
      this.#write(bytes, isRefusal(body));
    } catch (cause) {
      throw this.#lost(
        `cannot write the ledger or \`${this.#file}\`: ${messageOf(cause)}`,
        isDiskFull(cause)
          ? `free space on the disk of \`${dirname(this.#file)}\`, or give --write-ahead DIR on another disk`
          : 'bring the ledger back, or make that file writable',
        cause,
      );
    }
    this.#bytes += bytes.length;
    if (this.#beside.length === 0)
      this.#options.warn(
        'the ledger does not answer: allowed requests are recorded in the write-ahead file until it does',
      );
    this.#newest = { seq: sealed.seq, mac: sealed.mac, at };
    this.#beside.push({ ...line, seq: sealed.seq, mac: sealed.mac, original, isDone: false });
    this.#goOn();
  }

  // On a full disk, the reserve makes room; only half of it for refusals, which are valid without a record. Another
  // program may be faster: then the next piece does.
  #write(bytes: Uint8Array, isOfRefusal: boolean): void {
    for (;;) {
      try {
        const descriptor = this.#open();
        writeAll(descriptor, bytes, this.#bytes);
        fsyncSync(descriptor);
        return;
      } catch (thrown) {
        if (!isDiskFull(thrown) || !this.#reserve.release(isOfRefusal ? 0.5 : 0)) throw thrown;
        if (!this.#isReserveUsed)
          this.#options.warn(`the disk of \`${this.#file}\` is full: records go into the space that was kept for them`);
        this.#isReserveUsed = true;
      }
    }
  }

  // Counts a record that could be written nowhere, and returns the error for its request.
  #lost(message: string, hint: string, cause?: unknown): CountersignError {
    const now = this.#options.clock().toISOString();
    const { count = 0, since = now } = this.#missing ?? {};
    this.#missing = { count: count + 1, since, until: now, reason: messageOf(cause ?? message).slice(0, 300) };
    // A full disk may well end the process. In a flood, a moment of it may go uncounted then.
    if (count === 0 || performance.now() - this.#notedAt > NOTED_EVERY_MS) this.#note();
    this.#goOn();
    return new CountersignError('ledger-unusable', `${message}; ${hint}`, { cause, recover: 'retry', hint });
  }

  #note(): void {
    this.#notedAt = performance.now();
    this.#reserve.note(this.#missing === undefined ? '' : JSON.stringify(this.#missing));
  }

  // How many records are missing is on the ledger before anything else is.
  async #tellMissing(): Promise<void> {
    const missing = this.#missing;
    if (missing === undefined) return;
    this.#missing = undefined;
    await this.#recorder
      .record({ type: 'records.missing', replica: this.#options.seal.replica, ...missing }, [])
      .catch((thrown) => {
        const later = this.#missing;
        this.#missing =
          later === undefined ? missing : { ...later, count: later.count + missing.count, since: missing.since };
        throw thrown;
      });
    this.#note();
  }

  #open(): number {
    this.#descriptor ??= openSync(this.#file, existsSync(this.#file) ? 'r+' : 'w+', 0o600);
    return this.#descriptor;
  }

  #fillReserve(): void {
    if (this.#reserve.fill()) this.#isReserveUsed = false;
    else
      this.#options.warn(
        `the disk of \`${this.#file}\` has no space to keep for records; if it fills up, break-glass is refused`,
      );
  }

  #goOn(): void {
    this.#timer ??= setInterval(() => void this.merge().catch(() => {}), MERGE_MS).unref();
  }
}

const [yes, no] = [() => true, () => false];

function mustBeFirst({ body, isDone }: Beside): boolean {
  return !isDone && !isRefusal(body);
}

function missing(first: number, last: number): string {
  return first === last
    ? `record ${first} is missing from the file`
    : `records ${first} to ${last} are missing from the file`;
}

function missingIn(note: string): Missing | undefined {
  try {
    const { count, since, until, reason } = JSON.parse(note) as Record<keyof Missing, unknown>;
    const isText = (value: unknown): value is string => typeof value === 'string';
    return Number.isSafeInteger(count) && isText(since) && isText(until) && isText(reason)
      ? { count: count as number, since, until, reason }
      : undefined;
  } catch {
    return undefined; // there is none
  }
}

function isOlderForm(text: string): boolean {
  return text.startsWith('{"body":');
}

function isSame(entry: Entry, body: EntryBody): boolean {
  const uid = (body as { uid?: string }).uid;
  if (uid !== undefined) return (entry as { uid?: string }).uid === uid;
  const { v: _, time: __, at: ___, ...plain } = entry as Entry & { at?: string };
  return canonicalJson(plain) === canonicalJson(body);
}

// If a process was killed while writing, its last line is incomplete. Nothing was allowed because of it.
function readLines(
  file: string,
  warn: (message: string) => void,
): { readonly lines: string[]; readonly bytes: number } {
  if (!existsSync(file)) return { lines: [], bytes: 0 };
  try {
    const text = readFileSync(file);
    const bytes = text.lastIndexOf(10) + 1;
    if (bytes < text.length) warn(`the last line of \`${file}\` is incomplete and is ignored`);
    const lines = text
      .subarray(0, bytes)
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== '');
    return { lines, bytes };
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `cannot read \`${file}\`: ${messageOf(cause)}`, {
      cause,
      hint: 'it records requests allowed while the ledger was unavailable: copy it before you remove it',
    });
  }
}
