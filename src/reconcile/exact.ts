import {
  type Environment,
  isBuiltIn,
  type ObjectRef,
  type RenderedObject,
  refKey,
  type Writing,
} from '../model/index.ts';

/** Bounds of an autoscaler. */
export type Scaled = NonNullable<Writing['scaled']>;

/**
 * Tests whether an object must have exactly Git's content. Who writes which part of Kubernetes' own kinds is known. For
 * custom kinds only the environment can say it: if all writes need a verdict and no operator is declared, no one else
 * writes them.
 */
export function isExact(ref: ObjectRef, { spec }: Environment): boolean {
  return isBuiltIn(ref) || (spec.admission.mode === 'enforce' && spec.admission.operators.length === 0);
}

/** Returns the bounds within which HorizontalPodAutoscalers of a revision scale its objects, by `refKey`. */
export function scaledBy(objects: readonly RenderedObject[]): ReadonlyMap<string, Scaled> {
  const found = new Map<string, Scaled>();
  for (const { ref, object } of objects) {
    if (ref.kind !== 'HorizontalPodAutoscaler') continue;
    const {
      scaleTargetRef,
      minReplicas = 1,
      maxReplicas,
    } = (object['spec'] ?? {}) as {
      readonly scaleTargetRef?: { readonly apiVersion?: string; readonly kind?: string; readonly name?: string };
      readonly minReplicas?: number;
      readonly maxReplicas?: number;
    };
    const { apiVersion = '', kind = '', name = '' } = scaleTargetRef ?? {};
    if (typeof minReplicas === 'number' && typeof maxReplicas === 'number')
      found.set(refKey({ apiVersion, kind, namespace: ref.namespace, name }), { min: minReplicas, max: maxReplicas });
  }
  return found;
}
