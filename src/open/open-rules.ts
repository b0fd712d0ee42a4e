import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type PolicyBundle, pullBundle, readBundle } from '../bundle/index.ts';
import type { OpenRules, SourceRepository } from '../gate/index.ts';
import { openRepository, sourceRepository } from '../git/index.ts';
import {
  type BundleSource,
  CountersignError,
  durationMs,
  type Environment,
  messageOf,
  sha256,
} from '../model/index.ts';
import { PolicyPool, SharedPools } from '../policy/index.ts';
import { type TrustStore, verifyDetached } from '../trust/index.ts';

// The compiled rules shipped with Countersign.
const SHIPPED_BUNDLE = fileURLToPath(new URL('../../policies/dist/bundle.tar.gz', import.meta.url));

const KEPT = 4; // sets of rules of one environment
const KEPT_BUNDLES = 32;

/** A bundle's archive with its signature. */
type Loaded = { readonly name: string; readonly archive: Uint8Array; readonly signature: string | undefined };

export type RulesOptions = {
  readonly git?: { file: string; path: string } | undefined;
  readonly threads?: number;
  readonly shared?: SharedRules;
};

/** Rules that several environments share: bundles are read once and run on the same threads. */
export class SharedRules {
  readonly #loaded = new Map<string, Promise<Loaded>>();
  readonly #read = new Map<string, Promise<PolicyBundle>>();
  readonly pools = new SharedPools();

