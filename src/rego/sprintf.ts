import { print, RegoNumber, type Value } from './value.ts';

/** Go's types, as OPA passes arguments to `fmt.Sprintf`. */
type Arg =
  | { readonly type: 'string'; readonly text: string }
  | { readonly type: 'int64' | '*big.Int'; readonly int: bigint }
  | { readonly type: 'float64'; readonly float: number };

type Flags = {
  plus: boolean;
  minus: boolean;
  sharp: boolean;
  space: boolean;
  zero: boolean;
  width: number | undefined;
  precision: number | undefined;
};

const MAX_PAD = 1_000_000; // Go's own limit for a width or precision

/**
 * Formats like Go's `fmt.Sprintf` (https://pkg.go.dev/fmt). Composites appear in Rego syntax, mistakes in place as
 * `%!d(string=x)`.
 */
export function sprintf(format: string, values: readonly Value[]): string {
  const args = values.map(argOf);
  let out = '';
  let at = 0;
  let next = 0;
  let reordered = false;
  while (at < format.length) {
    const percent = format.indexOf('%', at);
    if (percent < 0) {
      out += format.slice(at);
      break;
    }
    out += format.slice(at, percent);
    at = percent + 1;
    const flags: Flags = {
      plus: false,
      minus: false,
      sharp: false,
      space: false,
      zero: false,
      width: undefined,
      precision: undefined,
    };
    let badIndex = false;
    const index = () => {
      if (format[at] !== '[') return;
      reordered = true;
      const close = format.indexOf(']', at);
      const n = close < 0 ? Number.NaN : Number(format.slice(at + 1, close));
      if (close < 0 || !Number.isInteger(n) || n < 1 || n > args.length || !/^\d+$/.test(format.slice(at + 1, close))) {
        badIndex = true;
        at = close < 0 ? at + 1 : close + 1;
        return;
      }
      at = close + 1;
      next = n - 1;
    };
    for (; '+-# 0'.includes(format[at] ?? '?'); at++) {
      if (format[at] === '+') flags.plus = true;
      else if (format[at] === '-') flags.minus = true;
      else if (format[at] === '#') flags.sharp = true;
      else if (format[at] === ' ') flags.space = true;
      else flags.zero = true;
    }
    const star = (bad: string): number | undefined => {
      at++;
      const arg = args[next++];
      if (arg?.type === 'int64' && arg.int > -BigInt(MAX_PAD) && arg.int < BigInt(MAX_PAD)) return Number(arg.int);
      out += `%!(${bad})`;
      return undefined;
    };
    const digits = (): number | undefined => {
      const start = at;
      while (/\d/.test(format[at] ?? '')) at++;
      if (at === start) return undefined;
      const n = Number(format.slice(start, at));
      return n > MAX_PAD ? undefined : n;
    };
    index();
    if (format[at] === '*') {
      flags.width = star('BADWIDTH');
      if (flags.width !== undefined && flags.width < 0) {
        flags.width = -flags.width;
        flags.minus = true;
      }
    } else flags.width = digits();
    if (format[at] === '.') {
      at++;
      index();
      if (format[at] === '*') {
        flags.precision = star('BADPREC');
        if (flags.precision !== undefined && flags.precision < 0) {
          flags.precision = undefined;
          out += '%!(BADPREC)';
        }
      } else flags.precision = digits() ?? 0;
    }
    index();
    if (flags.minus) flags.zero = false;
    if (at >= format.length) {
      out += '%!(NOVERB)';
      break;
    }
    const verb = String.fromCodePoint(format.codePointAt(at) as number);
    at += verb.length;
    if (verb === '%') out += '%';
    else if (badIndex) out += `%!${verb}(BADINDEX)`;
    else if (next >= args.length) out += `%!${verb}(MISSING)`;
    else out += one(verb, args[next++] as Arg, flags);
  }
  if (!reordered && next < args.length)
    out += `%!(EXTRA ${args
      .slice(next)
      .map((a) => `${a.type}=${plain(a)}`)
      .join(', ')})`;
  return out;
}

function argOf(value: Value): Arg {
  if (typeof value === 'string') return { type: 'string', text: value };
  if (typeof value === 'number') return { type: 'int64', int: BigInt(value) };
  if (value instanceof RegoNumber) {
    if (!value.isInteger)
      return Number.isFinite(value.float)
        ? { type: 'float64', float: value.float }
        : { type: 'string', text: value.text };
    const int = BigInt(value.text);
    return { type: int >= -(2n ** 63n) && int < 2n ** 63n ? 'int64' : '*big.Int', int };
  }
  return { type: 'string', text: print(value) };
}

