import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import {
  areInOneCluster,
  type BundleSource,
  type ClusterScope,
  CountersignError,
  clusterScopes,
  count,
  DEFAULT_LIMITS,
  type Document,
  defaultNamespace,
  digestOf,
  durationMs,
  type Environment,
  type EnvironmentSet,
  environmentSchema,
  environmentSetSchema,
  globMatches,
  isOfNamespaces,
  markedTexts,
  messageOf,
  type Notifier,
  notifierSchema,
  type ReportSchedule,
  reportScheduleSchema,
  scopesOverlap,
  scopeText,
  sizeInBytes,
  type TrustPolicy,
  trustPolicySchema,
  type WaiverDocument,
  waiverSchema,
} from '../model/index.ts';
import { parseYaml, type YamlDocument, YamlError } from '../yaml/index.ts';
import { type DescribedEnvironment, describedBy, problemsOfSet } from './environment-set.ts';
import type { ConfigurationObject, Found, Problem } from './found.ts';
import { SHIPPED_FRAMEWORKS } from './framework.ts';

/** The whole configuration, checked and cross-referenced. File references in it are absolute paths. */
export type Configuration = {
  /** Those written by hand and those of sets, in the order of their documents. */
  readonly environments: readonly Environment[];
  readonly environmentSets: readonly SetOfEnvironments[];
  readonly trustPolicies: readonly TrustPolicy[];
  readonly notifiers: readonly Notifier[];
  readonly reportSchedules: readonly ReportSchedule[];
  /** Where the keys of each TrustPolicy are written (`FILE:LINE`), by its name; by principal and key. */
  readonly keyPlaces: ReadonlyMap<string, readonly (readonly string[])[]>;
  /** SHA-256 over all documents; recorded on the ledger when a service starts. */
  readonly digest: string;
};

/** An EnvironmentSet, and the names of its environments. */
type SetOfEnvironments = {
  readonly name: string;
  /** The namespace of its document, or empty. */
  readonly namespace: string;
  readonly environments: readonly string[];
};

export type ObjectOptions = {
  /**
   * A directory with one subdirectory per namespace, which contains the files its documents name. Without it, documents
   * cannot name files.
   */
  readonly files: string | undefined;
  /** Documents may refer to other namespaces. */
  readonly crossNamespace: boolean;
};

const MAX_FILE = 4 * 1024 * 1024; // a keyring of hundreds of people fits; an accidental binary does not
const SCHEMAS = {
  Environment: environmentSchema,
  EnvironmentSet: environmentSetSchema,
  TrustPolicy: trustPolicySchema,
  Notifier: notifierSchema,
  ReportSchedule: reportScheduleSchema,
} as const;

/**
 * Reads every `.yaml` and `.yml` file under the paths (files or directories). Throws one `config-invalid` error that
 * lists the problems of all files.
 */
export function loadConfiguration(paths: readonly string[]): Configuration {
  return loadWithObjects(paths, [], { files: undefined, crossNamespace: false }).configuration;
}

/**
 * Does the same, including documents that are objects in a cluster. Invalid ones are left out, and so is everything
 * that needs them; `invalid` has their problems by `keyOfObject`. Throws `config-invalid` for problems in files.
 */
export function loadWithObjects(
  paths: readonly string[],
  objects: readonly ConfigurationObject[],
  options: ObjectOptions,
): { readonly configuration: Configuration; readonly invalid: ReadonlyMap<string, readonly string[]> } {
  const problems: Problem[] = [];
  const inFiles = paths.flatMap((path) => filesUnder(path)).flatMap((file) => foundIn(file, problems));
  if (problems.length > 0) throw invalid(problems.concat(assemble(inFiles, options).problems));
  let found: Found[] = [...inFiles, ...objects.map((o) => foundObject(o, options))];
  const refused = new Map<string, string[]>();
  for (;;) {
    const { configuration, problems } = assemble(found, options);
    const places = new Map(found.flatMap((f) => (f.object === undefined ? [] : [[f.file, f.object] as const])));
    const ofFiles = problems.filter((p) => !places.has(p.file));
    if (ofFiles.length > 0) throw invalid(ofFiles);
    if (problems.length === 0) return { configuration, invalid: refused };
    for (const { file, path, text } of problems) {
      const key = keyOfObject(places.get(file) as ConfigurationObject);
      refused.set(key, [...(refused.get(key) ?? []), `${path === '' ? '' : `${path}: `}${text}`]);
    }
    const wrong = new Set(problems.map((p) => p.file));
    found = found.filter((f) => !wrong.has(f.file)); // check again without them: other documents may refer to them
  }
}

/** Returns the key that identifies an object. */
export function keyOfObject({
  kind,
  namespace,
  name,
}: Pick<ConfigurationObject, 'kind' | 'namespace' | 'name'>): string {
  return `${kind} ${namespace}/${name}`;
}

