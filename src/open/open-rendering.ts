import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ProcessSettings } from '../config/index.ts';
import {
  type ChartPin,
  hostOf,
  type Made,
  openFence,
  programVersionTrouble,
  ReadingProcess,
  type Recipe,
  type RepositoryTree,
} from '../fence/index.ts';
import { limitsOf, type Maker, type ReadManifests, type SourceRepository } from '../gate/index.ts';
import {
  CountersignError,
  DEFAULT_LIMITS,
  defaultNamespace,
  type Environment,
  messageOf,
  Recent,
  sizeInBytes,
  stableKinds,
} from '../model/index.ts';
import { downloadFile, pullImage, type Refuse } from '../registry/index.ts';
import { provide } from '../tools/index.ts';
import { memoryShare } from './memory-share.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Rendering for gates, until closed. */
export type RenderingParts = {
  readonly make: Maker;
  readonly read: ReadManifests;
  /** Starts the process that reads manifests, for a command that will need it soon. */
  readonly warm: () => void;
  readonly close: () => void;
};

/**
 * Reads manifests in separate processes and runs `kustomize` and `helm`, from PATH or built from the pinned modules if
 * Go is installed. `say` gets a line for a version outside of the supported ones, and for each step of a build. With a
 * directory `keep`, their output is stored there, so that the approved output survives an update of the program. In a
 * container with a memory limit, rendering uses at most a share of it.
 */
export function openRendering(
  settings: ProcessSettings,
  keep?: string,
  say: Say = (line) => void process.stderr.write(`${line}\n`),
): RenderingParts {
  const programs = openPrograms(settings, say);
  const reading = new ReadingProcess();
  const fence = openFence(
    programs,
    (texts, limits) => reading.texts(texts, limits),
    keep === undefined ? undefined : storeIn(keep),
  );
  const charts = chartStore(keep);
  const within = <T extends { readonly memory: number }>(limits: T): T => ({
    ...limits,
    memory: Math.min(limits.memory, memoryShare()),
  });
  return {
    make: async (environment, repository, tree) => {
      const recipe = recipeOf(environment);
      const files = await repositoryTree(repository, tree);
      return fence(recipe, environment.spec.source.path, files, within(limitsOf(environment)), (pin) =>
        charts(pin.digest, () => pullChart(pin, environment)),
      );
    },
    read: (files, limits, substitute) => reading.files(files, within(limits), substitute),
    warm: () => reading.warm(within({ memory: sizeInBytes(DEFAULT_LIMITS.memory) }).memory),
    close: () => reading.close(),
  };
}

type Say = (line: string) => void;
type Renderer = 'kustomize' | 'helm';

// A program is looked up each time, because it may be installed meanwhile. Each file says its version once.
function openPrograms({ path }: ProcessSettings, say: Say): (name: Renderer) => Promise<string> {
  const asked = new Set<string>();
  return async (name) => {
    const file = await provide(name, {
      path,
      kubebuilderAssets: undefined,
      cache: join(ROOT, '.tools'),
      root: ROOT,
      say,
    });
    if (asked.has(file)) return file;
    asked.add(file);
    const trouble = await programVersionTrouble(name, file);
    if (trouble !== undefined) say(trouble);
    return file;
  };
}

function recipeOf(environment: Environment): Recipe {
  const { metadata, spec } = environment;
  const { render } = spec;
  if (render.with === 'plain')
    throw new CountersignError('render-failed', `there is no program to render \`${render.with}\``);
  const namespace = defaultNamespace(environment);
  // Helm alone knows groups and versions. In a cluster, charts that ask for a kind are told the truth.
  const capabilities = { kubeVersion: render.kubeVersion, apiVersions: [...stableKinds(), ...render.apiVersions] };
  if (render.with === 'kustomize') return { with: 'kustomize', namespace, ...capabilities };
  if (namespace === undefined)
    throw new CountersignError('render-failed', 'Helm has no namespace for its release', {
      hint: `set \`spec.target.namespace\` of the Environment \`${metadata.name}\``,
    });
  return {
    with: 'helm',
    chart: render.chart,
    values: render.values,
    release: render.release ?? metadata.name,
    namespace,
    ...capabilities,
    registries: render.registries.map((r) => r.host),
  };
}

