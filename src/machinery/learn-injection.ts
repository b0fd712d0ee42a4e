import {
  controllerOf,
  injectionSchema,
  type KubernetesObject,
  NETWORK_RESULTS,
  type ObjectRef,
} from '../model/index.ts';
import { list, type PodTemplate, record, templateDigest } from './approved-template.ts';
import { sampleDigest } from './injected.ts';
import { type MachineryFacts, ownerOf, Unproven } from './proof.ts';
import { proveChild } from './prove-child.ts';

type Json = Readonly<Record<string, unknown>>;
type Pair = { readonly pod: KubernetesObject; readonly template: PodTemplate };
type Seen = { readonly container: Json; readonly as: 'container' | 'init' | 'sidecar' };

/** A declaration that was learned from pods. */
export type Learned = {
  /** As one would write it: without defaults. Undefined if nothing is injected. */
  readonly declaration: Readonly<Record<string, unknown>> | undefined;
  /** Number of pods that have a controller with a template. */
  readonly pods: number;
  /** Pods that the declaration does not cover, and why. */
  readonly uncovered: readonly { readonly pod: string; readonly reason: string }[];
};

/**
 * Compares pods with the templates of their controllers and returns the declaration (`spec.admission.injected`) of what
 * is added to them. What no declaration can name (privileges, host paths) stays uncovered. Throws the errors
 * of `facts`.
 */
export async function learnInjection(
  name: string,
  pods: readonly KubernetesObject[],
  facts: MachineryFacts,
): Promise<Learned> {
  const pairs: Pair[] = [];
  for (const pod of pods) {
    const template = await templateOf(pod, facts);
    if (template !== undefined) pairs.push({ pod, template });
  }
  const declaration = declarationOf(name, pairs);
  const injected = declaration === undefined ? [] : [injectionSchema.parse(declaration)];
  const uncovered: { pod: string; reason: string }[] = [];
  for (const { pod } of pairs) {
    const proof = await proveChild(pod, { isOwned, templates: ownTemplate, injected, hasOperators: false }, facts);
    if (proof !== undefined && proof.kind !== 'proven')
      uncovered.push({ pod: pod.metadata.name, reason: proof.reason });
  }
  return { declaration, pods: pairs.length, uncovered };
}

// Here nothing is to be approved: what a controller has is taken as it is.
const isOwned = ({ kind }: Pick<ObjectRef, 'kind'>) => kind !== 'Pod';
const ownTemplate = (object: KubernetesObject) => (isOwned(object) ? [templateDigest(object) ?? ''] : undefined);

async function templateOf(pod: KubernetesObject, facts: MachineryFacts): Promise<PodTemplate | undefined> {
  if (controllerOf(pod) === undefined) return undefined;
  const owner = await ownerOf(pod, facts).catch((thrown: unknown) => {
    if (thrown instanceof Unproven) return undefined;
    throw thrown;
  });
  return owner === undefined || templateDigest(owner) === undefined
    ? undefined
    : (record(owner['spec'])['template'] as PodTemplate);
}

function declarationOf(name: string, pairs: readonly Pair[]): Json | undefined {
  const seen = new Map<string, Seen[]>();
  const volumes = new Map<string, Json>();
  const keys = { labels: new Set<string>(), annotations: new Set<string>() };
  const rewrites: Rewrites = { probes: new Set(), auto: false, mounts: new Map(), env: new Set() };
  for (const pair of pairs) {
    for (const one of addedContainers(pair))
      seen.set(String(one.container['name']), [...(seen.get(String(one.container['name'])) ?? []), one]);
    for (const volume of addedVolumes(pair)) volumes.set(String(volume['name']), volume);
    for (const map of ['labels', 'annotations'] as const) for (const key of addedKeys(pair, map)) keys[map].add(key);
    noteRewrites(pair, rewrites);
  }
  const all = {
    containers: [...seen].map(([container, found]) => declaredContainer(container, found)),
    volumes: [...volumes.values()],
    labels: [...keys.labels],
    annotations: [...keys.annotations],
  };
  const changes = {
    ...(rewrites.probes.size === 0 ? {} : { probes: Number([...rewrites.probes][0]) }),
    ...(rewrites.auto ? { autoImage: true } : {}),
    ...(rewrites.mounts.size === 0 ? {} : { mounts: [...rewrites.mounts.values()] }),
    ...(rewrites.env.size === 0 ? {} : { env: [...rewrites.env] }),
  };
  const filled = Object.fromEntries(Object.entries(all).filter(([, items]) => items.length > 0));
  if (Object.keys(filled).length + Object.keys(changes).length === 0) return undefined;
  return { name, ...filled, ...(Object.keys(changes).length === 0 ? {} : { rewrites: changes }) };
}

// --- containers

const isAuto = (container: Json) => container['image'] === 'auto';

function addedContainers({ pod, template }: Pair): readonly Seen[] {
  const given = record(template.spec);
  const ofGit = new Set(
    [...list(given['initContainers']), ...list(given['containers'])]
      .map(record)
      .filter((c) => !isAuto(c))
      .map((c) => c['name']),
  );
  const spec = record(pod['spec']);
  const before = list(spec['initContainers']).map(record);
  return [
    ...before.map(
      (container): Seen => ({ container, as: container['restartPolicy'] === 'Always' ? 'sidecar' : 'init' }),
    ),
    ...list(spec['containers']).map((container): Seen => ({ container: record(container), as: 'container' })),
  ].filter(({ container }) => !ofGit.has(container['name']));
}

