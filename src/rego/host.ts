import { CountersignError, messageOf } from '../model/index.ts';
import { type Builtin, type BuiltinContext, Undefined } from './builtin.ts';
import { loadBuiltins } from './builtins.ts';
import { parse, print, type Value } from './value.ts';

/** Limits on the cost of a host call, and the context it sees. */
export type Limits = {
  /** Maximum memory of one instance in bytes. Asking for more ends the evaluation. */
  readonly memory: number;
  /** An instance larger than this is replaced, because Wasm memory never shrinks. */
  readonly recycleAbove: number;
};

const DEFAULT_LIMITS: Limits = { memory: 256 * 1024 * 1024, recycleAbove: 16 * 1024 * 1024 };

/** A JSON object, as text, and the path in it where the input is placed for one evaluation. */
export type Within = { readonly object: string; readonly path: readonly string[] };

const PAGE = 64 * 1024;

/** Exports of a module with ABI 1.x (https://www.openpolicyagent.org/docs/wasm#exports). */
type Exports = {
  readonly opa_wasm_abi_version: WebAssembly.Global;
  readonly opa_wasm_abi_minor_version?: WebAssembly.Global;
  readonly opa_malloc: (size: number) => number;
  readonly opa_json_parse: (at: number, size: number) => number;
  readonly opa_value_parse: (at: number, size: number) => number;
  readonly opa_value_dump: (value: number) => number;
  readonly opa_heap_ptr_get: () => number;
  readonly opa_heap_ptr_set: (at: number) => void;
  readonly opa_eval_ctx_new: () => number;
  readonly opa_eval_ctx_set_input: (context: number, value: number) => void;
  readonly opa_eval_ctx_set_data: (context: number, value: number) => void;
  readonly opa_eval_ctx_set_entrypoint: (context: number, id: number) => void;
  readonly opa_eval_ctx_get_result: (context: number) => number;
  readonly opa_value_add_path: (base: number, path: number, value: number) => number;
  readonly eval: (context: number) => number;
  readonly builtins: () => number;
  readonly entrypoints: () => number;
};

const NEEDED: readonly (keyof Exports)[] = [
  'opa_malloc',
  'opa_json_parse',
  'opa_value_parse',
  'opa_value_dump',
  'opa_heap_ptr_get',
  'opa_heap_ptr_set',
  'opa_eval_ctx_new',
  'opa_eval_ctx_set_input',
  'opa_eval_ctx_set_data',
  'opa_eval_ctx_set_entrypoint',
  'opa_eval_ctx_get_result',
  'opa_value_add_path',
  'eval',
  'builtins',
  'entrypoints',
];

/**
 * One set of compiled rules that can be evaluated repeatedly. It is not shared between threads.
 *
 * After an exception crosses Wasm, the instance is replaced before the next use. Its stack pointer is not reset, and a
 * few hundred such exceptions would exhaust the stack.
 */
export class RegoModule {
  readonly #module: WebAssembly.Module;
  readonly #data: string;
  readonly #limits: Limits;
  readonly #builtins: Readonly<Record<string, Builtin>>;
  #instance: Instance | undefined;
  #current = 0;
  /** Entrypoints by name, for example `main/deny`. */
  readonly entrypoints: ReadonlyMap<string, number>;
  /** Names of the builtins that the rules call and the host provides. */
  readonly builtins: readonly string[];

  private constructor(
    module: WebAssembly.Module,
    data: string,
    limits: Limits,
    first: Instance,
    builtins: Readonly<Record<string, Builtin>>,
  ) {
    this.#module = module;
    this.#data = data;
    this.#limits = limits;
    this.#builtins = builtins;
    this.#instance = first;
    this.entrypoints = first.entrypoints;
    this.builtins = first.builtinNames;
  }

  /**
   * Loads the Wasm bytes and the data, which is JSON text. Throws `policy-unusable` if the bytes are not a module with
   * OPA's ABI 1, if the module calls an unsupported builtin (named in the message), or if the data cannot be read.
   */
  static async open(
    wasm: Uint8Array | WebAssembly.Module,
    data = '{}',
    limits: Limits = DEFAULT_LIMITS,
  ): Promise<RegoModule> {
    let module: WebAssembly.Module;
    try {
      module = wasm instanceof WebAssembly.Module ? wasm : new WebAssembly.Module(wasm);
    } catch (cause) {
      throw unusable(`it is not a Wasm module: ${messageOf(cause)}`, cause);
    }
    const first = new Instance(module, data, limits);
    const builtins = await loadBuiltins(first.builtinNames);
    first.serve(builtins);
    return new RegoModule(module, data, limits, first, builtins);
  }