function assemble(
  found: readonly Found[],
  options: ObjectOptions,
): { configuration: Configuration; problems: Problem[] } {
  const problems: Problem[] = [];
  const environments: Scoped<Environment>[] = [];
  const trustPolicies: Scoped<TrustPolicy>[] = [];
  const notifiers: Scoped<Notifier>[] = [];
  const schedules: Scoped<ReportSchedule>[] = [];
  const sets: (Scoped<EnvironmentSet> & { readonly described: readonly DescribedEnvironment[] })[] = [];
  const places = new Map<string, string>();
  const take = (one: Found): void => {
    const { file, document, scope } = one;
    const parsed = checkDocument(file, document, problems);
    if (parsed === undefined) return;
    if (one.object !== undefined && !namesOnlyItsFiles(one, SCHEMAS[parsed.kind], options, problems)) return;
    // The ledger identifies environments by name only.
    const id =
      `${parsed.kind} ` +
      `\`${scope === '' || parsed.kind === 'Environment' ? '' : `${scope}/`}${parsed.metadata.name}\``;
    const earlier = places.get(id);
    if (earlier !== undefined)
      problems.push({
        file,
        line: document.line,
        path: 'metadata.name',
        text: `${id} is already declared at ${earlier}`,
      });
    else places.set(id, document.line === 0 ? file : `${file}:${document.line}`);
    if (parsed.kind === 'EnvironmentSet') {
      const set = describedBy(one, parsed);
      problems.push(...set.problems);
      sets.push({ ...one, parsed, described: set.environments });
      set.environments.forEach(take);
      return;
    }
    if (parsed.kind === 'Notifier') notifiers.push({ ...one, parsed: withAbsoluteFiles(parsed, one.here) });
    else if (parsed.kind === 'ReportSchedule') schedules.push({ ...one, parsed: withAbsolutePlaces(parsed, one.here) });
    else if (parsed.kind === 'Environment') environments.push({ ...one, parsed: withAbsolutePaths(parsed, one.here) });
    else trustPolicies.push({ ...one, parsed: withKeyFiles(parsed, one, problems) });
    if (parsed.kind !== 'Notifier' && parsed.kind !== 'ReportSchedule') crossCheck(parsed, file, document, problems);
  };
  found.forEach(take);
  const reach = (from: string) => (to: { readonly scope: string }) => options.crossNamespace || to.scope === from;
  const owners = new Map<string, Environment[]>();
  for (const [i, one] of environments.entries()) {
    const { parsed, scope, file, document } = one;
    problems.push(...overlapProblems(one, environments.slice(0, i)));
    const peers = environments.filter(reach(scope)).map((e) => e.parsed);
    const wrong = [...trustProblems(parsed, scope, trustPolicies, options), ...referenceProblems(parsed, peers)];
    wrong.push(...accountProblems(parsed, scope, options), ...namespaceProblems(parsed, owners));
    if (one.object !== undefined) wrong.push(...clusterProblems(parsed, environments.slice(0, i)));
    for (const { path, text } of wrong) problems.push({ file, line: document.line, path, text });
  }
  for (const one of schedules)
    for (const { path, text } of scheduleProblems(one, environments, reach(one.scope)))
      problems.push({ file: one.file, line: one.document.lineOf(path), path: pathText(path), text });
  const made = {
    environments: environments.map((e) => ({
      ...e.parsed,
      spec: {
        ...e.parsed.spec,
        trust: trustNamed(e.parsed.spec.trust, e.scope, trustPolicies, options) ?? e.parsed.spec.trust,
      },
    })),
    trustPolicies: trustPolicies.map(named),
    notifiers: notifiers.map((n) => scopedNotifier(n, environments.filter(reach(n.scope)))),
    reportSchedules: schedules.map(named),
  };
  const keyPlaces = new Map(trustPolicies.map((t) => [named(t).metadata.name, placesOfKeys(t)]));
  const names = new Map(environments.map((e) => [e.document, e.parsed.metadata.name]));
  const environmentSets = sets.map(
    ({ parsed, scope, described }): SetOfEnvironments => ({
      name: parsed.metadata.name,
      namespace: scope,
      environments: described.map((e) => names.get(e.document)).filter((name) => name !== undefined),
    }),
  );
  return {
    configuration: { ...made, environmentSets, keyPlaces, digest: digestOf(made) },
    problems: problemsByDocument(problems, sets),
  };
}

// Problems of environments that a set describes are its own.
function problemsByDocument(
  problems: readonly Problem[],
  sets: readonly (Found & { readonly described: readonly DescribedEnvironment[] })[],
): Problem[] {
  const described = new Set(sets.flatMap((set) => set.described.map((e) => e.file)));
  return [
    ...problems.filter((p) => !described.has(p.file)),
    ...sets.flatMap((set) => problemsOfSet(set, set.described, problems)),
  ];
}

type Scoped<T> = Found & { readonly parsed: T };

function placesOfKeys({ parsed, file, document }: Scoped<TrustPolicy>): readonly (readonly string[])[] {
  return parsed.spec.principals.map(({ keys }, i) =>
    keys.map((_, j) => {
      const line = document.lineOf(['spec', 'principals', i, 'keys', j]);
      return line === 0 ? file : `${file}:${line}`;
    }),
  );
}

// Two namespaces may each have a TrustPolicy or Notifier with the same name.
function named<T extends { readonly metadata: { readonly name: string } }>({ parsed, scope }: Scoped<T>): T {
  return scope === ''
    ? parsed
    : { ...parsed, metadata: { ...parsed.metadata, name: `${scope}/${parsed.metadata.name}` } };
}

// A Notifier only gets events of environments in its own namespace, even if its globs would match others.
function scopedNotifier(notifier: Scoped<Notifier>, beside: readonly Scoped<Environment>[]): Notifier {
  const made = named(notifier);
  if (notifier.scope === '') return made;
  const globs = made.spec.environments;
  const environments = beside
    .map((e) => e.parsed.metadata.name)
    .filter((name) => globs.some((glob) => globMatches(glob, name)));
  return { ...made, spec: { ...made.spec, environments } };
}

