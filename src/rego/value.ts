/**
 * A Rego value outside Wasm. Integers that a JavaScript number holds exactly are numbers; all other numbers are kept as
 * text. Objects and sets use Rego's equality, in which `1` and `"1"` are different keys.
 */
export type Value = null | boolean | number | string | RegoNumber | RegoSet | RegoObject | readonly Value[];

/** A number as written: with a fraction, an exponent, or more digits than a JavaScript integer has. */
export class RegoNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  /** The nearest double. */
  get float(): number {
    return Number(this.text);
  }
  /** Whether the text is a whole number, without fraction and exponent. */
  get isInteger(): boolean {
    return /^-?\d+$/.test(this.text);
  }
}

/** A set whose members are unique by Rego's equality. */
export class RegoSet {
  readonly #members = new Map<string, Value>();
  constructor(members: Iterable<Value> = []) {
    for (const member of members) this.add(member);
  }
  add(member: Value): void {
    this.#members.set(keyOf(member), member);
  }
  has(member: Value): boolean {
    return this.#members.has(keyOf(member));
  }
  get size(): number {
    return this.#members.size;
  }
  /** Returns the members in Rego's order. */
  sorted(): Value[] {
    return [...this.#members.values()].sort(compare);
  }
}

/** An object whose keys may be any value. */
export class RegoObject {
  readonly #entries = new Map<string, readonly [Value, Value]>();
  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }
  set(key: Value, value: Value): void {
    this.#entries.set(keyOf(key), [key, value]);
  }
  get(key: Value): Value | undefined {
    return this.#entries.get(keyOf(key))?.[1];
  }
  has(key: Value): boolean {
    return this.#entries.has(keyOf(key));
  }
  delete(key: Value): void {
    this.#entries.delete(keyOf(key));
  }
  get size(): number {
    return this.#entries.size;
  }
  /** Returns keys and values in Rego's key order. */
  sorted(): (readonly [Value, Value])[] {
    return [...this.#entries.values()].sort(([a], [b]) => compare(a, b));
  }
}

/** Returns a text that is the same for equal values. */
function keyOf(value: Value): string {
  return typeof value === 'string' ? `"${value}` : typeof value === 'number' ? String(value) : printCanonical(value);
}

// Equal numbers need the same text: 1, 1.0 and 1e0 are one key.
function printCanonical(value: Value): string {
  return print(value, (n) =>
    Number.isSafeInteger(n.float) ? String(n.float) : n.isInteger ? n.text : String(n.float),
  );
}

/** Prints a value like OPA: sets and objects in order, strings as JSON. `parse` reads it back unchanged. */
export function print(value: Value, number: (n: RegoNumber) => string = (n) => n.text): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number') return numberText(value);
  if (value instanceof RegoNumber) return number(value);
  if (value instanceof RegoSet)
    return value.size === 0
      ? 'set()'
      : `{${value
          .sorted()
          .map((v) => print(v, number))
          .join(', ')}}`;
  if (value instanceof RegoObject)
    return `{${value
      .sorted()
      .map(([k, v]) => `${print(k, number)}: ${print(v, number)}`)
      .join(', ')}}`;
  return `[${value.map((v) => print(v, number)).join(', ')}]`;
}

/** Formats a double like Go's JSON: exponents only from 1e21 on and below 1e-6. */
function numberText(n: number): string {
  if (Object.is(n, -0)) return '0';
  return String(n).replace(/e([+-])(\d)$/, 'e$10$2');
}

/** Quotes a string as JSON, leaving `<`, `>` and `&` as they are. */
function quote(text: string): string {
  return JSON.stringify(text);
}

const rank = (v: Value): number =>
  v === null
    ? 0
    : typeof v === 'boolean'
      ? 1
      : typeof v === 'number' || v instanceof RegoNumber
        ? 2
        : typeof v === 'string'
          ? 3
          : v instanceof RegoSet
            ? 6
            : v instanceof RegoObject
              ? 5
              : 4;

