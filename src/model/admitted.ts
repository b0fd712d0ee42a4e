import { canonicalJson, sha256 } from './digest.ts';
import { type KubernetesObject, NETWORK_RESULTS, type ObjectRef } from './kubernetes.ts';

/** Fields of `metadata` that the API server or controllers set on every write: never part of a commit. */
export const SERVER_FIELDS: ReadonlySet<string> = new Set([
  'managedFields',
  'resourceVersion',
  'uid',
  'generation',
  'creationTimestamp',
  'selfLink',
]);

/**
 * Returns the digest of an object as a cluster stores or admits it, without `status` and the fields the API server sets
 * on every write. Two objects with the same digest have the same content.
 */
export function objectDigest(object: KubernetesObject): string {
  return sha256(canonicalText(object));
}

function canonicalText({ status: _, metadata, ...rest }: KubernetesObject): string {
  return canonicalJson({
    ...rest,
    metadata: Object.fromEntries(Object.entries(metadata).filter(([key]) => !SERVER_FIELDS.has(key))),
  });
}

/**
 * Returns the digest of an object as an admission webhook sees it. Values that the API server generates for every
 * request, even a dry run, are removed: the object's uid wherever it appears (Jobs label their pods with it), the
 * random name of a pod's token volume and, for a new Service, its future addresses.
 */
export function admissionDigest(object: KubernetesObject, operation: string): string {
  const { uid } = object.metadata;
  const asked =
    operation === 'CREATE' && object.apiVersion === 'v1' && object.kind === 'Service'
      ? withoutAddresses(object)
      : object;
  const text = canonicalText(asked);
  // Whole texts, with their quotes; neither a uid nor the name of such a volume has a character that JSON escapes.
  const plain = typeof uid === 'string' && /^[\w-]+$/.test(uid) ? text.replaceAll(`"${uid}"`, '"(uid)"') : text;
  return sha256(
    plain.includes('"kube-api-access-')
      ? plain.replaceAll(/"kube-api-access-[a-z0-9]{5}"/g, '"(token volume)"')
      : plain,
  );
}

/**
 * Returns the digest of the content that someone gave an object: without what the API server and controllers add to it
 * afterwards (addresses, the number of a rollout, finalizers).
 */
export function contentDigest(object: KubernetesObject): string {
  const { 'deployment.kubernetes.io/revision': _, ...annotations } = object.metadata.annotations ?? {};
  const { finalizers: __, deletionTimestamp: ___, deletionGracePeriodSeconds: ____, ...metadata } = object.metadata;
  const plain = { ...object, metadata: { ...metadata, annotations } } as KubernetesObject;
  return objectDigest(object.apiVersion === 'v1' && object.kind === 'Service' ? withoutAddresses(plain) : plain);
}

/** Returns a pod as it was made: the scheduler chose its node later, and the API server copied the node's place. */
export function unbound(object: KubernetesObject): KubernetesObject {
  if (object.kind !== 'Pod') return object;
  const { nodeName: _, ...spec } = (object['spec'] ?? {}) as Readonly<Record<string, unknown>>;
  const { labels = {}, annotations = {}, ...metadata } = object.metadata;
  const given = Object.entries(labels).filter(([key]) => !/^topology\.kubernetes\.io\/(zone|region)$/.test(key));
  const others = Object.entries(annotations).filter(([key]) => !NETWORK_RESULTS.includes(key));
  return {
    ...object,
    metadata: {
      ...metadata,
      ...(given.length === 0 ? {} : { labels: Object.fromEntries(given) }),
      annotations: Object.fromEntries(others),
    },
    spec,
  };
}

// A headless Service itself says `None`, which stays.
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
    spec: {
      ...spec,
      ...kept,
      ...(ports === undefined ? {} : { ports: ports.map(({ nodePort: __, ...port }) => port) }),
    },
  };
}

/**
 * Prefix of a dry-run warning in which the webhook tells the applier the digest it will admit. The API server
 * transports it, so every replica agrees.
 */
export const ADMITS = 'countersign-admits:';

/**
 * Writes of the cluster's machinery whose content was proven, as in the evidence of `admission.proven`: one for each
 * user, operation, kind and owner.
 */
export type ProvenWrites = {
  /** A commitment to the user's name. */
  readonly user: string;
  readonly operation: string;
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly subresource: string;
  /** The controller of the objects; empty if they have none. */
  readonly owner: string;
  readonly count: number;
  /** Time of the first and last; ISO 8601. */
  readonly from: string;
  readonly to: string;
  /** Name of each object, with the request's uid. */
  readonly writes: readonly (readonly [name: string, uid: string])[];
  /** SHA-256 over the `admissionDigest` of each write, one per line in the order of `writes`. */
  readonly content: string;
};

/** One allowed request, as in the evidence of `admission.allowed`. Never the object itself. */
export type AdmittedRequest = {
  readonly uid: string;
  /** ISO 8601. */
  readonly at: string;
  /** A commitment to the user's name. */
  readonly user: string;
  readonly groups: readonly string[];
  readonly operation: string;
  readonly object: ObjectRef;
  readonly subresource: string;
  /** Why it was allowed: `intent`, `machinery`, `controller` (declared), `operator`, `left to others`, `connect`. */
  readonly as: string;
  /** `admissionDigest` of the object, if the request has one. */
  readonly digest?: string;
  /** Digest of its pod template, if it has one, and an operator or a declared controller wrote it. */
  readonly template?: string;
};

/**
 * One object that was as the gate let a declared controller or operator write it, as in the evidence of
 * `admission.standing`.
 */
export type StandingContent = {
  readonly uid: string;
  readonly object: ObjectRef;
  /** Digest of its content; of an object that makes pods, of its template. */
  readonly content: string;
};