// Returns the full name of the TrustPolicy that a name refers to: in the same namespace or, if allowed, in another.
function trustNamed(
  name: string,
  scope: string,
  all: readonly Scoped<TrustPolicy>[],
  options: ObjectOptions,
): string | undefined {
  const called = all.filter((t) => t.parsed.metadata.name === name);
  const meant =
    called.find((t) => t.scope === scope) ?? (options.crossNamespace && called.length === 1 ? called[0] : undefined);
  return meant === undefined ? undefined : named(meant).metadata.name;
}

function trustProblems(
  environment: Environment,
  scope: string,
  all: readonly Scoped<TrustPolicy>[],
  options: ObjectOptions,
): { path: string; text: string }[] {
  const { trust } = environment.spec;
  if (trustNamed(trust, scope, all, options) !== undefined) return [];
  const elsewhere = all.find((t) => t.parsed.metadata.name === trust);
  const where =
    elsewhere === undefined || elsewhere.scope === scope
      ? ''
      : `, which is in another namespace (\`${elsewhere.scope}\`)`;
  return [{ path: 'spec.trust', text: `expected the name of a TrustPolicy, found \`${trust}\`${where}` }];
}

// Checks the references of a schedule. A report contains whole ledger entries, which concern all environments.
function scheduleProblems(
  { parsed: { spec }, scope }: Scoped<ReportSchedule>,
  environments: readonly Scoped<Environment>[],
  isInReach: (one: { readonly scope: string }) => boolean,
): { path: (string | number)[]; text: string }[] {
  const names = (all: readonly Scoped<Environment>[]) => all.map((e) => e.parsed.metadata.name);
  const known = new Set(names(environments.filter(isInReach)));
  const foreign = names(environments.filter((e) => !isInReach(e)));
  const places = spec.deliver.map((d) => d.name);
  return [
    ...(foreign.length === 0
      ? []
      : [
          {
            path: [],
            text:
              'a report has entries of every environment, ' +
              `but ${foreign.map(quoted).join(', ')} is in a different namespace`,
          },
        ]),
    ...spec.environments.flatMap((name, i) =>
      known.has(name)
        ? []
        : [{ path: ['spec', 'environments', i], text: `expected the name of an Environment, found \`${name}\`` }],
    ),
    ...spec.frameworks.flatMap((f, i) =>
      typeof f !== 'string' || SHIPPED_FRAMEWORKS.includes(f)
        ? []
        : [
            {
              path: ['spec', 'frameworks', i],
              text: `expected one of ${SHIPPED_FRAMEWORKS.map(quoted).join(', ')}, or a \`file\`, found \`${f}\``,
            },
          ],
    ),
    ...spec.deliver.flatMap((d, i) =>
      !('cluster' in d) || scope === '' || isInReach({ scope: d.cluster.namespace })
        ? []
        : [
            {
              path: ['spec', 'deliver', i, 'cluster', 'namespace'],
              text: `\`${d.cluster.namespace}\` is not its own namespace`,
            },
          ],
    ),
    ...places.flatMap((name, i) =>
      places.indexOf(name) === i
        ? []
        : [{ path: ['spec', 'deliver', i, 'name'], text: `\`${name}\` is declared twice` }],
    ),
  ];
}

function accountProblems(
  { spec }: Environment,
  scope: string,
  options: ObjectOptions,
): { path: string; text: string }[] {
  const account = spec.target.serviceAccount;
  if (account === undefined || scope === '' || options.crossNamespace || account.startsWith(`${scope}/`)) return [];
  return [
    {
      path: 'spec.target.serviceAccount',
      text: `expected a ServiceAccount of the namespace \`${scope}\` itself, found \`${account}\``,
    },
  ];
}

// Returns problems of the namespaces that an earlier environment of the same cluster governs, and adds its own.
function namespaceProblems(
  environment: Environment,
  owners: Map<string, Environment[]>,
): { path: string; text: string }[] {
  const { target } = environment.spec;
  return target.namespaces.flatMap((namespace, i) => {
    const governing = owners.get(namespace) ?? [];
    const owner = governing.find((e) => e !== environment && areInOneCluster(e.spec.target, target));
    owners.set(namespace, [...governing, environment]);
    if (owner === undefined) return [];
    const path = `spec.target.namespaces[${i}]`;
    return [
      { path, text: `\`${namespace}\` is already governed by \`${owner.metadata.name}\`${inWhichCluster(owner)}` },
    ];
  });
}

// Names of clusters are the operator's to give: an object must not step around another one by naming its cluster
// differently.
function clusterProblems(
  { spec }: Environment,
  earlier: readonly Scoped<Environment>[],
): { path: string; text: string }[] {
  const { cluster, kubeconfig, context } = spec.target;
  if (cluster === undefined) return [];
  const other = earlier.find(
    ({
      parsed: {
        spec: { target },
      },
    }) => {
      const isSame = target.kubeconfig === kubeconfig && target.context === context;
      return isSame && target.cluster !== undefined && target.cluster !== cluster;
    },
  );
  if (other === undefined) return [];
  const { metadata, spec: theirs } = other.parsed;
  const text = `the same connection leads to \`${theirs.target.cluster}\`, says \`${metadata.name}\``;
  return [{ path: 'spec.target.cluster', text: `${text}: one of the two names is wrong` }];
}

