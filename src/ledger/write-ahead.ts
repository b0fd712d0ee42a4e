import { appendFileSync, closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import {
  CountersignError,
  canonicalJson,
  type Entry,
  type EntryBody,
  type EntryType,
  messageOf,
  Recent,
  type Recorded,
  within,
} from '../model/index.ts';
import { type Evidence, evidenceRef } from './evidence.ts';

/** The append side of a ledger as the rooms ask for it, and what of reading is needed to find an entry again. */
type Recorder = {
  record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded>;
  subject(text: string): string;
  latest<T extends EntryType>(types: readonly T[], environment: string, before?: number): Recorded | undefined;
};

type Line = {
  readonly body: EntryBody;
  readonly evidence: readonly Evidence[];
  /** Texts behind commitments that the ledger may not have yet. */
  readonly names: Readonly<Record<string, string>>;
  /** ISO 8601. */
  readonly at: string;
};
/** `original`: the same, given to the ledger, of which nothing was heard in time. */
type Beside = Line & { readonly original: Promise<Recorded> | undefined };

type Options = {
  readonly warn: (message: string) => void;
  readonly clock: () => Date;
  /** Milliseconds that the ledger is waited for. */
  readonly patience?: number;
};

const PATIENCE_MS = 1000; // a fifth of what the API server gives an admission request
const MERGE_MS = 1000;
const MAX_BYTES = 64 * 1024 * 1024; // an hour without a ledger is some thousand lines; a flood must not fill the disk
const NAMES = 5000;
const SUBJECT_MS = 1000; // a name that is erased gets a new commitment from then on
const SLACK_MS = 10_000; // the ledger was given it this long before, at most
const LOOK_BACK = 20_000; // entries among which one that was merged before a crash is looked for

/**
 * What must be durable now although the ledger is away goes into a file beside it, one JSON document a line, synced. It goes onto
 * the ledger before anything else is recorded, in the order in which it came, once.
 */
export class WriteAhead {
  readonly #file: string;
  readonly #recorder: Recorder;
  readonly #options: Options;
  readonly #names = new Recent<string>(NAMES);
  readonly #subjects = new Recent<{ readonly commitment: string; readonly at: number }>(NAMES);
  #beside: Beside[] = [];
  #bytes = 0;
  #descriptor: number | undefined;
  #merging: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** Reads what an earlier process left. Throws `ledger-unusable` where the file cannot be read. */
  constructor(file: string, recorder: Recorder, options: Options) {
    this.#file = file;
    this.#recorder = recorder;
    this.#options = options;
    const { lines, bytes } = readLines(file, options.warn);
    this.#beside = lines.map((line) => ({ ...line, original: undefined }));
    this.#bytes = bytes;
    if (this.#beside.length > 0) this.#goOn();
  }

  /** How many records are beside the ledger. */
  get waiting(): number {
    return this.#beside.length;
  }

  /** As the ledger's own, remembered for a moment: admission asks for the same few accounts thousands of times. */
  subject(text: string): string {
    const known = this.#subjects.get(text);
    if (known !== undefined && performance.now() - known.at < SUBJECT_MS) return known.commitment;
    const commitment = this.#recorder.subject(text);
    this.#names.set(commitment, text);
    this.#subjects.set(text, { commitment, at: performance.now() });
    return commitment;
  }

  /** As the ledger's own, after what is beside it. */
  async record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded> {
    if (this.#beside.length > 0) await this.merge();
    return this.#recorder.record(body, evidence);
  }

  /** Durable when it resolves: on the ledger, or (undefined) in the file. Throws where neither can be written. */
  async recordSurely(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded | undefined> {
    if (this.#beside.length > 0) {
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
      if (thrown instanceof CountersignError && thrown.recover !== 'retry') throw thrown; // the ledger is there, and says no
      this.#append({ body, evidence, original: undefined });
    }
    return undefined;
  }

  /** Puts everything onto the ledger that is beside it. Throws as the ledger does, and what is not on it yet stays. */
  merge(): Promise<void> {
    this.#merging ??= this.#merge().finally(() => {
      this.#merging = undefined;
    });
    return this.#merging;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    if (this.#beside.length > 0)
      await this.merge().catch((thrown) => this.#options.warn(`records stay beside the ledger until the next start: ${messageOf(thrown)}`));
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  async #merge(): Promise<void> {
    const count = this.#beside.length;
    for (let line = this.#beside[0]; line !== undefined; line = this.#beside[0]) {
      const heard =
        line.original === undefined
          ? false
          : await line.original.then(
              () => true,
              () => false,
            );
      if (!heard && !this.#isOnLedger(line))
        await this.#recorder.record(...this.#late(line)).catch((thrown) => this.#setAside(line, thrown));
      this.#beside.shift();
    }
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (this.#descriptor === undefined && !existsSync(this.#file)) return;
    const descriptor = this.#open();
    ftruncateSync(descriptor, 0);
    fsyncSync(descriptor);
    this.#bytes = 0;
    this.#options.warn(`the ledger is back: ${count} records that were kept beside it are on it now`);
  }

  // What the ledger will never take (a line of another version) must not keep everything else from it. It is kept, and told.
  #setAside({ original: _, ...line }: Beside, thrown: unknown): void {
    if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
    const aside = `${this.#file}.refused`;
    appendFileSync(aside, `${JSON.stringify(line)}\n`, { mode: 0o600 });
    this.#options.warn(`a record that was kept beside the ledger does not fit it, and lies in \`${aside}\`: ${messageOf(thrown)}`);
  }

  // With the moment at which it was, and commitments that the ledger can open.
  #late({ body, evidence, names, at }: Line): [EntryBody, readonly Evidence[]] {
    const named = (text: string) =>
      Object.entries(names).reduce((t, [commitment, name]) => t.replaceAll(commitment, this.#recorder.subject(name)), text);
    if (body.type === 'admission.allowed') {
      const [again] = evidence.map(({ bytes }) => evidenceRef(JSON.parse(named(bytes))));
      return again === undefined ? [body, evidence] : [{ ...body, evidence: again.ref }, [again]];
    }
    return [{ ...(JSON.parse(named(JSON.stringify(body))) as EntryBody), at } as EntryBody, evidence];
  }

  // A process that was killed between the two may have left the line of what it had merged.
  #isOnLedger({ body, at }: Line): boolean {
    const environment = (body as { environment?: string }).environment ?? '';
    let found = this.#recorder.latest([body.type], environment);
    for (let looked = 0; found !== undefined && looked < LOOK_BACK && Date.parse(found.entry.time) >= Date.parse(at) - SLACK_MS; looked++) {
      if (isSame(found.entry, body)) return true;
      found = this.#recorder.latest([body.type], environment, found.index);
    }
    return false;
  }

  #append({ body, evidence, original }: Pick<Beside, 'body' | 'evidence' | 'original'>): void {
    const spelled = canonicalJson(body);
    const names = Object.fromEntries(
      [...[spelled, ...evidence.map((e) => e.bytes)].join(' ').matchAll(/subject:[0-9a-f]{64}/g)].flatMap(([commitment]) => {
        const name = this.#names.get(commitment);
        return name === undefined ? [] : [[commitment, name]];
      }),
    );
    const line: Line = { body, evidence, names, at: this.#options.clock().toISOString() };
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    if (this.#bytes + bytes.length > MAX_BYTES)
      throw new CountersignError('ledger-unusable', 'the ledger is away, and the file beside it is full', { recover: 'retry' });
    try {
      const descriptor = this.#open();
      writeSync(descriptor, bytes, 0, bytes.length, this.#bytes);
      fsyncSync(descriptor);
    } catch (cause) {
      throw new CountersignError('ledger-unusable', `neither the ledger nor \`${this.#file}\` can be written: ${messageOf(cause)}`, {
        cause,
        recover: 'retry',
      });
    }
    this.#bytes += bytes.length;
    if (this.#beside.length === 0)
      this.#options.warn('the ledger does not answer: what is let through is recorded beside it until it does');
    this.#beside.push({ ...line, original });
    this.#goOn();
  }

  #open(): number {
    this.#descriptor ??= openSync(this.#file, existsSync(this.#file) ? 'r+' : 'w+', 0o600);
    return this.#descriptor;
  }

  #goOn(): void {
    this.#timer ??= setInterval(() => void this.merge().catch(() => {}), MERGE_MS).unref();
  }
}

function isSame(entry: Entry, body: EntryBody): boolean {
  const uid = (body as { uid?: string }).uid;
  if (uid !== undefined) return (entry as { uid?: string }).uid === uid;
  const { v: _, time: __, at: ___, ...plain } = entry as Entry & { at?: string };
  return canonicalJson(plain) === canonicalJson(body);
}

// The last line of a process that was killed while it wrote is not whole; nothing was let through on its strength.
function readLines(file: string, warn: (message: string) => void): { readonly lines: Line[]; readonly bytes: number } {
  if (!existsSync(file)) return { lines: [], bytes: 0 };
  try {
    const text = readFileSync(file);
    const bytes = text.lastIndexOf(10) + 1;
    if (bytes < text.length) warn(`the last line of \`${file}\` is not whole and is left out`);
    const lines = text
      .subarray(0, bytes)
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== '');
    return { lines: lines.map((line) => JSON.parse(line) as Line), bytes };
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `\`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      hint: 'it holds what was let through while the ledger was away: keep a copy of it before you take it away',
    });
  }
}