/** Compares in Rego's order: null, booleans, numbers, strings, arrays, objects, sets; then by their parts. */
export function compare(a: Value, b: Value): number {
  const kind = rank(a) - rank(b);
  if (kind !== 0) return Math.sign(kind);
  if (typeof a === 'boolean') return Number(a) - Number(b);
  if (typeof a === 'number' && typeof b === 'number') return a < b ? -1 : a > b ? 1 : 0;
  if (rank(a) === 2) return compareNumbers(a as number | RegoNumber, b as number | RegoNumber);
  if (typeof a === 'string') return compareText(a, b as string);
  if (a instanceof RegoSet) return compareLists(a.sorted(), (b as RegoSet).sorted());
  if (a instanceof RegoObject) return compareObjects(a.sorted(), (b as RegoObject).sorted());
  if (Array.isArray(a)) return compareLists(a, b as readonly Value[]);
  return 0;
}

/** Tests whether two values are equal in Rego. */
export function equal(a: Value, b: Value): boolean {
  return compare(a, b) === 0;
}

// Compares UTF-8 bytes, as Go does. UTF-16 order would put characters beyond the first plane too early.
function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function compareNumbers(a: number | RegoNumber, b: number | RegoNumber): number {
  const whole = (n: number | RegoNumber) => typeof n === 'number' || n.isInteger;
  if (whole(a) && whole(b)) {
    const [x, y] = [BigInt(typeof a === 'number' ? a : a.text), BigInt(typeof b === 'number' ? b : b.text)];
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const [x, y] = [floatOf(a), floatOf(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}

/** Returns the double nearest to a number. */
export function floatOf(n: number | RegoNumber): number {
  return typeof n === 'number' ? n : n.float;
}

function compareLists(a: readonly Value[], b: readonly Value[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = compare(a[i] as Value, b[i] as Value);
    if (order !== 0) return order;
  }
  return Math.sign(a.length - b.length);
}

function compareObjects(a: (readonly [Value, Value])[], b: (readonly [Value, Value])[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const keys = compare((a[i] as [Value, Value])[0], (b[i] as [Value, Value])[0]);
    if (keys !== 0) return keys;
    const values = compare((a[i] as [Value, Value])[1], (b[i] as [Value, Value])[1]);
    if (values !== 0) return values;
  }
  return Math.sign(a.length - b.length);
}

/**
 * Parses the output of OPA's `opa_value_dump`: JSON, with sets (`{1, 2}`, `set()`) and keys of any type. Throws a
 * `SyntaxError` with the position.
 */
export function parse(text: string): Value {
  let at = 0;
  const fail = (): never => {
    throw new SyntaxError(`not a Rego value at ${at}: ${text.slice(at, at + 20)}`);
  };
  const space = () => {
    while (at < text.length && text.charCodeAt(at) <= 32) at++;
  };
  const expect = (word: string) => {
    if (!text.startsWith(word, at)) fail();
    at += word.length;
  };
  const items = (close: string): Value[] => {
    const list: Value[] = [];
    for (;;) {
      list.push(value());
      space();
      if (text[at] === close) {
        at++;
        return list;
      }
      expect(',');
    }
  };
  const string = (): string => {
    const start = at++;
    for (;;) {
      const quoteAt = text.indexOf('"', at);
      if (quoteAt < 0) fail();
      let back = quoteAt - 1;
      while (text[back] === '\\') back--;
      at = quoteAt + 1;
      if ((quoteAt - 1 - back) % 2 === 0) return JSON.parse(text.slice(start, at)) as string;
    }
  };
  const number = (): Value => {
    const start = at;
    while (at < text.length && '+-0123456789.eE'.includes(text[at] as string)) at++;
    if (at === start) fail();
    return numberOf(text.slice(start, at));
  };
  const braces = (): Value => {
    at++;
    space();
    if (text[at] === '}') {
      at++;
      return new RegoObject();
    }
    const first = value();
    space();
    if (text[at] !== ':') {
      if (text[at] === '}') {
        at++;
        return new RegoSet([first]);
      }
      expect(',');
      return new RegoSet([first, ...items('}')]);
    }
    const object = new RegoObject();
    let key = first;
    for (;;) {
      expect(':');
      object.set(key, value());
      space();
      if (text[at] === '}') {
        at++;
        return object;
      }
      expect(',');
      key = value();
      space();
    }
  };
  const value = (): Value => {
    space();
    switch (text[at]) {
      case '"':
        return string();
      case '{':
        return braces();
      case '[':
        at++;
        space();
        if (text[at] === ']') {
          at++;
          return [];
        }
        return items(']');
      case 't':
        expect('true');
        return true;
      case 'f':
        expect('false');
        return false;
      case 'n':
        expect('null');
        return null;
      case 's':
        expect('set()');
        return new RegoSet();
      default:
        return number();
    }
  };
  const result = value();
  space();
  if (at < text.length) fail();
  return result;
}

/** Reads a number from text: a JavaScript number if it is whole and exact. */
function numberOf(text: string): number | RegoNumber {
  return /^-?\d{1,15}$/.test(text) ? Number(text) : new RegoNumber(text);
}

/** Makes a number of a whole number of any size. */
export function integerOf(n: bigint): number | RegoNumber {
  return numberOf(n.toString());
}

/** Reads a value from JSON text, keeping numbers exact. Throws a `SyntaxError`. */
export function fromJsonText(text: string): Value {
  return fromJson(
    JSON.parse(text, (_key, value: unknown, context?: { source?: string }) =>
      typeof value === 'number' ? numberOf(context?.source ?? String(value)) : value,
    ),
  );
}

/** Converts a value from JSON.parse. */
export function fromJson(value: unknown): Value {
  if (value === null || typeof value === 'boolean' || typeof value === 'string' || value instanceof RegoNumber)
    return value;
  if (typeof value === 'number') return numberOf(numberText(value));
  if (typeof value === 'bigint') return integerOf(value);
  if (Array.isArray(value)) return value.map(fromJson);
  return new RegoObject(Object.entries(value as object).map(([k, v]) => [k, fromJson(v)] as const));
}

/**
 * Converts a value to plain JSON: sets become arrays in Rego's order, keys that are not strings become their text,
 * numbers the nearest double.
 */
export function toJson(value: Value): unknown {
  if (value instanceof RegoNumber) return value.float;
  if (value instanceof RegoSet) return value.sorted().map(toJson);
  if (value instanceof RegoObject) return Object.fromEntries(value.sorted().map(([k, v]) => [keyText(k), toJson(v)]));
  if (Array.isArray(value)) return value.map(toJson);
  return value;
}

/** Writes a value as JSON text like Go: no spaces, sorted keys, numbers as written, `<`, `>` and `&` escaped. */
export function toJsonText(value: Value, escapeHtml = true): string {
  if (value instanceof RegoNumber) return value.text;
  if (value instanceof RegoSet)
    return `[${value
      .sorted()
      .map((v) => toJsonText(v, escapeHtml))
      .join(',')}]`;
  if (value instanceof RegoObject) {
    const entries = value.sorted().map(([k, v]) => [keyText(k), v] as const);
    entries.sort(([a], [b]) => compareText(a, b));
    return `{${entries.map(([k, v]) => `${goQuote(k, escapeHtml)}:${toJsonText(v, escapeHtml)}`).join(',')}}`;
  }
  if (Array.isArray(value)) return `[${value.map((v) => toJsonText(v, escapeHtml)).join(',')}]`;
  if (typeof value === 'string') return goQuote(value, escapeHtml);
  return typeof value === 'number' ? numberText(value) : String(value);
}

function goQuote(text: string, escapeHtml: boolean): string {
  const json = JSON.stringify(text)
    .replace(/\u2028/g, '\\u2028')
    .replace(/\u2029/g, '\\u2029');
  return escapeHtml ? json.replace(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`) : json;
}

function keyText(key: Value): string {
  return typeof key === 'string' ? key : toJsonText(key, false);
}
