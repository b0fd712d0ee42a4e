import { constructFromEvents, dump, EVENT_ID, type Event, getScalarValue, parseEvents, YAMLException } from 'js-yaml';
import type { Position, ValuePath } from '../model/index.ts';
import {
  apiServerSchema,
  MergeConflict,
  plainValue,
  REGO_SCHEMA,
  serverFloat,
  serverInteger,
} from './api-server-schema.ts';

/**
 * One document: its position among all documents of the text, its value, its first line, and the place of any value in
 * it (or of its nearest written parent).
 */
export type YamlDocument = {
  readonly index: number;
  readonly value: unknown;
  readonly line: number;
  readonly lineOf: (path: ValuePath) => number;
  readonly positionOf: (path: ValuePath) => Position;
};

/** A scalar that readers interpret differently: the API server, and a reader that follows YAML 1.2. */
export type Ambiguity = Position & { readonly message: string; readonly hint: string };

/** Thrown for text that is not supported YAML; `line` counts from 1. */
export class YamlError extends Error {
  readonly line: number;
  constructor(message: string, line: number) {
    super(message);
    this.name = 'YamlError';
    this.line = line;
  }
}

const MAX_DEPTH = 100; // deeper than any real manifest, shallower than any stack
const MAX_ALIASES = 1000;
const MAX_EXPANDED = 1_000_000; // values after aliases are expanded: a billion-laughs file has far more
const PLAIN = 1; // js-yaml's style of an unquoted scalar

/**
 * Parses every document of the text and omits empty ones. With `words: false`, `yes` and similar words are text. Throws
 * a `YamlError` that names the line.
 */
