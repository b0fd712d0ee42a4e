import compareSemver from 'semver/functions/compare.js'; // all of it is 47 files in each thread with rules
import { array, type Builtin, bigint, collection, object, text, Undefined } from './builtin.ts';
import { isYaml, readYaml, writeYaml } from './go-yaml.ts';
import {
  equal,
  fromJson,
  fromJsonText,
  integerOf,
  RegoNumber,
  RegoObject,
  RegoSet,
  toJson,
  toJsonText,
  type Value,
} from './value.ts';

/** Builtins for values, documents, graphs, numbers with units and version numbers. */
export const DATA_BUILTINS: Readonly<Record<string, Builtin>> = {
  'json.marshal_with_options': ([value, options]) => marshalWith(value as Value, object(options)),
  'json.patch': ([value, operations]) =>
    array(operations).reduce<Value>((v, operation) => patched(v, object(operation)), value as Value),
  'object.subset': ([whole, part]) => subset(whole as Value, part as Value),
  'graph.reachable_paths': ([graph, roots]) => reachablePaths(object(graph), collection(roots)),
  'numbers.range_step': ([from, to, step]) => range(bigint(from), bigint(to), bigint(step)),
  'units.parse': ([value]) => unitsParse(text(value)),
  'units.parse_bytes': ([value]) => bytesParse(text(value)),
  'semver.is_valid': ([version]) => typeof version === 'string' && semver(version) !== undefined,
  'semver.compare': ([a, b]) => {
    const [x, y] = [semver(text(a)), semver(text(b))];
    if (x === undefined || y === undefined) throw new Undefined('not a semantic version');
    return compareSemver(x, y);
  },
  'yaml.is_valid': ([value]) => typeof value === 'string' && isYaml(value),
  'yaml.marshal': ([value]) => writeYaml(toJson(value as Value)),
  'yaml.unmarshal': ([value]) => fromJson(readYaml(text(value))),
  'hex.encode': ([value]) => Buffer.from(text(value)).toString('hex'),
  'hex.decode': ([value]) => {
    const hex = text(value);
    if (!/^([0-9a-fA-F]{2})*$/.test(hex)) throw new Undefined('not hexadecimal text');
    return Buffer.from(hex, 'hex').toString('utf8');
  },
  'base64url.encode_no_pad': ([value]) => Buffer.from(text(value)).toString('base64url'),
  'uuid.parse': ([value]) => parseUuid(text(value)),
  'rego.metadata.chain': () => [],
  'rego.metadata.rule': () => new RegoObject(),
  cast_array: ([value]) => (value instanceof RegoSet ? value.sorted() : array(value)),
  cast_set: ([value]) => (value instanceof RegoSet ? value : new RegoSet(array(value))),
  cast_string: ([value]) => text(value),
  cast_boolean: ([value]) => only(value, typeof value === 'boolean'),
  cast_null: ([value]) => only(value, value === null),
  cast_object: ([value]) => object(value),
};

function only(value: Value | undefined, right: boolean): Value {
  if (!right) throw new Undefined('a value of another kind');
  return value as Value;
}

function marshalWith(value: Value, options: RegoObject): string {
  let pretty: boolean | undefined;
  let [prefix, indent, implied] = ['', '\t', false];
  for (const [key, option] of options.sorted()) {
    if (key === 'prefix') [prefix, implied] = [text(option), true];
    else if (key === 'indent') [indent, implied] = [text(option), true];
    else if (key === 'pretty') pretty = only(option, typeof option === 'boolean') as boolean;
    else throw new Undefined('an unknown option');
  }
  if (!(pretty ?? implied)) return toJsonText(value);
  return prefix + indented(fromJsonText(toJsonText(value)), prefix, indent, 0);
}

function indented(value: Value, prefix: string, indent: string, level: number): string {
  const line = (n: number) => `\n${prefix}${indent.repeat(n)}`;
  const wrap = (open: string, parts: string[], close: string) =>
    parts.length === 0
      ? open + close
      : `${open}${parts.map((p) => line(level + 1) + p).join(',')}${line(level)}${close}`;
  if (value instanceof RegoObject)
    return wrap(
      '{',
      value.sorted().map(([k, v]) => `${toJsonText(k)}: ${indented(v, prefix, indent, level + 1)}`),
      '}',
    );
  if (Array.isArray(value))
    return wrap(
      '[',
      value.map((v: Value) => indented(v, prefix, indent, level + 1)),
      ']',
    );
  return toJsonText(value);
}

