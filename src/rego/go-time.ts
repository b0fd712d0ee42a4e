import { Undefined } from './builtin.ts';

/** An instant with the time zone it is shown in. */
export type ZonedTime = { readonly ns: bigint; readonly zone: string };

const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const NS = 1_000_000_000n;

/** Go's named layouts. */
export const LAYOUTS: Readonly<Record<string, string>> = {
  ANSIC: 'Mon Jan _2 15:04:05 2006',
  UnixDate: 'Mon Jan _2 15:04:05 MST 2006',
  RubyDate: 'Mon Jan 02 15:04:05 -0700 2006',
  RFC822: '02 Jan 06 15:04 MST',
  RFC822Z: '02 Jan 06 15:04 -0700',
  RFC850: 'Monday, 02-Jan-06 15:04:05 MST',
  RFC1123: 'Mon, 02 Jan 2006 15:04:05 MST',
  RFC1123Z: 'Mon, 02 Jan 2006 15:04:05 -0700',
  RFC3339: '2006-01-02T15:04:05Z07:00',
  RFC3339Nano: '2006-01-02T15:04:05.999999999Z07:00',
};

// Longest first, so that `2006` is not read as `2` and `006`.
const CHUNKS = [
  'January',
  'Monday',
  '-07:00:00',
  'Z07:00:00',
  '-070000',
  'Z070000',
  '-07:00',
  'Z07:00',
  '-0700',
  'Z0700',
  '2006',
  'Jan',
  'Mon',
  'MST',
  '-07',
  'Z07',
  '__2',
  '002',
  '01',
  '02',
  '03',
  '04',
  '05',
  '06',
  '15',
  '_2',
  'PM',
  'pm',
  '1',
  '2',
  '3',
  '4',
  '5',
] as const;

type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'chunk'; readonly chunk: string }
  | { readonly kind: 'fraction'; readonly comma: boolean; readonly digits: number; readonly trimmed: boolean };

/** Splits a layout into its standard pieces and the text between them (https://pkg.go.dev/time#Layout). */
function pieces(layout: string): Piece[] {
  const found: Piece[] = [];
  let text = '';
  const push = (piece: Piece) => {
    if (text !== '') found.push({ kind: 'text', text });
    text = '';
    found.push(piece);
  };
  for (let at = 0; at < layout.length; ) {
    const rest = layout.slice(at);
    const fraction = /^[.,](0+|9+)(?!\d)/.exec(rest);
    if (fraction !== null) {
      push({
        kind: 'fraction',
        comma: rest[0] === ',',
        digits: (fraction[1] as string).length,
        trimmed: (fraction[1] as string)[0] === '9',
      });
      at += fraction[0].length;
      continue;
    }
    const chunk = CHUNKS.find((c) => rest.startsWith(c));
    // `Jan` and `Mon` only count if no lower-case letter follows, as in `Month`; `_2006` is a year.
    if (chunk === undefined || ((chunk === 'Jan' || chunk === 'Mon') && /^[a-z]/.test(rest.slice(3)))) {
      text += layout[at++];
    } else if (chunk === '_2' && rest.startsWith('_2006')) {
      text += layout[at++];
    } else {
      push({ kind: 'chunk', chunk });
      at += chunk.length;
    }
  }
  if (text !== '') found.push({ kind: 'text', text });
  return found;
}

export type Civil = {
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
  second: number;
  nanosecond: number;
  weekday: number;
  offset: number;
  zone: string;
};

function floorDiv(a: bigint, b: bigint): bigint {
  const q = a / b;
  return a % b < 0n ? q - 1n : q;
}

/**
 * Returns calendar and clock of an instant in its zone: `month` from 1, `weekday` from Sunday, `offset` in seconds.
 * Throws `Undefined` for an unknown zone.
 */
