import { CONTROL_PLANE, type MachineryWrite, templateDigest } from '../machinery/index.ts';
import {
  admissionDigest,
  canonicalJson,
  controllerOf,
  digestOf,
  type Environment,
  isBuiltIn,
  type KubernetesObject,
} from '../model/index.ts';

/** An AdmissionReview request in our terms. */
export type AdmissionRequest = MachineryWrite & {
  readonly uid: string;
  readonly dryRun: boolean;
  /** The field manager in the request; empty if there is none. */
  readonly fieldManager: string;
};

/**
 * The answer. `message` says what to do about a "no"; `warnings` are shown to the requester; `notes` go to the API
 * server's audit log.
 */
export type AdmissionDecision = {
  readonly allowed: boolean;
  readonly message: string;
  readonly warnings: readonly string[];
  readonly notes: Readonly<Record<string, string>>;
  /** The same request may be allowed shortly. */
  readonly retry?: true;
  /** The use of break-glass that was recorded for this very answer. */
  readonly use?: string;
};

/** Tests whether a user is in a list of identities, written as `user:NAME` or `group:NAME`. */
export function isListed(
  { user, groups }: Pick<AdmissionRequest, 'user' | 'groups'>,
  identities: readonly string[],
): boolean {
  return identities.some((id) =>
    id.startsWith('user:') ? id.slice(5) === user : id.startsWith('group:') && groups.includes(id.slice(6)),
  );
}

/** Tests whether a user is one of the control plane's controllers, or one that the environment adds to them. */
export function isMachinery(
  request: Pick<AdmissionRequest, 'user' | 'groups'>,
  { spec }: Pick<Environment, 'spec'>,
): boolean {
  return isListed(request, CONTROL_PLANE) || isListed(request, spec.admission.controllers);
}

/** Returns the namespace of a request; a Namespace belongs to itself. */
export function namespaceOf({ ref }: Pick<AdmissionRequest, 'ref'>): string {
  return ref.kind === 'Namespace' && ref.apiVersion === 'v1' ? ref.name : ref.namespace;
}

/** Tests whether a request connects to a node by a path that names no pod: it may reach pods of any namespace. */
export function isIntoNode({ ref, subresource }: Pick<AdmissionRequest, 'ref' | 'subresource'>): boolean {
  return ref.kind === 'Node' && ref.apiVersion === 'v1' && subresource === 'proxy';
}

const digests = new WeakMap<AdmissionRequest, string>();

/**
 * Returns the `admissionDigest` of the object a request writes; undefined if it writes no object, or only part of one.
 */
export function requestDigest(request: AdmissionRequest): string | undefined {
  const { object, subresource } = request;
  if (object === undefined || subresource !== '') return undefined;
  const known = digests.get(request) ?? digestWithStatus(request, object);
  digests.set(request, known);
  return known;
}

// A write of an object changes its status only if the kind has no `status` subresource. Then it is content.
function digestWithStatus({ operation, oldObject }: AdmissionRequest, object: KubernetesObject): string {
  const digest = admissionDigest(object, operation);
  const [now, before] = [object['status'], oldObject?.['status']];
  const isContent = operation === 'UPDATE' ? canonicalJson(now ?? {}) !== canonicalJson(before ?? {}) : false;
  const isGiven = operation === 'CREATE' && !isBuiltIn(object) && Object.keys(now ?? {}).length > 0;
  return isContent || isGiven ? digestOf([digest, now ?? {}]) : digest;
}

/** The part of a request that is recorded: no object, only the digest of what it writes. */
export type RequestOnRecord = Pick<
  AdmissionRequest,
  'uid' | 'operation' | 'user' | 'groups' | 'ref' | 'subresource' | 'dryRun'
> & {
  readonly digest: string | undefined;
  /** Digest of the pod template in the object, if it has one. */
  readonly template?: string;
  /** Kind and name of the object's controller; empty if it has none. */
  readonly owner: string;
};

/** Why declared controllers and operators were let through: the record alone proves what they wrote. */
export const DECLARED: ReadonlySet<string> = new Set(['controller', 'operator']);

/** Returns a request in the form that is recorded. `as`: why it was let through. */
export function forRecord(request: AdmissionRequest, as = ''): RequestOnRecord {
  const { uid, operation, user, groups, ref, subresource, dryRun, object, oldObject } = request;
  const controller = (object ?? oldObject) && controllerOf((object ?? oldObject) as KubernetesObject);
  const owner = controller === undefined ? '' : `${controller.kind} ${controller.name}`;
  const isWhole = DECLARED.has(as) && object !== undefined && subresource === '';
  const template = isWhole ? templateDigest(object) : undefined;
  return {
    ...{ uid, operation, user, groups, ref, subresource, dryRun, digest: requestDigest(request), owner },
    ...(template === undefined ? {} : { template }),
  };
}

/** Returns the annotations of an object, or none. */
export function annotationsOf(object: KubernetesObject | undefined): Readonly<Record<string, string>> {
  return object?.metadata?.annotations ?? {};
}
