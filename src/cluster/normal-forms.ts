import type { KubernetesObject } from '../model/index.ts';

type Spot = {
  readonly key: string;
  readonly parent: string;
  readonly outer: { readonly values?: 'text' | 'bytes' };
};

/**
 * Tests whether a value is the same in the spelling of the API server. In custom kinds, any text may be a quantity or a
 * duration: programs that complete them spell those in their own way.
 */
export function isSameScalar(sent: unknown, answered: unknown, spot: Spot, isBuiltIn: boolean): boolean {
  if (sent === answered) return true;
  const { key, parent, outer } = spot;
  if (outer.values === 'bytes' || BYTES.has(key)) return isSame(bytesOf, sent, answered);
  if (outer.values === 'text') return false;
  if (/(Time|Timestamp)$/.test(key)) return isSame(timeOf, sent, answered);
  if (!isBuiltIn) return isSame(quantityOf, sent, answered) || isSame(durationOf, sent, answered);
  const isQuantity = QUANTITIES.has(key) || QUANTITY_MAPS.has(parent) || (key === 'value' && parent === 'target');
  return isQuantity && isSame(quantityOf, sent, answered);
}

/**
 * Returns a Secret with its `stringData` as the API server keeps it: in base64, as `data`. One with anything but texts
 * there stays as it is: the API server refuses it.
 */
export function withoutStringData(object: KubernetesObject): KubernetesObject {
  const { stringData, ...rest } = object;
  if (object.kind !== 'Secret' || object.apiVersion !== 'v1' || !isMap(stringData)) return object;
  const texts = Object.entries(stringData);
  if (!texts.every((entry): entry is [string, string] => typeof entry[1] === 'string')) return object;
  const encoded = texts.map(([key, text]) => [key, Buffer.from(text).toString('base64')]);
  return { ...rest, data: { ...(isMap(rest['data']) ? rest['data'] : {}), ...Object.fromEntries(encoded) } };
}

const BYTES: ReadonlySet<string> = new Set(['caBundle', 'request']);
const QUANTITIES: ReadonlySet<string> = new Set([
  ...['averageValue', 'capacity', 'divisor', 'maximumVolumeSize', 'sizeLimit', 'storage'],
]);
const QUANTITY_MAPS: ReadonlySet<string> = new Set([
  ...['capacity', 'default', 'defaultRequest', 'hard', 'limits', 'max', 'maxLimitRequestRatio', 'min', 'overhead'],
  ...['podFixed', 'requests'],
]);

function isSame<T>(read: (value: unknown) => T | undefined, a: unknown, b: unknown): boolean {
  const value = read(a);
  return value !== undefined && value === read(b);
}

function bytesOf(value: unknown): string | undefined {
  return typeof value === 'string' ? Buffer.from(value, 'base64').toString('base64') : undefined;
}

function timeOf(value: unknown): number | undefined {
  const time = typeof value === 'string' && /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}

const QUANTITY = /^([+-]?)(\d{0,30})(?:\.(\d{0,30}))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,2})?$/;
const POWERS: Readonly<Record<string, number>> = {
  ...{ n: -9, u: -6, m: -3, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 },
};
const BINARY = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

// In thousandths, rounded up as the API server does it.
function quantityOf(value: unknown): bigint | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const [whole, sign, digits = '', decimals = '', suffix = ''] = QUANTITY.exec(String(value)) ?? [];
  if (whole === undefined || digits + decimals === '') return undefined;
  const binary = BINARY.indexOf(suffix) + 1;
  const power = binary > 0 ? 0 : /^[eE]./.test(suffix) ? Number(suffix.slice(1)) : (POWERS[suffix] ?? 0);
  const exponent = power - decimals.length + 3;
  const mantissa = BigInt(digits + decimals) * 1024n ** BigInt(binary) * 10n ** BigInt(Math.max(exponent, 0));
  const divisor = 10n ** BigInt(Math.max(-exponent, 0));
  const size = sign === '-' ? mantissa / divisor : (mantissa + divisor - 1n) / divisor;
  return sign === '-' ? -size : size;
}

const UNITS: Readonly<Record<string, number>> = {
  ...{ ns: 1e-9, us: 1e-6, µs: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 },
};

// A duration of Go, in seconds.
function durationOf(value: unknown): number | undefined {
  if (typeof value !== 'string' || !/^([\d.]+(ns|us|µs|ms|s|m|h))+$/.test(value)) return undefined;
  return [...value.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)].reduce(
    (sum, [, count, unit = '']) => sum + Number(count) * (UNITS[unit] ?? 0),
    0,
  );
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
