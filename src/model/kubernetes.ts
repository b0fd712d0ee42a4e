import type { OrderedValue } from './ordered-value.ts';
import type { Position, SourceLine, ValuePath } from './place.ts';

/** Names one object in a cluster. `namespace` is empty for cluster-scoped kinds. */
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

/** A Kubernetes object as JSON holds it. */
export type KubernetesObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Metadata;
  readonly [field: string]: unknown;
};

/** An object as the repository would have it in the cluster, with the place it comes from. */
export type RenderedObject = {
  readonly object: KubernetesObject;
  readonly ref: ObjectRef;
  readonly source: SourceLine;
  /** The line of a value inside the object, or of its nearest parent that was written. */
  readonly lineOf: (path: ValuePath) => number;
  readonly positionOf: (path: ValuePath) => Position;
  /** SHA-256 of the object's canonical JSON. */
  readonly digest: string;
  /** Of an object that SOPS encrypted: every document of its file, in order, over which SOPS made its MAC. */
  readonly sealedWith?: readonly OrderedValue[];
};

/**
 * `group/kind/namespace/name`, the key by which objects are told apart. The version is no part of it: the same object
 * is served in several, and a manifest that moves to a newer one must not remove what it has just applied.
 */
export function refKey(ref: ObjectRef): string {
  const slash = ref.apiVersion.indexOf('/');
  return `${slash < 0 ? '' : ref.apiVersion.slice(0, slash)}/${ref.kind}/${ref.namespace}/${ref.name}`;
}

/** `Kind namespace/name`, as people say it. */
export function refText(ref: ObjectRef): string {
  return ref.namespace === '' ? `${ref.kind} ${ref.name}` : `${ref.kind} ${ref.namespace}/${ref.name}`;
}

/** A reference to an object's owner, as Kubernetes writes it. */
export type OwnerReference = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
};

/** The controller reference of an object, or undefined. */
export function controllerOf(object: KubernetesObject | undefined): OwnerReference | undefined {
  const references = object?.metadata?.['ownerReferences'];
  return (Array.isArray(references) ? (references as (OwnerReference & { controller?: boolean })[]) : []).find(
    (r) => r.controller === true,
  );
}

/** The label on every object that Countersign applies; its value is the environment's name. */
export const LABEL = 'countersign.dev/environment';

/** Under which name we apply fields (server-side apply). */
export const FIELD_MANAGER = 'countersign';

/** Annotations that Countersign reads or writes on objects. */
export const ANNOTATION = {
  /** Whose: the name of the ledger, so that two services that both claim one environment are told apart. */
  ledger: 'countersign.dev/ledger',
  revision: 'countersign.dev/revision',
  entry: 'countersign.dev/ledger-entry',
  breakGlass: 'countersign.dev/break-glass',
  breakGlassFor: 'countersign.dev/break-glass-for',
  breakGlassTicket: 'countersign.dev/break-glass-ticket',
} as const;

/** Whether a label or annotation is one of ours. */
export function isStamp(key: string): boolean {
  return key.startsWith('countersign.dev/');
}

/** Annotations that manifests in the repository may bear. */
export const USER_ANNOTATION = {
  /**
   * What is meant although it cannot be undone: `replace`, `run`; or that an encrypted Secret was renamed:
   * `move-secret`. Several with commas.
   */
  allow: 'countersign.dev/allow',
} as const;

/**
 * The resource that serves a kind, as the API's own conventions have it (apimachinery's guess): lower case, in the
 * plural. A custom kind whose plural follows another rule is not found by it.
 */
export function resourceOf(kind: string): string {
  const singular = kind.toLowerCase();
  if (singular.endsWith('endpoints')) return singular;
  if (singular.endsWith('s')) return `${singular}es`;
  return singular.endsWith('y') ? `${singular.slice(0, -1)}ies` : `${singular}s`;
}