function inWhichCluster({ spec }: Environment): string {
  const { cluster } = spec.target;
  return cluster === undefined
    ? '; if it is in a different cluster, name both in `spec.target.cluster`'
    : ` in the cluster \`${cluster}\``;
}

// Two environments that govern one object would undo each other's work, and a request must have one answer.
function overlapProblems({ parsed, file, document }: Scoped<Environment>, earlier: readonly Scoped<Environment>[]) {
  const { target } = parsed.spec;
  const others = earlier.filter(({ parsed: { metadata, spec } }) => {
    return metadata.name !== parsed.metadata.name && areInOneCluster(spec.target, target);
  });
  return clusterScopes(target.clusterScoped).flatMap((mine, i): Problem[] => {
    if (isOfNamespaces(mine)) return []; // `spec.target.namespaces` divides them
    for (const other of others) {
      const theirs = clusterScopes(other.parsed.spec.target.clusterScoped);
      const at = theirs.findIndex((one) => scopesOverlap(mine, one));
      if (at < 0) continue;
      const path = ['spec', 'target', 'clusterScoped'];
      const line = other.document.lineOf([...path, at]);
      const text =
        `\`${scopeText(mine)}\` can mean the same object as \`${scopeText(theirs[at] as ClusterScope)}\` of ` +
        `\`${other.parsed.metadata.name}\` (${line === 0 ? other.file : `${other.file}:${line}`}); ` +
        'give both of them `names` that cannot match the same name';
      return [{ file, line: document.lineOf([...path, i]), path: pathText([...path, i]), text }];
    }
    return [];
  });
}

function foundIn(file: string, problems: Problem[]): Found[] {
  return readDocuments(file, problems).map((document) => {
    const { value, scope } = withoutNamespace(document.value);
    return { file, document: { ...document, value }, scope, here: dirname(resolve(file)), object: undefined };
  });
}

// Kubernetes' grammar; the name becomes the name of a directory
const NAMESPACE = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

// Fields the API server adds to an object are not part of the document.
function foundObject(object: ConfigurationObject, { files }: ObjectOptions): Found {
  const { apiVersion, kind, spec, metadata } = object.object as {
    apiVersion?: unknown;
    kind?: unknown;
    spec?: unknown;
    metadata?: object;
  };
  const { name, labels } = (metadata ?? {}) as { name?: unknown; labels?: unknown };
  const isLabelled = kind === 'Environment' && labels !== undefined;
  const value = { apiVersion, kind, metadata: { name, ...(isLabelled ? { labels } : {}) }, spec };
  const nowhere = { line: 1, column: 1 };
  return {
    file: keyOfObject(object),
    document: { index: 0, value, line: 0, lineOf: () => 0, positionOf: () => nowhere },
    scope: object.namespace,
    here: files === undefined || !NAMESPACE.test(object.namespace) ? '' : join(resolve(files), object.namespace),
    object,
  };
}

// A document kept in Git for a cluster names its future namespace.
function withoutNamespace(value: unknown): { value: unknown; scope: string } {
  const { metadata } = (value ?? {}) as { metadata?: unknown };
  const { namespace, ...rest } = (metadata ?? {}) as { namespace?: unknown };
  if (typeof namespace !== 'string') return { value, scope: '' };
  return { value: { ...(value as object), metadata: rest }, scope: namespace };
}

// Anyone who may write an object must not be able to read the service's own files with it: only file names in the
// namespace's directory are allowed.
function namesOnlyItsFiles(
  { file, document, here }: Found,
  schema: z.core.$ZodType,
  { files }: ObjectOptions,
  problems: Problem[],
): boolean {
  const before = problems.length;
  const wrong = (path: string, text: string) => problems.push({ file, line: 0, path, text });
  for (const { path, text, mark } of markedTexts(schema, document.value)) {
    const at = pathText(path);
    if (mark.place === 'service-directory')
      wrong(at, 'expected a different kind of place: objects in a cluster cannot name directories of the service');
    else if (mark.place === 'git-repository' && !isRemote(text)) wrong(at, `expected an address, found ${shown(text)}`);
    else if (mark.place !== 'service-file') continue;
    else if (files === undefined) wrong(at, 'expected nothing: the service was started without --config-files');
    else if (here === '') wrong(at, 'expected nothing: the name of its namespace cannot be a directory name');
    else if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(text))
      wrong(at, `expected the name of a file in \`${here}\`, found ${shown(text)}`);
  }
  for (const text of raisedLimits(document.value)) wrong('spec.render.limits', text);
  // The operator's kubeconfig may have contexts that are not meant for authors of objects.
  const { target } =
    ((document.value ?? {}) as { spec?: { target?: { kubeconfig?: unknown; context?: unknown } } }).spec ?? {};
  if (target?.context !== undefined && target.kubeconfig === undefined)
    wrong(
      'spec.target.context',
      'expected `kubeconfig` beside it: objects in a cluster cannot choose a context of the service’s own kubeconfig',
    );
  return problems.length === before;
}

// Rendered objects are kept in the service's memory, which tenants share.
function raisedLimits(value: unknown): string[] {
  const { spec } = value as { spec?: { render?: { limits?: unknown } } };
  const parsed = environmentSchema.shape.spec.shape.render.safeParse(spec?.render);
  if (!parsed.success) return []; // reported by the schema
  const { limits } = parsed.data;
  const amounts = (l: typeof limits) => ({
    objects: l.objects,
    values: l.values,
    size: sizeInBytes(l.size),
    memory: sizeInBytes(l.memory),
    time: durationMs(l.time),
  });
  const most = amounts(DEFAULT_LIMITS);
  return Object.entries(amounts(limits)).flatMap(([name, amount]) =>
    amount > most[name as keyof typeof most]
      ? [
          `expected at most ${DEFAULT_LIMITS[name as keyof typeof most]} for \`${name}\`: ` +
            'only a file of the service can raise it',
        ]
      : [],
  );
}

