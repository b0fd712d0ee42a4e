import { type AppliedKind, Cluster, connect, type Grants, namespacedKinds } from '../cluster/index.ts';
import type { Configuration, ProcessSettings } from '../config/index.ts';
import { type Gate, outOfScope, renderedAt } from '../gate/index.ts';
import { type NativeRepository, sourceRepository, type UserRepository } from '../git/index.ts';
import {
  builtInScope,
  CountersignError,
  clusterScopes,
  type Environment,
  groupOf,
  isBuiltIn,
  isInScope,
  type ObjectRef,
  type RenderedObject,
  refText,
  resourceOf,
} from '../model/index.ts';
import { gitProgram, openCheckout, openConfiguration, openGate, openRendering, SharedRules } from '../open/index.ts';
import { ofCluster } from '../serve/index.ts';
import { type Io, paint, plain } from '../terminal/index.ts';
import type { ManifestsOptions } from './serve-commands.ts';

/** The rights that the environments of a configuration need in a cluster. */
export type DerivedRights = {
  readonly governed: readonly string[];
  readonly missing: readonly string[];
  readonly kinds: readonly AppliedKind[];
  readonly alsoRead: readonly { readonly group: string; readonly plural: string }[];
  readonly impersonated: readonly string[];
  readonly grants: Grants;
};

type Checkout = {
  readonly directory: string;
  readonly url: string | undefined;
  readonly user: UserRepository;
  readonly repository: NativeRepository;
};
/** An object that an environment renders, and what matters of it for rights. */
type Needed = Pick<RenderedObject, 'ref' | 'source' | 'object'> & { readonly environment: Environment };
type Served = { readonly plural: string; readonly namespaced: boolean };
type Definitions = ReadonlyMap<string, Served & { readonly where: string }>;

/**
 * Renders all environments of this cluster, and returns the kinds in them, as the API serves these. Each environment is
 * read at the tip of its branch and at the commits of `--revision`. Throws `usage` if an environment has no checkout,
 * `render-failed` if the gate would not accept what it renders, and `config-invalid` for a kind that no one defines:
 * rights that are too few by mistake would only show when they are needed.
 */
