import {
  boolYaml11Tag,
  CORE_SCHEMA,
  defineMappingTag,
  defineScalarTag,
  defineSequenceTag,
  intYaml11Tag,
  mergeTag,
  NOT_RESOLVED,
  nullYaml11Tag,
} from 'js-yaml';

// The API server and kubectl read YAML with sigs.k8s.io/yaml, whose scalars follow neither YAML 1.1 nor 1.2. It uses
// the words of 1.1, reads numbers like Go's `strconv` without underscores, and keeps dates as text. A test compares
// this with kubectl.

const DIGITS = [...'-+0123456789'];

/** A number with fraction or exponent, until it is known not to be a key. */
class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/**
 * Reads a scalar like Go's `strconv.ParseInt(text, 0, 64)` and `ParseUint`. Returns a `bigint` if a JavaScript number
 * cannot hold it.
 */
export function serverInteger(source: string): number | bigint | undefined {
  const plain = source.replaceAll('_', '');
  const [, sign = '', body = ''] = /^([-+]?)(.*)$/s.exec(plain) ?? [];
  const octal = /^0[oO]?([0-7]+)$/.exec(body);
  if (octal === null && !/^(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+|0[bB][01]+)$/.test(body)) return undefined;
  const size = BigInt(octal === null ? body : `0o${octal[1]}`);
  const value = sign === '-' ? -size : size;
  if (value < -(2n ** 63n) || value >= 2n ** 64n) return undefined; // Go reads it as a float
  // Beyond 2^53, a number that is written again with the same digits loses nothing.
  return String(Number(value)) === String(value) ? Number(value) : value;
}

/** Reads a scalar that is not an integer; returns infinity if that was written. */
export function serverFloat(source: string): number | undefined {
  const infinite = /^([-+]?)\.(inf|Inf|INF)$/.exec(source);
  if (infinite !== null) return infinite[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  if (/^\.(nan|NaN|NAN)$/.test(source)) return Number.NaN;
  const plain = source.startsWith('.') ? source : source.replaceAll('_', '');
  if (!/^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$/.test(plain)) return undefined;
  const value = Number(plain);
  if (!Number.isFinite(value)) return undefined; // too large: stays text
  return value === 0 ? 0 : value; // JSON has no negative zero
}

const integerTag = defineScalarTag<number | bigint>('tag:yaml.org,2002:int', {
  implicit: true,
  implicitFirstChars: DIGITS,
  resolve: (source) => serverInteger(source) ?? NOT_RESOLVED,
  identify: () => false,
});

const floatTag = defineScalarTag<Float>('tag:yaml.org,2002:float', {
  implicit: true,
  implicitFirstChars: [...DIGITS, '.'],
  resolve: (source) => {
    const value = serverFloat(source);
    return value === undefined ? NOT_RESOLVED : new Float(value);
  },
  identify: () => false,
});

/** Returns the value itself if it was wrapped. */
export function plainValue(value: unknown): unknown {
  return value instanceof Float ? value.value : value;
}

const sequenceTag = defineSequenceTag<unknown[], unknown[]>('tag:yaml.org,2002:seq', {
  create: () => [],
  addItem: (list, item) => {
    list.push(plainValue(item));
  },
  identify: Array.isArray,
});

// Keys are text in JSON: every reader takes `8080: x` as `"8080": x`. For fractions, null and numbers beyond 2^53,
// readers differ.
function nameOf(key: unknown): string | undefined {
  return typeof key === 'string' || typeof key === 'boolean' || typeof key === 'number' ? String(key) : undefined;
}

/** Thrown if a merge follows a key it also contains: readers differ on which of them wins. */
export class MergeConflict extends Error {}

/** Returns the schema of scalars as the API server reads them, for one text: it keeps which keys came by merges. */
export function apiServerSchema() {
  return CORE_SCHEMA.withTags(nullYaml11Tag, boolYaml11Tag, integerTag, floatTag, mergeTag, sequenceTag, mappingTag());
}

function mappingTag() {
  let merging = false; // while the keys of a merged mapping are walked through
  const merged = new WeakMap<object, Set<string>>(); // the keys of a mapping that came by merges
  return defineMappingTag<Record<string, unknown>, Record<string, unknown>>('tag:yaml.org,2002:map', {
    create: () => ({}),
    addPair: (map, key, value) => {
      const name = nameOf(key);
      if (name === undefined) return 'a key must be text, a whole number below 2^53, true or false; put it in quotes';
      if (merging) merged.set(map, (merged.get(map) ?? new Set()).add(name));
      if (name === '__proto__')
        Object.defineProperty(map, name, {
          value: plainValue(value),
          enumerable: true,
          configurable: true,
          writable: true,
        });
      else map[name] = plainValue(value);
      return '';
    },
    has: (map, key) => {
      const name = nameOf(key);
      const present = name !== undefined && Object.hasOwn(map, name);
      if (present && merging && !merged.get(map)?.has(name)) throw new MergeConflict(name);
      return present;
    },
    *keys(map) {
      merging = true;
      try {
        yield* Object.keys(map);
      } finally {
        merging = false;
      }
    },
    get: (map, key) => (Object.hasOwn(map, String(key)) ? map[String(key)] : null),
    identify: () => false,
  });
}

/** Rego's own reader takes the words of YAML 1.1 as text, and its octal numbers as numbers. */
export const REGO_SCHEMA = CORE_SCHEMA.withTags(nullYaml11Tag, withoutBase60(intYaml11Tag), mergeTag);

function withoutBase60<T extends { resolve: (source: string, ...rest: never[]) => unknown }>(tag: T): T {
  const resolve = tag.resolve as (source: string, ...rest: unknown[]) => unknown;
  return {
    ...tag,
    resolve: (source: string, ...rest: unknown[]) =>
      source.includes(':') ? resolve('x', ...rest) : resolve(source, ...rest),
  };
}