export function civil({ ns, zone }: ZonedTime): Civil {
  const seconds = Number(floorDiv(ns, NS));
  const { offset, name } = zoneAt(seconds, zone);
  const date = new Date((seconds + offset) * 1000);
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    second: date.getUTCSeconds(),
    nanosecond: Number(ns - floorDiv(ns, NS) * NS),
    weekday: date.getUTCDay(),
    offset,
    zone: name,
  };
}

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatterOf(zone: string): Intl.DateTimeFormat {
  const known = formatters.get(zone);
  if (known !== undefined) return known;
  // JavaScript also accepts offsets such as `+01:00` as zones; Go does not.
  if (!/^[A-Za-z]/.test(zone)) throw new Undefined(`unknown time zone ${zone}`);
  try {
    const made = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      timeZoneName: 'short',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
      era: 'short',
    });
    formatters.set(zone, made);
    return made;
  } catch {
    throw new Undefined(`unknown time zone ${zone}`);
  }
}

function zoneAt(seconds: number, zone: string): { offset: number; name: string } {
  // local time would depend on the machine
  if (zone === '' || zone === 'UTC' || zone === 'Local') return { offset: 0, name: 'UTC' };
  const part = Object.fromEntries(
    formatterOf(zone)
      .formatToParts(seconds * 1000)
      .map((p) => [p.type, p.value]),
  );
  const year = part['era'] === 'BC' ? 1 - Number(part['year']) : Number(part['year']);
  const local = new Date(0);
  local.setUTCFullYear(year, Number(part['month']) - 1, Number(part['day']));
  local.setUTCHours(Number(part['hour']), Number(part['minute']), Number(part['second']));
  return { offset: Math.round(local.getTime() / 1000 - seconds), name: part['timeZoneName'] ?? zone };
}

const two = (n: number) => String(n).padStart(2, '0');

/** Formats an instant by a Go layout. */
export function formatTime(time: ZonedTime, layout: string): string {
  refuseLong(layout);
  const c = civil(time);
  return pieces(layout)
    .map((piece) =>
      piece.kind === 'text'
        ? piece.text
        : piece.kind === 'fraction'
          ? fractionText(c.nanosecond, piece)
          : chunkText(piece.chunk, c),
    )
    .join('');
}

function fractionText(
  nanosecond: number,
  { comma, digits, trimmed }: { comma: boolean; digits: number; trimmed: boolean },
): string {
  const cut = String(nanosecond).padStart(9, '0').padEnd(digits, '0').slice(0, digits);
  const shown = trimmed ? cut.replace(/0+$/, '') : cut;
  return shown === '' ? '' : `${comma ? ',' : '.'}${shown}`;
}

function chunkText(chunk: string, c: Civil): string {
  switch (chunk) {
    case 'January':
      return MONTHS[c.month - 1] as string;
    case 'Jan':
      return (MONTHS[c.month - 1] as string).slice(0, 3);
    case 'Monday':
      return DAYS[c.weekday] as string;
    case 'Mon':
      return (DAYS[c.weekday] as string).slice(0, 3);
    case '2006':
      return `${c.year < 0 ? '-' : ''}${String(Math.abs(c.year)).padStart(4, '0')}`;
    case '06':
      return two(((c.year % 100) + 100) % 100);
    case '01':
      return two(c.month);
    case '1':
      return String(c.month);
    case '02':
      return two(c.day);
    case '_2':
      return String(c.day).padStart(2);
    case '2':
      return String(c.day);
    case '002':
      return String(yearDay(c)).padStart(3, '0');
    case '__2':
      return String(yearDay(c)).padStart(3);
    case '15':
      return two(c.hour);
    case '03':
      return two(c.hour % 12 || 12);
    case '3':
      return String(c.hour % 12 || 12);
    case '04':
      return two(c.minute);
    case '4':
      return String(c.minute);
    case '05':
      return two(c.second);
    case '5':
      return String(c.second);
    case 'PM':
      return c.hour >= 12 ? 'PM' : 'AM';
    case 'pm':
      return c.hour >= 12 ? 'pm' : 'am';
    case 'MST':
      return c.zone;
    default:
      return offsetText(chunk, c.offset);
  }
}

