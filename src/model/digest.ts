import { hash } from 'node:crypto';
import canonicalize from 'canonicalize';

/** Returns the SHA-256 of the bytes as 64 lower-case hex digits. */
export function sha256(bytes: Uint8Array | string): string {
  return hash('sha256', bytes, 'hex');
}

/**
 * Returns canonical JSON (RFC 8785): one value, one text. Undefined fields are omitted. Throws a TypeError for values
 * JSON cannot hold: infinite numbers, half a surrogate pair, cycles.
 */
export function canonicalJson(value: unknown): string {
  // `JSON.stringify` writes scalars as the RFC requires; with sorted keys it gives the whole result in a fifth of the
  // time.
  const plain = inOrder(value, 0);
  const text = plain === undefined ? canonicalize(value) : JSON.stringify(plain);
  if (text === undefined) throw new TypeError('this value has no JSON form');
  return text;
}

const PIECE = 256 * 1024;

/**
 * Yields `canonicalJson` of a large object in pieces: field by field and, for lists, item by item. The items of fields
 * in `lists` are already canonical JSON. `end` follows. Throws the same errors.
 */
export function* canonicalPieces(
  object: Readonly<Record<string, unknown>>,
  lists: ReadonlyMap<string, Iterable<string>> = new Map(),
  end = '',
): Generator<string> {
  let before = '{';
  for (const key of [...new Set([...Object.keys(object), ...lists.keys()])].sort()) {
    const field = lists.has(key) ? undefined : object[key];
    if (field === undefined && !lists.has(key)) continue;
    yield `${before}${canonicalJson(key)}:`;
    before = ',';
    const items = lists.get(key) ?? (Array.isArray(field) ? spelled(field) : undefined);
    if (items === undefined) {
      yield canonicalJson(field);
      continue;
    }
    let separator = '[';
    for (const item of items) {
      yield separator + item;
      separator = ',';
    }
    yield separator === '[' ? '[]' : ']';
  }
  yield `${before === '{' ? '{' : ''}}${end}`;
}

function* spelled(items: readonly unknown[]): Generator<string> {
  for (const item of items) yield canonicalJson(item);
}

/** Combines many short texts into byte chunks large enough to write. */
export function* bytesOf(texts: Iterable<string>): Generator<Buffer> {
  let pending = '';
  for (const text of texts) {
    pending += text;
    if (pending.length < PIECE) continue;
    yield Buffer.from(pending);
    pending = '';
  }
  if (pending !== '') yield Buffer.from(pending);
}

/** Returns the SHA-256 over the canonical JSON of a value. */
export function digestOf(value: unknown): string {
  return sha256(canonicalJson(value));
}

const MAX_DEPTH = 200; // deeper data is a cycle, or may take the library's slow path

/**
 * Returns plain data with the keys of every object sorted by UTF-16 code units; undefined if the library must handle
 * it.
 */
function inOrder(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
      return value.isWellFormed() ? value : undefined;
    case 'number':
      return Number.isFinite(value) ? value : undefined;
    case 'boolean':
      return value;
    case 'object':
      if (value === null) return value;
      return depth > MAX_DEPTH
        ? undefined
        : Array.isArray(value)
          ? listInOrder(value, depth)
          : objectInOrder(value, depth);
    default:
      return undefined;
  }
}

function listInOrder(list: readonly unknown[], depth: number): unknown {
  const ordered: unknown[] = [];
  for (const item of list) {
    const plain = inOrder(item, depth + 1);
    if (plain === undefined) return undefined;
    ordered.push(plain);
  }
  return ordered;
}

function objectInOrder(object: object, depth: number): unknown {
  const prototype = Object.getPrototypeOf(object);
  if (prototype !== Object.prototype && prototype !== null) return undefined;
  const ordered: Record<string, unknown> = {};
  for (const key of Object.keys(object).sort()) {
    const field = (object as Record<string, unknown>)[key];
    if (field === undefined) continue;
    // JavaScript lists number-like keys first, in its own order; `__proto__` would not become a field.
    const first = key.charCodeAt(0);
    if ((first >= 48 && first <= 57) || key === '__proto__' || key === 'toJSON' || !key.isWellFormed())
      return undefined;
    const plain = inOrder(field, depth + 1);
    if (plain === undefined) return undefined;
    ordered[key] = plain;
  }
  return ordered;
}
