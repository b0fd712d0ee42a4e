import type { KubernetesObject } from '../model/index.ts';

/** A reference to an object's owner, as Kubernetes writes it. */
export type OwnerReference = { readonly apiVersion: string; readonly kind: string; readonly name: string; readonly uid: string };

/**
 * Another tool or object that says an object is its own, in words, or undefined. `ours` is what Git asks for: marks that
 * stand in it are only text there.
 */
export function foreignOwner(live: KubernetesObject, ours: KubernetesObject): string | undefined {
  const references = (live.metadata['ownerReferences'] ?? []) as readonly (OwnerReference & { readonly controller?: boolean })[];
  const controller = references.find((r) => r.controller === true);
  if (controller !== undefined && ours.metadata['ownerReferences'] === undefined) return `the ${controller.kind} \`${controller.name}\``;
  for (const [where, key, tool] of MARKS) {
    const value = live.metadata[where]?.[key];
    if (value !== undefined && ours.metadata[where]?.[key] === undefined) return `${tool} (\`${value.slice(0, 100)}\`)`;
  }
  return undefined;
}

// What each tool writes on the objects it keeps.
const MARKS = [
  ['labels', 'kustomize.toolkit.fluxcd.io/name', 'the Flux Kustomization'],
  ['labels', 'helm.toolkit.fluxcd.io/name', 'the Flux HelmRelease'],
  ['annotations', 'argocd.argoproj.io/tracking-id', 'the Argo CD application'],
  ['annotations', 'meta.helm.sh/release-name', 'the Helm release'],
] as const;
