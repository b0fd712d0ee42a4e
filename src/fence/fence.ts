import { posix } from 'node:path';
import {
  digestOf,
  HOOK_ANNOTATION,
  type OrderedValue,
  orderedValue,
  Recent,
  sha256,
  type Violation,
} from '../model/index.ts';
import { type MadeDocument, type ProcessLimits, tooLarge } from '../render/index.ts';
import { type ChartPlace, chartFiles } from './chart-files.ts';
import { type KustomizationFiles, kustomizationFiles } from './kustomize.ts';
import type { PullChart } from './pinned-chart.ts';
import type { ParsedTexts, TextsToParse } from './reading-process.ts';
import type { HelmRecipe, KustomizeRecipe, Recipe, RepositoryTree } from './recipe.ts';
import { type FencedFile, type Ran, runFenced, withoutNetwork } from './run-fenced.ts';

/** Output of a program. `content` is a digest over every input file and the program's arguments. */
export type Made = {
  readonly documents: readonly MadeDocument[];
  readonly violations: readonly Violation[];
  readonly content: string;
};

/** Finds a program; called only if one is needed. Throws `tool-missing`. */
export type Programs = (name: 'kustomize' | 'helm') => Promise<string>;

/** Store of built output by its `content`: the same files give the same objects, even after the program was updated. */
export type MadeStore = {
  readonly get: (content: string) => Made | undefined;
  readonly put: (content: string, made: Made) => void;
};

/** Parses the output of a program, within memory and time. */
export type ParseTexts = (texts: TextsToParse, limits: ProcessLimits) => Promise<ParsedTexts>;

/**
 * Runs a recipe on a directory of a revision, within limits. The same files give the same output without running
 * anything.
 */
export type Fence = (
  recipe: Recipe,
  directory: string,
  tree: RepositoryTree,
  limits: ProcessLimits,
  pull?: PullChart,
) => Promise<Made>;

const REMEMBERED = 50;
const ORIGIN = 'config.kubernetes.io/origin';
const TOP = '.countersign-kustomize';
const CHART_ORIGIN = /^ {2}kind: HelmChartInflationGenerator$/m;

/** Returns a fence that gets its programs from `programs` and reads their output with `parse`. */
export function openFence(programs: Programs, parse: ParseTexts, store?: MadeStore): Fence {
  const known = new Recent<Made>(REMEMBERED);
  let isolation: readonly string[] | undefined;
  return async (recipe, directory, whole, limits, pull) => {
    const tree = upTo(limits.size, whole);
    const input =
      recipe.with === 'helm'
        ? { recipe, ...(await chartFiles(recipe, directory, tree, pull)) }
        : { recipe, ...(await kustomizationFiles(directory, tree, recipe.namespace)) };
    const { files, violations } = input;
    // including the files of a pinned chart
    const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
    if (tree.isExceeded() || bytes > limits.size) {
      const violation = tooLarge(
        `the files \`${directory}\` builds on have`,
        `more than ${limits.size} bytes`,
        'size',
        directory,
      );
      return { documents: [], violations: [violation], content: digestOf(violation) };
    }
    if (violations.length > 0) return { documents: [], violations, content: digestOf(violations) };
    const sorted = [...files].sort(([a], [b]) => (a < b ? -1 : 1));
    const runsCharts = recipe.with === 'helm' || ('charts' in input && input.charts.size > 0);
    const content = digestOf([
      told(recipe, runsCharts),
      directory,
      sorted.map(([path, bytes]) => [path, sha256(bytes)]),
    ]);
    const before = known.get(content) ?? store?.get(content);
    if (before?.documents.every((d) => !isSealed(d.value) || d.sealedWith !== undefined) === true) {
      known.set(content, before);
      return before;
    }
    const program = await programs(recipe.with);
    isolation ??= withoutNetwork();
    const isolated = isolation;
    const fenced = sorted.map(([path, bytes]): FencedFile => ({ path, content: bytes }));
    const deadline = performance.now() + limits.ms;
    const chartProgram = recipe.with === 'kustomize' && runsCharts ? await programs('helm') : undefined;
    const make = () => {
      const run: Run = {
        program,
        parse,
        content,
        isolation: isolated,
        limits: { ...limits, ms: Math.max(1, deadline - performance.now()) },
      };
      if ('chart' in input) return helm(run, input.recipe, { directory, ...input.chart }, fenced);
      const inflate = chartProgram === undefined ? undefined : { ...input, program: chartProgram };
      return kustomize(run, directory, fenced, inflate);
    };
    const made = await make();
    if (made.violations.length > 0) return made;
    // A chart may use the time or random values, but the approved output must be what runs.
    if (runsCharts) {
      const again = await make();
      if (again.violations.length > 0) return again;
      if (digestOf(again.documents) !== digestOf(made.documents)) return notReproducible(recipe, directory, content);
    }
    store?.put(content, made);
    known.set(content, made);
    return made;
  };
}