/**
 * Reads the one TrustPolicy in a text. In a repository, keys and lists are part of the document itself, so that
 * changing them changes the document. Throws `config-invalid` with every problem.
 */
export function readTrustPolicy(text: string, file: string): TrustPolicy {
  const problems: Problem[] = [];
  const policies: TrustPolicy[] = [];
  for (const document of parseDocuments(text, file, problems)) {
    const parsed = checkDocument(file, document, problems);
    if (parsed?.kind !== 'TrustPolicy') {
      if (parsed !== undefined)
        problems.push({
          file,
          line: document.line,
          path: 'kind',
          text: `expected \`TrustPolicy\`, found \`${parsed.kind}\``,
        });
      continue;
    }
    crossCheck(parsed, file, document, problems);
    for (const path of fileReferences(parsed))
      problems.push({
        file,
        line: document.lineOf(path),
        path: pathText(path),
        text: 'in a repository, the content must be in the document itself',
      });
    policies.push(parsed);
  }
  if (problems.length === 0 && policies.length !== 1)
    problems.push({ file, line: 1, path: '', text: `expected one TrustPolicy, found ${policies.length}` });
  if (problems.length > 0) throw invalid(problems);
  return policies[0] as TrustPolicy;
}

/** Reads the one Waiver of a file. Throws `config-invalid` with every problem. */
export function readWaiver(text: string, file: string): { readonly document: WaiverDocument; readonly line: number } {
  const problems: Problem[] = [];
  const documents = parseDocuments(text, file, problems);
  const [first] = documents;
  if (problems.length === 0 && (first === undefined || documents.length !== 1))
    problems.push({ file, line: 1, path: '', text: `expected one Waiver, found ${documents.length} documents` });
  const parsed = first === undefined ? undefined : checkAgainst(waiverSchema, file, first, problems);
  if (problems.length > 0 || parsed === undefined || first === undefined) throw invalid(problems);
  return { document: parsed, line: first.line };
}

function fileReferences({ spec }: TrustPolicy): (string | number)[][] {
  return [
    ...spec.principals.flatMap((p, i) =>
      p.keys.flatMap((k, j) =>
        k.openpgpFile === undefined ? [] : [['spec', 'principals', i, 'keys', j, 'openpgpFile']],
      ),
    ),
    ...(spec.allowedSignersFile === undefined ? [] : [['spec', 'allowedSignersFile']]),
    ...(spec.sshRevocationsFile === undefined ? [] : [['spec', 'sshRevocationsFile']]),
    ...(spec.sigstore?.trustedRootFile === undefined ? [] : [['spec', 'sigstore', 'trustedRootFile']]),
  ];
}

function filesUnder(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((e) => e.isFile() && /\.ya?ml$/.test(e.name))
      .map((e) => join(e.parentPath, e.name))
      .sort();
  } catch (thrown) {
    throw new CountersignError('config-invalid', `cannot read the configuration at \`${path}\``, {
      cause: thrown,
      hint: 'name an existing file or directory with --config; `countersign init` creates a first one',
    });
  }
}

function readDocuments(file: string, problems: Problem[]): YamlDocument[] {
  try {
    if (statSync(file).size > MAX_FILE) throw new YamlError(`the file is larger than ${MAX_FILE} bytes`, 1);
    return parseDocuments(readFileSync(file, 'utf8'), file, problems);
  } catch (thrown) {
    problems.push({ file, line: 1, path: '', text: messageOf(thrown) });
    return [];
  }
}

function parseDocuments(text: string, file: string, problems: Problem[]): YamlDocument[] {
  try {
    if (text.length > MAX_FILE) throw new YamlError(`it is larger than ${MAX_FILE} bytes`, 1);
    return parseYaml(text);
  } catch (thrown) {
    problems.push({ file, line: thrown instanceof YamlError ? thrown.line : 1, path: '', text: messageOf(thrown) });
    return [];
  }
}

function checkDocument(file: string, document: YamlDocument, problems: Problem[]): Document | undefined {
  const kind = (document.value as { kind?: unknown } | null)?.kind;
  const schema = SCHEMAS[kind as keyof typeof SCHEMAS] as z.ZodType<Document> | undefined;
  if (schema === undefined || !Object.hasOwn(SCHEMAS, String(kind))) {
    problems.push({
      file,
      line: document.lineOf(['kind']),
      path: 'kind',
      text: `expected one of ${Object.keys(SCHEMAS).map(quoted).join(', ')}, found ${shown(kind)}`,
    });
    return undefined;
  }
  return checkAgainst(schema, file, document, problems);
}

function checkAgainst<T>(
  schema: z.ZodType<T>,
  file: string,
  document: YamlDocument,
  problems: Problem[],
): T | undefined {
  const result = schema.safeParse(document.value);
  if (result.success) return result.data;
  for (const issue of result.error.issues) problems.push(...problemsOf(issue, file, document));
  return undefined;
}

