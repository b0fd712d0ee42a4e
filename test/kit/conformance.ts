import {
  compare,
  evaluateQuery,
  fromJson,
  REFUSED,
  RegoObject,
  RegoSet,
  toJson,
  type Value,
} from '../../src/rego/index.ts';

/** One of OPA's conformance cases, compiled (tools/opa/conformance). */
export type Case = {
  readonly note: string;
  readonly version: 'v0' | 'v1';
  readonly family: string;
  readonly wasm?: string;
  readonly error?: string;
  readonly data?: object;
  readonly input?: unknown;
  readonly input_term?: string;
  readonly want_defined?: boolean;
  readonly want_result?: readonly Record<string, unknown>[];
  readonly want_error_code?: string;
  readonly want_error?: string;
  readonly strict_error?: boolean;
  readonly sort_bindings?: boolean;
};

export type Outcome = { readonly kind: 'passed' } | { readonly kind: 'failed' | 'skipped'; readonly why: string };

/**
 * Cases that OPA's own Go host for Wasm leaves out too: whole numbers over 64 bits, exponents beyond any use, and data
 * at paths that are numbers, none of which the compiled code can hold.
 */
const BEYOND_WASM: readonly RegExp[] = [
  /^data\/(toplevel|nested) integer$/,
  /bignum exact \(>64-bit/,
  /^arithmetic\/bignum modulo/,
  /^aggregates\/sum integer fast-path overflow/,
  /^jsonbuiltins\/unmarshal number (beyond the supported|with too big an) exponent/,
];

/** Runs a case in our host, as OPA's own test of its Wasm host does. */
export async function judgeCase(one: Case): Promise<Outcome> {
  if (one.error !== undefined) return { kind: 'skipped', why: `not compiled: ${one.error}` };
  if (BEYOND_WASM.some((p) => p.test(one.note))) return { kind: 'skipped', why: 'beyond what compiled rules can hold' };
  // A term is Rego, where a comma may end a list; values are not.
  const input =
    one.input_term?.replace(/,(\s*[}\]])/g, '$1') ?? (one.input === undefined ? undefined : JSON.stringify(one.input));
  let result: Value | undefined;
  let thrown: unknown;
  try {
    result = await evaluateQuery(Buffer.from(one.wasm ?? '', 'base64'), JSON.stringify(one.data ?? {}), input, {
      now: BigInt(Date.now()) * 1_000_000n,
    });
  } catch (error) {
    thrown = error;
  }
  if (thrown !== undefined && (thrown as { code?: string }).code === 'policy-unusable') {
    const message = (thrown as Error).message;
    return Object.keys(REFUSED).some((name) => message.includes(`\`${name}\``))
      ? { kind: 'skipped', why: message }
      : { kind: 'failed', why: message };
  }
  return expected(one, result === undefined ? [] : bindings(result), thrown);
}

function expected(one: Case, rows: readonly RegoObject[], thrown: unknown): Outcome {
  const failed = (why: string): Outcome => ({ kind: 'failed', why });
  if (one.want_result === undefined && one.want_defined === undefined) {
    if (one.strict_error === true)
      return thrown !== undefined
        ? failed(`threw ${String(thrown)}`)
        : rows.length > 0
          ? failed(`expected nothing, got ${show(rows)}`)
          : { kind: 'passed' };
    return thrown === undefined ? failed(`expected an error, got ${show(rows)}`) : { kind: 'passed' };
  }
  if (thrown !== undefined) return failed(`threw ${String(thrown)}`);
  if (one.want_defined !== undefined)
    return rows.length > 0 === one.want_defined ? { kind: 'passed' } : failed(`defined: ${rows.length > 0}`);
  const want = (one.want_result ?? []).map(plain);
  const got = rows.map((row) => withSortedBindings(asJson(row) as RegoObject, one.sort_bindings === true));
  const key = (v: Value) => JSON.stringify(show(v));
  const [a, b] = [want.map(key).sort(), got.map(key).sort()];
  return a.length === b.length && a.every((x, i) => x === b[i])
    ? { kind: 'passed' }
    : failed(`expected ${a.join(' ')}, got ${b.join(' ')}`);
}

const plain = (v: unknown): Value =>
  v === null || typeof v !== 'object' || Array.isArray(v) || Object.getPrototypeOf(v) === Object.prototype
    ? fromJson(v)
    : (v as Value);

function bindings(result: Value): RegoObject[] {
  return (result instanceof RegoSet ? result.sorted() : []).filter((v) => v instanceof RegoObject);
}

// What the cases expect was written as JSON: sets are lists there, and generated variables are left out.
function asJson(value: Value): Value {
  if (value instanceof RegoSet) return value.sorted().map(asJson);
  if (value instanceof RegoObject)
    return new RegoObject(
      value
        .sorted()
        .flatMap(([k, v]) =>
          typeof k === 'string' && k.startsWith('$')
            ? []
            : [[typeof k === 'string' ? k : JSON.stringify(toJson(k)), asJson(v)] as const],
        ),
    );
  return Array.isArray(value) ? value.map((v: Value) => asJson(v)) : value;
}

function withSortedBindings(row: RegoObject, sort: boolean): RegoObject {
  return sort
    ? new RegoObject(
        row.sorted().map(([k, v]) => [k, Array.isArray(v) ? [...(v as Value[])].sort(compare) : v] as const),
      )
    : row;
}

function show(value: unknown): string {
  return canonical(value as Value);
}

function canonical(value: Value): string {
  if (value instanceof RegoSet) return `<${value.sorted().map(canonical).join(',')}>`;
  if (value instanceof RegoObject)
    return `{${value
      .sorted()
      .map(([k, v]) => `${canonical(k)}:${canonical(v)}`)
      .join(',')}}`;
  if (Array.isArray(value)) return `[${value.map((v: Value) => canonical(v)).join(',')}]`;
  if (value !== null && typeof value === 'object') return String((value as { float: number }).float);
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}
