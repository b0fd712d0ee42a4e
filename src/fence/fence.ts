import { posix } from 'node:path';
import type { ViolationCode } from '../model/index.ts';
import {
  CountersignError,
  digestOf,
  HOOK_ANNOTATION,
  type OrderedValue,
  orderedValue,
  Recent,
  sha256,
  type Violation,
} from '../model/index.ts';
import { KEPT_OF_ALL, Kept, type MadeDocument, type ProcessLimits, tooLarge } from '../render/index.ts';
import { parseYaml } from '../yaml/index.ts';
import { kustomizationFiles, type Tree } from './kustomize.ts';
import { hostOf, type PullChart, readPin, unpackChart } from './pinned-chart.ts';
import type { ParsedTexts, TextsToParse } from './reading-process.ts';
import { type FencedFile, type Ran, runFenced, withoutNetwork } from './run-fenced.ts';

/** Output of a program. `content` is a digest over every input file and the program's arguments. */
export type Made = {
  readonly documents: readonly MadeDocument[];
  readonly violations: readonly Violation[];
  readonly content: string;
};

/**
 * Input of a build: a kustomization, or a chart with values from the repository. `chart` is a directory, or a file that
 * pins a chart from one of the `registries` (hosts).
 */
export type Recipe =
  | { readonly with: 'kustomize' }
  | {
      readonly with: 'helm';
      readonly chart: string;
      readonly registries?: readonly string[];
      readonly values: readonly string[];
      readonly release: string;
      readonly namespace: string;
      readonly kubeVersion: string;
      readonly apiVersions: readonly string[];
    };