function problemsOf(issue: z.core.$ZodIssue, file: string, document: YamlDocument): Problem[] {
  const path = issue.path as (string | number)[];
  const problem = (at: (string | number)[], text: string): Problem => ({
    file,
    line: document.lineOf(at),
    path: pathText(at),
    text,
  });
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => problem([...path, key], unknownKey([...path, key])));
  if (issue.code === 'invalid_union') {
    // Of several alternative forms, the one of this type that has all the keys present is the intended one; its
    // problems are reported.
    const meant = issue.errors.filter((all) => !all.some((i) => i.path.length === 0));
    const [form] = meant;
    if (meant.length === 1 && form !== undefined)
      return form.flatMap((inner) => problemsOf({ ...inner, path: [...path, ...inner.path] }, file, document));
  }
  const found = shown(valueAt(document.value, path));
  if (issue.code === 'invalid_type') {
    const form = issue.message.startsWith('Invalid input') ? article(issue.expected) : issue.message;
    return [problem(path, `expected ${form}, found ${found}`)];
  }
  if (issue.code === 'invalid_value')
    return [problem(path, `expected ${issue.values.map(quoted).join(' or ')}, found ${found}`)];
  if (issue.code === 'too_small' && issue.message.startsWith('Too small'))
    return [problem(path, `expected at least ${leastOf(issue)}, found ${found}`)];
  if (issue.code === 'too_big') return [problem(path, `expected at most ${issue.maximum}, found ${found}`)];
  return [problem(path, `expected ${issue.message}, found ${found}`)];
}

// Keys that had another name.
const MOVED: Readonly<Record<string, string>> = { 'spec.render.namespace': 'spec.target.namespace' };

function unknownKey(path: (string | number)[]): string {
  const text = pathText(path);
  const now = Object.hasOwn(MOVED, text) ? MOVED[text] : undefined;
  return now === undefined ? `\`${path.at(-1)}\` is not a known key` : `this key is now \`${now}\``;
}

function leastOf({ minimum, origin }: z.core.$ZodIssueTooSmall): string {
  const word = { array: 'item', string: 'character' }[origin as string];
  return word === undefined ? `${minimum}` : count(Number(minimum), word);
}

// Checks references to other environments: each must exist, and no environment may wait for itself.
function referenceProblems(environment: Environment, all: readonly Environment[]): { path: string; text: string }[] {
  const { metadata, spec } = environment;
  const before = (e: Environment) => [
    ...e.spec.dependsOn,
    ...(e.spec.promotion === undefined ? [] : [e.spec.promotion.from]),
  ];
  if (before(environment).length === 0) return [];
  const byName = new Map(all.map((e) => [e.metadata.name, e]));
  const missing = before(environment)
    .filter((n) => !byName.has(n))
    .map((n) => ({
      path: spec.dependsOn.includes(n) ? 'spec.dependsOn' : 'spec.promotion.from',
      text: `expected the name of an Environment, found \`${n}\``,
    }));
  const reached = new Set<string>();
  for (const next = [...before(environment)]; next.length > 0; ) {
    const name = next.pop() as string;
    if (name === metadata.name)
      return [
        ...missing,
        { path: 'spec', text: `\`${name}\` waits for itself, through \`dependsOn\` or \`promotion\`` },
      ];
    if (reached.has(name)) continue;
    reached.add(name);
    const other = byName.get(name);
    if (other !== undefined) next.push(...before(other));
  }
  return missing;
}

// Checks names that must exist elsewhere in the same document.
function crossCheck(document: Environment | TrustPolicy, file: string, yaml: YamlDocument, problems: Problem[]): void {
  if (document.kind === 'Environment') {
    checkNamespaces(document, file, yaml, problems);
    return;
  }
  const { principals, groups, rules } = document.spec;
  const people = principals.map((p) => p.name);
  const known = new Set([...people, ...groups.map((g) => g.name)]);
  const report = (path: (string | number)[], text: string) =>
    problems.push({ file, line: yaml.lineOf(path), path: pathText(path), text });
  principals.forEach((p, i) => {
    if (people.indexOf(p.name) !== i) report(['spec', 'principals', i, 'name'], `\`${p.name}\` is declared twice`);
  });
  groups.forEach((group, i) => {
    if (people.includes(group.name)) report(['spec', 'groups', i, 'name'], `\`${group.name}\` is also a principal`);
    group.members.forEach((member, j) => {
      if (!people.includes(member))
        report(['spec', 'groups', i, 'members', j], `expected the name of a principal, found \`${member}\``);
    });
  });
  const roots = document.spec.roots;
  roots?.members.forEach((who, i) => {
    if (!known.has(who)) report(['spec', 'roots', 'members', i], `expected a principal or group, found \`${who}\``);
  });
  const rootPeople = new Set(roots?.members.flatMap((who) => groups.find((g) => g.name === who)?.members ?? [who]));
  if (roots !== undefined && roots.threshold > rootPeople.size)
    report(
      ['spec', 'roots', 'threshold'],
      `${roots.threshold} approvals are required, ` +
        `but only ${count(rootPeople.size, 'principal')} ${rootPeople.size === 1 ? 'is a root' : 'are roots'}`,
    );
  const accounts = new Map<string, string>();
  const addresses = new Map<string, string>();
  principals.forEach((p, i) => {
    p.forgeAccounts.forEach(({ forge, id }, j) => {
      const owner = accounts.get(`${forge}/${id}`);
      if (owner !== undefined)
        report(['spec', 'principals', i, 'forgeAccounts', j], `this account already belongs to \`${owner}\``);
      accounts.set(`${forge}/${id}`, p.name);
    });
    p.emails.forEach((email, j) => {
      const owner = addresses.get(email.toLowerCase());
      if (owner !== undefined && owner !== p.name)
        report(['spec', 'principals', i, 'emails', j], `this address already belongs to \`${owner}\``);
      addresses.set(email.toLowerCase(), p.name);
    });
    if (p.kind === 'person' && p.imports.length > 0)
      report(
        ['spec', 'principals', i, 'imports'],
        'only a bot may import reviews: a person’s key would speak for others',
      );
  });
  rules.forEach((rule, i) => {
    rule.signers.forEach((who, j) => {
      if (!known.has(who))
        report(['spec', 'rules', i, 'signers', j], `expected a principal or group, found \`${who}\``);
    });
    rule.approvals.from.forEach((who, j) => {
      if (!known.has(who))
        report(['spec', 'rules', i, 'approvals', 'from', j], `expected a principal or group, found \`${who}\``);
    });
    const able = new Set(rule.approvals.from.flatMap((who) => groups.find((g) => g.name === who)?.members ?? [who]));
    if (rule.approvals.required > able.size)
      report(
        ['spec', 'rules', i, 'approvals', 'required'],
        `${rule.approvals.required} approvals are required, but only ${count(able.size, 'principal')} may give one`,
      );
  });
}

