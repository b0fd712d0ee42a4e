import { API_SERVER_PLUGINS, type ApiServerPlugin, isBuiltIn, type KubernetesObject } from '../model/index.ts';
import { READS_NAMESPACE, subsetsOf } from './api-server-plugins.ts';
import { list, type PodTemplate, record, templateDigest } from './approved-template.ts';
import { type Difference, differencesBetween, differencesText } from './differences.ts';
import { expectedPod, type PodSurroundings } from './expected-pod.ts';
import { withoutInjected } from './injected.ts';
import {
  approvedFor,
  type Case,
  demand,
  hasApprovedTemplate,
  isOperated,
  kindOf,
  type MachineryFacts,
  ownerOf,
  refOf,
  Unproven,
} from './proof.ts';

const REVISIONS: ReadonlySet<string> = new Set(['apps/StatefulSet', 'apps/DaemonSet']);

/**
 * Proves that a pod is what its controller makes of a template that was approved. `isNew`: it is being created, so no
 * node was chosen yet. Throws `Unproven` with the fields that differ.
 */
export async function provePod(
  pod: KubernetesObject,
  of: Pick<Case, 'approved' | 'facts'>,
  isNew: boolean,
): Promise<void> {
  const [owner, approved] = await templatesFor(pod, of);
  // A DaemonSet makes pods of its current template only. A ReplicaSet without replicas makes none.
  const templates = isNew && owner.kind === 'DaemonSet' ? approved.filter((t) => isOwn(t, owner)) : approved;
  const name = `the ${owner.kind} \`${owner.metadata.name}\``;
  demand(templates.length > 0, `the template of ${name} was not approved`);
  const isIdle = kindOf(owner) === 'apps/ReplicaSet' && record(owner['spec'])['replicas'] === 0;
  demand(!isNew || !isIdle, `${name} has no replicas`);
  const { plugins = [], injected } = of.approved;
  const namespace = await namespaceFor(plugins, owner, of.facts);
  const tried: Tried[] = [];
  let closest: { readonly found: readonly Difference[]; readonly reasons: readonly string[] } | undefined;
  for (const template of templates) {
    const plain = withoutInjected(pod, template, injected);
    const surroundings = { ...(await around(owner, template, of.facts)), usesToken: plain.usesToken };
    tried.push({ plain, surroundings });
    // A pod that exists may be older than a plugin.
    for (const names of isNew ? [plugins] : subsetsOf(plugins)) {
      const by = { ...surroundings, plugins: { names, namespace } };
      const { expected, actual } = expectedPod(plain.pod, plain.template, by, isNew);
      const found = differencesBetween(expected, actual);
      if (found.length === 0) return;
      if (closest === undefined || found.length < closest.found.length) closest = { found, reasons: plain.reasons };
    }
  }
  const { found = [], reasons = [] } = closest ?? {};
  const missing = await missingPlugins(tried, owner, of, isNew);
  const hint = missing.length === 0 ? [] : [namePlugins(missing)];
  const said = [differencesText(found), ...reasons, ...hint].join('; ');
  throw new Unproven(`it is not what ${name} makes of its template: ${said}`);
}

function isOwn(template: PodTemplate, { spec }: KubernetesObject): boolean {
  return template === record(spec)['template'];
}

function namePlugins(names: readonly ApiServerPlugin[]): string {
  const all = names.map((name) => `\`${name}\``).join(' and ');
  return (
    `${all} of the API server ${names.length === 1 ? 'does' : 'do'} exactly this: ` +
    `if it is switched on, name it in ${APISERVER}`
  );
}

/** The setting that names plugins of the API server, as messages have it. */
export const APISERVER = '`spec.admission.apiServer`';

type Tried = {
  readonly plain: ReturnType<typeof withoutInjected>;
  readonly surroundings: Omit<PodSurroundings, 'plugins'>;
};

// The fewest plugins that explain the pod, if they were named. It is only a hint, so nothing that fails may change the
// result.
async function missingPlugins(
  tried: readonly Tried[],
  owner: KubernetesObject,
  { approved: { plugins = [] }, facts }: Pick<Case, 'approved' | 'facts'>,
  isNew: boolean,
): Promise<readonly ApiServerPlugin[]> {
  const others = API_SERVER_PLUGINS.filter((name) => !plugins.includes(name));
  const namespace = await namespaceFor(others, owner, facts).catch(() => undefined);
  for (const more of subsetsOf(others).toReversed())
    for (const { plain, surroundings } of tried) {
      const by = { ...surroundings, plugins: { names: [...plugins, ...more], namespace } };
      const { expected, actual } = expectedPod(plain.pod, plain.template, by, isNew);
      if (differencesBetween(expected, actual).length === 0) return more;
    }
  return [];
}

async function namespaceFor(
  plugins: readonly ApiServerPlugin[],
  { metadata }: KubernetesObject,
  facts: MachineryFacts,
): Promise<KubernetesObject | undefined> {
  if (!plugins.some((name) => READS_NAMESPACE.includes(name))) return undefined;
  return facts.get({ apiVersion: 'v1', kind: 'Namespace', namespace: '', name: metadata.namespace ?? '' });
}