/** Reads a JSON pointer (RFC 6901; the leading slash is optional) or a list of keys. */
function pathOf(value: Value | undefined): readonly Value[] {
  if (Array.isArray(value)) return value as readonly Value[];
  const pointer = text(value);
  if (pointer === '') return [];
  return pointer
    .replace(/^\/+/, '')
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

// RFC 6902, extended to sets: a path into a set names the member itself.
function patched(value: Value, operation: RegoObject): Value {
  const path = pathOf(operation.get('path'));
  const given = () => {
    const v = operation.get('value');
    if (v === undefined) throw new Undefined('a patch without `value`');
    return v;
  };
  switch (text(operation.get('op'))) {
    case 'add':
      return inserted(value, path, given());
    case 'remove':
      return removed(value, path);
    case 'replace':
      return inserted(path.length === 0 ? value : removed(value, path), path, given());
    case 'move': {
      const from = pathOf(operation.get('from'));
      return inserted(removed(value, from), path, at(value, from));
    }
    case 'copy':
      return inserted(value, path, at(value, pathOf(operation.get('from'))));
    case 'test':
      if (!equal(at(value, path), given())) throw new Undefined('a patch test failed');
      return value;
    default:
      throw new Undefined('an unknown patch operation');
  }
}

function at(value: Value, path: readonly Value[]): Value {
  return path.reduce<Value>((v, key) => {
    if (v instanceof RegoObject && v.has(key)) return v.get(key) as Value;
    if (v instanceof RegoSet && v.has(key)) return key;
    if (Array.isArray(v)) return v[position(key, v.length - 1)] as Value;
    throw new Undefined('the path does not exist');
  }, value);
}

function position(key: Value, last: number): number {
  const n = typeof key === 'string' && /^(0|[1-9]\d*)$/.test(key) ? Number(key) : key;
  if (typeof n !== 'number' || n < 0 || n > last) throw new Undefined('no such position');
  return n;
}

function inserted(value: Value, [key, ...rest]: readonly Value[], what: Value): Value {
  if (key === undefined) return what;
  if (value instanceof RegoObject) {
    const copy = new RegoObject(value.sorted());
    copy.set(key, rest.length === 0 ? what : inserted(at(value, [key]), rest, what));
    return copy;
  }
  if (Array.isArray(value)) {
    const list = [...(value as Value[])];
    if (rest.length === 0) list.splice(key === '-' ? list.length : position(key, list.length), 0, what);
    else {
      const i = position(key, list.length - 1);
      list[i] = inserted(list[i] as Value, rest, what);
    }
    return list;
  }
  if (value instanceof RegoSet) {
    const copy = new RegoSet(value.sorted());
    if (rest.length === 0) {
      if (!equal(key, what)) throw new Undefined('a set member is its own key');
      copy.add(what);
      return copy;
    }
    if (!value.has(key)) throw new Undefined('the path does not exist');
    return new RegoSet([...value.sorted().filter((v) => !equal(v, key)), inserted(key, rest, what)]);
  }
  throw new Undefined('a path leads into a scalar');
}

function removed(value: Value, [key, ...rest]: readonly Value[]): Value {
  if (key === undefined) return null;
  if (value instanceof RegoObject) {
    const inner = at(value, [key]);
    const copy = new RegoObject(value.sorted());
    if (rest.length === 0) copy.delete(key);
    else copy.set(key, removed(inner, rest));
    return copy;
  }
  if (Array.isArray(value)) {
    const i = position(key, value.length - 1);
    return rest.length === 0
      ? value.filter((_, j) => j !== i)
      : value.map((v: Value, j) => (j === i ? removed(v, rest) : v));
  }
  if (value instanceof RegoSet) {
    const member = at(value, [key]);
    const others = value.sorted().filter((v) => !equal(v, key));
    return new RegoSet(rest.length === 0 ? others : [...others, removed(member, rest)]);
  }
  throw new Undefined('a path leads into a scalar');
}

function subset(whole: Value, part: Value): boolean {
  if (whole instanceof RegoObject && part instanceof RegoObject) return objectHas(whole, part);
  if (whole instanceof RegoSet && part instanceof RegoSet) return part.sorted().every((v) => whole.has(v));
  if (Array.isArray(whole) && Array.isArray(part)) return hasRun(whole, part);
  if (Array.isArray(whole) && part instanceof RegoSet) {
    // Counts as OPA does: an empty set is contained in an array only if the array has members.
    let missing = part.size;
    return whole.some((v: Value) => {
      if (part.has(v)) missing--;
      return missing === 0;
    });
  }
  throw new Undefined('values of different kinds');
}

function objectHas(whole: RegoObject, part: RegoObject): boolean {
  return part.sorted().every(([key, wanted]) => {
    const has = whole.get(key);
    if (has === undefined) return false;
    if (equal(has, wanted)) return true;
    const nested =
      (has instanceof RegoObject && wanted instanceof RegoObject) ||
      (has instanceof RegoSet && wanted instanceof RegoSet) ||
      (Array.isArray(has) && Array.isArray(wanted));
    return nested && subset(has, wanted);
  });
}

function hasRun(whole: readonly Value[], part: readonly Value[]): boolean {
  return (
    whole.length >= part.length &&
    Array.from({ length: whole.length - part.length + 1 }, (_, i) => i).some((i) =>
      part.every((v, j) => equal(v, whole[i + j] as Value)),
    )
  );
}

function reachablePaths(graph: RegoObject, roots: readonly Value[]): RegoSet {
  const found = new RegoSet();
  const neighbours = (node: Value): readonly Value[] | undefined => {
    const edges = graph.get(node);
    if (edges === undefined) return undefined;
    return edges instanceof RegoSet ? edges.sorted() : Array.isArray(edges) ? edges : [];
  };
  const follow = (node: Value, path: readonly Value[], seen: RegoSet): void => {
    const next = neighbours(node);
    if (next === undefined) return void found.add([...path]);
    const here = [...path, node];
    if (next.length === 0) return void found.add(here);
    const passed = new RegoSet([...seen.sorted(), node]);
    for (const neighbour of next) {
      if (passed.has(neighbour)) found.add(here);
      else follow(neighbour, here, passed);
    }
  };
  for (const root of roots) {
    const next = neighbours(root);
    if (next === undefined) continue;
    if (next.length === 0) found.add([root]);
    for (const neighbour of next) follow(neighbour, [root], new RegoSet([root]));
  }
  return found;
}

const MAX_RANGE = 10_000_000n; // a longer range would only fill memory

function range(from: bigint, to: bigint, step: bigint): Value {
  if (step <= 0n) throw new Undefined('the step must be a positive number');
  const size = (from <= to ? to - from : from - to) / step + 1n;
  if (size > MAX_RANGE) throw new Error(`numbers.range_step: a rule may not ask for ${size} numbers`);
  const direction = from <= to ? step : -step;
  return Array.from({ length: Number(size) }, (_, i) => integerOf(from + direction * BigInt(i)));
}

/** Splits text into amount and unit. An exponent belongs to the amount. */
function amountAndUnit(value: string): { amount: string; unit: string } {
  if (value.includes(' ')) throw new Undefined('spaces');
  const match = /^((?:[\d.+-]|[eE][+-]?(?=\d)|[eE][+-])*)(.*)$/s.exec(value);
  const amount = match?.[1] ?? '';
  if (/[eE][+-]?\d{7}/.test(amount)) throw new Undefined('the exponent is too large');
  if (amount === '') throw new Undefined('no amount');
  return { amount, unit: match?.[2] ?? '' };
}

type Fraction = { readonly top: bigint; readonly bottom: bigint };

function fractionOf(amount: string): Fraction {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(amount);
  if (match === null || (match[2] === '' && (match[3] ?? '') === '')) throw new Undefined('no number');
  const fraction = match[3] ?? '';
  const digits = BigInt(`${match[2]}${fraction}` || '0');
  const power = Number(match[4] ?? 0) - fraction.length;
  const top = match[1] === '-' ? -digits : digits;
  return power >= 0 ? { top: top * 10n ** BigInt(power), bottom: 1n } : { top, bottom: 10n ** BigInt(-power) };
}

const BINARY: Record<string, bigint> = {
  ki: 1n << 10n,
  mi: 1n << 20n,
  gi: 1n << 30n,
  ti: 1n << 40n,
  pi: 1n << 50n,
  ei: 1n << 60n,
};
const DECIMAL: Record<string, bigint> = {
  k: 10n ** 3n,
  m: 10n ** 6n,
  g: 10n ** 9n,
  t: 10n ** 12n,
  p: 10n ** 15n,
  e: 10n ** 18n,
};

// `m` is a thousandth, `M` a million: only the letters after the first are case-insensitive.
function unitsParse(value: string): Value {
  const { amount, unit } = amountAndUnit(value.replaceAll('"', ''));
  const { top, bottom } = fractionOf(amount);
  const lower = unit.toLowerCase();
  let result: Fraction;
  if (unit === '') result = { top, bottom };
  else if (unit === 'm') result = scaleByMilli({ top, bottom });
  else {
    const known = unit.length === 1 ? DECIMAL[lower] : BINARY[lower];
    if (known === undefined) throw new Undefined(`unit ${unit} not recognized`);
    result = { top: top * known, bottom };
  }
  return decimal(result);
}

// A thousandth is the double 0.001, as in OPA. The error is smaller than the ten digits shown.
function scaleByMilli({ top, bottom }: Fraction): Fraction {
  return { top: top * 1152921504606847n, bottom: bottom * 1152921504606846976n };
}

function decimal({ top, bottom }: Fraction): Value {
  if (top % bottom === 0n) return integerOf(top / bottom);
  const scaled = (top < 0n ? -top : top) * 10n ** 10n;
  const rounded = (scaled * 2n + bottom) / (bottom * 2n);
  const digits = rounded.toString().padStart(11, '0');
  return new RegoNumber(`${top < 0n ? '-' : ''}${digits.slice(0, -10)}.${digits.slice(-10)}`);
}

function bytesParse(value: string): Value {
  const { amount, unit } = amountAndUnit(value.toLowerCase().replaceAll('"', ''));
  const { top, bottom } = fractionOf(amount);
  const short = unit.replace(/b$/, '');
  const known = unit === '' ? 1n : (BINARY[short] ?? DECIMAL[short]);
  if (known === undefined) throw new Undefined(`byte unit ${unit} not recognized`);
  return integerOf((top * known) / bottom);
}

const SEMVER =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$/;

// One leading `v` is allowed, as in OPA; otherwise the specification applies strictly.
function semver(version: string): string | undefined {
  const plain = version.replace(/^v/, '');
  const match = SEMVER.exec(plain);
  if (match === null || [1, 2, 3].some((i) => BigInt(match[i] as string) >= 2n ** 63n)) return undefined;
  return plain;
}

const DOMAINS = ['Person', 'Group', 'Org'];

/** Returns the fields of a UUID (RFC 9562), named as in OPA. */
function parseUuid(given: string): RegoObject {
  // The library OPA uses ignores the first and the last of 38 characters.
  const inner = given.length === 38 ? given.slice(1, -1) : given;
  const hex = /^(?:urn:uuid:)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})$/i
    .exec(inner)?.[1]
    ?.replaceAll('-', '');
  if (hex === undefined) throw new Undefined('no UUID');
  const bytes = Buffer.from(hex, 'hex');
  const byte = (i: number) => bytes[i] as number;
  const version = byte(6) >> 4;
  const variant =
    (byte(8) & 0xc0) === 0x80
      ? 'RFC4122'
      : (byte(8) & 0xe0) === 0xc0
        ? 'Microsoft'
        : (byte(8) & 0xe0) === 0xe0
          ? 'Future'
          : 'Reserved';
  const fields = new RegoObject([
    ['version', version],
    ['variant', variant],
  ]);
  if (version !== 1 && version !== 2) return fields;
  const ticks =
    BigInt(bytes.readUInt32BE(0)) |
    (BigInt(bytes.readUInt16BE(4)) << 32n) |
    (BigInt(bytes.readUInt16BE(6) & 0x0fff) << 48n);
  fields.set('time', integerOf(BigInt.asIntN(64, (ticks - 0x01b21dd213814000n) * 100n)));
  fields.set('nodeid', [...bytes.subarray(10)].map((b) => b.toString(16).padStart(2, '0')).join('-'));
  fields.set(
    'macvariables',
    `${(byte(10) & 2) === 2 ? 'local' : 'global'}:${(byte(10) & 1) === 1 ? 'multicast' : 'unicast'}`,
  );
  fields.set('clocksequence', bytes.readUInt16BE(8) & 0x3fff);
  if (version === 2) {
    fields.set('id', bytes.readUInt32BE(0));
    fields.set('domain', DOMAINS[byte(9)] ?? `Domain${byte(9)}`);
  }
  return fields;
}
