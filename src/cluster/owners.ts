import { controllerOf, type KubernetesObject } from '../model/index.ts';

/**
 * Returns the tool or object that claims to own this one, or undefined. `ours` is the object in Git: marks in it are
 * plain text.
 */
export function foreignOwner(live: KubernetesObject, ours: KubernetesObject): string | undefined {
  const controller = controllerOf(live);
  if (controller !== undefined && ours.metadata['ownerReferences'] === undefined)
    return `the ${controller.kind} \`${controller.name}\``;
  for (const [where, key, tool] of MARKS) {
    const value = live.metadata[where]?.[key];
    if (value !== undefined && ours.metadata[where]?.[key] === undefined) return `${tool} (\`${value.slice(0, 100)}\`)`;
  }
  return undefined;
}

/**
 * Tests whether a label or annotation is one by which a tool knows its objects or remembers what it wrote, and that
 * means nothing to anything else.
 */
export function isMark(
  { metadata }: KubernetesObject,
  where: 'labels' | 'annotations',
  key: string,
  value: string,
): boolean {
  if (where === 'annotations') return key === LAST_APPLIED || key === TRACKING || key.startsWith('meta.helm.sh/');
  if (key === 'app.kubernetes.io/managed-by') return value === 'Helm';
  // Argo CD tracks by this label where it also writes the annotation.
  if (key === 'app.kubernetes.io/instance') return metadata.annotations?.[TRACKING]?.startsWith(`${value}:`) === true;
  return /^(kustomize|helm)\.toolkit\.fluxcd\.io\/(name|namespace)$/.test(key);
}

/** The annotation in which `kubectl apply` keeps what it applied. */
export const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';
const TRACKING = 'argocd.argoproj.io/tracking-id';

// Marks that tools write on the objects they manage.
const MARKS = [
  ['labels', 'kustomize.toolkit.fluxcd.io/name', 'the Flux Kustomization'],
  ['labels', 'helm.toolkit.fluxcd.io/name', 'the Flux HelmRelease'],
  ['annotations', TRACKING, 'the Argo CD application'],
  ['annotations', 'meta.helm.sh/release-name', 'the Helm release'],
] as const;
