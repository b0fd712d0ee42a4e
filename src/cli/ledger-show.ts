import { type EntryFilter, LedgerReader, ledgerFile, type Unread } from '../ledger/index.ts';
import {
  CountersignError,
  count,
  ENTRY_TYPES,
  type Entry,
  type EntryOf,
  type ObjectRef,
  type Recorded,
  refText,
  type Verdict,
} from '../model/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { readIndex } from './ledger.ts';
import type { LedgerShowOptions } from './ledger-commands.ts';
import { instant } from './report-definition.ts';
import { showFindings } from './show-verdict.ts';

/** Implements `countersign ledger show [INDEX]`: entries as recorded, filtered by their content. */
export function ledgerShow(index: string | undefined, options: LedgerShowOptions, io: Io): number {
  const reader = new LedgerReader(ledgerFile(options.data), options.archive).freeze();
  try {
    const filter = filterOf(index, options);
    const wanted = readIndex(options.last, Number.MAX_SAFE_INTEGER);
    const kept: Recorded[] = [];
    const unread = new UnreadEntries();
    const search = () => reader.search(filter, index === undefined ? (entry) => unread.add(entry) : undefined);
    const show = (recorded: Recorded) =>
      print(recorded, { ...options, reasons: index !== undefined || options.last === '1' }, reader, io);
    if (options.output === 'json' || options.last !== undefined) {
      for (const recorded of search()) {
        kept.push(recorded);
        if (kept.length > wanted) kept.shift();
      }
      if (options.output === 'json')
        io.out(
          `${JSON.stringify(
            kept.map((r) => asJson(r, options, reader)),
            null,
            2,
          )}\n`,
        );
      else kept.forEach(show);
      return found(kept.length, index, io, options, unread);
    }
    let shown = 0;
    for (const recorded of search()) {
      show(recorded);
      shown++;
    }
    return found(shown, index, io, options, unread);
  } finally {
    reader.close();
  }
}

function filterOf(index: string | undefined, options: LedgerShowOptions): EntryFilter {
  for (const type of options.type ?? [])
    if (!ENTRY_TYPES.some((t) => matches(t, type)))
      throw new CountersignError('usage', `there is no entry type \`${type}\``, {
        hint: `use one of ${ENTRY_TYPES.join(', ')}; or a family, such as \`apply\``,
      });
  const at = index === undefined ? undefined : readIndex(index, 0);
  const asked = [
    { text: options.principal, as: 'value' },
    { text: options.commit, as: 'prefix' },
    { text: options.object, as: 'name' },
  ] as const;
  const holds = asked.flatMap(({ text, as }) => (text === undefined ? [] : [{ text, as }]));
  return {
    ...(options.type === undefined
      ? {}
      : { types: ENTRY_TYPES.filter((t) => options.type?.some((asked) => matches(t, asked))) }),
    ...(options.environment === undefined ? {} : { environment: options.environment }),
    ...(options.since === undefined ? {} : { since: instant(options.since, '') }),
    ...(options.until === undefined ? {} : { until: instant(options.until, '') }),
    ...(at === undefined ? {} : { from: at, to: at + 1 }),
    holds,
  };
}

// Matches a type, or the family before its dot.
function matches(type: string, asked: string): boolean {
  return type === asked || type.startsWith(`${asked}.`);
}

function found(
  shown: number,
  index: string | undefined,
  io: Io,
  { output }: LedgerShowOptions,
  unread: UnreadEntries,
): number {
  if (unread.count > 0) {
    io.err(unread.line());
    return EXIT.undecided;
  }
  if (shown > 0) return EXIT.yes;
  if (output === 'text') io.err(index === undefined ? 'no entry matches\n' : `there is no entry ${index}\n`);
  return index === undefined ? EXIT.yes : EXIT.no;
}

/** Archived entries that may match and are not at hand: an answer without them is not the whole one. */
class UnreadEntries {
  count = 0;
  readonly #places = new Set<string>();
  #first = '';
  #last = '';

  add({ time, place }: Unread): void {
    if (this.count++ === 0) this.#first = time;
    this.#last = time;
    this.#places.add(place);
  }

