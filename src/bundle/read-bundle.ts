import { gunzipSync } from 'node:zlib';
import { parseTar } from 'nanotar';
import { CountersignError, messageOf } from '../model/index.ts';
import { RegoModule } from '../rego/index.ts';
import { type BundleManifest, entryOf, type PolicyBundle, policyBundle } from './policy-bundle.ts';

const MAX_ARCHIVE = 64 * 1024 * 1024; // the shipped library has 1 MiB, Gatekeeper's whole library 7
const MAX_UNPACKED = 256 * 1024 * 1024;

/**
 * Reads a bundle archive from `countersign policy build`, or any from `opa build -t wasm` whose entrypoints follow a
 * convention. Throws `policy-unusable` for an invalid archive, a missing module, a wrong ABI, an unsupported builtin,
 * or if nothing denies.
 */
export async function readBundle(archive: Uint8Array, name: string): Promise<PolicyBundle> {
  const unusable = (why: string, cause?: unknown) =>
    new CountersignError('policy-unusable', `the policy bundle \`${name}\` cannot be used: ${why}`, {
      cause,
      hint: 'build it with `countersign policy build`, or with `opa build -t wasm -e main/deny …`',
    });
  if (archive.length > MAX_ARCHIVE) throw unusable(`it is larger than ${MAX_ARCHIVE / 1024 / 1024} MiB`);
  let files: Map<string, Uint8Array>;
  try {
    // A copy: the reader takes the whole memory behind a Buffer, which may be shared.
    const tar = new Uint8Array(gunzipSync(archive, { maxOutputLength: MAX_UNPACKED }));
    files = new Map(parseTar(tar).map((file) => [file.name.replace(/^\.?\//, ''), file.data ?? new Uint8Array()]));
  } catch (cause) {
    throw unusable('it is not a gzipped tar archive', cause);
  }
  const wasm = files.get('policy.wasm');
  if (wasm === undefined) throw unusable('it has no `policy.wasm`');
  const data = Buffer.from(files.get('data.json') ?? '{}').toString('utf8');
  const module = await RegoModule.open(wasm, data).catch((thrown: unknown) => {
    throw thrown instanceof CountersignError
      ? unusable(thrown.message.replace(/^the compiled rules cannot be used: /, ''), thrown)
      : thrown;
  });
  const written = files.get('countersign.json');
  const manifest = written === undefined ? inferred([...module.entrypoints.keys()]) : readManifest(written, unusable);
  const named = [...manifest.entries, ...manifest.templates].map((e) => e.entrypoint);
  const missing = [...named, ...(manifest.together === undefined ? [] : [manifest.together])].find(
    (e) => !module.entrypoints.has(e),
  );
  if (missing !== undefined)
    throw unusable(`its manifest names the entrypoint \`${missing}\`, which the module does not have`);
  const denies = manifest.entries.some((e) => e.action === 'deny') || manifest.templates.length > 0;
  if (!denies) throw unusable('it has no rule that denies: no `deny` or `violation` entrypoint, and no template');
  return policyBundle(name, wasm, data, manifest);
}

function readManifest(bytes: Uint8Array, unusable: (why: string, cause?: unknown) => CountersignError): BundleManifest {
  try {
    const manifest = JSON.parse(Buffer.from(bytes).toString('utf8')) as BundleManifest;
    if (
      manifest.v !== 1 ||
      ![manifest.entries, manifest.rules, manifest.templates, manifest.constraints, manifest.expansions].every(
        Array.isArray,
      )
    )
      throw new Error('another version');
    return manifest;
  } catch (cause) {
    throw unusable(
      `its \`countersign.json\` cannot be read (${messageOf(cause)}): it was built by a different version`,
      cause,
    );
  }
}

function inferred(entrypoints: readonly string[]): BundleManifest {
  return {
    v: 1,
    opa: '',
    entries: entrypoints.map(entryOf).filter((e) => e !== undefined),
    rules: [],
    templates: [],
    constraints: [],
    expansions: [],
  };
}