  /** Loads a bundle that is the same for every revision. */
  load(key: string, load: () => Promise<Loaded>): Promise<Loaded> {
    const known = this.#loaded.get(key) ?? load();
    this.#loaded.set(key, known);
    known.catch(() => this.#loaded.delete(key)); // an unreachable registry may be back at the next check
    return known;
  }

  read(key: string, read: () => Promise<PolicyBundle>): Promise<PolicyBundle> {
    const known = this.#read.get(key) ?? read();
    known.catch(() => this.#read.delete(key));
    for (const old of keep(this.#read, key, known, KEPT_BUNDLES)) this.#read.delete(old);
    return known;
  }
}

/** Returns the rules of an environment for the gate, and a function that releases their threads. */
export function openRules(
  environment: Environment,
  repository: Pick<SourceRepository, 'files' | 'blob'>,
  options: RulesOptions = {},
): { readonly rules: OpenRules; readonly close: () => Promise<void> } {
  const { bundles, deadline } = environment.spec.policies;
  const { shared = new SharedRules(), threads } = options;
  const user = {};
  const used = new Map<string, PolicyPool>();
  const open = async (source: BundleSource, tree: string, store: TrustStore): Promise<PolicyBundle> => {
    const { name, archive, signature } =
      'path' in source
        ? await fromTree(repository, tree, source.path)
        : await shared.load(JSON.stringify(source), () => loadFixed(source, options));
    const bundle = await shared.read(`${name} ${sha256(archive)}`, () => readBundle(archive, name));
    await refuseUnsigned(source, bundle, signature, store);
    if ('file' in source && source.sha256 !== undefined && source.sha256 !== bundle.digest)
      throw new CountersignError(
        'policy-unusable',
        `the policy bundle \`${name}\` has the digest ${bundle.digest.slice(0, 12)}…, ` +
          `not ${source.sha256.slice(0, 12)}…`,
        { hint: 'correct `sha256`, or provide the right bundle' },
      );
    return bundle;
  };
  const rules: OpenRules = async (tree, store) => {
    const opened: PolicyBundle[] = [];
    for (const source of bundles) opened.push(await open(source, tree, store));
    const key = `${deadline} ${opened.map((b) => b.digest).join(' ')}`;
    const pool = shared.pools.take(
      key,
      user,
      () => new PolicyPool(opened, { deadline: durationMs(deadline), ...(threads === undefined ? {} : { threads }) }),
    );
    for (const old of keep(used, key, pool, KEPT)) {
      used.delete(old);
      void shared.pools.give(old, user);
    }
    return pool;
  };
  return {
    rules,
    close: async () => void (await Promise.all([...used.keys()].map((key) => shared.pools.give(key, user)))),
  };
}

// Rules in the repository change with its revisions; a verdict and its comparison with the base use two.
function keep<T>(known: Map<string, T>, key: string, value: T, count: number): string[] {
  known.delete(key);
  known.set(key, value);
  return [...known.keys()].slice(0, -count);
}

async function refuseUnsigned(
  source: BundleSource,
  bundle: PolicyBundle,
  signature: string | undefined,
  store: TrustStore,
): Promise<void> {
  if (!('signedBy' in source) || source.signedBy === undefined) return;
  const refuse = (why: string) =>
    new CountersignError(
      'policy-unusable',
      `the policy bundle \`${bundle.name}\` is not signed by one of ` +
        `${source.signedBy?.map((s) => `\`${s}\``).join(', ')}: ${why}`,
      { hint: 'have one of them run `countersign policy sign`' },
    );
  if (signature === undefined) throw refuse('it has no signature');
  const verified = await verifyDetached('bundle', { sha256: bundle.digest }, signature, store, Date.now());
  if (verified.kind === 'refused') throw refuse(verified.reason);
  if (!store.members(source.signedBy).has(verified.principal)) throw refuse(`\`${verified.principal}\` signed it`);
}

async function loadFixed(source: Exclude<BundleSource, { path: string }>, options: RulesOptions): Promise<Loaded> {
  if ('library' in source)
    return {
      name: 'shipped',
      archive: readOrExplain(SHIPPED_BUNDLE, 'in a checkout of Countersign, run `npm run build:policies`'),
      signature: undefined,
    };
  if ('file' in source)
    return {
      name: source.file,
      archive: readOrExplain(source.file, 'correct `spec.policies.bundles`'),
      signature: readIfThere(`${source.file}.sig`),
    };
  if ('oci' in source) {
    const credentials =
      source.credentialsFile === undefined
        ? undefined
        : readOrExplain(source.credentialsFile, 'provide a file with `user:password`').toString('utf8').trim();
    const ca = source.caFile === undefined ? undefined : readOrExplain(source.caFile, 'a PEM file').toString('utf8');
    return { name: source.oci, ...(await pullBundle(source.oci, { credentials, ca, leadsTo: source.leadsTo })) };
  }
  return fromRepository(source.repository, options);
}

// The other repository is fetched into a separate directory each time it is opened; its commit is pinned.
async function fromRepository(
  { url, branch, commit, path }: { url: string; branch: string; commit: string; path: string },
  options: RulesOptions,
): Promise<Loaded> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-policies-'));
  const repository = openRepository(join(directory, 'git'), options.git);
  try {
    await repository.fetch(url, branch, undefined);
    const source = sourceRepository(repository);
    return await fromTree(source, await source.tree(commit), path);
  } finally {
    await repository.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function fromTree(
  repository: Pick<SourceRepository, 'files' | 'blob'>,
  tree: string,
  path: string,
): Promise<Loaded> {
  const directory = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '.';
  const files = await repository.files(tree, directory);
  const find = (name: string) => files.find((f) => f.path === name && f.mode.startsWith('100'));
  const file = find(path);
  if (file === undefined)
    throw new CountersignError('policy-unusable', `there is no policy bundle \`${path}\` in the repository`, {
      hint: 'build it with `countersign policy build` and commit it',
    });
  const signature = find(`${path}.sig`);
  return {
    name: path,
    archive: await repository.blob(file.blob),
    signature:
      signature === undefined ? undefined : Buffer.from(await repository.blob(signature.blob)).toString('utf8'),
  };
}

function readOrExplain(file: string, hint: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new CountersignError('policy-unusable', `the file \`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      hint,
    });
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
