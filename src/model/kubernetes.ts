import type { OrderedValue } from './ordered-value.ts';
import type { Position, SourceLine, ValuePath } from './place.ts';

/** Identifies one object in a cluster. `namespace` is empty for cluster-scoped kinds. */
export type ObjectRef = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
};

export type Metadata = {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
};

/** A Kubernetes object as JSON. */
export type KubernetesObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Metadata;
  readonly [field: string]: unknown;
};

/** A desired object from the repository, with its place there. */
export type RenderedObject = {
  readonly object: KubernetesObject;
  readonly ref: ObjectRef;
  readonly source: SourceLine;
  /** Returns the line of a value inside the object, or of its nearest written parent. */
  readonly lineOf: (path: ValuePath) => number;
  readonly positionOf: (path: ValuePath) => Position;
  /** SHA-256 of the object's canonical JSON. */
  readonly digest: string;
  /** If SOPS encrypted the object: every document of its file, in order, which SOPS' MAC covers. */
  readonly sealedWith?: readonly OrderedValue[];
};

/**
 * Returns `group/kind/namespace/name`, the key that identifies an object. It has no version: the same object is served
 * in several, and a manifest that moves to a newer one must not remove the object it just applied.
 */
export function refKey(ref: ObjectRef): string {
  return `${groupOf(ref.apiVersion)}/${ref.kind}/${ref.namespace}/${ref.name}`;
}

/** Returns the group of an `apiVersion`; empty for the core group. */
export function groupOf(apiVersion: string): string {
  const slash = apiVersion.indexOf('/');
  return slash < 0 ? '' : apiVersion.slice(0, slash);
}

/** Returns `Kind namespace/name`, for people. */
export function refText(ref: ObjectRef): string {
  return ref.namespace === '' ? `${ref.kind} ${ref.name}` : `${ref.kind} ${ref.namespace}/${ref.name}`;
}

/** An owner reference in the format of Kubernetes. */
export type OwnerReference = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
};

/** Returns the controller reference of an object, or undefined. */
export function controllerOf(object: KubernetesObject | undefined): OwnerReference | undefined {
  const references = object?.metadata?.['ownerReferences'];
  return (Array.isArray(references) ? (references as (OwnerReference & { controller?: boolean })[]) : []).find(
    (r) => r.controller === true,
  );
}

/** Label on every object applied by Countersign; its value is the environment's name. */
export const LABEL = 'countersign.dev/environment';

/** Our field manager name (server-side apply). */
export const FIELD_MANAGER = 'countersign';

/** Annotations that Countersign reads or writes on objects. */
export const ANNOTATION = {
  /** Owner: the name of the ledger, which distinguishes two services that claim the same environment. */
  ledger: 'countersign.dev/ledger',
  revision: 'countersign.dev/revision',
  entry: 'countersign.dev/ledger-entry',
  breakGlass: 'countersign.dev/break-glass',
  breakGlassFor: 'countersign.dev/break-glass-for',
  breakGlassTicket: 'countersign.dev/break-glass-ticket',
  /** The reason that a second person approved. */
  breakGlassApproved: 'countersign.dev/break-glass-approved',
} as const;

/** Tests whether a label or annotation is one of ours. */
export function isStamp(key: string): boolean {
  return key.startsWith('countersign.dev/');
}

/** Annotations allowed in manifests in the repository. */
export const USER_ANNOTATION = {
  /**
   * Declares intended irreversible actions: `replace`, `run`; or that an encrypted Secret was renamed: `move-secret`.
   * Several are separated by commas.
   */
  allow: 'countersign.dev/allow',
  /** The order in which a change writes objects: an integer; lower ones first. */
  order: 'countersign.dev/order',
} as const;

/** Tests whether a label or annotation is one of ours, and may not be in manifests in the repository. */
export function isReserved(key: string): boolean {
  return isStamp(key) && !Object.values<string>(USER_ANNOTATION).includes(key);
}

const BUILT_IN: ReadonlySet<string> = new Set([
  '',
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'apiregistration.k8s.io',
  'apps',
  'autoscaling',
  'batch',
  'certificates.k8s.io',
  'coordination.k8s.io',
  'discovery.k8s.io',
  'flowcontrol.apiserver.k8s.io',
  'networking.k8s.io',
  'node.k8s.io',
  'policy',
  'rbac.authorization.k8s.io',
  'resource.k8s.io',
  'scheduling.k8s.io',
  'storage.k8s.io',
]);

/** Tests whether a kind is one of Kubernetes itself, so that it is known who writes which part of it. */
export function isBuiltIn({ apiVersion }: { readonly apiVersion: string }): boolean {
  return BUILT_IN.has(groupOf(apiVersion));
}

/** Annotations in which pod networks (Calico, Multus, OVN, AWS) report what they did, through a pod's `status`. */
export const NETWORK_RESULTS: readonly string[] = [
  'cni.projectcalico.org/containerID',
  'cni.projectcalico.org/podIP',
  'cni.projectcalico.org/podIPs',
  'k8s.ovn.org/pod-networks',
  'k8s.v1.cni.cncf.io/network-status',
  'k8s.v1.cni.cncf.io/networks-status',
  'vpc.amazonaws.com/pod-ips',
];

/**
 * Returns the resource that serves a kind, by the API's conventions (apimachinery's guess): lower case and plural. It
 * is wrong for custom kinds with an irregular plural.
 */
export function resourceOf(kind: string): string {
  const singular = kind.toLowerCase();
  if (singular.endsWith('endpoints')) return singular;
  if (singular.endsWith('s')) return `${singular}es`;
  return /[^aeiou]y$/.test(singular) ? `${singular.slice(0, -1)}ies` : `${singular}s`;
}
