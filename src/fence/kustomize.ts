import { posix } from 'node:path';
import type { Violation } from '../model/index.ts';
import { KEPT_OF_ALL, Kept } from '../render/index.ts';
import { parseYaml } from '../yaml/index.ts';
import { type RefuseLine, readHelmCharts } from './kustomize-charts.ts';
import type { RepositoryTree } from './recipe.ts';

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

// Charts are read before Kustomize runs, in the one form that is in the kustomization itself. It would take other
// spellings of these keys (`HelmCharts`) for the same.
const HELM_KEYS: ReadonlySet<string> = new Set(['helmCharts', 'helmGlobals']);
const INFLATOR = 'HelmChartInflationGenerator';
const AS_CHARTS = ['would run a chart that was not read', 'write it as `helmCharts` of the kustomization'] as const;

/** Everything that a kustomization builds on, and the lines of the charts in each of its files. */
export type KustomizationFiles = {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly violations: readonly Violation[];
  readonly charts: ReadonlyMap<string, readonly number[]>;
};

/**
 * Returns every file a kustomization builds on, read from the repository, or why it cannot be built. Reasons are a
 * remote resource, a chart to fetch, a program to run, or a missing file. A directory that refers back to itself is
 * refused too (CVE-2022-24878). `namespace` is for releases of charts that name none.
 */
export async function kustomizationFiles(
  directory: string,
  tree: RepositoryTree,
  namespace: string | undefined,
): Promise<KustomizationFiles> {
  const files = new Map<string, Uint8Array>();
  const charts = new Map<string, readonly number[]>();
  const violations = new Kept(KEPT_OF_ALL);
  const refuse: RefuseLine = (file, line, code, message, hint) =>
    void violations.add(() => ({ code, message, source: { file, line }, ...(hint === undefined ? {} : { hint }) }));
  const visit = async (at: string, from: readonly string[], isGenerator: boolean): Promise<void> => {
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
    const other = Object.keys(value).find((key) => /^helm/i.test(key) && !HELM_KEYS.has(key));
    if (other !== undefined)
      refuse(one.path, line(other), 'kustomize-helm', `\`${other}\` ${AS_CHARTS[0]}`, AS_CHARTS[1]);
    if (HELM_KEYS.values().some((key) => value[key] !== undefined)) {
      const user = {
        at,
        path: one.path,
        value,
        lineOf: (path: readonly (string | number)[]) => document?.lineOf(path),
      };
      const lines = await readHelmCharts(user, { tree, files, namespace, refuse });
      if (lines.length > 0) charts.set(one.path, lines);
    }
    if (list(value['generators']).some((text) => typeof text === 'string' && namesInflator(text)))
      refuse(one.path, line('generators'), 'kustomize-helm', `a \`${INFLATOR}\` ${AS_CHARTS[0]}`, AS_CHARTS[1]);
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
      const generates = isGenerator || key === 'generators';
      if (bytes !== undefined) {
        files.set(whole, bytes);
        if (generates && namesInflator(Buffer.from(bytes).toString('utf8')))
          refuse(whole, 1, 'kustomize-helm', `a \`${INFLATOR}\` ${AS_CHARTS[0]}`, AS_CHARTS[1]);
      } else if (await tree.directory(whole)) await visit(whole.replace(/\/$/, ''), [...from, at], generates);
      else refuse(one.path, line(key), 'kustomize-missing', `\`${path}\` is not in the repository`);
    }
  };
  await visit(directory.replace(/\/$/, ''), [], false);
  return { files, charts, violations: violations.list('too-many-violations', `\`${directory}\` has`) };
}

// Both the text and its values: YAML can escape characters.
function namesInflator(text: string): boolean {
  if (text.includes(INFLATOR)) return true;
  try {
    return JSON.stringify(parseYaml(text).map((d) => d.value)).includes(INFLATOR);
  } catch {
    return false; // Kustomize says why it cannot be read
  }
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
