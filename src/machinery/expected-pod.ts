import {
  canonicalJson,
  type KubernetesObject,
  NETWORK_RESULTS,
  TOKEN_PATH,
  TOKEN_SOURCE,
  TOKEN_VOLUME,
} from '../model/index.ts';
import { type Plugins, withPlugins } from './api-server-plugins.ts';
import { list, type PodTemplate, record } from './approved-template.ts';

/** Objects of the cluster that take part in making a pod from a template. */
export type PodSurroundings = {
  /** The controller that makes it. */
  readonly owner: KubernetesObject;
  readonly serviceAccount: KubernetesObject | undefined;
  readonly limitRanges: readonly KubernetesObject[];
  /** The class that the template names or, if it names none, the default of the cluster. */
  readonly priorityClass: KubernetesObject | undefined;
  readonly runtimeClass: KubernetesObject | undefined;
  /** Values of the label `controller-revision-hash` that the owner's revisions have. */
  readonly revisions: readonly string[];
  /** Whether a container that was injected, and removed from the pod here, mounts the token of its ServiceAccount. */
  readonly usesToken: boolean;
  readonly plugins: Plugins;
};

type Json = Readonly<Record<string, unknown>>;
type Mutable = Record<string, unknown>;
type Container = Mutable & { readonly name?: string };

/** A pod in a form that can be compared. Lists whose order has no meaning are sorted. */
export type ComparablePod = { readonly metadata: Json; readonly spec: Json };

const TOKEN = '(token volume)';
const LIMIT_RANGER = 'kubernetes.io/limit-ranger';
const JOB_INDEX = 'batch.kubernetes.io/job-completion-index';
const NODE_LABELS: ReadonlySet<string> = new Set(['topology.kubernetes.io/zone', 'topology.kubernetes.io/region']);
const DEFAULT_SECONDS = 300;

/**
 * Returns a template's pod as the API server and the controller would make it, next to the actual one, both in a form
 * to compare. Unpredictable fields (random names, the node) are taken from the actual pod if they have the only
 * possible form. Sources: pkg/controller/{replicaset,statefulset,daemon,job}, plugin/pkg/admission/
 * {serviceaccount,priority,limitranger,runtimeclass,defaulttolerationseconds} and pkg/apis/core/v1/defaults.go of
 * Kubernetes 1.34. `isNew`: it is being created, and not bound to a node yet. For a pod that exists, what is around it
 * may have changed since: a limit, the default priority and the account's settings are accepted with and without.
 */
export function expectedPod(
  pod: KubernetesObject,
  template: PodTemplate,
  around: PodSurroundings,
  isNew: boolean,
): { readonly expected: ComparablePod; readonly actual: ComparablePod } {
  const actual = structuredClone(record(pod['spec'])) as Mutable;
  const spec = structuredClone(template.spec ?? {}) as Mutable;
  const index = indexOf(pod, around.owner);
  asOwner(spec, pod, around.owner, index);
  withDefaults(spec);
  if (isNew) withLimits(spec, around.limitRanges);
  else withEarlierLimits(spec, pod);
  withServiceAccount(spec, actual, around, isNew);
  withPriority(spec, around.priorityClass, isNew ? undefined : actual);
  withRuntime(spec, around.runtimeClass);
  withTolerations(spec);
  withPlugins(spec, around.plugins);
  if (around.owner.kind === 'DaemonSet') toOneNode(spec, actual);
  if (!isNew && spec['nodeName'] === undefined) delete actual['nodeName']; // chosen by the scheduler
  return {
    expected: { metadata: metadataOf(pod, template, around, index, isNew), spec: sorted(spec) },
    actual: { metadata: actualMetadata(pod, template, isNew), spec: sorted(actual) },
  };
}

function containersOf(spec: Mutable): Container[] {
  return [...list(spec['initContainers']), ...list(spec['containers'])] as Container[];
}

// --- what the controller of each kind adds

function indexOf({ metadata }: KubernetesObject, owner: KubernetesObject): string | undefined {
  if (owner.kind === 'StatefulSet') return /-(\d{1,10})$/.exec(metadata.name)?.[1];
  const isIndexed = owner.kind === 'Job' && record(owner['spec'])['completionMode'] === 'Indexed';
  const index = isIndexed ? metadata.annotations?.[JOB_INDEX] : undefined;
  return index !== undefined && /^\d{1,10}$/.test(index) ? index : isIndexed ? '' : undefined;
}

