import { execFileSync } from 'node:child_process';
import { tool } from '../../scripts/tools.ts';
import { openFence, type ReadingProcess, type Recipe, type RepositoryTree } from '../../src/fence/index.ts';
import type { ProcessLimits } from '../../src/render/index.ts';

/** Limits that no honest test meets; `with` narrows some of them. */
export const LIMITS: ProcessLimits = {
  objects: 20_000,
  values: 1_000_000,
  size: 32 * 1024 * 1024,
  memory: 384 * 1024 * 1024,
  ms: 120_000,
};

type Programs = Parameters<typeof openFence>[0];

/** A fence whose output is read by a process as the service has it; `reading` is for the caller to close. */
export function fenceOf(programs: Programs, reading: ReadingProcess, store?: Parameters<typeof openFence>[2]) {
  return openFence(programs, (texts, limits) => reading.texts(texts, limits), store);
}

/** A kustomization in an environment of the namespace `shop`. */
export const KUSTOMIZE: Recipe = { with: 'kustomize', namespace: 'shop', kubeVersion: '1.34', apiVersions: [] };

/** A repository of these files; a value of `->x` is a link. */
export function treeOf(files: Readonly<Record<string, string>>): RepositoryTree {
  const isLink = (path: string) => files[path]?.startsWith('->') === true;
  return {
    file: async (path) => (files[path] === undefined || isLink(path) ? undefined : Buffer.from(files[path])),
    directory: async (path) => Object.keys(files).some((f) => f.startsWith(`${path.replace(/\/$/, '')}/`)),
    files: async (directory) =>
      Object.keys(files)
        .filter((f) => f.startsWith(`${directory}/`))
        .map((path) => ({ path, mode: isLink(path) ? '120000' : '100644' })),
  };
}

/** Whether this pair of programs renders charts below Kustomize: 5.7 does not run Helm 4. */
export async function rendersChartsBelow(): Promise<boolean> {
  const [kustomize, helm] = await Promise.all([tool('kustomize'), tool('helm')]);
  const said = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8' });
  return !said(kustomize, 'version').includes('v5.7.') || said(helm, 'version', '--short').startsWith('v3.');
}