function yearDay(c: Civil): number {
  return (
    Math.round(
      (Date.UTC(2000 + (isLeap(c.year) ? 0 : 1), c.month - 1, c.day) -
        Date.UTC(2000 + (isLeap(c.year) ? 0 : 1), 0, 1)) /
        86_400_000,
    ) + 1
  );
}

function isLeap(year: number): boolean {
  return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
}

function offsetText(chunk: string, offset: number): string {
  if (chunk.startsWith('Z') && offset === 0) return 'Z';
  const size = Math.abs(offset);
  const colon = chunk.includes(':') ? ':' : '';
  const parts = [two(Math.floor(size / 3600))];
  if (chunk.length > 3) parts.push(two(Math.floor((size % 3600) / 60)));
  if (chunk.length > 6) parts.push(two(size % 60));
  return (offset < 0 ? '-' : '+') + parts.join(colon);
}

/**
 * Parses a time by a Go layout and returns nanoseconds since 1970. Throws `Undefined` if the text does not match the
 * layout.
 */
export function parseTime(layout: string, value: string): bigint {
  refuseLong(layout);
  refuseLong(value);
  const reader = new TimeReader(layout, value);
  const all = pieces(layout);
  for (const [i, piece] of all.entries()) {
    if (piece.kind === 'text') reader.literal(piece.text);
    else if (piece.kind === 'fraction') reader.fraction(piece.digits, piece.trimmed);
    else reader.chunk(piece.chunk, all[i + 1]?.kind === 'fraction');
  }
  return reader.end();
}

/** Reads a value piece by piece and keeps the fields of the time that it names. */
class TimeReader {
  readonly #layout: string;
  readonly #value: string;
  #rest: string;
  #year = 0;
  #month = 1;
  #day = 1;
  #hour = 0;
  #minute = 0;
  #second = 0;
  #nanosecond = 0;
  #offset = 0;
  #dayOfYear = -1;
  #pm: boolean | undefined;

  constructor(layout: string, value: string) {
    this.#layout = layout;
    this.#value = value;
    this.#rest = value;
  }

