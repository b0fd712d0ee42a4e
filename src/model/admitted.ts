import { digestOf } from './digest.ts';
import type { KubernetesObject } from './kubernetes.ts';

/** Fields of `metadata` that the API server sets on every write, or controllers do: never part of what a commit asks for. */
export const SERVER_FIELDS: ReadonlySet<string> = new Set([
  'managedFields',
  'resourceVersion',
  'uid',
  'generation',
  'creationTimestamp',
  'selfLink',
]);

/**
 * Digest of an object as a cluster holds or admits it, without the fields the API server sets on every write and
 * without `status`: two objects with the same digest ask for the same.
 */
export function objectDigest(object: KubernetesObject): string {
  const { status: _, metadata, ...rest } = object;
  return digestOf({ ...rest, metadata: Object.fromEntries(Object.entries(metadata).filter(([key]) => !SERVER_FIELDS.has(key))) });
}

/**
 * Digest of an object as an admission webhook sees it. What the API server makes up anew for every request, dry run or
 * not, is taken out: the object's uid wherever it stands (Jobs label their pods with it), the random name of a pod's
 * token volume and, for a Service that is being created, the addresses it is about to be given.
 */
export function admissionDigest(object: KubernetesObject, operation: string): string {
  const { uid } = object.metadata;
  const plain = replaceTexts(object, (text) =>
    typeof uid === 'string' && text === uid ? '(uid)' : /^kube-api-access-[a-z0-9]{5}$/.test(text) ? '(token volume)' : text,
  );
  return objectDigest(operation === 'CREATE' && object.apiVersion === 'v1' && object.kind === 'Service' ? withoutAddresses(plain) : plain);
}

function replaceTexts<T>(value: T, replace: (text: string) => string): T {
  if (typeof value === 'string') return replace(value) as T;
  if (Array.isArray(value)) return value.map((item) => replaceTexts(item, replace)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, replaceTexts(v, replace)])) as T;
}

// A headless Service says `None` itself, and that stays.
function withoutAddresses(service: KubernetesObject): KubernetesObject {
  const {
    clusterIP,
    clusterIPs,
    healthCheckNodePort: _,
    ports,
    ...spec
  } = (service['spec'] ?? {}) as Record<string, unknown> & { ports?: Record<string, unknown>[] };
  const kept = clusterIP === 'None' ? { clusterIP, clusterIPs } : {};
  return {
    ...service,
    spec: { ...spec, ...kept, ...(ports === undefined ? {} : { ports: ports.map(({ nodePort: __, ...port }) => port) }) },
  };
}

/** How the webhook tells the applier, by a warning on its dry run, the digest it will admit: the API server carries it, so every replica agrees. */
export const ADMITS = 'countersign-admits:';