// The input of a recipe beside its files: the allowed registries do not affect the output, and a kustomization without
// charts is told nothing.
function told(recipe: Recipe, runsCharts: boolean): object {
  const { registries: _, ...rest } = recipe as HelmRecipe;
  return runsCharts ? rest : { with: recipe.with };
}

/** One run of a program: how to parse its output, the digest of its input, and its limits. */
type Run = {
  readonly isolation: readonly string[];
  readonly program: string;
  readonly parse: ParseTexts;
  readonly content: string;
  readonly limits: ProcessLimits;
};

type CountedTree = RepositoryTree & { readonly isExceeded: () => boolean };

// Files are counted while they are read, so that a large repository cannot fill memory before the sum is known.
function upTo(limit: number, tree: RepositoryTree): CountedTree {
  let bytes = 0;
  return {
    ...tree,
    file: async (path) => {
      if (bytes > limit) return undefined;
      const file = await tree.file(path);
      bytes += file?.length ?? 0;
      return file;
    },
    isExceeded: () => bytes > limit,
  };
}

// A test is started by hand (`helm test`) and never applied, so it may have a random name, as many have. An annotation
// of Argo CD's on it counts before Helm's.
function isTest(value: unknown): boolean {
  const { metadata } = (value ?? {}) as { readonly metadata?: { readonly annotations?: unknown } };
  const { [HOOK_ANNOTATION.helm]: hook, [HOOK_ANNOTATION.argo]: other } = (metadata?.annotations ?? {}) as Record<
    string,
    unknown
  >;
  if (typeof hook !== 'string' || other !== undefined) return false;
  return hook.split(',').every((name) => TESTS.has(name.trim()));
}

const TESTS: ReadonlySet<string> = new Set(['test', 'test-success', 'test-failure']);

function notReproducible(recipe: Recipe, directory: string, content: string): Made {
  const [shown, file] =
    recipe.with === 'helm'
      ? [`the chart \`${recipe.chart}\` renders`, posix.join(directory, recipe.chart)]
      : [`the charts of \`${directory}\` render`, directory];
  return {
    documents: [],
    content,
    violations: [
      {
        code: 'helm-not-reproducible',
        message: `${shown} differently each time`,
        source: { file, line: 1 },
        hint: 'pass the generated parts (`randAlphaNum`, `genCA`, `now`, …) as values',
      },
    ],
  };
}

/** The charts that a kustomization uses: the program that renders them, and their lines in each file. */
type Inflate = Pick<KustomizationFiles, 'charts'> & { readonly program: string; readonly recipe: KustomizeRecipe };

// Our own kustomization above the environment's asks for the origin of every object and changes nothing else.
async function kustomize(
  { program, parse, content, limits, isolation }: Run,
  directory: string,
  files: readonly FencedFile[],
  inflate: Inflate | undefined,
): Promise<Made> {
  const above = `resources: [${JSON.stringify(posix.join('..', directory))}]\nbuildMetadata: [originAnnotations]\n`;
  const ran = await runFenced(
    program,
    ['build', TOP, '--load-restrictor', 'LoadRestrictionsRootOnly', ...(inflate === undefined ? [] : flags(inflate))],
    [...files, { path: `${TOP}/kustomization.yaml`, content: Buffer.from(above) }],
    limits,
    // Helm's default, which Kustomize overrides if the kustomization names a namespace
    { isolation, variables: { HELM_NAMESPACE: inflate?.recipe.namespace ?? '' } },
  );
  if (!ran.ok) return failed('kustomize', directory, ran, content);
  const parsed = await parse([ran.output], limits);
  if (parsed.kind !== 'values') return unread('kustomize', directory, parsed, content);
  const documents = parsed.values.flat().flatMap((value): MadeDocument[] => {
    const { file = posix.join(directory, 'kustomization.yaml'), object, isOfChart } = withoutOrigin(value);
    if (!isOfChart) return [{ value: object, source: { file, line: 1 } }];
    if (isTest(object)) return [];
    return [{ value: object, source: sealedSource(object, files) ?? { file, line: lineOfChart(file, inflate) } }];
  });
  const whole = await withSealed(documents, files, parse, limits);
  return 'kind' in whole
    ? unread('kustomize', directory, whole, content)
    : { documents: whole, violations: [], content };
}