/** A repository at one revision. */
export type RepositoryTree = Tree & {
  readonly files: (directory: string) => Promise<readonly { readonly path: string; readonly mode: string }[]>;
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
const PINNED = '.countersign-chart';

/** Returns a fence that gets its programs from `programs` and reads their output with `parse`. */
export function openFence(programs: Programs, parse: ParseTexts, store?: MadeStore): Fence {
  const known = new Recent<Made>(REMEMBERED);
  let isolation: readonly string[] | undefined;
  return async (recipe, directory, whole, limits, pull = noCharts) => {
    const tree = upTo(limits.size, whole);
    const chart = recipe.with === 'helm' ? await chartFiles(recipe, directory, tree, pull) : undefined;
    const { files, violations } = chart ?? (await kustomizationFiles(directory, tree));
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
    // the list of allowed sources does not affect the output
    const { registries: _, ...told } = recipe as HelmRecipe;
    const content = digestOf([told, directory, sorted.map(([path, bytes]) => [path, sha256(bytes)])]);
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
    const make = () => {
      const run: Run = {
        program,
        parse,
        content,
        isolation: isolated,
        limits: { ...limits, ms: Math.max(1, deadline - performance.now()) },
      };
      return chart !== undefined && recipe.with === 'helm'
        ? helm(run, recipe, { directory, ...chart.chart }, fenced)
        : kustomize(run, directory, fenced);
    };
    const made = await make();
    if (made.violations.length > 0) return made;
    // A chart may use the time or random values, but the approved output must be what runs.
    if (recipe.with === 'helm') {
      const again = await make();
      if (again.violations.length > 0) return again;
      if (digestOf(again.documents) !== digestOf(made.documents)) return notReproducible(recipe, directory, content);
    }
    store?.put(content, made);
    known.set(content, made);
    return made;
  };
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

function notReproducible(recipe: HelmRecipe, directory: string, content: string): Made {
  return {
    documents: [],
    content,
    violations: [
      {
        code: 'helm-not-reproducible',
        message: `the chart \`${recipe.chart}\` renders differently each time`,
        source: { file: posix.join(directory, recipe.chart), line: 1 },
        hint: 'pass the generated parts (`randAlphaNum`, `genCA`, `now`, …) as values',
      },
    ],
  };
}

// Our own kustomization above the environment's asks for the origin of every object and changes nothing else.
async function kustomize(
  { program, parse, content, limits, isolation }: Run,
  directory: string,
  files: readonly FencedFile[],
): Promise<Made> {
  const above = `resources: [${JSON.stringify(posix.join('..', directory))}]\nbuildMetadata: [originAnnotations]\n`;
  const ran = await runFenced(
    program,
    ['build', TOP, '--load-restrictor', 'LoadRestrictionsRootOnly'],
    [...files, { path: `${TOP}/kustomization.yaml`, content: Buffer.from(above) }],
    limits,
    isolation,
  );
  if (!ran.ok) return failed('kustomize', directory, ran, content);
  const parsed = await parse([ran.output], limits);
  if (parsed.kind !== 'values') return unread('kustomize', directory, parsed, content);
  const documents = parsed.values.flat().map((value): MadeDocument => {
    const { file, object } = withoutOrigin(value);
    return { value: object, source: { file: file ?? posix.join(directory, 'kustomization.yaml'), line: 1 } };
  });
  const whole = await withSealed(documents, files, parse, limits);
  return 'kind' in whole
    ? unread('kustomize', directory, whole, content)
    : { documents: whole, violations: [], content };
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

function withoutOrigin(value: unknown): { readonly file: string | undefined; readonly object: unknown } {
  const { metadata, ...rest } = (value ?? {}) as {
    metadata?: { annotations?: Record<string, string> } & Record<string, unknown>;
  };
  const { [ORIGIN]: origin, ...annotations } = metadata?.annotations ?? {};
  if (metadata === undefined || origin === undefined) return { file: undefined, object: value };
  const { annotations: _, ...others } = metadata;
  const path = /^path: (.+)$/m.exec(origin)?.[1] ?? /configuredIn: (.+)$/m.exec(origin)?.[1];
  return {
    file: path === undefined ? undefined : posix.normalize(posix.join(TOP, path)),
    object: { ...rest, metadata: Object.keys(annotations).length === 0 ? others : { ...others, annotations } },
  };
}

type HelmRecipe = Extract<Recipe, { with: 'helm' }>;

/** Where a chart is among the files, and the name of its directory in messages. */
type ChartPlace = { readonly at: string; readonly shown: string };

const noCharts: PullChart = async (pin) => {
  throw new CountersignError('render-failed', `there is no way to fetch the chart \`${pin.url}\``);
};

async function chartFiles(recipe: HelmRecipe, directory: string, tree: RepositoryTree, pull: PullChart) {
  const files = new Map<string, Uint8Array>();
  const violations = new Kept(KEPT_OF_ALL);
  const refuse = (file: string, code: ViolationCode, message: string, hint?: string) =>
    violations.add(() => ({ code, message, source: { file, line: 1 }, ...(hint === undefined ? {} : { hint }) }));
  const chart = posix.normalize(posix.join(directory, recipe.chart));
  let place: ChartPlace = { at: chart, shown: chart };
  if (chart.startsWith('..'))
    refuse(directory, 'helm-outside', `the chart \`${recipe.chart}\` is outside the repository`);
  else if (/\.ya?ml$/.test(chart)) place = (await pinned(chart, recipe, tree, pull, files, refuse)) ?? place;
  else {
    for (const { path, mode } of await tree.files(chart)) {
      if (!mode.startsWith('100')) {
        refuse(
          path,
          'not-a-file',
          `\`${path}\` is a ${mode === '120000' ? 'link' : 'submodule'}, which is not supported`,
        );
        continue;
      }
      files.set(path, (await tree.file(path)) ?? new Uint8Array());
    }
    const definition = files.get(posix.join(chart, 'Chart.yaml'));
    if (definition === undefined)
      refuse(
        chart,
        'helm-missing',
        `there is no chart in \`${chart}\``,
        'keep the chart in the repository (`helm pull --untar`), or pin it by digest in a file that `chart` names',
      );
    else
      for (const name of unvendored(definition, chart, files))
        refuse(
          posix.join(chart, 'Chart.yaml'),
          'helm-dependency',
          `the dependency \`${name}\` is not in the repository, so it was not signed`,
          'run `helm dependency build` and commit `charts/`',
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

// The digest of a chart that is stored elsewhere is in the repository, which makes the chart part of the change.
async function pinned(
  path: string,
  { registries = [] }: HelmRecipe,
  tree: RepositoryTree,
  pull: PullChart,
  files: Map<string, Uint8Array>,
  refuse: (file: string, code: ViolationCode, message: string, hint?: string) => void,
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
    isolation,
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
  const said =
    error
      .split('\n')
      .filter((l) => l.trim() !== '')
      .at(-1) ?? 'it exited without a message';
  return {
    documents: [],
    violations: [
      {
        code: program === 'helm' ? 'helm-failed' : 'kustomize-failed',
        message: `${program} cannot build \`${where}\`: ${said.replace(/^Error: /, '').slice(0, 500)}`,
        source: { file: where, line: 1 },
      },
    ],
    content,
  };
}
