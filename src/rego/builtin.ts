import { RegoNumber, RegoObject, RegoSet, type Value } from './value.ts';

/**
 * Context a builtin may use besides its arguments. The time is one instant for the whole decision, so that the decision
 * can be reproduced.
 */
export type BuiltinContext = {
  /** Nanoseconds since 1970. */
  readonly now: bigint;
  /** Receives the output of `print` and `trace`; undefined if there is no listener. */
  readonly print?: ((line: string) => void) | undefined;
};

/**
 * A builtin: arguments in, result out. It throws `Undefined` where OPA's builtin reports an error, which leaves the
 * expression undefined.
 */
export type Builtin = (args: readonly Value[], context: BuiltinContext) => Value;

/** Thrown by a builtin that has no result for these arguments. */
export class Undefined extends Error {
  constructor(why = 'no result') {
    super(why);
    this.name = 'Undefined';
  }
}

export function text(value: Value | undefined): string {
  if (typeof value !== 'string') throw new Undefined('not a string');
  return value;
}

function number(value: Value | undefined): number | RegoNumber {
  if (typeof value !== 'number' && !(value instanceof RegoNumber)) throw new Undefined('not a number');
  return value;
}

/** Reads a whole number of any size. */
export function bigint(value: Value | undefined): bigint {
  const n = number(value);
  if (typeof n === 'number') return BigInt(n);
  if (n.isInteger) return BigInt(n.text);
  if (Number.isSafeInteger(n.float)) return BigInt(n.float);
  const whole = wholeOf(n.text);
  if (whole === undefined) throw new Undefined('not a whole number');
  return whole;
}

/** Reads a whole number small enough to count with. */
export function integer(value: Value | undefined): number {
  const n = bigint(value);
  if (n > BigInt(Number.MAX_SAFE_INTEGER) || n < BigInt(Number.MIN_SAFE_INTEGER)) throw new Undefined('too large');
  return Number(n);
}

export function object(value: Value | undefined): RegoObject {
  if (!(value instanceof RegoObject)) throw new Undefined('not an object');
  return value;
}

export function array(value: Value | undefined): readonly Value[] {
  if (!Array.isArray(value)) throw new Undefined('not an array');
  return value as readonly Value[];
}

/** Returns the members of an array or a set. A set's members come in Rego's order. */
export function collection(value: Value | undefined): readonly Value[] {
  return value instanceof RegoSet ? value.sorted() : array(value);
}

// `1e3` and `2.0` are whole numbers too. Absurdly large exponents are refused before they take memory.
function wholeOf(written: string): bigint | undefined {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,4}))?$/.exec(written);
  if (match === null) return undefined;
  const fraction = match[3] ?? '';
  const shift = Number(match[4] ?? 0) - fraction.length;
  const digits = `${match[2]}${fraction}`;
  if (shift >= 0) return BigInt(`${match[1]}${digits}${'0'.repeat(shift)}`);
  const dropped = digits.slice(shift);
  return /^0*$/.test(dropped) ? BigInt(`${match[1]}${digits.slice(0, shift) || '0'}`) : undefined;
}
