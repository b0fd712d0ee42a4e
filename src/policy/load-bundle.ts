import { gunzipSync } from 'node:zlib';
import { loadPolicy } from '@open-policy-agent/opa-wasm';
import { parseTar } from 'nanotar';
import { CountersignError, messageOf, sha256 } from '../model/index.ts';

/** A compiled set of Rego rules with its digest. */
export type PolicyBundle = {
  /** SHA-256 over the Wasm module and the data: what decides, without timestamps of the archive. */
  readonly digest: string;
  readonly entrypoints: readonly string[];
  /** Runs one entrypoint to its end. Throws `policy-failed` when the rule does not. */
  readonly evaluate: (entrypoint: string, input: object) => unknown;
};

/** Entrypoints a bundle may have; at least one of the deny rules must be there. */
const ENTRYPOINTS = ['countersign/object/deny', 'countersign/object/warn', 'countersign/change/deny', 'countersign/change/warn'] as const;
export type Entrypoint = (typeof ENTRYPOINTS)[number];

const MAX_UNPACKED = 64 * 1024 * 1024; // the shipped bundle is under 1 MiB

type Instance = {
  evaluate(input: object, entrypoint: string): { result: unknown }[];
  setData(data: object): void;
  entrypoints: Record<string, number>;
};

/** Reads a bundle made by `opa build -t wasm` (`.tar.gz`). Throws `policy-unusable`. */
export async function loadBundle(archive: Uint8Array, name: string): Promise<PolicyBundle> {
  const unusable = (why: string, cause?: unknown) =>
    new CountersignError('policy-unusable', `the policy bundle \`${name}\` cannot be used: ${why}`, {
      cause,
      hint: 'build it with `opa build -t wasm -e countersign/object/deny …`',
    });
  let files: Map<string, Uint8Array>;
  try {
    const tar = gunzipSync(archive, { maxOutputLength: MAX_UNPACKED });
    files = new Map(parseTar(tar).map((file) => [file.name.replace(/^\.?\//, ''), file.data ?? new Uint8Array()]));
  } catch (cause) {
    throw unusable('it is not a gzipped tar archive', cause);
  }
  const wasm = files.get('policy.wasm');
  if (wasm === undefined) throw unusable('it has no `policy.wasm`');
  const data = files.get('data.json') ?? Buffer.from('{}');
  const instantiate = async () => {
    const instance = (await loadPolicy(Buffer.from(wasm), { initial: 16, maximum: 4096 })) as unknown as Instance;
    instance.setData(JSON.parse(Buffer.from(data).toString('utf8')) as object);
    return instance;
  };
  const first = await instantiate().catch((cause) => {
    throw unusable(messageOf(cause), cause);
  });
  const entrypoints = Object.keys(first.entrypoints);
  if (!entrypoints.some((e) => e.endsWith('/deny')))
    throw unusable('it has no entrypoint `countersign/object/deny` or `countersign/change/deny`');
  return { digest: sha256(Buffer.concat([wasm, Buffer.from([0]), data])), entrypoints, evaluate: evaluator(first, instantiate) };
}

// An instance that threw has lost stack that it never gets back: it is replaced before the next use.
function evaluator(first: Instance, instantiate: () => Promise<Instance>): PolicyBundle['evaluate'] {
  let instance: Instance | undefined = first;
  return (entrypoint, input) => {
    if (instance === undefined)
      throw new CountersignError('policy-failed', 'the policy bundle is being loaded again after a failure', { recover: 'retry' });
    try {
      return instance.evaluate(input, entrypoint)[0]?.result; // undefined is no set of findings, and is refused as such
    } catch (thrown) {
      instance = undefined;
      void instantiate().then((fresh) => {
        instance = fresh;
      });
      throw new CountersignError('policy-failed', `the rules at \`${entrypoint}\` failed to run: ${messageOf(thrown)}`, {
        cause: thrown,
        hint: 'run the rules on this input with `opa eval`',
      });
    }
  };
}
