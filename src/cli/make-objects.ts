import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ProcessSettings } from '../config/index.ts';
import { type Made, openFence, type Recipe, type RepositoryTree } from '../fence/index.ts';
import type { Maker, SourceRepository } from '../gate/index.ts';
import { CountersignError, type Environment } from '../model/index.ts';
import { provide } from '../tools/index.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Has `kustomize` and `helm` make objects: from PATH, or built from the pinned modules where Go is. With `keep`, a directory,
 * what was made stays there, so that a restart with a newer program still has what was approved.
 */
export function openMaker(settings: ProcessSettings, keep?: string): Maker {
  const programs = (name: 'kustomize' | 'helm') =>
    provide(name, {
      path: settings.path,
      kubebuilderAssets: undefined,
      cache: join(ROOT, '.tools'),
      root: ROOT,
      say: (line) => process.stderr.write(`${line}\n`),
    });
  const fence = openFence(programs, keep === undefined ? undefined : storeIn(keep));
  return async (environment, repository, tree) => {
    const recipe = recipeOf(environment);
    return fence(recipe, environment.spec.source.path, await repositoryTree(repository, tree));
  };
}

function recipeOf({ metadata, spec }: Environment): Recipe {
  const { render, target } = spec;
  if (render.with === 'kustomize') return { with: 'kustomize' };
  if (render.with !== 'helm') throw new CountersignError('render-failed', `nothing makes objects \`${render.with}\``);
  return {
    with: 'helm',
    chart: render.chart,
    values: render.values,
    release: render.release ?? metadata.name,
    namespace: render.namespace ?? (target.namespaces[0] as string),
    kubeVersion: render.kubeVersion,
    apiVersions: render.apiVersions,
  };
}

async function repositoryTree(repository: SourceRepository, tree: string): Promise<RepositoryTree> {
  const entries = await repository.files(tree, '.');
  const byPath = new Map(entries.map((e) => [e.path, e]));
  const directories = new Set(entries.flatMap(({ path }) => path.split('/').map((_, i, parts) => parts.slice(0, i).join('/'))));
  return {
    file: async (path) => {
      const entry = byPath.get(path);
      return entry?.mode.startsWith('100') === true ? repository.blob(entry.blob) : undefined;
    },
    directory: async (path) => directories.has(path.replace(/\/$/, '')) || path === '.',
    files: async (directory) => entries.filter((e) => directory === '.' || e.path.startsWith(`${directory}/`)),
  };
}

function storeIn(directory: string): { get: (content: string) => Made | undefined; put: (content: string, made: Made) => void } {
  const file = (content: string) => join(directory, `${content}.json`);
  return {
    get: (content) => {
      try {
        return JSON.parse(readFileSync(file(content), 'utf8')) as Made;
      } catch {
        return undefined; // what cannot be read is made again; the verdict's own digest says whether it is the same
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