function asOwner(spec: Mutable, pod: KubernetesObject, owner: KubernetesObject, index: string | undefined): void {
  const of = record(owner['spec']);
  if (owner.kind === 'StatefulSet') {
    const claims = list(of['volumeClaimTemplates']).map((c) => String(record(record(c)['metadata'])['name']));
    const claimed = claims.map((name) => ({
      name,
      persistentVolumeClaim: { claimName: `${name}-${pod.metadata.name}` },
    }));
    const volumes = [...claimed, ...list(spec['volumes']).filter((v) => !claims.includes(String(record(v)['name'])))];
    if (volumes.length > 0) spec['volumes'] = volumes;
    spec['hostname'] = pod.metadata.name;
    if (typeof of['serviceName'] === 'string' && of['serviceName'] !== '') spec['subdomain'] = of['serviceName'];
  }
  if (owner.kind === 'Job' && index !== undefined) {
    spec['hostname'] = `${owner.metadata.name}-${index}`;
    for (const container of containersOf(spec)) {
      const env = list(container['env']);
      if (env.some((e) => record(e)['name'] === 'JOB_COMPLETION_INDEX')) continue;
      const fieldPath = `metadata.labels['${JOB_INDEX}']`;
      container['env'] = [
        ...env,
        { name: 'JOB_COMPLETION_INDEX', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath } } },
      ];
    }
  }
  if (owner.kind === 'DaemonSet') {
    const always: readonly (readonly [string, string])[] = [
      ['not-ready', 'NoExecute'],
      ['unreachable', 'NoExecute'],
      ['disk-pressure', 'NoSchedule'],
      ['memory-pressure', 'NoSchedule'],
      ['pid-pressure', 'NoSchedule'],
      ['unschedulable', 'NoSchedule'],
      ...(spec['hostNetwork'] === true ? ([['network-unavailable', 'NoSchedule']] as const) : []),
    ];
    const added = always.map(([name, effect]) => ({ key: `node.kubernetes.io/${name}`, operator: 'Exists', effect }));
    const isAdded = (t: unknown) =>
      added.some((a) => {
        const { key, operator, effect, value = '' } = record(t);
        return key === a.key && operator === a.operator && effect === a.effect && value === '';
      });
    spec['tolerations'] = [...list(spec['tolerations']).filter((t) => !isAdded(t)), ...added];
  }
}

// The controller binds each pod of a DaemonSet to a node by its name; which one is up to it.
function toOneNode(spec: Mutable, actual: Mutable): void {
  const key = 'requiredDuringSchedulingIgnoredDuringExecution';
  const termsOf = (from: Json) =>
    list(record(record(record(record(from['affinity'])['nodeAffinity'])[key]))['nodeSelectorTerms']);
  const field = record(list(record(termsOf(actual)[0])['matchFields'])[0]);
  const node = list(field['values'])[0];
  const matchFields = [{ key: 'metadata.name', operator: 'In', values: [typeof node === 'string' ? node : ''] }];
  const terms = termsOf(spec).length === 0 ? [{}] : termsOf(spec);
  const affinity = record(spec['affinity']);
  const nodeAffinity = record(affinity['nodeAffinity']);
  spec['affinity'] = {
    ...affinity,
    nodeAffinity: {
      ...nodeAffinity,
      [key]: { nodeSelectorTerms: terms.map((term) => ({ ...record(term), matchFields })) },
    },
  };
}

// --- what the API server adds

function withDefaults(spec: Mutable): void {
  spec['enableServiceLinks'] ??= true;
  for (const container of containersOf(spec)) {
    if (spec['hostNetwork'] === true)
      for (const port of list(container['ports']) as Mutable[]) port['hostPort'] ??= port['containerPort'];
    const { requests, limits } = resourcesOf(container);
    if (Object.keys(limits).length > 0) setResources(container, { limits, requests: { ...limits, ...requests } });
  }
}

function withLimits(spec: Mutable, limitRanges: readonly KubernetesObject[]): void {
  const items = limitRanges
    .flatMap((l) => list(record(l['spec'])['limits']))
    .map(record)
    .filter((item) => item['type'] === 'Container');
  for (const container of containersOf(spec))
    for (const item of items) {
      const { requests, limits } = resourcesOf(container);
      setResources(container, {
        limits: { ...record(item['default']), ...limits },
        requests: { ...record(item['defaultRequest']), ...requests },
      });
    }
}

// LimitRanges come and go. Its annotation says that one set something; what the template sets stays as it is.
function withEarlierLimits(spec: Mutable, pod: KubernetesObject): void {
  if (pod.metadata.annotations?.[LIMIT_RANGER] === undefined) return;
  const actual = new Map(containersOf(record(pod['spec']) as Mutable).map((c) => [c.name, resourcesOf(c)]));
  for (const container of containersOf(spec)) {
    const { requests, limits } = resourcesOf(container);
    const set = actual.get(container.name) ?? { requests: {}, limits: {} };
    setResources(container, { limits: { ...set.limits, ...limits }, requests: { ...set.requests, ...requests } });
  }
}