  line(): string {
    const [first, last] = [this.#first, this.#last].map((time) => time.slice(0, 10));
    const places = [...this.#places].map((place) => `\`${plain(place)}\``).join(', ');
    return (
      `not read: ${count(this.count, 'entry', 'entries')} of ${first} to ${last} that may match ` +
      `${this.count === 1 ? 'is' : 'are'} archived in ${places}; give the directory with --archive\n`
    );
  }
}

function asJson({ index, entry }: Recorded, { evidence }: LedgerShowOptions, reader: LedgerReader): object {
  const ref = 'evidence' in entry ? entry.evidence : undefined;
  return { index, ...entry, ...(evidence && ref !== undefined ? { evidenceContent: reader.evidence(ref) } : {}) };
}

type PrintOptions = LedgerShowOptions & { readonly reasons: boolean };

function print(recorded: Recorded, options: PrintOptions, reader: LedgerReader, io: Io): void {
  if (options.output === 'jsonl') {
    io.out(`${JSON.stringify(asJson(recorded, options, reader))}\n`);
    return;
  }
  const { index, entry } = recorded;
  const where = 'environment' in entry ? ` ${entry.environment}` : '';
  const bad = /denied|refused|failed|unmatched|rewound|drift\.found|breakglass/.test(
    `${entry.type} ${'outcome' in entry ? entry.outcome : ''}`,
  );
  io.out(
    `${String(index).padStart(6)}  ${entry.time.slice(0, 19).replace('T', ' ')} ` +
      ` ${paint(io, bad ? 'red' : 'bold', entry.type)}${plain(where)}\n`,
  );
  for (const line of summary(entry)) io.out(`        ${plain(line)}\n`);
  if (entry.type === 'change.judged' && options.reasons) io.out(reasonsOf(index, entry, reader, io));
  if (options.evidence && 'evidence' in entry)
    io.out(`${indent(JSON.stringify(reader.evidence(entry.evidence), null, 2))}\n`);
}

// Every reason of a verdict with its place and fix, and the command that goes on from there.
function reasonsOf(index: number, entry: EntryOf<'change.judged'>, reader: LedgerReader, io: Io): string {
  const { violations, warnings, to } = reader.evidence(entry.evidence) as Verdict;
  const findings = showFindings(violations, warnings, io);
  const next =
    entry.outcome === 'denied'
      ? `next: mend it with a new commit and try \`countersign check --base ${entry.from.slice(0, 12)}\`; ` +
        `\`countersign provenance ${to.slice(0, 12)}\` shows the signers\n`
      : `next: \`countersign ledger prove ${index}\` proves it; ` +
        '`countersign explain KIND/NAME` finds it in the cluster\n';
  return `${findings}${findings === '' ? '' : '\n'}${paint(io, 'dim', next)}`;
}

const SHOWN_ELSEWHERE = new Set(['v', 'type', 'time', 'environment', 'evidence']);
const WIDTH = 70;

// Field by field, as many per line as fit in 80 columns.
function summary(entry: Entry): string[] {
  const lines: string[] = [];
  for (const [key, value] of Object.entries(entry)) {
    if (SHOWN_ELSEWHERE.has(key)) continue;
    const whole = `${key} ${short(value)}`;
    const part = whole.length > 3 * WIDTH ? `${whole.slice(0, 3 * WIDTH)}…` : whole;
    const last = lines.at(-1);
    if (last !== undefined && last.length + part.length + 2 <= WIDTH) lines[lines.length - 1] = `${last}, ${part}`;
    else lines.push(part);
  }
  return lines;
}

function short(value: unknown): string {
  if (typeof value === 'string')
    return /^[0-9a-f]{40,}$/.test(value) ? value.slice(0, 12) : value.replaceAll('\n', ' ');
  if (Array.isArray(value))
    return value.length > 5
      ? `${value.slice(0, 5).map(short).join(', ')} and ${value.length - 5} more`
      : value.map(short).join(', ');
  if (typeof value !== 'object' || value === null) return String(value);
  if ('kind' in value && 'name' in value && 'apiVersion' in value) return refText(value as ObjectRef);
  return Object.entries(value)
    .map(([k, v]) => `${k} ${short(v)}`)
    .join(' ');
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `        ${plain(line)}`)
    .join('\n');
}