function plain(arg: Arg): string {
  return arg.type === 'string'
    ? arg.text
    : arg.type === 'float64'
      ? goFloat(arg.float, 'g', undefined)
      : arg.int.toString();
}

function one(verb: string, arg: Arg, flags: Flags): string {
  // Go prints a value that does not fit the verb with `%v` and the same flags.
  const bad = () =>
    `%!${verb}(${arg.type === '*big.Int' ? 'big.Int' : arg.type}=` +
    `${verb === 'v' || arg.type === '*big.Int' ? plain(arg) : one('v', arg, flags)})`;
  if (verb === 'T') return pad(arg.type, flags);
  switch (arg.type) {
    case 'string':
      return formatText(verb, arg.text, flags) ?? bad();
    case 'float64':
      return formatFloat(verb, arg.float, flags) ?? bad();
    default:
      return formatInteger(verb, arg.int, flags, arg.type === '*big.Int') ?? bad();
  }
}

function formatText(verb: string, value: string, flags: Flags): string | undefined {
  const cut = flags.precision === undefined ? value : [...value].slice(0, flags.precision).join('');
  switch (verb) {
    case 'v':
      return flags.sharp ? pad(goQuoted(cut, false), flags) : pad(cut, flags);
    case 's':
      return pad(cut, flags);
    case 'q':
      if (flags.sharp && !/[`\u0000-\u0008\u000a-\u001f\u007f\ufeff]/.test(cut)) return pad(`\`${cut}\``, flags);
      return pad(goQuoted(cut, flags.plus), flags);
    case 'x':
    case 'X': {
      const bytes = [...Buffer.from(value).subarray(0, flags.precision ?? undefined)].map((b) =>
        b.toString(16).padStart(2, '0'),
      );
      const prefix = flags.sharp && bytes.length > 0 ? '0x' : '';
      const joined = flags.space ? bytes.map((b) => prefix + b).join(' ') : prefix + bytes.join('');
      return pad(verb === 'X' ? joined.toUpperCase() : joined, flags);
    }
    default:
      return undefined;
  }
}

/** Quotes text like Go's `strconv.Quote`. */
function goQuoted(value: string, ascii: boolean): string {
  const short: Record<string, string> = {
    '\x07': '\\a',
    '\b': '\\b',
    '\f': '\\f',
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
    '\v': '\\v',
    '"': '\\"',
    '\\': '\\\\',
  };
  const parts = [...value].map((c) => {
    if (short[c] !== undefined) return short[c];
    const code = c.codePointAt(0) as number;
    const printable = code === 32 || (!/[\p{C}\p{Z}]/u.test(c) && code !== 0x7f);
    if (printable && (!ascii || code < 0x7f)) return c;
    if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
  return `"${parts.join('')}"`;
}

function formatInteger(verb: string, value: bigint, flags: Flags, big: boolean): string | undefined {
  const base = { v: 10, d: 10, b: 2, o: 8, O: 8, x: 16, X: 16 }[verb];
  if (base !== undefined) return integerText(value, base, verb, flags);
  if (big) return verb === 's' ? integerText(value, 10, verb, flags) : undefined;
  const character =
    value >= 0n && value <= 0x10ffffn && !(value >= 0xd800n && value < 0xe000n)
      ? String.fromCodePoint(Number(value))
      : '\ufffd';
  switch (verb) {
    case 'c':
      return pad(character, { ...flags, zero: false });
    case 'q': {
      const quoted = goQuoted(character, flags.plus).slice(1, -1).replace('\\"', '"');
      return pad(`'${character === "'" ? "\\'" : quoted}'`, { ...flags, zero: false });
    }
    case 'U': {
      const hex = BigInt.asUintN(64, value)
        .toString(16)
        .toUpperCase()
        .padStart(Math.max(4, flags.precision ?? 0), '0');
      return pad(`U+${hex}${flags.sharp ? ` '${character}'` : ''}`, { ...flags, zero: false });
    }
    default:
      return undefined;
  }
}

function integerText(value: bigint, base: number, verb: string, flags: Flags): string {
  const negative = value < 0n;
  let digits = (negative ? -value : value).toString(base);
  if (verb === 'X') digits = digits.toUpperCase();
  if (flags.precision === 0 && value === 0n) return ' '.repeat(flags.width ?? 0);
  const sign = negative ? '-' : flags.plus ? '+' : flags.space ? ' ' : '';
  let prefix = verb === 'O' ? '0o' : '';
  if (flags.sharp)
    prefix =
      base === 2
        ? '0b'
        : base === 8 && verb === 'o'
          ? digits.startsWith('0')
            ? ''
            : '0'
          : base === 16
            ? verb === 'X'
              ? '0X'
              : '0x'
            : prefix;
  const fill =
    flags.precision ?? (flags.zero && !flags.minus && flags.width !== undefined ? flags.width - sign.length : 0);
  return pad(`${sign}${prefix}${digits.padStart(fill, '0')}`, { ...flags, zero: false });
}

function formatFloat(verb: string, value: number, flags: Flags): string | undefined {
  const kind = verb === 'v' ? 'g' : verb === 'F' ? 'f' : verb;
  if (verb === 'b' || verb === 'x' || verb === 'X') return pad(binaryFloat(verb, value), { ...flags, zero: false });
  if (!['e', 'E', 'f', 'g', 'G'].includes(kind)) return undefined;
  const precision = flags.precision ?? (kind === 'g' || kind === 'G' ? undefined : 6);
  const magnitude = goFloat(Math.abs(value), kind as 'e', precision);
  const sign = value < 0 || Object.is(value, -0) ? '-' : flags.plus ? '+' : flags.space ? ' ' : '';
  const finite = Number.isFinite(value);
  if (flags.zero && !flags.minus && finite && flags.width !== undefined)
    return sign + magnitude.padStart(flags.width - sign.length, '0');
  return pad(sign + magnitude, { ...flags, zero: false });
}

/** Formats the bits of a double: `%b` as mantissa and power of two, `%x` in hexadecimal, always with all digits. */
function binaryFloat(verb: 'b' | 'x' | 'X', value: number): string {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0);
  const sign = bits >> 63n === 1n ? '-' : '';
  const biased = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xfffffffffffffn;
  const mantissa = biased === 0 ? fraction : fraction | (1n << 52n);
  const power = Math.max(biased, 1) - 1075;
  const signed = (n: number, width: number) => `${n < 0 ? '-' : '+'}${String(Math.abs(n)).padStart(width, '0')}`;
  if (verb === 'b') return `${sign}${mantissa}p${signed(power, 1)}`;
  const digits = fraction.toString(16).padStart(13, '0').replace(/0+$/, '');
  const text =
    `${sign}0x${biased === 0 ? 0 : 1}${digits === '' ? '' : `.${digits}`}` +
    `p${signed(biased === 0 && fraction === 0n ? 0 : power + 52, 2)}`;
  return verb === 'X' ? text.toUpperCase() : text;
}

/**
 * Formats a double like Go's `strconv.FormatFloat`. Without a precision it gives the shortest text that reads back as
 * the same number.
 */
function goFloat(value: number, kind: 'e' | 'E' | 'f' | 'g' | 'G', precision: number | undefined): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
  const exponent = (text: string) => text.replace(/e([+-])(\d)$/, 'e$10$2');
  const upper = (text: string) => (kind === 'E' || kind === 'G' ? text.toUpperCase() : text);
  if (kind === 'f') return fixed(value, precision);
  if (kind === 'e' || kind === 'E')
    return upper(exponent(value.toExponential(precision === undefined ? undefined : Math.min(precision, 100))));
  const scientific = value.toExponential(
    precision === undefined ? undefined : Math.max(Math.min(precision, 100) - 1, 0),
  );
  const power = Number(scientific.slice(scientific.indexOf('e') + 1));
  // Go chooses the shortest form as if it had six digits
  const limit = precision === undefined ? 6 : Math.max(precision, 1);
  if (power < -4 || power >= limit) return upper(exponent(scientific.replace(/\.?0+e/, 'e')));
  const places = precision === undefined ? undefined : Math.max(limit - 1 - power, 0);
  const plainText = fixed(value, places);
  return plainText.includes('.') && precision !== undefined ? plainText.replace(/\.?0+$/, '') : plainText;
}

function fixed(value: number, places: number | undefined): string {
  if (places !== undefined)
    return Math.abs(value) < 1e21
      ? value.toFixed(Math.min(places, 100))
      : `${BigInt(value)}${places > 0 ? `.${'0'.repeat(places)}` : ''}`;
  if (Math.abs(value) >= 1e21) return BigInt(value).toString();
  const text = String(value);
  const match = /^(-?)(\d)(?:\.(\d+))?e-(\d+)$/.exec(text);
  return match === null ? text : `${match[1]}0.${'0'.repeat(Number(match[4]) - 1)}${match[2]}${match[3] ?? ''}`;
}

function pad(value: string, flags: Flags): string {
  const missing = (flags.width ?? 0) - [...value].length;
  if (missing <= 0) return value;
  if (flags.minus) return value + ' '.repeat(missing);
  return (flags.zero ? '0' : ' ').repeat(missing) + value;
}
