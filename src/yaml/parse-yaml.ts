import {
  boolYaml11Tag,
  CORE_SCHEMA,
  constructFromEvents,
  EVENT_ID,
  type Event,
  getScalarValue,
  intYaml11Tag,
  mergeTag,
  nullYaml11Tag,
  parseEvents,
  YAMLException,
} from 'js-yaml';
import type { ValuePath } from '../model/index.ts';

/** One document: its value, the line it starts on, and the line of any value in it (or of its nearest written parent). */
export type YamlDocument = {
  readonly value: unknown;
  readonly line: number;
  readonly lineOf: (path: ValuePath) => number;
};

/** Text that is not YAML we take; `line` counts from 1. */
export class YamlError extends Error {
  readonly line: number;
  constructor(message: string, line: number) {
    super(message);
    this.name = 'YamlError';
    this.line = line;
  }
}

// The API server's reader follows YAML 1.1, so `yes` and `010` must mean here what they mean there.
// Base-60 numbers are left out: that reader does not know them.
const SCHEMA = CORE_SCHEMA.withTags(nullYaml11Tag, boolYaml11Tag, withoutBase60(intYaml11Tag), mergeTag);
const MAX_DEPTH = 100; // deeper than any real manifest, shallower than any stack
const MAX_ALIASES = 1000;
const MAX_EXPANDED = 1_000_000; // values after aliases are followed: a billion-laughs file has far more

/** Reads every document of the text, empty ones left out. Throws a `YamlError` that names the line. */
export function parseYaml(text: string): YamlDocument[] {
  try {
    const events = parseEvents(text, { maxDepth: MAX_DEPTH });
    const values = constructFromEvents(events, { source: text, schema: SCHEMA, maxAliases: MAX_ALIASES });
    const lines = lineStarts(text);
    const positions = locate(events, text, lines);
    return values.flatMap((value, i) => {
      if (value === null || value === undefined) return [];
      const root = positions[i] ?? { line: 1, children: new Map() };
      const budget = { left: MAX_EXPANDED };
      return [{ value: toJson(value, root, budget), line: root.line, lineOf: (path) => find(root, path) }];
    });
  } catch (thrown) {
    if (thrown instanceof YAMLException) throw new YamlError(thrown.reason, (thrown.mark?.line ?? 0) + 1);
    throw thrown;
  }
}

function withoutBase60<T extends { resolve: (source: string, ...rest: never[]) => unknown }>(tag: T): T {
  const resolve = tag.resolve as (source: string, ...rest: unknown[]) => unknown;
  return {
    ...tag,
    resolve: (source: string, ...rest: unknown[]) => (source.includes(':') ? resolve('x', ...rest) : resolve(source, ...rest)),
  };
}

type Position = { line: number; children: Map<string | number, Position> };

function locate(events: readonly Event[], text: string, lines: readonly number[]): Position[] {
  let at = 0;
  const documents: Position[] = [];
  while (at < events.length) {
    at++; // the document event
    const first = events[at];
    documents.push(first === undefined || first.type === EVENT_ID.POP ? { line: 1, children: new Map() } : node());
    at++; // its end
  }
  return documents;

  function node(): Position {
    const event = events[at++] as Event;
    const position: Position = { line: lineAt(lines, startOf(event)), children: new Map() };
    if (event.type === EVENT_ID.SEQUENCE) {
      for (let i = 0; events[at]?.type !== EVENT_ID.POP; i++) position.children.set(i, node());
      at++;
    } else if (event.type === EVENT_ID.MAPPING) {
      while (events[at]?.type !== EVENT_ID.POP) {
        const key = events[at] as Event;
        const keyLine = lineAt(lines, startOf(key));
        node();
        const value = node();
        value.line = keyLine; // people look for `privileged: true` at its key
        if (key.type === EVENT_ID.SCALAR) position.children.set(getScalarValue(text, key), value);
      }
      at++;
    }
    return position;
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

function find(root: Position, path: ValuePath): number {
  let here = root;
  for (const part of path) {
    const next = here.children.get(part);
    if (next === undefined) break;
    here = next;
  }
  return here.line;
}

// Copies into plain JSON: aliases become copies, so that no two places share an object, and what JSON cannot hold is refused.
function toJson(value: unknown, position: Position | undefined, budget: { left: number }): unknown {
  const line = position?.line ?? 1;
  if (--budget.left < 0) throw new YamlError('aliases expand to more values than any manifest has', line);
  if (Array.isArray(value)) return value.map((item, i) => toJson(item, position?.children.get(i) ?? position, budget));
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([k, v]) => [k, toJson(v, position?.children.get(k) ?? position, budget)] as const);
    return Object.fromEntries(entries);
  }
  if (typeof value === 'number' && !Number.isFinite(value)) throw new YamlError('infinite and not-a-number values have no JSON form', line);
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  throw new YamlError(`a value of type ${typeof value} has no JSON form`, line);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) starts.push(i + 1);
  return starts;
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
