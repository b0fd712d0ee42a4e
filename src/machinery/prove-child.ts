import { controllerOf, type KubernetesObject } from '../model/index.ts';
import {
  type Approved,
  type Case,
  isMadeByOperator,
  kindOf,
  type MachineryFacts,
  ownerOf,
  type Proof,
  refOf,
  Unproven,
} from './proof.ts';
import { proveCronJobIs } from './prove-duty.ts';
import { isOfOperator, provePod } from './prove-pod.ts';
import { proveInUse, proveReplicaSetIs } from './prove-workload.ts';
import { proofFrom } from './prove-write.ts';

/**
 * Proves an object that runs, or makes what runs, as it is in the cluster: pods, and every kind that holds a pod
 * template. Returns undefined for all other kinds, and for objects of Git themselves. Never throws.
 */
export async function proveChild(
  object: KubernetesObject,
  approved: Approved,
  facts: MachineryFacts,
): Promise<Proof | undefined> {
  const prove = proofFor(object);
  if (prove === undefined || approved.isOwned(refOf(object), object)) return undefined;
  if (controllerOf(object) === undefined)
    return { kind: 'unproven', reason: 'no commit has it, and no controller owns it' };
  return proofFrom(facts, (by) => prove(object, { approved, facts: by }));
}

/** Tests whether an object is a pod, or of a kind of Kubernetes that makes pods: they have proofs of their own. */
export function isPodOrMaker(object: KubernetesObject): boolean {
  return proofFor(object) !== undefined;
}

function proofFor(object: KubernetesObject): ((object: KubernetesObject, of: Around) => Promise<void>) | undefined {
  return CHILDREN[kindOf(object)] ?? (ROOTS.has(kindOf(object)) ? proveRoot : undefined);
}

type Around = Pick<Case, 'approved' | 'facts'>;

// Kinds that only Git and operators make.
const ROOTS: ReadonlySet<string> = new Set([
  'apps/Deployment',
  'apps/StatefulSet',
  'apps/DaemonSet',
  'batch/CronJob',
  'ReplicationController',
]);

const CHILDREN: Readonly<Record<string, (object: KubernetesObject, of: Around) => Promise<void>>> = {
  Pod: async (pod, of) => {
    if (await isOfOperator(pod, of)) throw onlyLetThrough();
    await provePod(pod, of, false);
  },
  'apps/ReplicaSet': async (set, of) => {
    if ((await ownerOf(set, of.facts)).kind !== 'Deployment') await proveRoot(set, of);
    else await proveInUse(set, await proveReplicaSetIs(set, of), of);
  },
  'batch/Job': async (job, of) => {
    if ((await ownerOf(job, of.facts)).kind !== 'CronJob') await proveRoot(job, of);
    else await proveCronJobIs(job, of);
  },
};

// Only what is in use through break-glass has approved templates here.
async function proveRoot(object: KubernetesObject, of: Around): Promise<void> {
  if (of.approved.templates(object) !== undefined) return;
  throw (await isMadeByOperator(object, of)) ? onlyLetThrough() : new Unproven('it belongs to nothing in Git');
}

// Its writer sets the owner references, so that they prove nothing afterwards.
function onlyLetThrough(): Unproven {
  const reason = 'it belongs to a custom object of Git, but the gate did not let an operator make it as it is';
  return new Unproven(reason, { isOfOperator: true });
}