  #fresh(): Instance {
    const instance = new Instance(this.#module, this.#data, this.#limits);
    instance.serve(this.#builtins);
    return instance;
  }

  /** The compiled module, which other threads can instantiate. */
  get module(): WebAssembly.Module {
    return this.#module;
  }

  /** Bytes of Wasm memory currently held. */
  get memory(): number {
    return this.#instance?.size ?? 0;
  }

  /**
   * Reads an input once. The returned function evaluates entrypoints on it, one at a time, until the next input. It
   * returns `undefined` for an undefined result. Throws `policy-failed`.
   */
  withInput(
    input: string | undefined,
    context: BuiltinContext,
  ): (entrypoint: string, within?: Within) => Value | undefined {
    if (this.#instance !== undefined && this.#instance.size > this.#limits.recycleAbove) this.#instance = undefined;
    let held: Instance | undefined;
    const token = ++this.#current;
    // Reads the input again if the instance was replaced, or now holds a different input.
    const ready = (): Instance => {
      this.#instance ??= this.#fresh();
      if (held !== this.#instance || this.#current !== token) this.#instance.setInput(input);
      this.#current = token;
      held = this.#instance;
      return held;
    };
    this.#guarded('its input', ready);
    return (entrypoint, within) => {
      const id = this.entrypoints.get(entrypoint);
      if (id === undefined)
        throw new CountersignError('policy-failed', `the bundle has no entrypoint \`${entrypoint}\``);
      return this.#guarded(entrypoint, () => ready().evaluate(id, within, context));
    };
  }

  #guarded<T>(what: string, run: () => T): T {
    try {
      return run();
    } catch (thrown) {
      this.#instance = undefined;
      throw failure(what, thrown);
    }
  }
}

function failure(what: string, thrown: unknown): CountersignError {
  const tooDeep = thrown instanceof RangeError && /call stack/i.test(thrown.message);
  const why = tooDeep ? 'it needs more stack than is available' : messageOf(thrown);
  return new CountersignError('policy-failed', `the rules at \`${what}\` failed to run: ${why}`, {
    cause: thrown,
    hint: 'run them on this input with `opa eval`, or with `countersign check --trace`',
  });
}

function unusable(why: string, cause?: unknown): CountersignError {
  return new CountersignError('policy-unusable', `the compiled rules cannot be used: ${why}`, {
    cause,
    hint: 'try `opa eval` or `countersign check --trace` with this input',
  });
}

class Instance {
  readonly #exports: Exports;
  readonly #memory: WebAssembly.Memory;
  readonly #calls: Builtin[] = [];
  readonly #ids: ReadonlyMap<string, number>;
  readonly #data: number;
  readonly #base: number;
  readonly entrypoints: ReadonlyMap<string, number>;
  readonly builtinNames: readonly string[];
  #bytes: Buffer;
  #context: BuiltinContext | undefined;
  #input = 0;
  #mark = 0;

  constructor(module: WebAssembly.Module, data: string, limits: Limits) {
    const wanted = WebAssembly.Module.imports(module).find((i) => i.kind === 'memory');
    if (wanted === undefined) throw unusable('it imports no memory, so `opa build -t wasm` did not make it');
    this.#memory = new WebAssembly.Memory({ initial: 5, maximum: Math.max(5, Math.floor(limits.memory / PAGE)) });
    this.#bytes = Buffer.from(this.#memory.buffer);
    const call = (id: number, ...args: number[]) => this.#call(id, args);
    let exports: Exports;
    try {
      exports = new WebAssembly.Instance(module, {
        env: {
          memory: this.#memory,
          opa_abort: (at: number) => {
            throw new Error(this.#text(at));
          },
          opa_println: (at: number) => this.#context?.print?.(this.#text(at)),
          opa_builtin0: (id: number, _: number) => call(id),
          opa_builtin1: (id: number, _: number, a: number) => call(id, a),
          opa_builtin2: (id: number, _: number, a: number, b: number) => call(id, a, b),
          opa_builtin3: (id: number, _: number, a: number, b: number, c: number) => call(id, a, b, c),
          opa_builtin4: (id: number, _: number, a: number, b: number, c: number, d: number) => call(id, a, b, c, d),
        },
      }).exports as unknown as Exports;
    } catch (cause) {
      throw unusable(messageOf(cause), cause);
    }
    this.#exports = exports;
    const major = exports.opa_wasm_abi_version?.value as number | undefined;
    if (major !== 1) throw unusable(`it has ABI version ${major ?? 'unknown'}, but this host supports version 1`);
    const missing = NEEDED.filter((name) => typeof exports[name] !== 'function');
    if (missing.length > 0) throw unusable(`it does not export ${missing.map((m) => `\`${m}\``).join(', ')}`);
    const names = this.#table(exports.builtins());
    this.builtinNames = [...names.keys()].sort();
    this.#ids = names;
    this.entrypoints = this.#table(exports.entrypoints());
    try {
      this.#data = this.#parse(data, exports.opa_json_parse);
    } catch (cause) {
      throw unusable(`its data cannot be loaded: ${messageOf(cause)}`, cause);
    }
    this.#base = exports.opa_heap_ptr_get();
  }

  serve(builtins: Readonly<Record<string, Builtin>>): void {
    for (const [name, id] of this.#ids) this.#calls[id] = builtins[name] as Builtin;
  }

  get size(): number {
    return this.#memory.buffer.byteLength;
  }

  setInput(input: string | undefined): void {
    this.#exports.opa_heap_ptr_set(this.#base);
    this.#input = input === undefined ? 0 : this.#parse(input, this.#exports.opa_value_parse);
    this.#mark = this.#exports.opa_heap_ptr_get();
  }

  // Memory allocated by one evaluation is released before the next. The input lies below the mark and stays.
  evaluate(id: number, within: Within | undefined, context: BuiltinContext): Value | undefined {
    return resultOf(this.#run(id, within, context));
  }

  /** Returns every binding of a compiled query. */
  bindings(context: BuiltinContext): Value {
    return parse(this.#run(0, undefined, context));
  }

  #run(id: number, within: Within | undefined, context: BuiltinContext): string {
    const exports = this.#exports;
    exports.opa_heap_ptr_set(this.#mark);
    this.#context = context;
    const at = exports.opa_eval_ctx_new();
    const input = within === undefined ? this.#input : this.#placed(within);
    exports.opa_eval_ctx_set_data(at, this.#data);
    if (input !== 0) exports.opa_eval_ctx_set_input(at, input);
    exports.opa_eval_ctx_set_entrypoint(at, id);
    if (exports.eval(at) !== 0) throw new Error('evaluation failed');
    return this.#text(exports.opa_value_dump(exports.opa_eval_ctx_get_result(at)));
  }

  // Places the shared input by reference into this evaluation's own object, so that many evaluations read it only once.
  #placed({ object, path: keys }: Within): number {
    const around = this.#parse(object, this.#exports.opa_json_parse);
    const path = this.#parse(JSON.stringify(keys), this.#exports.opa_json_parse);
    if (this.#exports.opa_value_add_path(around, path, this.#input) !== 0)
      throw new Error(`the input cannot be placed at \`${keys.join('.')}\``);
    return around;
  }

  #call(id: number, args: readonly number[]): number {
    const builtin = this.#calls[id];
    if (builtin === undefined) throw new Error(`builtin ${id} is not supported`);
    const values = args.map((at) => fast(this.#text(this.#exports.opa_value_dump(at))));
    try {
      const result = builtin(values, this.#context as BuiltinContext);
      return this.#parse(print(result), this.#exports.opa_value_parse);
    } catch (thrown) {
      if (thrown instanceof Undefined) return 0; // matches OPA without strict builtin errors
      throw thrown;
    }
  }

  #parse(text: string, reader: (at: number, size: number) => number): number {
    // UTF-8 takes at most three bytes per UTF-16 unit
    const room = text.length < 1024 ? text.length * 3 : Buffer.byteLength(text);
    const at = this.#exports.opa_malloc(room + 1);
    const size = this.#view().write(text, at, 'utf8');
    const value = reader(at, size);
    if (value === 0) throw new Error('a value could not be read');
    return value;
  }

  #text(at: number): string {
    const bytes = this.#view();
    return bytes.toString('utf8', at, bytes.indexOf(0, at));
  }

  // The view becomes invalid whenever the memory grows.
  #view(): Buffer {
    if (this.#bytes.length === 0 || this.#bytes.buffer !== this.#memory.buffer)
      this.#bytes = Buffer.from(this.#memory.buffer);
    return this.#bytes;
  }

  #table(value: number): ReadonlyMap<string, number> {
    const text = this.#text(this.#exports.opa_value_dump(value));
    return new Map(Object.entries(JSON.parse(text) as Record<string, number>));
  }
}

// Most arguments are plain JSON without large numbers, which JSON.parse reads faster than our parser.
function fast(text: string): Value {
  const first = text.charCodeAt(0);
  if (first === 34) return JSON.parse(text) as string;
  return parse(text);
}

// The result is a set with one object `{"result": value}`, or an empty set if it is undefined.
function resultOf(text: string): Value | undefined {
  if (text === 'set()') return undefined;
  return resultSet(text);
}

function resultSet(text: string): Value | undefined {
  const body = /^\{\{"result":([\s\S]*)\}\}$/.exec(text.trim());
  return body === null ? undefined : parse((body[1] as string).trim());
}

/**
 * Returns the bindings of a query compiled on its own, as in OPA's conformance cases. Throws the same errors as an
 * evaluation.
 */
export async function evaluateQuery(
  wasm: Uint8Array,
  data: string,
  input: string | undefined,
  context: BuiltinContext,
): Promise<Value> {
  const instance = new Instance(new WebAssembly.Module(wasm), data, DEFAULT_LIMITS);
  instance.serve(await loadBuiltins(instance.builtinNames));
  instance.setInput(input);
  return instance.bindings(context);
}