/** Tests whether an operator makes an object: its controller is a custom object of Git, or made for one. */
export async function isOfOperator(object: KubernetesObject, of: Pick<Case, 'approved' | 'facts'>): Promise<boolean> {
  const owner = await ownerOf(object, of.facts);
  if (templateDigest(owner) !== undefined || isBuiltIn(owner)) return false;
  if (of.approved.isOwned(refOf(owner), owner)) return isOperated(owner, of.approved);
  return (await approvedFor(owner, of)) !== undefined;
}

type Found = readonly [owner: KubernetesObject, templates: readonly PodTemplate[]];

// The templates that were approved, of those that the owner and its revisions have.
async function templatesFor(pod: KubernetesObject, of: Pick<Case, 'approved' | 'facts'>): Promise<Found> {
  const owner = await ownerOf(pod, of.facts);
  const template = record(record(owner['spec'])['template']) as PodTemplate;
  const own = of.approved.templates(owner);
  if (own === undefined && CHILDREN.has(kindOf(owner))) {
    const root = await rootOf(owner, of.facts);
    const digests = await approvedFor(root, of);
    demand(digests !== undefined, `the ${root.kind} \`${root.metadata.name}\` is not in Git`);
    return [owner, hasApprovedTemplate(owner, root, digests, of.approved) ? [template] : []];
  }
  const digests = own ?? (await approvedFor(owner, of));
  demand(digests !== undefined, `the ${owner.kind} \`${owner.metadata.name}\` is not in Git`);
  const isApproved = (t: PodTemplate) =>
    hasApprovedTemplate({ ...owner, spec: { template: t } }, owner, digests, of.approved);
  if (!REVISIONS.has(kindOf(owner)))
    return [owner, hasApprovedTemplate(owner, owner, digests, of.approved) ? [template] : []];
  const revisions = await revisionsOf(owner, of.facts);
  const earlier = revisions.map((r) => record(record(record(r['data'])['spec'])['template'])).map(withoutDirective);
  return [owner, [template, ...earlier].filter(isApproved)];
}

// A ReplicaSet of a Deployment, a Job of a CronJob.
const CHILDREN: ReadonlyMap<string, string> = new Map([
  ['apps/ReplicaSet', 'apps/Deployment'],
  ['batch/Job', 'batch/CronJob'],
]);

// Finds the object that made the owner; the owner itself, if an operator made it.
async function rootOf(owner: KubernetesObject, facts: MachineryFacts): Promise<KubernetesObject> {
  const title = `the ${owner.kind} \`${owner.metadata.name}\` is not in Git`;
  const root = await ownerOf(owner, facts).catch((thrown) => {
    throw thrown instanceof Unproven ? new Unproven(`${title}, and ${thrown.message}`) : thrown;
  });
  return kindOf(root) === CHILDREN.get(kindOf(owner)) ? root : owner;
}

async function revisionsOf(owner: KubernetesObject, facts: MachineryFacts): Promise<readonly KubernetesObject[]> {
  const all = await facts.list('apps/v1', 'ControllerRevision', owner.metadata.namespace ?? '');
  const uid = owner.metadata['uid'];
  return all.filter((r) => list(r.metadata['ownerReferences']).some((o) => record(o)['uid'] === uid));
}

// A revision is a strategic merge patch.
function withoutDirective(template: Readonly<Record<string, unknown>>): PodTemplate {
  const { $patch: _, ...rest } = template;
  return rest as PodTemplate;
}

async function around(
  owner: KubernetesObject,
  { spec = {} }: PodTemplate,
  facts: MachineryFacts,
): Promise<Omit<PodSurroundings, 'usesToken' | 'plugins'>> {
  const namespace = owner.metadata.namespace ?? '';
  const name = typeof spec['serviceAccountName'] === 'string' ? spec['serviceAccountName'] : 'default';
  const { priorityClassName, runtimeClassName } = spec;
  const [serviceAccount, limitRanges, classes, runtimeClass, revisions] = await Promise.all([
    facts.get({ apiVersion: 'v1', kind: 'ServiceAccount', namespace, name }),
    facts.list('v1', 'LimitRange', namespace),
    facts.list('scheduling.k8s.io/v1', 'PriorityClass', ''),
    typeof runtimeClassName === 'string'
      ? facts.get({ apiVersion: 'node.k8s.io/v1', kind: 'RuntimeClass', namespace: '', name: runtimeClassName })
      : undefined,
    REVISIONS.has(kindOf(owner)) ? revisionsOf(owner, facts) : [],
  ]);
  return {
    owner,
    serviceAccount,
    limitRanges,
    priorityClass: classes.find((c) =>
      priorityClassName === undefined ? c['globalDefault'] === true : c.metadata.name === priorityClassName,
    ),
    runtimeClass,
    revisions: revisions.map((r) => hashOf(r, owner)),
  };
}

// A StatefulSet labels its pods with the name of the revision, a DaemonSet with its hash.
function hashOf(revision: KubernetesObject, owner: KubernetesObject): string {
  return owner.kind === 'StatefulSet'
    ? revision.metadata.name
    : (revision.metadata.labels?.['controller-revision-hash'] ?? '');
}
