import { posix } from 'node:path';
import type { ViolationCode } from '../model/index.ts';
import { readChart } from './chart-files.ts';
import type { RepositoryTree } from './recipe.ts';

/** Records one reason why a kustomization cannot be built. */
export type RefuseLine = (file: string, line: number, code: ViolationCode, message: string, hint?: string) => void;

/** A kustomization with charts: its directory, its file and content, and the lines of its keys. */
export type ChartUser = {
  readonly at: string;
  readonly path: string;
  readonly value: Record<string, unknown>;
  readonly lineOf: (path: readonly (string | number)[]) => number | undefined;
};

/** The repository, where to put the files of charts, and the release namespace of those that name none. */
export type ChartReading = {
  readonly tree: RepositoryTree;
  readonly files: Map<string, Uint8Array>;
  readonly namespace: string | undefined;
  readonly refuse: RefuseLine;
};

// Every field of a chart that Kustomize 5.7 and 5.8 know. It would also take other spellings (`Repo`) for these.
const TEXTS = [
  'name',
  'version',
  'repo',
  'releaseName',
  'namespace',
  'valuesFile',
  'valuesMerge',
  'kubeVersion',
  'nameTemplate',
];
const FIELDS = new Set([
  ...TEXTS,
  'additionalValuesFiles',
  'valuesInline',
  'includeCRDs',
  'skipHooks',
  'skipTests',
  'apiVersions',
  'debug',
  'devel',
]);

/**
 * Adds the files of each chart in `helmCharts`, with its values, to `files`. Kustomize uses a chart that is in the
 * directory where it would put a fetched one, as it is; any other chart is refused. Returns the line of each chart.
 */
export async function readHelmCharts(user: ChartUser, reading: ChartReading): Promise<readonly number[]> {
  const { path, value, lineOf } = user;
  const { refuse } = reading;
  const lines: number[] = [];
  const home = chartHome(user, refuse);
  if (home === undefined) return lines;
  const charts = value['helmCharts'] ?? [];
  if (!Array.isArray(charts)) {
    refuse(path, lineOf(['helmCharts']) ?? 1, 'kustomize-helm', '`helmCharts` is not a list');
    return lines;
  }
  for (const [index, chart] of charts.entries()) {
    const line = lineOf(['helmCharts', index]) ?? 1;
    lines.push(line);
    const wrong = unreadable(chart);
    if (wrong !== undefined) refuse(path, line, 'kustomize-helm', wrong);
    else await readOne({ ...user, home, line }, chart as Chart, reading);
  }
  return lines;
}

type Chart = {
  readonly name: string;
  readonly version?: string;
  readonly repo?: string;
  readonly namespace?: string;
  readonly valuesFile?: string;
  readonly additionalValuesFiles?: readonly string[];
};

function unreadable(chart: unknown): string | undefined {
  if (typeof chart !== 'object' || chart === null || Array.isArray(chart)) return 'a chart is not a mapping';
  const fields = chart as Readonly<Record<string, unknown>>;
  const other = Object.keys(fields).find((key) => !FIELDS.has(key));
  if (other !== undefined) return `\`${other}\` is not a known field of a chart`;
  const number = TEXTS.find((key) => fields[key] !== undefined && typeof fields[key] !== 'string');
  if (number !== undefined) return `\`${number}\` of a chart is not text: quote it`;
  if ((fields['name'] ?? '') === '') return 'a chart has no `name`';
  const more = fields['additionalValuesFiles'] ?? [];
  if (!Array.isArray(more) || more.some((file) => typeof file !== 'string'))
    return '`additionalValuesFiles` is not a list of files';
  return undefined;
}

// The directory with the charts, or undefined after a refusal.
function chartHome({ at, path, value, lineOf }: ChartUser, refuse: RefuseLine): string | undefined {
  const { chartHome: home = 'charts', ...others } = (value['helmGlobals'] ?? {}) as Readonly<Record<string, unknown>>;
  const line = (key: string) => lineOf(['helmGlobals', key]) ?? lineOf(['helmGlobals']) ?? 1;
  const [other] = Object.keys(others);
  if (other !== undefined)
    refuse(
      path,
      line(other),
      'kustomize-helm',
      `\`${other}\` would give Helm settings of its own, which are not used`,
      `remove \`${other}\` from \`helmGlobals\``,
    );
  else if (typeof home !== 'string') refuse(path, line('chartHome'), 'kustomize-helm', '`chartHome` is not text');
  else if (posix.isAbsolute(home) || isOutside(posix.join(at, home)))
    refuse(path, line('chartHome'), 'kustomize-outside', `\`${home}\` is outside the repository`);
  else return home;
  return undefined;
}

type Place = ChartUser & { readonly home: string; readonly line: number };

async function readOne(
  { at, path, home, line }: Place,
  chart: Chart,
  { namespace, tree, files, refuse }: ChartReading,
): Promise<void> {
  const { name, version = '', repo = '', valuesFile = '' } = chart;
  const below = version !== '' && repo !== '' ? posix.join(home, `${name}-${version}`) : home;
  const directory = posix.normalize(posix.join(at, below, name));
  if (isOutside(directory) || posix.isAbsolute(name))
    return refuse(path, line, 'kustomize-outside', `the chart \`${name}\` is outside the repository`);
  if (!(await readChart(directory, tree, files, (file, ...why) => refuse(file, 1, ...why))))
    return refuse(
      path,
      line,
      'kustomize-helm',
      `there is no chart in \`${directory}\`, so \`${name}\` was not signed`,
      `run ${pullCommand(chart, posix.join(at, below))} and commit it`,
    );
  if ((chart.namespace ?? '') === '' && namespace === undefined)
    refuse(
      path,
      line,
      'kustomize-helm',
      `the chart \`${name}\` has no namespace for its release`,
      'set `namespace` of the chart, or `spec.target.namespace` of the environment',
    );
  const values = valuesFile === '' ? posix.join(below, name, 'values.yaml') : valuesFile;
  for (const file of [values, ...(chart.additionalValuesFiles ?? [])]) {
    const whole = posix.normalize(posix.join(at, file));
    const bytes = isOutside(whole) || posix.isAbsolute(file) ? undefined : await tree.file(whole);
    if (bytes === undefined)
      refuse(path, line, 'kustomize-missing', `there is no values file \`${file}\` in the repository`);
    else if (at !== '.' && !whole.startsWith(`${at}/`))
      refuse(
        path,
        line,
        'kustomize-outside',
        `the values file \`${file}\` is not in or below \`${at}\`, so Kustomize does not read it`,
        valuesFile === '' ? `set \`valuesFile\` to a file below \`${at}\`` : `move it below \`${at}\``,
      );
    else files.set(whole, bytes);
  }
}

function pullCommand({ name, version = '', repo = '' }: Chart, into: string): string {
  const from = repo.startsWith('oci://') ? `${repo.replace(/\/$/, '')}/${name}` : `${name} --repo ${repo || 'URL'}`;
  return `\`helm pull ${from}${version === '' ? '' : ` --version ${version}`} --untar --untardir ${into}\``;
}

function isOutside(path: string): boolean {
  const normal = posix.normalize(path);
  return normal === '..' || normal.startsWith('../');
}
