import { posix } from 'node:path';
import type { Violation, ViolationCode } from '../model/index.ts';
import { KEPT_OF_ALL, Kept } from '../render/index.ts';
import { parseYaml } from '../yaml/index.ts';

/** Read access to the repository: the bytes of a file, or undefined; and whether a path is a directory. */
export type Tree = {
  readonly file: (path: string) => Promise<Uint8Array | undefined>;
  readonly directory: (path: string) => Promise<boolean>;
};

const NAMES = ['kustomization.yaml', 'kustomization.yml', 'Kustomization'];
const MAX_FILES = 5000;

// Fields in which a kustomization names files or directories. Kustomize itself refuses files named elsewhere, because
// it does not find them.
const LISTS = [
  'resources',
  'bases',
  'components',
  'crds',
  'configurations',
  'generators',
  'transformers',
  'validators',
  'patchesStrategicMerge',
];
const REMOTE = /^[a-z][a-z0-9+.-]*:\/\/|^git@|^[^/]+\.[a-z]{2,}\/|[?&]ref=|^git::/i;

/**
 * Returns every file a kustomization builds on, read from the repository, or why it cannot be built. Reasons are a
 * remote resource, a chart to fetch, a program to run, or a missing file. A directory that refers back to itself is
 * refused too (CVE-2022-24878).
 */
export async function kustomizationFiles(
  directory: string,
  tree: Tree,
): Promise<{ readonly files: ReadonlyMap<string, Uint8Array>; readonly violations: readonly Violation[] }> {
  const files = new Map<string, Uint8Array>();
  const violations = new Kept(KEPT_OF_ALL);
  const refuse = (file: string, line: number, code: ViolationCode, message: string, hint?: string) =>
    void violations.add(() => ({ code, message, source: { file, line }, ...(hint === undefined ? {} : { hint }) }));
  const visit = async (at: string, from: readonly string[]): Promise<void> => {
    if (from.includes(at))
      return refuse(at, 1, 'kustomize-cycle', `\`${at}\` refers to itself: ${[...from, at].join(' → ')}`);
    if (files.size > MAX_FILES)
      return refuse(at, 1, 'kustomize-too-large', `it builds on more than ${MAX_FILES} files`);
    const found = (
      await Promise.all(
        NAMES.map(async (name) => ({ path: posix.join(at, name), bytes: await tree.file(posix.join(at, name)) })),
      )
    ).filter((f) => f.bytes !== undefined);
    const [one] = found;
    if (one?.bytes === undefined) return refuse(at, 1, 'kustomize-missing', `there is no kustomization in \`${at}\``);
    files.set(one.path, one.bytes);
    const document = parseYaml(Buffer.from(one.bytes).toString('utf8'))[0];
    const value = (document?.value ?? {}) as Record<string, unknown>;
    const line = (key: string) => document?.lineOf([key]) ?? 1;
    for (const key of ['helmCharts', 'helmChartInflationGenerator', 'helmGlobals'])
      if (value[key] !== undefined)
        refuse(
          one.path,
          line(key),
          'kustomize-helm',
          `\`${key}\` would fetch and run a chart`,
          'keep the chart in the repository, in a separate environment that renders with helm',
        );
    for (const { path, key } of references(value)) {
      if (
        REMOTE.test(path) &&
        (await tree.file(posix.join(at, path))) === undefined &&
        !(await tree.directory(posix.join(at, path)))
      ) {
        refuse(
          one.path,
          line(key),
          'kustomize-remote',
          `\`${path}\` is not in the repository, so it was not signed`,
          'copy it into the repository',
        );
        continue;
      }
      const whole = posix.normalize(posix.join(at, path));
      if (whole.startsWith('../') || posix.isAbsolute(path)) {
        refuse(one.path, line(key), 'kustomize-outside', `\`${path}\` is outside the repository`);
        continue;
      }
      const bytes = await tree.file(whole);
      if (bytes !== undefined) files.set(whole, bytes);
      else if (await tree.directory(whole)) await visit(whole.replace(/\/$/, ''), [...from, at]);
      else refuse(one.path, line(key), 'kustomize-missing', `\`${path}\` is not in the repository`);
    }
  };
  await visit(directory.replace(/\/$/, ''), []);
  return { files, violations: violations.list('too-many-violations', `\`${directory}\` has`) };
}

function references(value: Record<string, unknown>): { path: string; key: string }[] {
  const found: { path: string; key: string }[] = [];
  const add = (key: string, path: unknown) => {
    // Patches, generators and transformers may also be inline, as YAML over several lines.
    if (typeof path === 'string' && path !== '' && !path.includes('\n') && !/^\s*[{[]/.test(path))
      found.push({ path, key });
  };
  for (const key of LISTS) for (const path of list(value[key])) add(key, path);
  for (const key of ['patches', 'patchesJson6902', 'replacements'])
    for (const item of list(value[key])) add(key, (item as { path?: unknown } | null)?.path);
  for (const key of ['configMapGenerator', 'secretGenerator'])
    for (const item of list(value[key]) as ({ files?: unknown; envs?: unknown; env?: unknown } | null)[]) {
      for (const file of list(item?.files))
        if (typeof file === 'string') add(key, file.includes('=') ? file.slice(file.indexOf('=') + 1) : file);
      for (const env of [...list(item?.envs), item?.env]) add(key, env);
    }
  add('openapi', (value['openapi'] as { path?: unknown } | undefined)?.path);
  return found;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
