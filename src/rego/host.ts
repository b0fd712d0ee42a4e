import { CountersignError, messageOf } from '../model/index.ts';
import { type Builtin, type BuiltinContext, Undefined } from './builtin.ts';
import { loadBuiltins } from './builtins.ts';
import { parse, print, type Value } from './value.ts';

/** What a host call may cost, and what it may know. */
export type Limits = {
  /** Most memory of one instance in bytes; asking for more ends the evaluation. */
  readonly memory: number;
  /** An instance that has grown past this is replaced, because Wasm memory never shrinks. */
  readonly recycleAbove: number;
};

const DEFAULT_LIMITS: Limits = { memory: 256 * 1024 * 1024, recycleAbove: 16 * 1024 * 1024 };

/** An object, as JSON text, into which the input is put at `path` for one evaluation. */
export type Within = { readonly object: string; readonly path: readonly string[] };

const PAGE = 64 * 1024;

/** The exports of a module of ABI 1.x (https://www.openpolicyagent.org/docs/wasm#exports). */
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
 * One set of compiled rules that can be evaluated again and again. Not shared between threads. After anything was
 * thrown out of Wasm the instance is replaced before the next use: its stack pointer is not put back, and some hundreds
 * of such ends would leave no stack.
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
  /** Names of the builtins that the rules call and the host serves. */
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
   * Takes the Wasm bytes and the data as JSON text. Throws `policy-unusable` when it is no module of OPA's ABI 1, calls
   * a builtin that is not served (named), or its data cannot be read.
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
      throw unusable(`it is no Wasm module: ${messageOf(cause)}`, cause);
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

  /** The compiled module, which other threads can make instances of. */
  get module(): WebAssembly.Module {
    return this.#module;
  }

  /** Bytes of Wasm memory held now. */
  get memory(): number {
    return this.#instance?.size ?? 0;
  }

  /**
   * Reads an input once; the returned function evaluates one entrypoint on it after the other, until the next input.
   * `undefined` is an undefined result. Throws `policy-failed`.
   */
  withInput(
    input: string | undefined,
    context: BuiltinContext,
  ): (entrypoint: string, within?: Within) => Value | undefined {
    if (this.#instance !== undefined && this.#instance.size > this.#limits.recycleAbove) this.#instance = undefined;
    let held: Instance | undefined;
    const token = ++this.#current;
    // Reads the input anew where the instance was replaced since, or holds another input by now.
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
  const why = tooDeep ? 'it needs more stack than there is' : messageOf(thrown);
  return new CountersignError('policy-failed', `the rules at \`${what}\` failed to run: ${why}`, {
    cause: thrown,
    hint: 'run them on this input with `opa eval`, or with `countersign check --trace`',
  });
}

function unusable(why: string, cause?: unknown): CountersignError {
  return new CountersignError('policy-unusable', `the compiled rules cannot be used: ${why}`, {
    cause,
    hint: 'build them with `countersign policy build`',
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
    if (wanted === undefined) throw unusable('it imports no memory, so it is no module of `opa build -t wasm`');
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
    if (major !== 1) throw unusable(`it is of ABI version ${major ?? 'unknown'}, and this host speaks version 1`);
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

  // What one evaluation allocates is forgotten before the next: the input below the mark stays.
  evaluate(id: number, within: Within | undefined, context: BuiltinContext): Value | undefined {
    return resultOf(this.#run(id, within, context));
  }

  /** Every binding of a compiled query. */
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

  // The shared input is put by reference into an object of this evaluation’s own, so it is read once for many.
  #placed({ object, path: keys }: Within): number {
    const around = this.#parse(object, this.#exports.opa_json_parse);
    const path = this.#parse(JSON.stringify(keys), this.#exports.opa_json_parse);
    if (this.#exports.opa_value_add_path(around, path, this.#input) !== 0)
      throw new Error(`the input cannot be placed at \`${keys.join('.')}\``);
    return around;
  }

  #call(id: number, args: readonly number[]): number {
    const builtin = this.#calls[id];
    if (builtin === undefined) throw new Error(`builtin ${id} is not served`);
    const values = args.map((at) => fast(this.#text(this.#exports.opa_value_dump(at))));
    try {
      const result = builtin(values, this.#context as BuiltinContext);
      return this.#parse(print(result), this.#exports.opa_value_parse);
    } catch (thrown) {
      if (thrown instanceof Undefined) return 0; // as OPA does where strict builtin errors are off
      throw thrown;
    }
  }

  #parse(text: string, reader: (at: number, size: number) => number): number {
    // UTF-8 takes at most three bytes a UTF-16 unit
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

  // The view dies each time the memory grows.
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

// Most arguments are plain JSON without large numbers, which the engine reads faster than we do.
function fast(text: string): Value {
  const first = text.charCodeAt(0);
  if (first === 34) return JSON.parse(text) as string;
  return parse(text);
}

// The result is a set with one object `{"result": value}`, or an empty set where it is undefined.
function resultOf(text: string): Value | undefined {
  if (text === 'set()') return undefined;
  return resultSet(text);
}

function resultSet(text: string): Value | undefined {
  const body = /^\{\{"result":([\s\S]*)\}\}$/.exec(text.trim());
  return body === null ? undefined : parse((body[1] as string).trim());
}

/** The bindings of a query compiled on its own, as OPA’s conformance cases are. Throws what evaluation throws. */
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
