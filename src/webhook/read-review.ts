import type { AdmissionRequest } from '../gate/index.ts';
import { type KubernetesObject, type ObjectRef, resourceOf } from '../model/index.ts';

/** An AdmissionReview that can be answered: with its request, or undefined if the request is invalid. */
type Read = { readonly uid: string; readonly request: AdmissionRequest | undefined };

type Gvk = { readonly group?: unknown; readonly version?: unknown; readonly kind?: unknown };

type Review = {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly request?: {
    readonly uid?: unknown;
    readonly operation?: unknown;
    readonly dryRun?: unknown;
    readonly namespace?: unknown;
    readonly name?: unknown;
    readonly subResource?: unknown;
    readonly options?: { readonly fieldManager?: unknown } | null;
    readonly kind?: Gvk;
    readonly resource?: { readonly group?: unknown; readonly version?: unknown; readonly resource?: unknown };
    readonly userInfo?: { readonly username?: unknown; readonly groups?: unknown };
    readonly object?: unknown;
    readonly oldObject?: unknown;
  };
};

const OPERATIONS: ReadonlySet<unknown> = new Set(['CREATE', 'UPDATE', 'DELETE', 'CONNECT']);
const MAX_NAME = 2000; // names of users and objects accepted by the API server are far shorter

/**
 * Returns undefined unless the body is an AdmissionReview of admission.k8s.io/v1; without a uid there is nothing to
 * reply to.
 */
export function readReview(body: unknown): Read | undefined {
  const { apiVersion, kind, request } = (typeof body === 'object' && body !== null ? body : {}) as Review;
  if (
    apiVersion !== 'admission.k8s.io/v1' ||
    kind !== 'AdmissionReview' ||
    typeof request !== 'object' ||
    request === null
  )
    return undefined;
  const { uid } = request;
  if (typeof uid !== 'string' || uid === '' || uid.length > MAX_NAME) return undefined;
  return { uid, request: readRequest(uid, request) };
}

function readRequest(uid: string, request: NonNullable<Review['request']>): AdmissionRequest | undefined {
  const { operation } = request;
  const user = request.userInfo?.username;
  if (!OPERATIONS.has(operation) || typeof user !== 'string' || user.length > MAX_NAME) return undefined;
  const object = asObject(request.object);
  const oldObject = asObject(request.oldObject);
  const subresource = text(request.subResource);
  const ref = throughNode(request, subresource) ?? refOf(request, subresource, object ?? oldObject);
  if (ref === undefined) return undefined;
  return {
    uid,
    operation: operation as string,
    user,
    groups: Array.isArray(request.userInfo?.groups) ? request.userInfo.groups.filter((g) => typeof g === 'string') : [],
    ref,
    subresource,
    object: object as KubernetesObject | undefined,
    oldObject: oldObject as KubernetesObject | undefined,
    dryRun: request.dryRun === true,
    fieldManager: text(request.options?.fieldManager),
  };
}

// For a subresource, `kind` is that of the body (Scale, Eviction, PodExecOptions), but the subject is the resource.
function refOf(
  request: NonNullable<Review['request']>,
  subresource: string,
  object: KubernetesObject | undefined,
): ObjectRef | undefined {
  const { group, version, kind } = request.kind ?? {};
  if (typeof group !== 'string' || typeof version !== 'string' || typeof kind !== 'string' || kind === '')
    return undefined;
  const name = text(request.name) || text(object?.metadata?.name);
  const about = subresource === '' ? undefined : kindOf(request.resource);
  const isNamespace = (about?.kind ?? kind) === 'Namespace' && (about?.group ?? group) === '';
  const namespace = isNamespace ? '' : text(request.namespace);
  const at = about ?? { group, version, kind };
  return { apiVersion: at.group === '' ? at.version : `${at.group}/${at.version}`, kind: at.kind, namespace, name };
}

// Paths of a kubelet that act in a pod, spelled so that no one on the way to the kubelet reads another path.
const INTO_POD = new RegExp(
  '^/(?:run|exec|attach|portForward|checkpoint)/([a-z0-9][a-z0-9-]*)' +
    '/([a-z0-9][a-z0-9.-]*)(?:/[a-zA-Z0-9][a-zA-Z0-9.-]*)*$',
);

// A connection to a node's kubelet concerns the pod that its path names, if it names one.
function throughNode(request: NonNullable<Review['request']>, subresource: string): ObjectRef | undefined {
  const { group, resource } = request.resource ?? {};
  if (request.operation !== 'CONNECT' || group !== '' || resource !== 'nodes' || subresource !== 'proxy')
    return undefined;
  const [, namespace, name] =
    INTO_POD.exec(text((request.object as { path?: unknown } | null | undefined)?.path)) ?? [];
  return namespace === undefined || name === undefined ? undefined : { apiVersion: 'v1', kind: 'Pod', namespace, name };
}

// Kinds whose subresources reach the gate. For custom kinds the plural is converted back, as `resourceOf` builds it.
const KINDS = [
  'Pod',
  'Deployment',
  'ReplicaSet',
  'StatefulSet',
  'ReplicationController',
  'DaemonSet',
  'Job',
  'CronJob',
  'Service',
  'Node',
  'Namespace',
  'ServiceAccount',
  'PersistentVolumeClaim',
] as const;
const KIND_OF: ReadonlyMap<string, string> = new Map(KINDS.map((kind) => [resourceOf(kind), kind]));

function kindOf(
  resource: NonNullable<Review['request']>['resource'],
): { group: string; version: string; kind: string } | undefined {
  const { group, version, resource: plural } = resource ?? {};
  if (typeof group !== 'string' || typeof version !== 'string' || typeof plural !== 'string' || plural === '')
    return undefined;
  return { group, version, kind: KIND_OF.get(plural) ?? plural };
}

function asObject(value: unknown): KubernetesObject | undefined {
  const metadata = (value as { metadata?: unknown } | null | undefined)?.metadata;
  return typeof metadata === 'object' && metadata !== null ? (value as KubernetesObject) : undefined;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
