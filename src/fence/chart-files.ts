import { posix } from 'node:path';
import { CountersignError, type ViolationCode } from '../model/index.ts';
import { KEPT_OF_ALL, Kept } from '../render/index.ts';
import { parseYaml } from '../yaml/index.ts';
import { hostOf, type PullChart, readPin, unpackChart } from './pinned-chart.ts';
import type { HelmRecipe, RepositoryTree } from './recipe.ts';

/** Where a chart is among the files, and the name of its directory in messages. */
export type ChartPlace = { readonly at: string; readonly shown: string };

/** Records one reason why files cannot be used, at the first line of a file. */
export type RefuseFile = (file: string, code: ViolationCode, message: string, hint?: string) => void;

const PINNED = '.countersign-chart';

/**
 * Returns every file that a chart with values builds on, or why it cannot be rendered: a link, a dependency or a file
 * that is not in the repository, a pin that is not allowed. Throws `render-failed` if a pinned chart cannot be fetched.
 */
export async function chartFiles(
  recipe: HelmRecipe,
  directory: string,
  tree: RepositoryTree,
  pull: PullChart = noCharts,
) {
  const files = new Map<string, Uint8Array>();
  const violations = new Kept(KEPT_OF_ALL);
  const refuse: RefuseFile = (file, code, message, hint) =>
    violations.add(() => ({ code, message, source: { file, line: 1 }, ...(hint === undefined ? {} : { hint }) }));
  const chart = posix.normalize(posix.join(directory, recipe.chart));
  let place: ChartPlace = { at: chart, shown: chart };
  if (chart.startsWith('..'))
    refuse(directory, 'helm-outside', `the chart \`${recipe.chart}\` is outside the repository`);
  else if (/\.ya?ml$/.test(chart)) place = (await pinned(chart, recipe, tree, pull, files, refuse)) ?? place;
  else {
    if (!(await readChart(chart, tree, files, refuse)))
      refuse(
        chart,
        'helm-missing',
        `there is no chart in \`${chart}\``,
        'keep the chart in the repository (`helm pull --untar`), or pin it by digest in a file that `chart` names',
      );
  }
  for (const values of recipe.values) {
    const path = posix.normalize(posix.join(directory, values));
    const bytes = path.startsWith('..') ? undefined : await tree.file(path);
    if (bytes === undefined) refuse(path, 'helm-missing', `there is no values file \`${values}\` in the repository`);
    else files.set(path, bytes);
  }
  return { files, violations: violations.list('too-many-violations', `\`${directory}\` has`), chart: place };
}

/**
 * Adds every file of a chart's directory in the repository to `files`. Refuses links, and dependencies that are not in
 * the directory. Returns whether there is a chart at all.
 */
export async function readChart(
  chart: string,
  tree: RepositoryTree,
  files: Map<string, Uint8Array>,
  refuse: RefuseFile,
): Promise<boolean> {
  for (const { path, mode } of await tree.files(chart)) {
    if (mode.startsWith('100')) {
      files.set(path, (await tree.file(path)) ?? new Uint8Array());
      continue;
    }
    refuse(path, 'not-a-file', `\`${path}\` is a ${mode === '120000' ? 'link' : 'submodule'}, which is not supported`);
  }
  const path = posix.join(chart, 'Chart.yaml');
  const definition = files.get(path);
  if (definition === undefined) return false;
  for (const name of unvendored(definition, chart, files))
    refuse(
      path,
      'helm-dependency',
      `the dependency \`${name}\` is not in the repository, so it was not signed`,
      'run `helm dependency build` and commit `charts/`',
    );
  return true;
}

// The digest of a chart that is stored elsewhere is in the repository, which makes the chart part of the change.
async function pinned(
  path: string,
  { registries = [] }: HelmRecipe,
  tree: RepositoryTree,
  pull: PullChart,
  files: Map<string, Uint8Array>,
  refuse: RefuseFile,
): Promise<ChartPlace | undefined> {
  const bytes = await tree.file(path);
  if (bytes === undefined) return void refuse(path, 'helm-missing', `there is no file \`${path}\` that pins a chart`);
  const pin = readPin(Buffer.from(bytes).toString('utf8'));
  if (typeof pin === 'string') return void refuse(path, 'helm-pin', `\`${path}\` does not pin a chart: ${pin}`);
  const host = hostOf(pin);
  if (!registries.includes(host))
    return void refuse(
      path,
      'helm-pin',
      `charts from \`${host}\` are not allowed`,
      'add it to `spec.render.registries` of the environment',
    );
  files.set(path, bytes);
  const archive = unpackChart(await pull(pin), pin);
  const at = posix.join(PINNED, archive.name);
  for (const [name, content] of archive.files) files.set(posix.join(at, name), content);
  for (const name of unvendored(archive.files.get('Chart.yaml') as Uint8Array, at, files))
    refuse(
      path,
      'helm-dependency',
      `the dependency \`${name}\` is not in the chart \`${pin.url}\``,
      'package the chart after `helm dependency build`',
    );
  return { at, shown: `${archive.name}@${pin.digest.slice(0, 19)}` };
}

function unvendored(definition: Uint8Array, chart: string, files: ReadonlyMap<string, Uint8Array>): string[] {
  const { dependencies } = (parseYaml(Buffer.from(definition).toString('utf8'))[0]?.value ?? {}) as {
    dependencies?: { name?: string }[];
  };
  const below = [...files.keys()]
    .filter((f) => f.startsWith(`${chart}/charts/`))
    .map((f) => f.slice(`${chart}/charts/`.length));
  return (dependencies ?? [])
    .map((d) => d.name ?? '')
    .filter((name) => !below.some((f) => f.startsWith(`${name}/`) || (f.startsWith(`${name}-`) && f.endsWith('.tgz'))));
}

const noCharts: PullChart = async (pin) => {
  throw new CountersignError('render-failed', `there is no way to fetch the chart \`${pin.url}\``);
};