export function parseYaml(text: string, options: { readonly words?: boolean } = {}): YamlDocument[] {
  try {
    const events = parseEvents(text, { maxDepth: MAX_DEPTH });
    const values = constructFromEvents(events, {
      source: text,
      schema: options.words === false ? REGO_SCHEMA : apiServerSchema(),
      maxAliases: MAX_ALIASES,
    });
    const shared = events.some((e) => e.type === EVENT_ID.ALIAS);
    const starts = documentStarts(events);
    const lines = lineStarts(text);
    const at = yamlPlaces(text);
    const budget = { left: MAX_EXPANDED }; // for all documents together
    return values.flatMap((value, index) => {
      if (value === null || value === undefined) return [];
      const refuse = (message: string, path: ValuePath) => new YamlError(message, at.within(index, path).line);
      if (!shared) check(plainValue(value), [], refuse);
      return [
        {
          index,
          value: shared ? unshared(plainValue(value), budget, [], refuse) : plainValue(value),
          line: lineAt(lines, starts[index] ?? 0),
          lineOf: (path) => at.within(index, path).line,
          positionOf: (path) => (path.length === 0 ? positionAt(lines, starts[index] ?? 0) : at.within(index, path)),
        },
      ];
    });
  } catch (thrown) {
    if (thrown instanceof MergeConflict)
      throw new YamlError(
        `\`<<\` follows \`${thrown.message}\`, which it also contains, ` +
          'and readers differ on which wins; put `<<` first',
        lineAt(lineStarts(text), Math.max(0, text.search(/<<["']?\s*:/))),
      );
    if (thrown instanceof YAMLException) {
      const isAboutEnd = /deficient indentation|unexpected end|flow collection/.test(thrown.reason);
      const open = isAboutEnd ? unclosed(text, thrown.mark?.position ?? text.length) : undefined;
      if (open !== undefined) throw new YamlError(`\`${open.bracket}\` is never closed`, open.line);
      throw new YamlError(reasonOf(thrown), (thrown.mark?.line ?? 0) + 1);
    }
    throw thrown;
  }
}

const MAX_EXPLAINED = 64 * 1024; // characters; a longer text gets the parser's own message

// Finds the innermost bracket still open where reading failed: the parser complains about the line after it. One pass
// over the characters of the last document, for a message only.
function unclosed(text: string, end: number): { readonly bracket: string; readonly line: number } | undefined {
  if (end > MAX_EXPLAINED) return undefined;
  const stack: { bracket: string; line: number }[] = [];
  let line = 1;
  let quote = '';
  for (let i = 0; i < end; i++) {
    const char = text[i] as string;
    const isStart = i === 0 || /\s/.test(text[i - 1] as string);
    if (char === '\n') {
      line++;
      if (quote === '' && text.startsWith('---', i + 1)) stack.length = 0;
    } else if (quote !== '') {
      if (quote === '"' && char === '\\') i++;
      else if (char === quote) quote = '';
    } else if (char === '#' && isStart) {
      while (i + 1 < end && text[i + 1] !== '\n') i++;
    } else if ((char === '"' || char === "'") && (isStart || /[[{,:]/.test(text[i - 1] as string))) quote = char;
    else if ((char === '[' || char === '{') && (isStart || stack.length > 0)) stack.push({ bracket: char, line });
    else if (char === ']' || char === '}') stack.pop();
  }
  return stack.at(-1);
}

/**
 * Finds places in a text that `parseYaml` accepted. `index` is a document's position among all documents of the text.
 */
export type YamlPlaces = {
  /** The place of a value, or of its nearest written parent. */
  readonly within: (index: number, path: ValuePath) => Position;
  /** The place where the document's own value begins. */
  readonly start: (index: number) => Position;
};

/** Finds places in a text on demand, holding only the text: few of them are ever needed. */
export function yamlPlaces(text: string): YamlPlaces {
  let located = new WeakRef<readonly Place[]>([]);
  const places = (): readonly Place[] => {
    const known = located.deref();
    if (known !== undefined && known.length > 0) return known;
    const found = locate(parseEvents(text, { maxDepth: MAX_DEPTH }), text, lineStarts(text));
    located = new WeakRef(found);
    return found;
  };
  const place = (index: number): Place => places()[index] ?? { line: 1, column: 1, children: new Map() };
  return {
    within: (index, path) => find(place(index), path),
    start: (index) => {
      const starts = documentStarts(parseEvents(text, { maxDepth: MAX_DEPTH }));
      return positionAt(lineStarts(text), starts[index] ?? 0);
    },
  };
}

/**
 * Returns unquoted scalars that mean one thing to the API server, whose reader follows YAML 1.1, and another to a YAML
 * 1.2 reader: `yes`, `on`, `010`, `1_000`, `12:30`. Text that does not parse has none.
 */
export function ambiguities(text: string): Ambiguity[] {
  if (!SUSPECT.test(text)) return [];
  let events: Event[];
  try {
    events = parseEvents(text, { maxDepth: MAX_DEPTH });
  } catch {
    return [];
  }
  const lines = lineStarts(text);
  const secret = SECRET.test(text);
  return events.flatMap((event) => {
    if (event.type !== EVENT_ID.SCALAR || event.style !== PLAIN || event.tagStart >= 0) return [];
    const scalar = getScalarValue(text, event);
    const doubt = doubtOf(scalar);
    const at = Math.max(event.valueStart, 0);
    if (doubt === undefined) return [];
    const message = secret
      ? 'the API server and other readers disagree about this value'
      : `\`${scalar}\` is ${doubt.here} to the API server, and ${doubt.elsewhere} elsewhere`;
    return [{ ...positionAt(lines, at), message, hint: 'put it in quotes, or write the intended value' }];
  });
}

// Values of a Secret are never shown, not even ambiguous ones.
const SECRET = /\bkind["']?\s*:\s*["']?Secret\b/;
const SUSPECT =
  /(^|[\s:,[{-])(y|n|yes|no|on|off|[+-]?0[0-7_box]|[+-]?[\d.]*\d(e[+-]?\d*)?_|[+-]_\d|[+-]?\d+(:[0-5]?\d)+)/im;
const TRUE = /^(y|Y|yes|Yes|YES|on|On|ON)$/;
const FALSE = /^(n|N|no|No|NO|off|Off|OFF)$/;

function doubtOf(scalar: string): { here: string; elsewhere: string } | undefined {
  if (TRUE.test(scalar) || FALSE.test(scalar))
    return { here: String(TRUE.test(scalar)), elsewhere: `the text "${scalar}"` };
  if (/^[+-]?[1-9]\d*(:[0-5]?\d)+$/.test(scalar))
    return {
      here: `the text "${scalar}"`,
      elsewhere: 'a base-60 number to a strict YAML 1.1 reader',
    };
  const here = serverInteger(scalar) ?? serverFloat(scalar);
  const elsewhere = coreNumber(scalar);
  if (here === elsewhere || Object.is(Number(here), elsewhere) || here === undefined) return undefined;
  return {
    here: `the number ${here}`,
    elsewhere: elsewhere === undefined ? `the text "${scalar}"` : `the number ${elsewhere}`,
  };
}

// The core schema of YAML 1.2.2, section 10.3.2.
function coreNumber(scalar: string): number | undefined {
  if (/^0o[0-7]+$/.test(scalar)) return Number.parseInt(scalar.slice(2), 8);
  if (/^0x[0-9a-fA-F]+$/.test(scalar)) return Number.parseInt(scalar, 16);
  if (/^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$/.test(scalar)) return Number(scalar);
  return serverFloat(scalar) === undefined || /_/.test(scalar) ? undefined : serverFloat(scalar);
}

type Place = { line: number; column: number; children: Map<string | number, Place> };

function documentStarts(events: readonly Event[]): number[] {
  const starts: number[] = [];
  let waiting = false;
  for (const event of events) {
    if (event.type === EVENT_ID.POP) {
      if (waiting) starts.push(0); // an empty document
      waiting = false;
      continue;
    }
    if (waiting) starts.push(startOf(event));
    waiting = event.type === EVENT_ID.DOCUMENT;
  }
  return starts;
}

function locate(events: readonly Event[], text: string, lines: readonly number[]): Place[] {
  let at = 0;
  const documents: Place[] = [];
  while (at < events.length) {
    at++; // the document event
    const first = events[at];
    documents.push(
      first === undefined || first.type === EVENT_ID.POP ? { line: 1, column: 1, children: new Map() } : node(),
    );
    at++; // its end
  }
  return documents;

  function node(): Place {
    const event = events[at++] as Event;
    const place: Place = { ...positionAt(lines, startOf(event)), children: new Map() };
    if (event.type === EVENT_ID.SEQUENCE) {
      for (let i = 0; events[at]?.type !== EVENT_ID.POP; i++) place.children.set(i, node());
      at++;
    } else if (event.type === EVENT_ID.MAPPING) {
      while (events[at]?.type !== EVENT_ID.POP) {
        const key = events[at] as Event;
        const keyAt = positionAt(lines, startOf(key));
        node();
        const value = node();
        // People look for `privileged: true` at that value, and for a mapping at its key.
        if (value.line !== keyAt.line) Object.assign(value, keyAt);
        if (key.type === EVENT_ID.SCALAR) place.children.set(getScalarValue(text, key), value);
      }
      at++;
    }
    return place;
  }
}

function startOf(event: Event): number {
  switch (event.type) {
    case EVENT_ID.SCALAR:
      return Math.max(event.valueStart, 0);
    case EVENT_ID.SEQUENCE:
    case EVENT_ID.MAPPING:
      return Math.max(event.start, 0);
    case EVENT_ID.ALIAS:
      return Math.max(event.anchorStart, 0);
    default:
      return 0;
  }
}

function find(root: Place, path: ValuePath): Position {
  let here = root;
  for (const part of path) {
    const next = here.children.get(part) ?? (typeof part === 'number' ? undefined : here.children.get(String(part)));
    if (next === undefined) break;
    here = next;
  }
  return { line: here.line, column: here.column };
}

type Refuse = (message: string, path: ValuePath) => YamlError;

// Values that JSON cannot hold are refused.
function check(value: unknown, path: (string | number)[], refuse: Refuse): void {
  if (typeof value === 'object' && value !== null) {
    const entries: Iterable<[string | number, unknown]> = Array.isArray(value)
      ? value.entries()
      : Object.entries(value);
    for (const [key, inner] of entries) {
      path.push(key);
      check(inner, path, refuse);
      path.pop();
    }
  } else scalar(value, path, refuse);
}

function scalar(value: unknown, path: ValuePath, refuse: Refuse): unknown {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw refuse('infinite and not-a-number values have no JSON form', path);
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return value;
  if (typeof value === 'bigint')
    throw refuse('a whole number beyond 2^53 would lose precision; put it in quotes', path);
  throw refuse(`a value of type ${typeof value} has no JSON form`, path);
}

// Aliases become copies, so that no two places share an object; a number only a bomb would have is refused.
function unshared(value: unknown, budget: { left: number }, path: ValuePath, refuse: Refuse): unknown {
  if (path.length > MAX_DEPTH) throw refuse(`values are nested more than ${MAX_DEPTH} deep with aliases expanded`, []);
  if (--budget.left < 0) throw refuse('aliases expand to more values than any manifest has', path);
  if (Array.isArray(value)) return value.map((item, i) => unshared(item, budget, [...path, i], refuse));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unshared(v, budget, [...path, k], refuse)]));
  return scalar(value, path, refuse);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) starts.push(i + 1);
  return starts;
}

function positionAt(starts: readonly number[], offset: number): Position {
  const line = lineAt(starts, offset);
  return { line, column: offset - (starts[line - 1] ?? 0) + 1 };
}

function lineAt(starts: readonly number[], offset: number): number {
  let low = 0;
  let high = starts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((starts[middle] ?? 0) <= offset) low = middle;
    else high = middle;
  }
  return low + 1;
}

function reasonOf({ reason }: YAMLException): string {
  return reason.startsWith('nesting exceeded') ? `values are nested more than ${MAX_DEPTH} deep` : reason;
}

/** Writes a value as readable YAML: block style, original key order, long texts not folded. */
export function printYaml(value: unknown): string {
  return dump(value, { lineWidth: -1, noRefs: true });
}
