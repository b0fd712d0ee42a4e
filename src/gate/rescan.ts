import {
  controllerOf,
  type KubernetesObject,
  type ObjectRef,
  type OwnedObject,
  type RenderedObject,
  refKey,
  type Violation,
} from '../model/index.ts';
import type { EnvironmentState } from './environment-state.ts';

/**
 * Owner of an object in a governed namespace: Git, an object in Git by controller references, the cluster itself, or
 * none of them.
 */
export type Belonging = 'git' | 'owned' | 'cluster' | 'unmanaged';

/** Result of a scan of everything in an environment's namespaces; the evidence of `cluster.scanned`. */
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

/** Data kept about an object between two scans. */
export type Scanned = {
  readonly ref: ObjectRef;
  readonly uid: string;
  readonly owner: string | undefined;
  readonly manager: string;
  readonly since: string;
  /** Digest of the object without status (`objectDigest`), if it was asked for. */
  readonly digest?: string;
  /** Whether it is the binding that gives the service its rights there (`isOwnBinding`), if that was asked. */
  readonly isOwnBinding?: boolean;
};

/** Extracts the data needed to determine the owner of an object. */
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

/** Returns the owner of each object, in the given order. */
export function belonging(
  all: readonly Scanned[],
  state: { readonly owned: ReadonlyMap<string, Pick<OwnedObject, 'hook' | 'uid' | 'live'>> },
): readonly Belonging[] {
  const byUid = new Map(all.map((s) => [s.uid, s]));
  const isGits = (s: Scanned) => {
    const owned = state.owned.get(refKey(s.ref));
    // Another object may have the name of a hook that ran, and nothing puts that right.
    if (owned?.hook === 'ran') return owned.uid === undefined ? owned.live === s.digest : owned.uid === s.uid;
    return owned !== undefined;
  };
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
  const isGiven = (s: Scanned) => s.isOwnBinding === true || isClusters(s.ref);
  return all.map((s) => (isGits(s) ? 'git' : leads(s) ? 'owned' : isGiven(s) ? 'cluster' : 'unmanaged'));
}

// Objects that Kubernetes itself creates in every namespace.
function isClusters({ apiVersion, kind, name }: ObjectRef): boolean {
  return (
    apiVersion === 'v1' &&
    ((kind === 'ConfigMap' && name === 'kube-root-ca.crt') || (kind === 'ServiceAccount' && name === 'default'))
  );
}

/** Converts an object into the subject of rules: without fields the API server adds. */
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
 * Makes an object that was not rendered from a file a subject of rules, with the line of the same object in Git, if
 * any.
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

/** Returns a violation in the form of a scan. */
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