function flags({ program, recipe }: Inflate): string[] {
  return [
    '--enable-helm',
    '--helm-command',
    program,
    '--helm-kube-version',
    recipe.kubeVersion,
    ...recipe.apiVersions.flatMap((version) => ['--helm-api-versions', version]),
  ];
}

// Kustomize names the file that has the charts, but neither the chart nor the template: the first chart stands for all.
function lineOfChart(file: string, inflate: Inflate | undefined): number {
  return inflate?.charts.get(file)?.[0] ?? 1;
}

// The file of a sealed document has the code (MAC) that SOPS computed over it. If it has expressions, they had no
// values when SOPS encrypted it, and it cannot be opened.
function sealedSource(object: unknown, files: readonly FencedFile[]): MadeDocument['source'] | undefined {
  const { sops } = object as { readonly sops?: { readonly mac?: unknown } };
  const mac = sops?.mac;
  if (typeof mac !== 'string' || mac === '') return undefined;
  const template = files.find((f) => {
    const content = Buffer.from(f.content);
    return content.includes(mac) && !content.includes('{{');
  });
  return template === undefined ? undefined : { file: template.path, line: 1 };
}

function isSealed(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, 'sops');
}

// SOPS computes its MAC over the file as it is in Git, in text order. Kustomize sorts keys and may add fields.
async function withSealed(
  documents: readonly MadeDocument[],
  files: readonly FencedFile[],
  parse: ParseTexts,
  limits: ProcessLimits,
): Promise<readonly MadeDocument[] | Extract<ParsedTexts, { kind: 'exceeded' }>> {
  const names = new Set(documents.filter((d) => isSealed(d.value)).map((d) => d.source.file));
  const sources = files.filter((f) => names.has(f.path));
  if (sources.length === 0) return documents;
  const parsed = await parse({ ordered: sources.map((f) => Buffer.from(f.content).toString('utf8')) }, limits);
  if (parsed.kind === 'exceeded') return parsed;
  // the program could read the file, so the object itself is checked, and refused
  if (parsed.kind !== 'values') return documents;
  const byFile = new Map(sources.map((f, i) => [f.path, parsed.values[i] as readonly OrderedValue[]]));
  return documents.map((d) =>
    isSealed(d.value) ? { ...d, sealedWith: byFile.get(d.source.file) ?? [orderedValue(d.value)] } : d,
  );
}

function withoutOrigin(value: unknown): {
  readonly file: string | undefined;
  readonly object: unknown;
  readonly isOfChart: boolean;
} {
  const { metadata, ...rest } = (value ?? {}) as {
    metadata?: { annotations?: Record<string, string> } & Record<string, unknown>;
  };
  const { [ORIGIN]: origin, ...annotations } = metadata?.annotations ?? {};
  if (metadata === undefined || origin === undefined) return { file: undefined, object: value, isOfChart: false };
  const { annotations: _, ...others } = metadata;
  const path = /^path: (.+)$/m.exec(origin)?.[1] ?? /configuredIn: (.+)$/m.exec(origin)?.[1];
  return {
    file: path === undefined ? undefined : posix.normalize(posix.join(TOP, path)),
    object: { ...rest, metadata: Object.keys(annotations).length === 0 ? others : { ...others, annotations } },
    isOfChart: CHART_ORIGIN.test(origin),
  };
}

