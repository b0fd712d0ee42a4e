import {
  type Approved,
  intoTemplate,
  isEndpoints,
  isPodOrMaker,
  type MachineryFacts,
  type Proof,
  proveChild,
  proveEndpoints,
  proveForeign,
  proveWrite,
  templateDigest,
} from '../machinery/index.ts';
import {
  admissionDigest,
  type Environment,
  type IgnoreRule,
  isBuiltIn,
  type KubernetesObject,
  NO_REVISION,
  type OwnedObject,
  objectDigest,
  refKey,
  unbound,
} from '../model/index.ts';
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

/**
 * Proves an object as it is in the cluster, a pod of Git, too. Returns undefined for other objects of Git, which are
 * compared with their commit. Objects that make no pods are proven once a first revision is applied. Never throws.
 */
export async function proveContent(
  object: KubernetesObject,
  facts: MachineryFacts,
  ...approved: Parameters<typeof approvedIn>
): Promise<Proof | undefined> {
  const { debugImages } = approved[0].spec.admission.breakGlass;
  const plain = object.kind === 'Pod' ? withoutDebugging(object, debugImages) : object;
  if (plain.kind === 'Pod') {
    const own = ownedAs(keyOf(plain), approved[1], plain);
    if (own.length > 0) return provePodOfGit(plain, own);
  }
  const inGit = approvedIn(...approved);
  if (isPodOrMaker(plain)) return proveChild(plain, inGit, facts);
  const isOfGit = ownedAs(keyOf(plain), approved[1], plain).length > 0;
  if (isOfGit || approved[1].revision === NO_REVISION) return undefined;
  return (isEndpoints(plain) ? proveEndpoints : proveForeign)(plain, inGit, facts);
}

// Most of a pod cannot be changed, so that putting it right does not find what another pod of that name has besides.
function provePodOfGit(pod: KubernetesObject, own: readonly OwnedObject[]): Proof | undefined {
  const admitted = own.flatMap((o) => o.admitted ?? []);
  if (admitted.length === 0) return undefined; // recorded before digests were, or while admission was off
  const isThat = [pod, unbound(pod)].some((p) => admitted.includes(admissionDigest(p, 'CREATE')));
  return isThat
    ? { kind: 'proven' }
    : { kind: 'unproven', reason: 'it is not the pod that was approved under this name' };
}

/**
 * Tests whether an object is what was approved under its name, since it was made. One of a custom kind counts as it is:
 * its operator writes to it at once.
 */
export function isAsMade(object: KubernetesObject, { ref, admitted, templates }: OwnedObject): boolean {
  if (admitted === undefined || !isBuiltIn(ref)) return true;
  if ([object, unbound(object)].some((o) => admissionDigest(o, 'CREATE') === admitted)) return true;
  const template = templateDigest(object);
  return template !== undefined && templates?.includes(template) === true;
}

function keyOf({ apiVersion, kind, metadata }: KubernetesObject): string {
  return refKey({ apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name });
}

function ownedAs(key: string, state: EnvironmentState, object?: KubernetesObject): readonly OwnedObject[] {
  const found = [admissible(state).planned.get(key), state.owned.get(key)].filter((o) => o !== undefined);
  return object === undefined ? found : found.filter((o) => isItsObject(o, object));
}

// Nothing puts right what has the name of a hook that ran: the object that ran counts, or one exactly as approved.
function isItsObject({ hook, uid, live, admitted }: OwnedObject, object: KubernetesObject): boolean {
  if (hook !== 'ran') return true;
  if (uid !== undefined) return object.metadata['uid'] === uid;
  const isAdmitted = (operation: string) =>
    [object, unbound(object)].some((o) => admissionDigest(o, operation) === admitted);
  return objectDigest(object) === live || isAdmitted('CREATE') || isAdmitted('UPDATE');
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
  return {
    injected: spec.admission.injected,
    plugins: spec.admission.apiServer,
    left: (object) => leftInTemplate(object, spec.drift.ignore),
    hasOperators: spec.admission.operators.length + spec.admission.controllers.length > 0,
    isOwned: (ref, object) => ownedAs(refKey(ref), state, object).length > 0,
    templates: (object) => {
      const key = keyOf(object);
      const found = ownedAs(key, state, object);
      const used = inUse.get(key) ?? [];
      if (found.length === 0 && used.length === 0) return undefined;
      const here = templateDigest(object);
      const now = found.some((o) => isAsApplied(o, object)) ? here : undefined;
      // A request announces a use; that it happened, the object itself says.
      const listed = [...used.filter((digest) => digest === here), ...found.flatMap((o) => o.templates ?? [])];
      return [...new Set([...listed, ...(now === undefined ? [] : [now])])];
    },
  };
}

/** Returns JSON pointers to the fields in the template of an object that `spec.drift.ignore` leaves to others. */
export function leftInTemplate({ kind, metadata }: KubernetesObject, rules: readonly IgnoreRule[]): readonly string[] {
  const mine = rules.filter((r) => r.kind === kind && (r.name === undefined || r.name === metadata.name));
  return intoTemplate(mine.flatMap((r) => r.fields));
}

// An inventory that was recorded without templates has the digest of the whole object.
function isAsApplied({ templates, live }: OwnedObject, object: KubernetesObject): boolean {
  return templates === undefined && live !== undefined && objectDigest(object) === live;
}
