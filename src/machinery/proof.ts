import {
  type ApiServerPlugin,
  controllerOf,
  groupOf,
  type Injection,
  isBuiltIn,
  type KubernetesObject,
  type ObjectRef,
} from '../model/index.ts';
import { leftDigest, templateDigest } from './approved-template.ts';

/** A write as the API server asks about it. For a subresource, `ref` is the object that has it. */
export type MachineryWrite = {
  readonly operation: string;
  readonly user: string;
  readonly groups: readonly string[];
  readonly ref: ObjectRef;
  readonly subresource: string;
  readonly object: KubernetesObject | undefined;
  readonly oldObject: KubernetesObject | undefined;
};

/** The approved state of an environment. */
export type Approved = {
  /** Tests whether an object is one of Git's. */
  readonly isOwned: (ref: ObjectRef, object?: KubernetesObject) => boolean;
  /**
   * Returns the digests of the templates that were approved for an object of Git (`templateDigest`), newest first;
   * undefined if the object is not one of Git's.
   */
  readonly templates: (object: KubernetesObject) => readonly string[] | undefined;
  /** Returns JSON pointers to the fields in the template of an object of Git that are left to others. */
  readonly left?: (object: KubernetesObject) => readonly string[];
  /** Plugins that the API server has switched on besides those of every cluster. */
  readonly plugins?: readonly ApiServerPlugin[];
  /** Containers and volumes that injectors may add to pods. */
  readonly injected: readonly Injection[];
  /** Whether operators are declared, which make objects for custom objects of Git. */
  readonly hasOperators: boolean;
};

/** Reads from the cluster. Both throw if the cluster cannot be asked. */
export interface MachineryFacts {
  /**
   * Returns the object with this name, or undefined if there is none. With `fresh`, it is read from the API server, not
   * from memory.
   */
  get(ref: ObjectRef, fresh?: boolean): Promise<KubernetesObject | undefined>;
  /**
   * Returns all objects of a kind in a namespace (`''`: cluster-scoped); `fresh` as above. With `labels`, those without
   * them may be missing.
   */
  list(
    apiVersion: string,
    kind: string,
    namespace: string,
    fresh?: boolean,
    labels?: Readonly<Record<string, string>>,
  ): Promise<readonly KubernetesObject[]>;
}

/** Returns facts that are all read from the API server. */
export function freshly(facts: MachineryFacts): MachineryFacts {
  return {
    get: (ref) => facts.get(ref, true),
    list: (apiVersion, kind, namespace, _, labels) => facts.list(apiVersion, kind, namespace, true, labels),
  };
}

/**
 * Result of a proof. `reason` is a sentence about the object, without its subject. `lateMs`: controllers may be behind
 * by so much, so that it counts only if it is still so by then. `isOfOperator`: its owners lead to a custom object of
 * Git for which an operator may make it, so that it depends on what the gate let through.
 */
export type Proof =
  | { readonly kind: 'proven' }
  | { readonly kind: 'unproven'; readonly reason: string; readonly lateMs?: number; readonly isOfOperator?: true }
  | { readonly kind: 'unknown'; readonly reason: string };

/** Further details of an `unproven`, besides its reason. */
type Doubt = { readonly lateMs?: number; readonly isOfOperator?: true };

/** Everything that a proof needs. */
export type Case = { readonly write: MachineryWrite; readonly approved: Approved; readonly facts: MachineryFacts };

/** Thrown inside a proof: the write does not follow from what is approved. */
export class Unproven extends Error {
  readonly more: Doubt;

  constructor(reason: string, more: Doubt = {}) {
    super(reason);
    this.more = more;
  }
}

/** Throws `Unproven` with this reason unless the condition holds. `lateMs` as in `Proof`. */
export function demand(condition: boolean, reason: string, lateMs?: number): asserts condition {
  if (!condition) throw new Unproven(reason, lateMs === undefined ? {} : { lateMs });
}

/** Returns the group and kind of an object, as duties name them: `apps/ReplicaSet`, `Pod`. */
export function kindOf({ apiVersion, kind }: Pick<ObjectRef, 'apiVersion' | 'kind'>): string {
  const group = groupOf(apiVersion);
  return group === '' ? kind : `${group}/${kind}`;
}

/** Returns the reference of an object. */
export function refOf({ apiVersion, kind, metadata }: KubernetesObject): ObjectRef {
  return { apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name };
}

/**
 * Reads the controller of an object and compares its uid. Throws `Unproven` if there is none, or if the object of that
 * name is another one.
 */
export async function ownerOf(object: KubernetesObject, facts: MachineryFacts): Promise<KubernetesObject> {
  const reference = controllerOf(object);
  demand(reference !== undefined, 'no controller owns it');
  const { apiVersion, kind, name, uid } = reference;
  const ref = { apiVersion, kind, name, namespace: object.metadata.namespace ?? '' };
  const found = await facts.get(ref);
  demand(found?.metadata['uid'] === uid, `its owner, the ${kind} \`${name}\` with this uid, does not exist`);
  return found as KubernetesObject;
}

/**
 * Tests whether a declared operator may make objects for this one: it is a custom object of Git. Nothing makes objects
 * for a ConfigMap or a Namespace, and the kinds of Kubernetes that make some have a template.
 */
export function isOperated(object: KubernetesObject, { isOwned, hasOperators }: Approved): boolean {
  return hasOperators && !isBuiltIn(object) && isOwned(refOf(object), object);
}

const MAX_STEPS = 5; // CronJob, Job, Pod is the longest chain that Kubernetes itself creates; operators add one or two

/**
 * Returns the digests of the templates that are approved for an object: those of Git or, if an operator made it for an
 * object of Git, the one it has, because the gate let that write through. Undefined if it belongs to nothing in Git.
 */
export async function approvedFor(
  object: KubernetesObject,
  { approved, facts }: Pick<Case, 'approved' | 'facts'>,
): Promise<readonly string[] | undefined> {
  const own = approved.templates(object);
  if (own !== undefined) return own;
  return (await isMadeByOperator(object, { approved, facts })) ? [templateDigest(object) ?? ''] : undefined;
}

/**
 * Tests whether the template that `holder` has is one of the digests approved for `root`, or one of them but for the
 * fields that are left to others.
 */
export function hasApprovedTemplate(
  holder: KubernetesObject,
  root: KubernetesObject,
  digests: readonly string[],
  { left = () => [] }: Approved,
): boolean {
  const own = templateDigest(holder);
  if (own === undefined || digests.includes(own)) return own !== undefined;
  const others = leftDigest(holder, left(root));
  return others !== undefined && digests.includes(others);
}

/** Tests whether the owners of an object lead, by uid, to a custom object of Git that operators make objects for. */
export async function isMadeByOperator(
  object: KubernetesObject,
  { approved, facts }: Pick<Case, 'approved' | 'facts'>,
): Promise<boolean> {
  let at: KubernetesObject | undefined = object;
  for (let step = 0; at !== undefined && step < MAX_STEPS; step++) {
    at = await ownerOf(at, facts).catch((thrown: unknown) => {
      if (thrown instanceof Unproven) return undefined;
      throw thrown;
    });
    if (at !== undefined && isOperated(at, approved)) return true;
  }
  return false;
}
