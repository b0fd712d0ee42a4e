import { canonicalJson, type KubernetesObject, wildcardMatches } from '../model/index.ts';
import type { AdmissionRequest } from './admission-request.ts';

type Container = Readonly<Record<string, unknown>>;

// Fields that a debug container may have. The API server gives it the last three, and the mount of the pod's own token.
const FIELDS: ReadonlySet<string> = new Set([
  'name',
  'image',
  'command',
  'args',
  'targetContainerName',
  'stdin',
  'stdinOnce',
  'tty',
  'resources',
  'imagePullPolicy',
  'terminationMessagePath',
  'terminationMessagePolicy',
]);

/**
 * Tests whether a request only adds debug containers to a pod, of images that match one of the patterns and with
 * nothing but what a person needs to look at it: no privileges, environment or volumes.
 */
export function addsDebugContainer(
  { operation, subresource, object, oldObject }: AdmissionRequest,
  images: readonly string[],
): boolean {
  if (images.length === 0 || operation !== 'UPDATE' || subresource !== 'ephemeralcontainers') return false;
  if (object === undefined || oldObject === undefined) return false;
  const before = debugContainersOf(oldObject).map(canonicalJson);
  const added = debugContainersOf(object).filter((c) => !before.includes(canonicalJson(c)));
  const kept = debugContainersOf(object).length - added.length;
  return added.length > 0 && kept === before.length && added.every((c) => isAllowed(c, images));
}

/** Returns a pod without the debug containers that `addsDebugContainer` lets in. */
export function withoutDebugging(pod: KubernetesObject, images: readonly string[]): KubernetesObject {
  const all = debugContainersOf(pod);
  const others = all.filter((c) => !isAllowed(c, images));
  if (images.length === 0 || others.length === all.length) return pod;
  const { ephemeralContainers: _, ...spec } = pod['spec'] as Readonly<Record<string, unknown>>;
  return { ...pod, spec: { ...spec, ...(others.length === 0 ? {} : { ephemeralContainers: others }) } };
}

function isAllowed(container: Container, images: readonly string[]): boolean {
  const { image, resources } = container;
  return (
    typeof image === 'string' &&
    images.some((pattern) => wildcardMatches(pattern, image)) &&
    Object.keys(container).every((field) => FIELDS.has(field)) &&
    canonicalJson(resources ?? {}) === '{}'
  );
}

function debugContainersOf(pod: KubernetesObject): readonly Container[] {
  const { ephemeralContainers } = (pod['spec'] ?? {}) as { readonly ephemeralContainers?: unknown };
  return Array.isArray(ephemeralContainers) ? (ephemeralContainers as readonly Container[]) : [];
}