function resourcesOf(container: Container): { readonly requests: Json; readonly limits: Json } {
  const resources = record(container['resources']);
  return { requests: record(resources['requests']), limits: record(resources['limits']) };
}

function setResources(container: Container, { requests, limits }: { requests: Json; limits: Json }): void {
  container['resources'] = {
    ...record(container['resources']),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(Object.keys(requests).length === 0 ? {} : { requests }),
  };
}

function withServiceAccount(
  spec: Mutable,
  actual: Mutable,
  { serviceAccount: account, usesToken }: PodSurroundings,
  isNew: boolean,
): void {
  spec['serviceAccountName'] ??= 'default';
  spec['serviceAccount'] = spec['serviceAccountName'];
  const secrets = list(account?.['imagePullSecrets']);
  const isWithout = !isNew && list(actual['imagePullSecrets']).length === 0;
  if (list(spec['imagePullSecrets']).length === 0 && secrets.length > 0 && !isWithout)
    spec['imagePullSecrets'] = secrets;
  const declared = new Set(list(spec['volumes']).map((v) => record(v)['name']));
  const named = list(actual['volumes'])
    .map((v) => String(record(v)['name']))
    .find((name) => TOKEN_VOLUME.test(name) && !declared.has(name));
  const byAccount = isNew ? account?.['automountServiceAccountToken'] : named !== undefined;
  if ((spec['automountServiceAccountToken'] ?? byAccount) === false) return;
  // the plugin runs again after webhooks, so containers that were added have the mount too
  const without = containersOf(spec).filter(
    (c) => !list(c['volumeMounts']).some((m) => record(m)['mountPath'] === TOKEN_PATH),
  );
  if (without.length === 0 && !usesToken) return;
  for (const container of without)
    container['volumeMounts'] = [
      ...list(container['volumeMounts']),
      { name: TOKEN, readOnly: true, mountPath: TOKEN_PATH },
    ];
  spec['volumes'] = [...list(spec['volumes']), { name: TOKEN, projected: TOKEN_SOURCE }];
  if (named !== undefined) renameVolume(actual, named);
}

// Its random name stands in the volume and in the mounts; only there is it replaced.
function renameVolume(actual: Mutable, name: string): void {
  for (const volume of list(actual['volumes']) as Mutable[]) if (volume['name'] === name) volume['name'] = TOKEN;
  for (const container of [...containersOf(actual), ...(list(actual['ephemeralContainers']) as Container[])])
    for (const mount of list(container['volumeMounts']) as Mutable[]) if (mount['name'] === name) mount['name'] = TOKEN;
}

function withPriority(spec: Mutable, found: KubernetesObject | undefined, actual: Mutable | undefined): void {
  // made while no class was the default
  if (actual?.['priority'] === 0 && spec['priorityClassName'] === undefined && !actual['priorityClassName']) {
    Object.assign(spec, { priority: 0, preemptionPolicy: 'PreemptLowerPriority' });
    return;
  }
  if (found !== undefined) spec['priorityClassName'] ??= found.metadata.name;
  spec['priority'] = found?.['value'] ?? 0;
  spec['preemptionPolicy'] = found?.['preemptionPolicy'] ?? 'PreemptLowerPriority';
}

function withRuntime(spec: Mutable, found: KubernetesObject | undefined): void {
  if (found === undefined) return;
  const overhead = record(found['overhead'])['podFixed'];
  if (overhead !== undefined) spec['overhead'] = overhead;
  const { nodeSelector, tolerations } = record(found['scheduling']);
  if (nodeSelector !== undefined) spec['nodeSelector'] = { ...record(spec['nodeSelector']), ...record(nodeSelector) };
  if (tolerations === undefined) return;
  const all = [...list(spec['tolerations']), ...list(tolerations)];
  spec['tolerations'] = [...new Map(all.map((t) => [canonicalJson(t), t])).values()];
}

function withTolerations(spec: Mutable): void {
  const own = list(spec['tolerations']);
  const missing = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'].filter(
    (taint) =>
      !own.some((t) => {
        const { key = '', effect = '' } = record(t);
        return (key === taint || key === '') && (effect === 'NoExecute' || effect === '');
      }),
  );
  if (missing.length === 0) return;
  const added = missing.map((key) => ({
    key,
    operator: 'Exists',
    effect: 'NoExecute',
    tolerationSeconds: DEFAULT_SECONDS,
  }));
  spec['tolerations'] = [...own, ...added];
}

// --- metadata