// Fetches a chart's archive from a registry or a web server, as pinned in the repository.
async function pullChart(pin: ChartPin, { spec }: Environment): Promise<Uint8Array> {
  const refuse: Refuse = (why, more = {}) =>
    new CountersignError('render-failed', `cannot fetch the chart \`${pin.url}\`: ${why}`, {
      cause: more.cause,
      hint: more.hint ?? 'compare `digest` with the output of `helm pull` and `oras resolve`',
      ...(more.retry === true ? { recover: 'retry' as const } : {}),
    });
  const registry = spec.render.with === 'helm' ? spec.render.registries.find((r) => r.host === hostOf(pin)) : undefined;
  const read = (file: string | undefined): string | undefined => {
    try {
      return file === undefined ? undefined : readFileSync(file, 'utf8').trim();
    } catch (cause) {
      throw refuse(`\`${file}\` cannot be read: ${messageOf(cause)}`, {
        cause,
        retry: true,
        hint: 'correct `spec.render.registries`',
      });
    }
  };
  const options = {
    credentials: read(registry?.credentialsFile),
    ca: read(registry?.caFile),
    leadsTo: registry?.leadsTo,
  };
  if (!pin.url.startsWith('oci://')) return downloadFile(pin.url, pin.digest, options, refuse);
  const { layers, layer } = await pullImage(`${pin.url.slice('oci://'.length)}@${pin.digest}`, options, refuse);
  const chart = layers.find((l) => l.mediaType === 'application/vnd.cncf.helm.chart.content.v1.tar+gzip');
  if (chart === undefined) throw refuse('its manifest has no layer with a chart');
  return layer(chart);
}

// Fetched archives are kept: an unreachable registry must not block recovery.
function chartStore(
  keep: string | undefined,
): (digest: string, pull: () => Promise<Uint8Array>) => Promise<Uint8Array> {
  const known = new Recent<Uint8Array>(20);
  return async (digest, pull) => {
    const file = keep === undefined ? undefined : join(keep, 'charts', `${digest.slice('sha256:'.length)}.tgz`);
    const before = known.get(digest) ?? (file !== undefined && existsSync(file) ? readFileSync(file) : undefined);
    const archive = before ?? (await pull());
    known.set(digest, archive);
    if (before === undefined && file !== undefined) {
      mkdirSync(join(file, '..'), { recursive: true });
      writeFileSync(`${file}.${process.pid}.new`, archive, { mode: 0o600 });
      renameSync(`${file}.${process.pid}.new`, file);
    }
    return archive;
  };
}

async function repositoryTree(repository: SourceRepository, tree: string): Promise<RepositoryTree> {
  const entries = await repository.files(tree, '.');
  const byPath = new Map(entries.map((e) => [e.path, e]));
  const directories = new Set(
    entries.flatMap(({ path }) => path.split('/').map((_, i, parts) => parts.slice(0, i).join('/'))),
  );
  return {
    file: async (path) => {
      const entry = byPath.get(path);
      return entry?.mode.startsWith('100') === true ? repository.blob(entry.blob) : undefined;
    },
    directory: async (path) => directories.has(path.replace(/\/$/, '')) || path === '.',
    files: async (directory) => entries.filter((e) => directory === '.' || e.path.startsWith(`${directory}/`)),
  };
}

function storeIn(directory: string): {
  get: (content: string) => Made | undefined;
  put: (content: string, made: Made) => void;
} {
  const file = (content: string) => join(directory, `${content}.json`);
  return {
    get: (content) => {
      try {
        return JSON.parse(readFileSync(file(content), 'utf8')) as Made;
      } catch {
        return undefined; // unreadable output is generated again; the verdict's own digest says whether it is the same
      }
    },
    put: (content, made) => {
      mkdirSync(directory, { recursive: true });
      const fresh = `${file(content)}.${process.pid}.new`;
      writeFileSync(fresh, JSON.stringify(made), { mode: 0o600 });
      renameSync(fresh, file(content));
    },
  };
}
