import { canonicalJson, sha256 } from './digest.ts';
import type { KubernetesObject, ObjectRef } from './kubernetes.ts';

/**
 * Fields of `metadata` that the API server sets on every write, or controllers do: never part of what a commit asks
 * for.
 */
export const SERVER_FIELDS: ReadonlySet<string> = new Set([
  'managedFields',
  'resourceVersion',
  'uid',
  'generation',
  'creationTimestamp',
  'selfLink',
]);

/**
 * Digest of an object as a cluster holds or admits it, without the fields the API server sets on every write and
 * without `status`: two objects with the same digest ask for the same.
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
 * Digest of an object as an admission webhook sees it. What the API server makes up anew for every request, dry run or
 * not, is taken out: the object's uid wherever it stands (Jobs label their pods with it), the random name of a pod's
 * token volume and, for a Service that is being created, the addresses it is about to be given.
 */
export function admissionDigest(object: KubernetesObject, operation: string): string {
  const { uid } = object.metadata;
  const asked =
    operation === 'CREATE' && object.apiVersion === 'v1' && object.kind === 'Service'
      ? withoutAddresses(object)
      : object;
  const text = canonicalText(asked);
  // Whole texts, by their quotes; neither a uid nor the name of such a volume has a character that JSON escapes.
  const plain = typeof uid === 'string' && /^[\w-]+$/.test(uid) ? text.replaceAll(`"${uid}"`, '"(uid)"') : text;
  return sha256(
    plain.includes('"kube-api-access-')
      ? plain.replaceAll(/"kube-api-access-[a-z0-9]{5}"/g, '"(token volume)"')
      : plain,
  );
}

// A headless Service says `None` itself, and that stays.
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
 * How the webhook tells the applier, by a warning on its dry run, the digest it will admit: the API server carries it,
 * so every replica agrees.
 */
export const ADMITS = 'countersign-admits:';

/** One request that was let through, as the evidence of `admission.allowed` has it. Never the object itself. */
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
  /** What let it through: `intent`, `machinery`, `operator`, `left to others`, `connect`, `rules`. */
  readonly as: string;
  /** `admissionDigest` of the object, where the request has one. */
  readonly digest?: string;
};