async function helm(
  { program, parse, content, limits, isolation }: Run,
  recipe: HelmRecipe,
  { directory, at: chart, shown }: ChartPlace & { readonly directory: string },
  files: readonly FencedFile[],
): Promise<Made> {
  const ran = await runFenced(
    program,
    [
      'template',
      recipe.release,
      chart,
      '--namespace',
      recipe.namespace,
      '--include-crds',
      '--kube-version',
      recipe.kubeVersion,
      ...recipe.apiVersions.flatMap((v) => ['--api-versions', v]),
      ...recipe.values.flatMap((v) => ['--values', posix.normalize(posix.join(directory, v))]),
    ],
    files,
    limits,
    { isolation },
  );
  if (!ran.ok) return failed('helm', shown, ran, content);
  const name = posix.basename(chart);
  // Helm writes above each document which template produced it: `# Source: NAME/templates/x.yaml`.
  const parts = ran.output.split(/^---$/m);
  const parsed = await parse(parts, limits);
  if (parsed.kind !== 'values') return unread('helm', shown, parsed, content);
  const sealed = parts.map((part, i) => (parsed.values[i]?.some(isSealed) === true ? part : ''));
  const ordered = sealed.every((part) => part === '') ? undefined : await parse({ ordered: sealed }, limits);
  if (ordered !== undefined && ordered.kind !== 'values') return unread('helm', shown, ordered, content);
  const documents = parsed.values.flatMap((values, i): MadeDocument[] => {
    const template = /^# Source: (.+)$/m.exec(parts[i] ?? '')?.[1] ?? '';
    const below = template.includes('/') ? template.slice(template.indexOf('/') + 1) : template;
    const source = { file: template === '' ? shown : posix.join(shown, below || name), line: 1 };
    return values.flatMap((value, j): MadeDocument[] => {
      if (isTest(value)) return [];
      const sealedWith = isSealed(value)
        ? [(ordered?.values[i]?.[j] ?? orderedValue(value)) as OrderedValue]
        : undefined;
      return [{ value, source, ...(sealedWith === undefined ? {} : { sealedWith }) }];
    });
  });
  return { documents, violations: [], content };
}

// The output of a program cannot be read: it is not YAML, or exceeds a limit.
function unread(
  program: string,
  where: string,
  parsed: Exclude<ParsedTexts, { kind: 'values' }>,
  content: string,
): Made {
  if (parsed.kind === 'unreadable')
    return failed(program, where, { error: `its output is not YAML: ${parsed.reason}` }, content);
  return {
    documents: [],
    violations: [tooLarge(`the output of ${program} for \`${where}\``, parsed.text, parsed.limit, where)],
    content,
  };
}

function failed(
  program: string,
  where: string,
  { error, exceeded }: Pick<Ran, 'error' | 'exceeded'>,
  content: string,
): Made {
  if (exceeded !== undefined)
    return {
      documents: [],
      violations: [tooLarge(`${program} cannot build \`${where}\`:`, error, exceeded, where)],
      content,
    };
  const isOld = OLD_KUSTOMIZE.test(error);
  const chart = isOld ? 'this Kustomize runs Helm 3 only' : errorOfChart(error);
  const said = chart ?? linesOf(error).at(-1) ?? 'it exited without a message';
  const runner = chart === undefined ? program : `${program}, which runs helm,`;
  return {
    documents: [],
    violations: [
      {
        code: program === 'helm' ? 'helm-failed' : 'kustomize-failed',
        message: `${runner} cannot build \`${where}\`: ${said.replace(/^Error: /, '').slice(0, 500)}`,
        source: { file: where, line: 1 },
        ...(isOld ? { hint: 'use Kustomize 5.8 or later, or Helm 3' } : {}),
      },
    ],
    content,
  };
}

// the copy of the files, and where Kustomize puts values
const RUN_IN = /\/\S*\/countersign-fence-[^/]+\/(?:files|home\/kustomize-helm-\d+)\//g;
// Kustomize 5.7 with Helm 4
const OLD_KUSTOMIZE = /unknown shorthand flag: 'c' in -c|requires helm V3 but got/;

// Kustomize prints, after what Helm said, the whole command line with directories that exist only while it runs.
function errorOfChart(error: string): string | undefined {
  const end = error.search(/^: unable to run: /m);
  if (end === -1) return undefined;
  const said = error.slice(0, end);
  return linesOf(said.slice(said.lastIndexOf('Error: ')).replace(RUN_IN, '')).join(' ');
}

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}