function metadataOf(
  pod: KubernetesObject,
  { metadata = {} }: PodTemplate,
  { owner, limitRanges, revisions }: PodSurroundings,
  index: string | undefined,
  isNew: boolean,
): Json {
  const { labels = {}, annotations = {} } = pod.metadata;
  const given = <T>(key: string, from: Readonly<Record<string, T>>, isPossible: (value: T) => boolean) => {
    const value = from[key];
    return value !== undefined && isPossible(value) ? { [key]: value } : {};
  };
  const revision = () => {
    const key = 'controller-revision-hash';
    const value = labels[key];
    return { [key]: value !== undefined && revisions.includes(value) ? value : '(a revision of the owner)' };
  };
  const addedLabels: Json =
    owner.kind === 'StatefulSet'
      ? {
          ...revision(),
          'statefulset.kubernetes.io/pod-name': pod.metadata.name,
          'apps.kubernetes.io/pod-index': index ?? '',
        }
      : owner.kind === 'DaemonSet'
        ? { ...revision(), ...given('pod-template-generation', labels, (v) => /^\d+$/.test(v)) }
        : owner.kind === 'Job' && index !== undefined
          ? { [JOB_INDEX]: index }
          : {};
  const fromNode = Object.fromEntries(Object.entries(labels).filter(([key]) => !isNew && NODE_LABELS.has(key)));
  const isLimited = limitRanges.length > 0 || !isNew;
  const finalizers = [...(metadata.finalizers ?? []), ...(owner.kind === 'Job' ? tracking(pod) : [])];
  return {
    name: nameOf(pod, owner, index),
    labels: { ...fromNode, ...metadata.labels, ...addedLabels },
    annotations: {
      ...metadata.annotations,
      ...(owner.kind === 'Job' && index !== undefined ? { [JOB_INDEX]: index } : {}),
      ...(isLimited ? given(LIMIT_RANGER, annotations, (v) => LIMITED.test(v)) : {}),
    },
    ownerReferences: [
      {
        apiVersion: owner.apiVersion,
        kind: owner.kind,
        name: owner.metadata.name,
        uid: owner.metadata['uid'],
        controller: true,
        blockOwnerDeletion: true,
      },
    ],
    finalizers: finalizers.sort(),
  };
}

const TRACKING = 'batch.kubernetes.io/job-tracking';
const LIMITED = /^LimitRanger plugin set: [\w ,;.:/()-]*$/;

// Finalizers go while an object ends; none may come.
function tracking(pod: KubernetesObject): readonly string[] {
  const isThere = list(pod.metadata['finalizers']).includes(TRACKING);
  const hasEnded = ['Succeeded', 'Failed'].includes(String(record(pod['status'])['phase']));
  return isThere || (pod.metadata['deletionTimestamp'] === undefined && !hasEnded) ? [TRACKING] : [];
}

function nameOf({ metadata }: KubernetesObject, owner: KubernetesObject, index: string | undefined): string {
  const { name } = owner.metadata;
  if (owner.kind === 'StatefulSet') return `${name}-${index ?? '(an index)'}`;
  // names.SimpleNameGenerator: at most 58 characters, then five of these
  const end = index === undefined ? '-' : `-${index}-`;
  const prefix = index === undefined ? `${name}-`.slice(0, 58) : `${name.slice(0, 58 - end.length)}${end}`;
  return metadata.name.startsWith(prefix) &&
    /^[bcdfghjklmnpqrstvwxz2456789]{5}$/.test(metadata.name.slice(prefix.length))
    ? metadata.name
    : `${prefix}(five characters)`;
}

function actualMetadata({ metadata }: KubernetesObject, { metadata: given = {} }: PodTemplate, isNew: boolean): Json {
  const { name, labels = {}, ownerReferences } = metadata;
  const finalizers = list(metadata['finalizers']).map(String);
  const isReport = (key: string) => !isNew && NETWORK_RESULTS.includes(key) && given.annotations?.[key] === undefined;
  const annotations = Object.fromEntries(Object.entries(metadata.annotations ?? {}).filter(([key]) => !isReport(key)));
  return {
    name,
    labels,
    annotations,
    ownerReferences,
    // the API server adds these while the pod is deleted
    finalizers: finalizers.filter((f) => f !== 'foregroundDeletion' && f !== 'orphan').sort(),
  };
}

// --- a form to compare

const UNORDERED: ReadonlySet<string> = new Set(['volumes', 'tolerations', 'imagePullSecrets']);

function sorted(spec: Mutable): Json {
  for (const key of UNORDERED) if (Array.isArray(spec[key])) spec[key] = inOrder(spec[key]);
  for (const container of containersOf(spec))
    if (Array.isArray(container['volumeMounts'])) container['volumeMounts'] = inOrder(container['volumeMounts']);
  return spec;
}

function inOrder(items: readonly unknown[]): readonly unknown[] {
  return items
    .map((item) => [canonicalJson(item), item] as const)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([, item]) => item);
}