export async function deriveRights(
  options: ManifestsOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<DerivedRights> {
  const configuration = ofCluster(openConfiguration(options), options.cluster);
  const environments = chosen(configuration, options, io);
  const checkouts: Checkout[] = [];
  const cluster = options.kubeconfig === undefined ? undefined : await connected(options);
  try {
    for (const directory of options.repo) checkouts.push(await openRepository(directory, options.remote, settings));
    const places = environments.map(
      (environment) => [environment, checkoutOf(environment, environments, checkouts)] as const,
    );
    const needed = await renderAll(configuration, places, { options, settings, cluster: cluster?.cluster });
    return await rightsFor(environments, needed, cluster);
  } finally {
    for (const { repository } of checkouts) repository.close();
    cluster?.cluster.close();
  }
}

// Environments that another account serves are named: their rights are someone else's to give.
function chosen(configuration: Configuration, options: ManifestsOptions, io: Io): readonly Environment[] {
  const all = configuration.environments;
  const missing = options.environment?.find((name) => !all.some((e) => e.metadata.name === name));
  const named = all.filter((e) => options.environment?.includes(e.metadata.name) !== false);
  const here = named.filter((e) => e.spec.target.kubeconfig === undefined);
  if (missing !== undefined || here.length === 0)
    throw new CountersignError(
      'usage',
      missing === undefined ? 'there is no environment in this cluster' : `there is no environment \`${missing}\``,
      { hint: 'name documents with --config, and environments of this cluster with --environment or --cluster' },
    );
  const say = (environment: Environment, why: string) =>
    io.err(`${paint(io, 'yellow', 'left out:')} ${plain(environment.metadata.name)} ${why}\n`);
  for (const one of named.filter((e) => !here.includes(e))) say(one, 'has its own `spec.target.kubeconfig`');
  for (const one of here)
    if (one.spec.target.serviceAccount !== undefined)
      say(one, `uses the rights of the ServiceAccount ${plain(one.spec.target.serviceAccount)}`);
  return here;
}

type Connected = { readonly cluster: Cluster; readonly server: Awaited<ReturnType<typeof connect>>['server'] };

async function connected({ kubeconfig, context }: ManifestsOptions): Promise<Connected> {
  const { server, user } = await connect({ kubeconfig, context, namedBy: 'operator' });
  return { server, cluster: new Cluster(server, user, '', { warn: () => {} }) };
}

async function openRepository(directory: string, remote: string, settings: ProcessSettings): Promise<Checkout> {
  const { user, repository } = await openCheckout(directory, settings);
  return { directory, user, repository, url: await user.config(`remote.${remote}.url`) };
}

// As for `check --all-environments`, a single checkout of a single repository may have another remote.
function checkoutOf(
  { metadata, spec }: Environment,
  all: readonly Environment[],
  checkouts: readonly Checkout[],
): Checkout {
  const { url } = spec.source;
  const isOnly = checkouts.length === 1 && all.every((e) => e.spec.source.url === url);
  const checkout = isOnly ? checkouts[0] : checkouts.find((c) => c.url === url);
  if (checkout !== undefined) return checkout;
  throw new CountersignError('usage', `no checkout is of the repository of \`${metadata.name}\`: \`${url}\``, {
    hint: 'add its directory to --repo; all environments are needed, or their objects could not be applied',
  });
}

type Rendering = {
  readonly options: ManifestsOptions;
  readonly settings: ProcessSettings;
  readonly cluster: Cluster | undefined;
};

async function renderAll(
  configuration: Configuration,
  places: readonly (readonly [Environment, Checkout])[],
  { options, settings, cluster }: Rendering,
): Promise<readonly Needed[]> {
  const rendering = openRendering(settings);
  const shared = new SharedRules();
  const needed: Needed[] = [];
  const seen = new Set<string>();
  try {
    for (const [environment, { user, repository, directory }] of places) {
      const commits = await commitsOf(environment, user, options);
      for (const { name } of commits) seen.add(name);
      if (commits.length === 0)
        throw new CountersignError(
          'usage',
          `\`${directory}\` has no branch \`${environment.spec.source.branch}\` for \`${environment.metadata.name}\``,
          { hint: 'fetch it first: `git fetch origin`; or name a commit with --revision' },
        );
      if (environment.spec.target.serviceAccount !== undefined) continue;
      const parts = { git: gitProgram(settings), shared, ...rendering, untrusted: 'rendered' } as const;
      const source = sourceRepository(repository);
      const { gate, close } = await openGate(configuration, environment, source, () => new Date(), parts);
      try {
        for (const { commit } of commits) needed.push(...(await objectsAt(gate, commit, cluster)));
      } finally {
        await close();
      }
    }
  } finally {
    rendering.close();
  }
  const unknown = options.revision?.find((name) => !seen.has(name));
  if (unknown === undefined) return needed;
  throw new CountersignError('git-ref-missing', `\`${unknown}\` is not a commit of any checkout`, {
    hint: 'fetch it first: `git fetch origin`',
  });
}

// The tip of its branch, and those of the named commits that its repository has.
async function commitsOf(
  { spec }: Environment,
  user: UserRepository,
  { revision = [], remote }: ManifestsOptions,
): Promise<readonly { readonly name: string; readonly commit: string }[]> {
  const read = async (name: string) => {
    const commit = await user.commit(name).catch((thrown: unknown) => {
      if (thrown instanceof CountersignError && thrown.code === 'git-ref-missing') return undefined;
      throw thrown;
    });
    return commit === undefined ? [] : [{ name, commit }];
  };
  const { branch } = spec.source;
  const [fetched, local] = [await read(`${remote}/${branch}`), await read(branch)];
  const named = await Promise.all(revision.map(read));
  const all = [...(fetched.length > 0 ? fetched : local), ...named.flat()];
  return all.filter((one, i) => !isRepeated(one, all.slice(0, i)) || revision.includes(one.name));
}

function isRepeated({ commit }: { readonly commit: string }, before: readonly { readonly commit: string }[]): boolean {
  return before.some((other) => other.commit === commit);
}

async function objectsAt(gate: Gate, commit: string, cluster: Cluster | undefined): Promise<readonly Needed[]> {
  const { environment } = gate;
  const servedScope = cluster === undefined ? {} : { servedScope: (kind: ObjectRef) => cluster.scopeOf(kind) };
  const { objects, violations, scopeOf } = await renderedAt({ ...gate, ...servedScope } as Gate, commit);
  const refused = [
    ...violations.filter(({ code }) => code !== 'nothing-rendered'),
    ...objects.flatMap((object) => outOfScope(environment, object, scopeOf)),
  ];
  const [first] = refused;
  if (first !== undefined)
    throw new CountersignError(
      'render-failed',
      `\`${environment.metadata.name}\` at ${commit.slice(0, 12)} would be denied: ${
        first.source === undefined ? '' : `${first.source.file}:${first.source.line}: `
      }${first.message}`,
      { hint: first.hint ?? 'see `countersign check` for all reasons' },
    );
  return objects.map(({ ref, source, object }) => ({ ref, source, object: partsOf(object), environment }));
}

// Of thousands of objects, only what rights depend on is kept.
function partsOf(object: RenderedObject['object']): RenderedObject['object'] {
  const { apiVersion, kind, metadata, roleRef, spec } = object;
  return {
    ...{ apiVersion, kind, metadata: { name: metadata.name } },
    ...(kind === 'CustomResourceDefinition' ? { spec } : {}),
    ...(roleRef === undefined ? {} : { roleRef }),
  };
}

async function rightsFor(
  environments: readonly Environment[],
  needed: readonly Needed[],
  cluster: Connected | undefined,
): Promise<DerivedRights> {
  const own = environments.filter((e) => e.spec.target.serviceAccount === undefined);
  const governed = own.flatMap((e) => e.spec.target.namespaces);
  const definitions = definitionsIn(needed);
  const kinds = await kindsOf(needed, definitions, cluster?.cluster);
  const served = cluster === undefined ? [] : await namespacedKinds(cluster.server, new Set());
  const defined = [...definitions].flatMap(([key, { plural, namespaced }]) =>
    namespaced ? [{ group: key.slice(0, key.indexOf('/')), plural }] : [],
  );
  return {
    governed,
    missing: cluster === undefined ? [] : await absent(governed, cluster.cluster),
    kinds,
    alsoRead: [...defined, ...served.map(({ apiVersion, plural }) => ({ group: groupOf(apiVersion), plural }))],
    impersonated: environments.flatMap((e) => e.spec.target.serviceAccount ?? []),
    grants: grantsOf(needed),
  };
}

async function absent(namespaces: readonly string[], cluster: Cluster): Promise<readonly string[]> {
  const missing: string[] = [];
  for (const name of new Set(namespaces))
    if (await cluster.isGone({ apiVersion: 'v1', kind: 'Namespace', namespace: '', name })) missing.push(name);
  return missing;
}

// As the API server demands it of definitions. A star, a part of an object (`pods/exec`) or a kind of Kubernetes itself
// would be a right to other objects than those in Git.
const PLURAL = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;
const GROUP = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$/;

// The kinds that the environments themselves define, by `group/Kind`.
function definitionsIn(needed: readonly Needed[]): Definitions {
  const definitions = new Map<string, Served & { readonly where: string }>();
  for (const { object, ref, source } of needed) {
    if (ref.kind !== 'CustomResourceDefinition' || groupOf(ref.apiVersion) !== 'apiextensions.k8s.io') continue;
    const { group, names, scope } = (object['spec'] ?? {}) as {
      readonly group?: unknown;
      readonly names?: { readonly kind?: unknown; readonly plural?: unknown };
      readonly scope?: unknown;
    };
    const where = `${source.file}:${source.line}`;
    const { plural, kind } = names ?? {};
    if (typeof plural !== 'string' || typeof kind !== 'string' || `${plural}.${group}` !== ref.name)
      throw new CountersignError('render-failed', `${where}: ${refText(ref)} does not say which kind it defines`, {
        hint: 'its name is `spec.names.plural`, a dot and `spec.group`',
      });
    if (!PLURAL.test(plural) || !GROUP.test(String(group)) || isBuiltIn({ apiVersion: `${group}/v1` }))
      throw new CountersignError('render-failed', `${where}: ${refText(ref)} defines what no cluster would serve`, {
        hint:
          '`spec.names.plural` is a DNS label, and `spec.group` a domain with a dot ' +
          'that is not one of Kubernetes itself',
      });
    const key = `${group}/${kind}`;
    const before = definitions.get(key);
    const namespaced = scope !== 'Cluster';
    if (before !== undefined && (before.plural !== plural || before.namespaced !== namespaced))
      throw new CountersignError('config-invalid', `${where}: \`${kind}\` of \`${group}\` is defined otherwise there`, {
        hint: `compare it with ${before.where}: a cluster has one definition of a kind`,
      });
    definitions.set(key, { plural, namespaced, where });
  }
  return definitions;
}

async function kindsOf(
  needed: readonly Needed[],
  definitions: Definitions,
  cluster: Cluster | undefined,
): Promise<readonly AppliedKind[]> {
  const kinds: AppliedKind[] = [];
  const unknown: Needed[] = [];
  const byKind = Map.groupBy(needed, ({ ref }) => `${groupOf(ref.apiVersion)}/${ref.kind}`);
  for (const [key, objects] of byKind) {
    const [one] = objects as [Needed];
    const served = await servedAs(one.ref, key, definitions, cluster);
    if (served === undefined) unknown.push(one);
    else
      kinds.push({
        group: groupOf(one.ref.apiVersion),
        plural: served.plural,
        isNamespaced: served.namespaced,
        ...(served.namespaced ? {} : { names: namesOf(objects) }),
      });
  }
  if (unknown.length === 0) return kinds;
  const [first] = unknown as [Needed];
  const list = unknown.map(({ ref }) => `\`${ref.kind}\` of \`${ref.apiVersion}\``).join(', ');
  throw new CountersignError(
    'config-invalid',
    `${first.source.file}:${first.source.line}: how the API serves ${list} is unknown`,
    {
      hint:
        'give --kubeconfig of a cluster that has the definition, or keep its CustomResourceDefinition in an ' +
        'environment; a name that is guessed could be the right to another kind',
    },
  );
}

async function servedAs(
  ref: ObjectRef,
  key: string,
  definitions: Definitions,
  cluster: Cluster | undefined,
): Promise<Served | undefined> {
  const scope = builtInScope(ref);
  if (scope !== undefined) return { plural: resourceOf(ref.kind), namespaced: scope === 'Namespaced' };
  return definitions.get(key) ?? (await cluster?.servedAs(ref));
}

// The names that the environments with this kind may own; undefined if a pattern allows names that no one knows yet.
function namesOf(objects: readonly Needed[]): readonly string[] | undefined {
  const environments = new Set(objects.map((o) => o.environment));
  const [{ ref }] = objects as readonly [Needed];
  const names = [...environments].flatMap(({ spec }) =>
    clusterScopes(spec.target.clusterScoped)
      .filter((scope) => isInScope(scope, { ...ref, name: '' }))
      .flatMap((scope) => scope.names),
  );
  return names.length === 0 || names.some((name) => name.includes('*')) ? undefined : names;
}

function grantsOf(needed: readonly Needed[]): Grants {
  const rbac = needed.filter(({ ref }) => groupOf(ref.apiVersion) === 'rbac.authorization.k8s.io');
  const named = (kind: string) => rbac.filter(({ ref }) => ref.kind === kind).map(({ ref }) => ref.name);
  const bound = (binding: string, role: string) =>
    rbac.flatMap(({ ref, object }) => {
      const { kind, name } = (object['roleRef'] ?? {}) as { readonly kind?: unknown; readonly name?: unknown };
      return ref.kind === binding && kind === role && typeof name === 'string' ? [name] : [];
    });
  return {
    roles: named('Role'),
    clusterRoles: named('ClusterRole'),
    boundRoles: bound('RoleBinding', 'Role'),
    boundInNamespaces: bound('RoleBinding', 'ClusterRole'),
    boundInCluster: bound('ClusterRoleBinding', 'ClusterRole'),
  };
}
