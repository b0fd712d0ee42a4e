import { type ApiServerPlugin, canonicalJson, type KubernetesObject } from '../model/index.ts';
import { list, record } from './approved-template.ts';

type Json = Readonly<Record<string, unknown>>;
type Mutable = Record<string, unknown>;

/** Effects on pods of API server plugins that are not on in every cluster, and the namespace they read. */
export type Plugins = {
  readonly names: readonly ApiServerPlugin[];
  /** Undefined if no plugin here reads it. */
  readonly namespace: KubernetesObject | undefined;
};

/** Plugins that read annotations of the namespace. */
export const READS_NAMESPACE: readonly ApiServerPlugin[] = ['PodNodeSelector', 'PodTolerationRestriction'];

const NODE_SELECTOR = 'scheduler.alpha.kubernetes.io/node-selector';
const DEFAULT_TOLERATIONS = 'scheduler.alpha.kubernetes.io/defaultTolerations';

/**
 * Changes the spec of a pod as these plugins do, in their order. Sources: plugin/pkg/admission/{alwayspullimages,
 * podnodeselector,podtolerationrestriction,extendedresourcetoleration} of Kubernetes 1.34. What a plugin has in a
 * configuration file of its own cannot be read, and is not part of it.
 */
export function withPlugins(spec: Mutable, { names, namespace }: Plugins): void {
  const annotations = namespace?.metadata.annotations ?? {};
  if (names.includes('AlwaysPullImages')) pullAlways(spec);
  if (names.includes('PodNodeSelector')) selectNodes(spec, annotations[NODE_SELECTOR]);
  if (names.includes('PodTolerationRestriction')) tolerate(spec, annotations[DEFAULT_TOLERATIONS]);
  if (names.includes('ExtendedResourceToleration')) tolerateResources(spec);
}

/** Returns every subset of a list, larger ones first. */
export function subsetsOf<T>(items: readonly T[]): readonly (readonly T[])[] {
  const all: (readonly T[])[] = [[]];
  for (const item of items) all.push(...all.map((subset) => [...subset, item]));
  return all.sort((a, b) => b.length - a.length);
}

function pullAlways(spec: Mutable): void {
  for (const container of containersOf(spec)) container['imagePullPolicy'] = 'Always';
  for (const volume of list(spec['volumes']) as Mutable[])
    if (volume['image'] !== undefined) volume['image'] = { ...record(volume['image']), pullPolicy: 'Always' };
}

function selectNodes(spec: Mutable, text: string | undefined): void {
  const pairs = (text ?? '').split(',').map((pair) => pair.split('=').map((part) => part.trim()));
  const wanted = Object.fromEntries(
    pairs.flatMap(([key = '', value]) => (key === '' || value === undefined ? [] : [[key, value]])),
  );
  if (Object.keys(wanted).length > 0) spec['nodeSelector'] = { ...wanted, ...record(spec['nodeSelector']) };
}

function tolerate(spec: Mutable, text: string | undefined): void {
  const extra = [...tolerationsIn(text), ...(isBestEffort(spec) ? [] : [MEMORY_PRESSURE])];
  if (extra.length > 0) spec['tolerations'] = merged([...list(spec['tolerations']).map(record), ...extra]);
}

const MEMORY_PRESSURE: Json = { key: 'node.kubernetes.io/memory-pressure', operator: 'Exists', effect: 'NoSchedule' };
const FIELDS = ['key', 'operator', 'value', 'effect', 'tolerationSeconds'];

function tolerationsIn(text: string | undefined): readonly Json[] {
  try {
    return list(JSON.parse(text ?? '[]')).map((item) =>
      Object.fromEntries(Object.entries(record(item)).filter(([key, value]) => FIELDS.includes(key) && value !== '')),
    );
  } catch {
    return []; // the API server refuses every pod there
  }
}

// tolerations.MergeTolerations: of two, only the one stays that covers the other; of equal ones, the first.
function merged(all: readonly Json[]): readonly Json[] {
  const kept: Json[] = [];
  for (const [i, t] of all.entries()) {
    const isCovered = kept.some((k) => covers(k, t)) || all.slice(i + 1).some((k) => !isSame(k, t) && covers(k, t));
    if (!isCovered) kept.push(t);
  }
  return kept;
}

function covers(wide: Json, t: Json): boolean {
  if (isSame(wide, t)) return true;
  const { key = '', operator = '', value = '', effect = '', tolerationSeconds } = wide;
  if ((t['key'] ?? '') !== key && (key !== '' || operator !== 'Exists')) return false;
  if ((t['effect'] ?? '') !== effect && effect !== '') return false;
  const seconds = t['tolerationSeconds'];
  if (effect === 'NoExecute' && tolerationSeconds !== undefined)
    if (seconds === undefined || Number(seconds) > Number(tolerationSeconds)) return false;
  if (operator === 'Exists') return true;
  return t['operator'] === 'Equal' && (t['value'] ?? '') === value;
}

function isSame(a: Json, b: Json): boolean {
  return canonicalJson(a) === canonicalJson(b);
}

function isBestEffort(spec: Mutable): boolean {
  const amounts = [record(spec['resources']), ...containersOf(spec).map((c) => record(c['resources']))].flatMap(
    ({ requests, limits }) => [requests, limits].flatMap((r) => ['cpu', 'memory'].map((name) => record(r)[name])),
  );
  return amounts.every((amount) => amount === undefined || /^0*(\.0*)?[A-Za-z]*$/.test(String(amount)));
}

function tolerateResources(spec: Mutable): void {
  const names = containersOf(spec).flatMap((c) => Object.keys(record(record(c['resources'])['requests'])));
  for (const key of [...new Set(names)].filter(isExtended).sort()) {
    const added = { key, operator: 'Exists', effect: 'NoSchedule' };
    const others = list(spec['tolerations']).filter((t) => {
      const { key: k, operator, effect, value = '' } = record(t);
      return k !== key || operator !== 'Exists' || effect !== 'NoSchedule' || value !== '';
    });
    spec['tolerations'] = [...others, added];
  }
}

function isExtended(name: string): boolean {
  return name.includes('/') && !name.includes('kubernetes.io/') && !name.startsWith('requests.');
}

function containersOf(spec: Mutable): Mutable[] {
  return [...list(spec['initContainers']), ...list(spec['containers'])] as Mutable[];
}
