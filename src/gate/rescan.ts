import {
  controllerOf,
  type KubernetesObject,
  type ObjectRef,
  type RenderedObject,
  refKey,
  type Violation,
} from '../model/index.ts';
import type { EnvironmentState } from './environment-state.ts';

/**
 * Whose an object in a governed namespace is: Git's, its by controller references, the cluster's own, or nobody's that
 * Git knows.
 */
export type Belonging = 'git' | 'owned' | 'cluster' | 'unmanaged';

/** What a look at everything in an environment's namespaces found; the evidence of `cluster.scanned`. */
export type Scan = {
  readonly unmanaged: readonly { readonly object: ObjectRef; readonly manager: string; readonly since: string }[];
  readonly violations: readonly {
    readonly object: ObjectRef;
    readonly rule: string;
    readonly message: string;
    readonly severity?: string;
    readonly waived?: string;
  }[];
  /** Kinds that could not be read. */
  readonly unread: readonly string[];
};

/** What is kept of an object between two looks. */
export type Scanned = {
  readonly ref: ObjectRef;
  readonly uid: string;
  readonly owner: string | undefined;
  readonly manager: string;
  readonly since: string;
};

/** Notes what is needed of an object to tell whose it is. */
export function scanned(object: KubernetesObject): Scanned {
  const { apiVersion, kind, metadata } = object;
  const managers = (metadata['managedFields'] ?? []) as readonly { readonly manager?: string }[];
  return {
    ref: { apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name },
    uid: String(metadata['uid'] ?? ''),
    owner: controllerOf(object)?.uid,
    manager: managers[0]?.manager ?? '',
    since: String(metadata['creationTimestamp'] ?? ''),
  };
}

/** Whose each object is, in the order given. */
export function belonging(all: readonly Scanned[], state: EnvironmentState): readonly Belonging[] {
  const byUid = new Map(all.map((s) => [s.uid, s]));
  const isGits = (s: Scanned) => state.owned.has(refKey(s.ref));
  const leads = (s: Scanned): boolean => {
    for (
      let at = s.owner === undefined ? undefined : byUid.get(s.owner), step = 0;
      at !== undefined && step < 10;
      step++
    ) {
      if (isGits(at)) return true;
      at = at.owner === undefined ? undefined : byUid.get(at.owner);
    }
    return false;
  };
  return all.map((s) => (isGits(s) ? 'git' : leads(s) ? 'owned' : isClusters(s.ref) ? 'cluster' : 'unmanaged'));
}

// What Kubernetes puts into every namespace by itself.
function isClusters({ apiVersion, kind, name }: ObjectRef): boolean {
  return (
    apiVersion === 'v1' &&
    ((kind === 'ConfigMap' && name === 'kube-root-ca.crt') || (kind === 'ServiceAccount' && name === 'default'))
  );
}

/** An object as the rules are asked about it: without what the API server keeps beside it. */
export function asSubject(object: KubernetesObject, state: EnvironmentState, digest: string): RenderedObject {
  const { managedFields: _, ...metadata } = object.metadata;
  return atItsLine(
    { ...object, metadata: metadata as KubernetesObject['metadata'] },
    scanned(object).ref,
    state,
    digest,
  );
}

/**
 * An object that is not rendered from a file, as the rules take it: with the line of the object that Git has, where
 * there is one.
 */
export function atItsLine(
  object: KubernetesObject,
  ref: ObjectRef,
  state: EnvironmentState,
  digest: string,
): RenderedObject {
  const { file = '', line = 1 } = state.owned.get(refKey(ref)) ?? {};
  return { object, ref, source: { file, line }, lineOf: () => line, positionOf: () => ({ line, column: 1 }), digest };
}

/** A violation as a scan keeps it. */
export function ofScan(v: Violation): Scan['violations'][number] {
  const object = v.object ?? { apiVersion: '', kind: '', namespace: '', name: '' };
  return {
    object,
    rule: v.rule ?? v.code,
    message: v.message,
    ...(v.severity === undefined ? {} : { severity: v.severity }),
    ...(v.waived === undefined ? {} : { waived: v.waived.waiver }),
  };
}
