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

// Marks that tools write on the objects they manage.
const MARKS = [
  ['labels', 'kustomize.toolkit.fluxcd.io/name', 'the Flux Kustomization'],
  ['labels', 'helm.toolkit.fluxcd.io/name', 'the Flux HelmRelease'],
  ['annotations', 'argocd.argoproj.io/tracking-id', 'the Argo CD application'],
  ['annotations', 'meta.helm.sh/release-name', 'the Helm release'],
] as const;