function declaredContainer(name: string, seen: readonly Seen[]): Json {
  const containers = seen.map((s) => s.container);
  const as = [...new Set(seen.map((s) => s.as))];
  const contexts = containers.map((c) => record(c['securityContext']));
  const capabilities = new Set(contexts.flatMap((c) => list(record(c['capabilities'])['add'])));
  const isRoot = contexts.some(({ runAsUser, runAsGroup }) => runAsUser === 0 || runAsGroup === 0);
  const handlers = containers.flatMap((c) => [
    ...['livenessProbe', 'readinessProbe', 'startupProbe'].map((probe) => record(c[probe])),
    ...['postStart', 'preStop'].map((hook) => record(record(c['lifecycle'])[hook])),
  ]);
  const varies = varyingVariables(containers);
  const samples = new Set(containers.map((c) => sampleDigest(c, varies)));
  return {
    name,
    image: commonImage(containers.map((c) => String(c['image']))),
    ...(as.includes('init') ? { as } : {}),
    ...(capabilities.size === 0 ? {} : { capabilities: [...capabilities] }),
    ...(isRoot ? { root: true } : {}),
    ...(handlers.some((h) => h['exec'] !== undefined) ? { exec: true } : {}),
    ...(samples.size === 1 ? { sample: [...samples][0] } : {}),
    ...(samples.size === 1 && varies.length > 0 ? { varies } : {}),
  };
}

// One image as it is; several of one repository with `*` where they differ.
function commonImage(images: readonly string[]): string {
  const [first = '', ...others] = [...new Set(images)];
  if (others.length === 0) return first;
  const [, repository, tag, digest] = /^(.+?)(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$/.exec(first) ?? [];
  return `${repository ?? first}${tag === undefined ? '' : ':*'}${digest === undefined ? '' : '@sha256:*'}`;
}

function varyingVariables(containers: readonly Json[]): readonly string[] {
  const values = new Map<string, Set<string>>();
  for (const container of containers)
    for (const variable of list(container['env']).map(record)) {
      const name = String(variable['name']);
      values.set(name, (values.get(name) ?? new Set()).add(JSON.stringify(variable)));
    }
  return [...values].filter(([, found]) => found.size > 1).map(([name]) => name);
}

// --- volumes, labels and annotations

function addedVolumes({ pod, template }: Pair): readonly Json[] {
  const ofGit = new Set(list(record(template.spec)['volumes']).map((v) => record(v)['name']));
  return list(record(pod['spec'])['volumes'])
    .map(record)
    .filter((v) => !ofGit.has(v['name']))
    .flatMap((volume): readonly Json[] => {
      const { name, emptyDir, downwardAPI, configMap, secret, projected } = volume;
      if (emptyDir !== undefined) return [{ name, emptyDir: {} }];
      if (downwardAPI !== undefined) return [{ name, downwardAPI: {} }];
      if (configMap !== undefined) return [{ name, configMap: record(configMap)['name'] }];
      if (secret !== undefined) return [{ name, secret: record(secret)['secretName'] }];
      const [source, ...more] = list(record(projected)['sources']).map(record);
      const { audience } = record(source?.['serviceAccountToken']);
      return more.length === 0 && audience !== undefined ? [{ name, tokenFor: audience }] : [];
    });
}

// Added by the API server and by controllers.
const OWN_KEYS: ReadonlySet<string> = new Set([
  ...NETWORK_RESULTS,
  'kubernetes.io/limit-ranger',
  'batch.kubernetes.io/job-completion-index',
  'controller-revision-hash',
  'pod-template-generation',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'topology.kubernetes.io/zone',
  'topology.kubernetes.io/region',
]);

function addedKeys({ pod, template }: Pair, of: 'labels' | 'annotations'): readonly string[] {
  const given = template.metadata?.[of] ?? {};
  return Object.keys(pod.metadata[of] ?? {}).filter((key) => !Object.hasOwn(given, key) && !OWN_KEYS.has(key));
}

// --- containers of Git

type Rewrites = {
  readonly probes: Set<number>;
  auto: boolean;
  readonly mounts: Map<string, { readonly volume: string; readonly mountPath: string }>;
  readonly env: Set<string>;
};

function noteRewrites(pair: Pair, found: Rewrites): void {
  const { pod, template } = pair;
  const added = new Set(addedVolumes(pair).map((v) => v['name']));
  for (const place of ['initContainers', 'containers'])
    for (const given of list(record(template.spec)[place]).map(record)) {
      const actual = list(record(pod['spec'])[place])
        .map(record)
        .find((c) => c['name'] === given['name']);
      if (actual === undefined) continue;
      if (isAuto(given)) {
        found.auto = true;
        continue;
      }
      for (const probe of ['livenessProbe', 'readinessProbe', 'startupProbe']) {
        const { path, port } = record(record(actual[probe])['httpGet']);
        const wasTo = record(record(given[probe])['httpGet'])['port'];
        if (String(path).startsWith('/app-health/') && typeof port === 'number' && port !== wasTo)
          found.probes.add(port);
      }
      const variables = new Set(list(given['env']).map((e) => record(e)['name']));
      for (const { name } of list(actual['env']).map(record))
        if (!variables.has(name) && name !== 'JOB_COMPLETION_INDEX') found.env.add(String(name));
      for (const { name, mountPath } of list(actual['volumeMounts']).map(record))
        if (added.has(name))
          found.mounts.set(`${name} ${mountPath}`, { volume: String(name), mountPath: String(mountPath) });
    }
}
