import {
  type Approved,
  type MachineryFacts,
  type Proof,
  proveChild,
  proveWrite,
  templateDigest,
} from '../machinery/index.ts';
import { type Environment, type KubernetesObject, type OwnedObject, objectDigest, refKey } from '../model/index.ts';
import type { AdmissionRequest } from './admission-request.ts';
import { withoutDebugging } from './debug-container.ts';
import { admissible, type EnvironmentState } from './environment-state.ts';

/** Proves a write of the machinery in an environment, by what is approved there now. Errors as `proveWrite`. */
export function proveMachinery(
  request: AdmissionRequest,
  facts: MachineryFacts,
  ...approved: Parameters<typeof approvedIn>
): Promise<Proof | undefined> {
  return proveWrite(request, approvedIn(...approved), facts);
}

/** Proves an object as it is in the cluster. Arguments and result as `proveChild`. */
export function proveContent(
  object: KubernetesObject,
  facts: MachineryFacts,
  ...approved: Parameters<typeof approvedIn>
): Promise<Proof | undefined> {
  const { debugImages } = approved[0].spec.admission.breakGlass;
  const plain = object.kind === 'Pod' ? withoutDebugging(object, debugImages) : object;
  return proveChild(plain, approvedIn(...approved), facts);
}

/**
 * Returns what is approved in an environment. `inUse` has the digests of templates that are in use through break-glass,
 * by the `refKey` of their object.
 */
function approvedIn(
  { spec }: Environment,
  state: EnvironmentState,
  inUse: ReadonlyMap<string, readonly string[]>,
): Approved {
  const { planned } = admissible(state);
  const find = (key: string): readonly OwnedObject[] =>
    [planned.get(key), state.owned.get(key)].filter((o) => o !== undefined);
  return {
    injected: spec.admission.injected,
    isOwned: (ref) => find(refKey(ref)).length > 0,
    templates: (object) => {
      const { apiVersion, kind, metadata } = object;
      const { name, namespace = '' } = metadata;
      const key = refKey({ apiVersion, kind, namespace, name });
      const found = find(key);
      const used = inUse.get(key) ?? [];
      if (found.length === 0 && used.length === 0) return undefined;
      const isLeft = spec.drift.ignore.some(
        (r) =>
          r.kind === kind &&
          (r.name === undefined || r.name === name) &&
          r.fields.some((f) => /^\/spec\/(template|jobTemplate)(\/|$)/.test(f)),
      );
      const now = isLeft || found.some((o) => isAsApplied(o, object)) ? templateDigest(object) : undefined;
      const listed = [...used, ...found.flatMap((o) => o.templates ?? [])];
      return [...new Set([...listed, ...(now === undefined ? [] : [now])])];
    },
  };
}

// An inventory that was recorded without templates has the digest of the whole object.
function isAsApplied({ templates, live }: OwnedObject, object: KubernetesObject): boolean {
  return templates === undefined && live !== undefined && objectDigest(object) === live;
}