  /** Reads literal text. Go lets a run of spaces in the layout match any number of spaces. */
  literal(text: string): void {
    for (const character of text) {
      if (character === ' ') this.#rest = this.#rest.replace(/^ +/, '');
      else if (this.#rest.startsWith(character)) this.#rest = this.#rest.slice(character.length);
      else this.#fail();
    }
  }

  /** Reads a fraction of a second: exactly so many digits, or any number, also none. */
  fraction(digits: number, trimmed: boolean): void {
    if (trimmed && !/^[.,]\d/.test(this.#rest)) return;
    this.#takeFraction(trimmed ? /^[.,]\d+/ : new RegExp(`^[.,]\\d{${digits}}`));
  }

  /** Reads one element of the layout, such as `2006` or `Jan`. */
  chunk(chunk: string, beforeFraction: boolean): void {
    if (this.#dateChunk(chunk) || this.#clockChunk(chunk, beforeFraction)) return;
    const isZ = () => this.#rest.startsWith('Z');
    this.#offset = takeOffset(
      chunk,
      (p) => this.#take(p),
      isZ,
      (n, low, high) => this.#within(n, low, high),
    );
  }

  /** Returns nanoseconds since 1970. Throws `Undefined` if text is left over, or the day does not exist. */
  end(): bigint {
    if (this.#rest !== '') this.#fail();
    if (this.#pm === true && this.#hour < 12) this.#hour += 12;
    if (this.#pm === false && this.#hour === 12) this.#hour = 0;
    if (this.#dayOfYear > 0) this.#useDayOfYear();
    if (this.#day > daysIn(this.#year, this.#month)) this.#fail();
    const local = nanoseconds(
      this.#year,
      this.#month,
      this.#day,
      this.#hour,
      this.#minute,
      this.#second,
      this.#nanosecond,
    );
    return local - BigInt(this.#offset) * NS;
  }

  #dateChunk(chunk: string): boolean {
    switch (chunk) {
      case 'January':
        this.#month = this.#named(MONTHS) + 1;
        return true;
      case 'Jan':
        this.#month = this.#named(MONTHS, 3) + 1;
        return true;
      case 'Monday':
        this.#named(DAYS);
        return true;
      case 'Mon':
        this.#named(DAYS, 3);
        return true;
      case '2006':
        this.#year = Number(this.#take(/^\d{4}/));
        return true;
      case '06': {
        const year = Number(this.#take(/^\d\d/));
        this.#year = year >= 69 ? 1900 + year : 2000 + year;
        return true;
      }
      case '01':
      case '1':
        this.#month = this.#number(chunk === '01', 1, 12);
        return true;
      case '02':
      case '_2':
      case '2':
        if (chunk === '_2') this.#rest = this.#rest.replace(/^ /, '');
        this.#day = this.#number(chunk === '02', 1, 31);
        return true;
      case '002':
      case '__2':
        this.#dayOfYear = this.#within(Number(this.#take(/^[ \d]{2}\d/)), 1, 366);
        return true;
      default:
        return false;
    }
  }

  #clockChunk(chunk: string, beforeFraction: boolean): boolean {
    switch (chunk) {
      case '15':
        this.#hour = this.#number(false, 0, 23);
        return true;
      case '03':
      case '3':
        this.#hour = this.#number(chunk === '03', 0, 12);
        return true;
      case '04':
      case '4':
        this.#minute = this.#number(chunk === '04', 0, 59);
        return true;
      case '05':
      case '5':
        this.#second = this.#number(chunk === '05', 0, 59);
        // A fraction may follow the seconds even if the layout has none.
        if (!beforeFraction && /^[.,]\d/.test(this.#rest)) this.#takeFraction(/^[.,]\d+/);
        return true;
      case 'PM':
      case 'pm':
        this.#pm = this.#take(chunk === 'PM' ? /^[AP]M/ : /^[ap]m/).toUpperCase() === 'PM';
        return true;
      case 'MST': {
        const name = this.#take(/^(UTC|[A-Z]{3,4}T?|GMT[+-]\d{1,2}|[+-]\d{2})/);
        const gmt = /^GMT([+-]\d+)$/.exec(name);
        if (gmt !== null) this.#offset = Number(gmt[1]) * 3600;
        return true;
      }
      default:
        return false;
    }
  }

  #useDayOfYear(): void {
    const date = new Date(Date.UTC(2000 + (isLeap(this.#year) ? 0 : 1), 0, this.#dayOfYear));
    if (this.#dayOfYear === 366 && !isLeap(this.#year)) this.#fail();
    this.#month = date.getUTCMonth() + 1;
    this.#day = date.getUTCDate();
  }

  #number(isPadded: boolean, low: number, high: number): number {
    return this.#within(Number(this.#take(isPadded ? /^\d\d/ : /^\d\d?/)), low, high);
  }

  #takeFraction(pattern: RegExp): void {
    const digits = this.#take(pattern).slice(1);
    this.#nanosecond = Number(digits.slice(0, 9).padEnd(9, '0'));
  }

  #take(pattern: RegExp): string {
    const match = pattern.exec(this.#rest);
    if (match === null) return this.#fail();
    this.#rest = this.#rest.slice(match[0].length);
    return match[0];
  }

  #named(names: readonly string[], length?: number): number {
    const start = (name: string) => (length === undefined ? name : name.slice(0, length)).toLowerCase();
    const index = names.findIndex((name) => this.#rest.toLowerCase().startsWith(start(name)));
    if (index < 0) this.#fail();
    this.#rest = this.#rest.slice(length ?? (names[index] as string).length);
    return index;
  }

  #within(n: number, low: number, high: number): number {
    return n < low || n > high ? this.#fail() : n;
  }

  #fail(): never {
    throw new Undefined(`\`${this.#value}\` does not match the layout \`${this.#layout}\``);
  }
}

function takeOffset(
  chunk: string,
  take: (pattern: RegExp) => string,
  isZ: () => boolean,
  within: (n: number, low: number, high: number) => number,
): number {
  if (chunk.startsWith('Z') && isZ()) {
    take(/^Z/);
    return 0;
  }
  const colon = chunk.includes(':') ? ':' : '';
  const fields = chunk.length > 6 ? 3 : chunk.length > 3 ? 2 : 1;
  const text = take(new RegExp(`^[+-]\\d\\d${`${colon}\\d\\d`.repeat(fields - 1)}`));
  const [hours = 0, minutes = 0, seconds = 0] = (text.slice(1).replaceAll(':', '').match(/\d\d/g) ?? []).map(Number);
  return (
    (text[0] === '-' ? -1 : 1) * (within(hours, 0, 24) * 3600 + within(minutes, 0, 60) * 60 + within(seconds, 0, 60))
  );
}

function daysIn(year: number, month: number): number {
  return month === 2 ? (isLeap(year) ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31;
}

function nanoseconds(
  year: number,
  month: number,
  day: number,
  hour: number,
  minute: number,
  second: number,
  nanosecond: number,
): bigint {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second);
  return BigInt(date.getTime()) * 1_000_000n + BigInt(nanosecond);
}

/** Adds years, months and days to an instant in its zone, normalising like Go's `AddDate`. */
export function addDate(time: ZonedTime, years: number, months: number, days: number): bigint {
  const c = civil(time);
  const wall = nanoseconds(c.year + years, c.month + months, c.day + days, c.hour, c.minute, c.second, c.nanosecond);
  const guess = zoneAt(Number(floorDiv(wall - BigInt(c.offset) * NS, NS)), time.zone).offset;
  return wall - BigInt(guess) * NS;
}

/** Returns years, months, days, hours, minutes and seconds between two instants, in the first one's zone. */
export function difference(a: ZonedTime, b: ZonedTime): number[] {
  const second = { ns: b.ns, zone: a.zone };
  const [early, late] = a.ns > b.ns ? [civil(second), civil(a)] : [civil(a), civil(second)];
  const d = [
    late.year - early.year,
    late.month - early.month,
    late.day - early.day,
    late.hour - early.hour,
    late.minute - early.minute,
    late.second - early.second,
  ];
  const borrow = (at: number, size: number) => {
    if ((d[at] as number) < 0) {
      d[at] = (d[at] as number) + size;
      d[at - 1] = (d[at - 1] as number) - 1;
    }
  };
  borrow(5, 60);
  borrow(4, 60);
  borrow(3, 24);
  borrow(2, daysIn(early.year, early.month));
  borrow(1, 12);
  return d;
}

export const weekdayName = (day: number): string => DAYS[day] as string;

/** Parses a Go duration into nanoseconds, with days, weeks and years of 24, 168 and 8,760 hours. Throws `Undefined`. */
export function parseDuration(value: string): bigint {
  const match = /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+|0)$/.exec(value);
  if (match === null) throw new Undefined(`\`${value}\` is not a duration`);
  const units: Record<string, bigint> = {
    ns: 1n,
    us: 1000n,
    µs: 1000n,
    μs: 1000n,
    ms: 1_000_000n,
    s: NS,
    m: 60n * NS,
    h: 3600n * NS,
    d: 86_400n * NS,
    w: 604_800n * NS,
    y: 365n * 86_400n * NS,
  };
  let total = 0n;
  for (const [, amount, unit] of (match[2] as string).matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|[smhdwy])/g)) {
    const [whole, fraction = ''] = (amount as string).split('.');
    const size = units[unit as string] as bigint;
    total += BigInt(whole || '0') * size + (BigInt(fraction || '0') * size) / 10n ** BigInt(fraction.length);
  }
  if (total > 2n ** 63n - 1n) throw new Undefined('the duration is too long');
  return match[1] === '-' ? -total : total;
}

const MAX_LAYOUT = 4096; // a hundred times longer than any real layout

function refuseLong(text: string): void {
  if (text.length > MAX_LAYOUT) throw new Undefined('the time or its layout is too long');
}
