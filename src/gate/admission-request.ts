import { admissionDigest, type KubernetesObject, type ObjectRef } from '../model/index.ts';

/** What an AdmissionReview asks, in our words. */
export type AdmissionRequest = {
  readonly uid: string;
  readonly operation: string;
  readonly user: string;
  readonly groups: readonly string[];
  /** The object that it is about. With a subresource, the object that has it and not the body that was sent. */
  readonly ref: ObjectRef;
  readonly subresource: string;
  readonly object: KubernetesObject | undefined;
  readonly oldObject: KubernetesObject | undefined;
  readonly dryRun: boolean;
  /** The field manager that the request names; empty where it names none. */
  readonly fieldManager: string;
};

/**
 * The answer. `message` says what to do about a "no"; `warnings` are shown to whoever asked; `notes` go to the API
 * server's audit log.
 */
export type AdmissionDecision = {
  readonly allowed: boolean;
  readonly message: string;
  readonly warnings: readonly string[];
  readonly notes: Readonly<Record<string, string>>;
  /** The same request may be allowed in a moment. */
  readonly retry?: true;
};

/** Whether somebody is among identities, written as `user:NAME` or `group:NAME`. */
export function isListed(
  { user, groups }: Pick<AdmissionRequest, 'user' | 'groups'>,
  identities: readonly string[],
): boolean {
  return identities.some((id) =>
    id.startsWith('user:') ? id.slice(5) === user : id.startsWith('group:') && groups.includes(id.slice(6)),
  );
}

/** The namespace a request is in; a Namespace is in itself. */
export function namespaceOf({ ref }: Pick<AdmissionRequest, 'ref'>): string {
  return ref.kind === 'Namespace' && ref.apiVersion === 'v1' ? ref.name : ref.namespace;
}

const digests = new WeakMap<AdmissionRequest, string>();

/** `admissionDigest` of what a request writes; undefined where it writes no object, or part of one. */
export function requestDigest(request: AdmissionRequest): string | undefined {
  const { object, operation, subresource } = request;
  if (object === undefined || subresource !== '') return undefined;
  const known = digests.get(request) ?? admissionDigest(object, operation);
  digests.set(request, known);
  return known;
}

/** What the ledger is told of a request: no object, but the digest of what it writes. */
export type RequestOnRecord = Pick<
  AdmissionRequest,
  'uid' | 'operation' | 'user' | 'groups' | 'ref' | 'subresource' | 'dryRun'
> & {
  readonly digest: string | undefined;
};

/** A request as it goes on record. */
export function forRecord(request: AdmissionRequest): RequestOnRecord {
  const { uid, operation, user, groups, ref, subresource, dryRun } = request;
  return { uid, operation, user, groups, ref, subresource, dryRun, digest: requestDigest(request) };
}

/** The annotations of an object, or none. */
export function annotationsOf(object: KubernetesObject | undefined): Readonly<Record<string, string>> {
  return object?.metadata?.annotations ?? {};
}
