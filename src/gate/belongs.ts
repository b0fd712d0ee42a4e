import { controllerOf, type ObjectRef, type OwnerReference, refKey } from '../model/index.ts';
import type { AdmissionRequest } from './admission-request.ts';
import type { ClusterFacts } from './ports.ts';

const MAX_STEPS = 5; // CronJob, Job, Pod is the longest chain that Kubernetes itself creates; operators add one or two

/**
 * Tests whether the object of a request belongs to an object in Git, before and after it. Each controller reference on
 * the way is looked up, and its uid must match the current object of that name. Throws if the cluster cannot be asked.
 */
export async function belongs(
  { object, oldObject, ref }: Pick<AdmissionRequest, 'object' | 'oldObject' | 'ref'>,
  owned: ReadonlyMap<string, unknown>,
  facts: ClusterFacts,
): Promise<boolean> {
  const all = [object, oldObject].filter((o) => o !== undefined);
  for (const one of all) if (!(await leadsToGit(controllerOf(one), ref.namespace, owned, facts))) return false;
  return all.length > 0;
}

async function leadsToGit(
  first: OwnerReference | undefined,
  namespace: string,
  owned: ReadonlyMap<string, unknown>,
  facts: ClusterFacts,
): Promise<boolean> {
  let reference = first;
  for (let step = 0; reference !== undefined && step < MAX_STEPS; step++) {
    // An owner is in the namespace of what it owns, or cluster-scoped.
    const { apiVersion, kind, name, uid } = reference;
    const inside: ObjectRef = { apiVersion, kind, namespace, name };
    const found = await facts.owner(inside, uid);
    if (found === undefined) return false;
    if (owned.has(refKey(inside)) || owned.has(refKey({ ...inside, namespace: '' }))) return true;
    reference = found.owner;
  }
  return false;
}