const NEVER_GOVERNED = ['kube-system', 'kube-node-lease', 'kube-public'];

// Gating these namespaces would block repair of the cluster and of the gate itself.
function checkNamespaces(environment: Environment, file: string, yaml: YamlDocument, problems: Problem[]): void {
  const { target, render } = environment.spec;
  const report = (path: (string | number)[], text: string) =>
    problems.push({ file, line: yaml.lineOf(path), path: pathText(path), text });
  target.namespaces.forEach((namespace, i) => {
    if (!NEVER_GOVERNED.includes(namespace)) return;
    report(['spec', 'target', 'namespaces', i], `\`${namespace}\` belongs to the cluster and cannot be governed`);
  });
  const governed = target.namespaces.map(quoted).join(' or ');
  const { namespace } = target;
  if (namespace !== undefined && !target.namespaces.includes(namespace))
    report(['spec', 'target', 'namespace'], `expected a governed namespace, ${governed}, found \`${namespace}\``);
  if (render.with === 'helm' && defaultNamespace(environment) === undefined)
    report(['spec', 'target', 'namespace'], `expected ${governed}: Helm needs one namespace for its release`);
}

function withAbsolutePaths(environment: Environment, here: string): Environment {
  const { source, target, policies, decryption, render } = environment.spec;
  return {
    ...environment,
    spec: {
      ...environment.spec,
      source: {
        ...source,
        url: isAddress(source.url) ? source.url : resolve(here, source.url),
        ...(source.credentials === undefined ? {} : { credentials: absoluteCredentials(source.credentials, here) }),
        ...(source.receiver === undefined
          ? {}
          : { receiver: { ...source.receiver, secretFile: resolve(here, source.receiver.secretFile) } }),
      },
      target: target.kubeconfig === undefined ? target : { ...target, kubeconfig: resolve(here, target.kubeconfig) },
      render:
        render.with === 'helm'
          ? { ...render, registries: render.registries.map((r) => absoluteRegistry(r, here)) }
          : render,
      ...(decryption === undefined ? {} : { decryption: absoluteFiles(decryption, here) }),
      policies: { ...policies, bundles: policies.bundles.map((b) => absoluteBundle(b, here)) },
    },
  };
}

function withAbsoluteFiles(notifier: Notifier, here: string): Notifier {
  const [[target, options] = ['', {}]] = Object.entries(notifier.spec.to);
  const made = Object.fromEntries(
    Object.entries(options as Record<string, string>).map(([key, value]) => [
      key,
      key.endsWith('File') ? resolve(here, value) : value,
    ]),
  );
  return { ...notifier, spec: { ...notifier.spec, to: { [target]: made } as Notifier['spec']['to'] } };
}

function withAbsolutePlaces(schedule: ReportSchedule, here: string): ReportSchedule {
  const frameworks = schedule.spec.frameworks.map((f) => (typeof f === 'string' ? f : { file: resolve(here, f.file) }));
  const deliver = schedule.spec.deliver.map(({ name, ...place }) => {
    const [[kind, options] = ['', {}]] = Object.entries(place as Record<string, Record<string, unknown>>);
    const isPlace = (key: string) => key.endsWith('File') || key === 'path';
    const made = Object.fromEntries(
      Object.entries(options).map(([key, value]) => [key, isPlace(key) ? resolve(here, String(value)) : value]),
    );
    return { name, [kind]: made } as ReportSchedule['spec']['deliver'][number];
  });
  return { ...schedule, spec: { ...schedule.spec, frameworks, deliver } };
}

// Tests for a network address, as opposed to a path on this machine.
function isRemote(url: string): boolean {
  return isAddress(url) && !/^file:/i.test(url);
}

// Tests for `https://…`, `ssh://…`, or `user@host:path` as in scp.
function isAddress(url: string): boolean {
  return /^[a-z+]+:\/\//i.test(url) || /^[^@/]+@[^/:]+:/.test(url);
}

function absoluteBundle(source: BundleSource, here: string): BundleSource {
  if ('file' in source) return { ...source, file: resolve(here, source.file) };
  if ('repository' in source && !isAddress(source.repository.url))
    return { ...source, repository: { ...source.repository, url: resolve(here, source.repository.url) } };
  if (!('oci' in source)) return source;
  const files = ['credentialsFile', 'caFile'] as const;
  return {
    ...source,
    ...Object.fromEntries(
      files.flatMap((key) => (source[key] === undefined ? [] : [[key, resolve(here, source[key])]])),
    ),
  };
}

type Registry = Extract<Environment['spec']['render'], { with: 'helm' }>['registries'][number];

function absoluteRegistry({ host, leadsTo, ...files }: Registry, here: string): Registry {
  return { host, ...(leadsTo === undefined ? {} : { leadsTo }), ...absoluteFiles(files, here) };
}

// Every key of an object of file names.
function absoluteFiles<T extends object>(files: T, here: string): T {
  return Object.fromEntries(Object.entries(files).map(([key, file]) => [key, resolve(here, file as string)])) as T;
}

type Credentials = NonNullable<Environment['spec']['source']['credentials']>;

function absoluteCredentials(credentials: Credentials, here: string): Credentials {
  const files = ['passwordFile', 'sshKeyFile', 'knownHostsFile', 'caFile'] as const;
  const { githubApp } = credentials;
  return {
    ...credentials,
    ...Object.fromEntries(
      files.flatMap((key) => (credentials[key] === undefined ? [] : [[key, resolve(here, credentials[key])]])),
    ),
    ...(githubApp === undefined
      ? {}
      : { githubApp: { ...githubApp, privateKeyFile: resolve(here, githubApp.privateKeyFile) } }),
  };
}

// Key files are read in, so that the digest of the configuration covers the keys themselves. A missing file is a
// problem like any other: without its revocation list, a policy would trust revoked keys.
function withKeyFiles(policy: TrustPolicy, { file, document: yaml, here }: Found, problems: Problem[]): TrustPolicy {
  const read = (name: string, path: (string | number)[]): Buffer | undefined => {
    try {
      const place = resolve(here, name);
      if (statSync(place).size > MAX_FILE) throw new Error('too large');
      return readFileSync(place);
    } catch {
      problems.push({
        file,
        line: yaml.lineOf(path),
        path: pathText(path),
        text: `expected a readable key file, found \`${name}\``,
      });
      return undefined;
    }
  };
  const { allowedSignersFile, sshRevocationsFile, ...spec } = policy.spec;
  const principals = spec.principals.map((principal, i) => ({
    ...principal,
    keys: principal.keys.map((key, j) => {
      if (key.openpgpFile === undefined) return key;
      const { openpgpFile, ...rest } = key;
      return {
        ...rest,
        openpgp: read(openpgpFile, ['spec', 'principals', i, 'keys', j, 'openpgpFile'])?.toString('utf8'),
      };
    }),
  }));
  const signers =
    allowedSignersFile === undefined ? undefined : read(allowedSignersFile, ['spec', 'allowedSignersFile']);
  const revocations =
    sshRevocationsFile === undefined ? undefined : read(sshRevocationsFile, ['spec', 'sshRevocationsFile']);
  const { trustedRootFile, ...sigstore } = spec.sigstore ?? {};
  const root =
    trustedRootFile === undefined ? undefined : read(trustedRootFile, ['spec', 'sigstore', 'trustedRootFile']);
  return {
    ...policy,
    spec: {
      ...spec,
      principals,
      ...(root === undefined
        ? {}
        : { sigstore: { certificateLogs: 1, ...sigstore, trustedRoot: root.toString('utf8') } }),
      ...(signers === undefined ? {} : { allowedSigners: `${spec.allowedSigners ?? ''}\n${signers.toString('utf8')}` }),
      ...(revocations === undefined ? {} : { sshRevocations: revocationText(revocations) }),
    },
  };
}

// Binary lists are stored as base64, which the schema accepts too.
function revocationText(bytes: Buffer): string {
  return bytes.subarray(0, 6).toString('latin1') === 'SSHKRL' ? bytes.toString('base64') : bytes.toString('utf8');
}

function invalid(problems: readonly Problem[]): CountersignError {
  const sorted = [...problems].sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line));
  const lines = sorted.map(
    (p) => `  ${p.file}${p.line === 0 ? '' : `:${p.line}`}: ${p.path === '' ? '' : `${p.path}: `}${p.text}`,
  );
  return new CountersignError(
    'config-invalid',
    `the configuration has ${count(problems.length, 'problem')}:\n${lines.join('\n')}`,
    {
      hint: '`countersign help configuration` lists every key',
    },
  );
}

function valueAt(value: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((v, key) => (v as Record<string | number, unknown> | undefined)?.[key], value);
}

function pathText(path: readonly (string | number)[]): string {
  return path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : text === '' ? part : `${text}.${part}`),
    '',
  );
}

// Long values are truncated: a key pasted into the wrong place should not fill the screen.
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'a mapping';
  // A password in an address must not appear in a log.
  const text = String(value).replaceAll(/\/\/[^/?#\s]*@/g, '//…@');
  return `\`${text.length > 60 ? `${text.slice(0, 60)}…` : text}\``;
}

function quoted(value: unknown): string {
  return `\`${String(value)}\``;
}

function article(type: string): string {
  const words: Record<string, string> = {
    string: 'text',
    array: 'a list',
    object: 'a mapping',
    record: 'a mapping',
    boolean: '`true` or `false`',
    int: 'a whole number',
    number: 'a number',
  };
  return words[type] ?? type;
}
