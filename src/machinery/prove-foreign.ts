import type { KubernetesObject } from '../model/index.ts';
import { record } from './approved-template.ts';
import { type Approved, type Case, demand, kindOf, type MachineryFacts, type Proof, refOf, Unproven } from './proof.ts';
import {
  proveClaimOfPod,
  proveClaimOfSet,
  proveDefaultAccount,
  proveResourceClaim,
  proveRootCertificate,
} from './prove-duty.ts';
import { proofFrom } from './prove-write.ts';

/**
 * Proves an object that no commit has, and that makes no pods, as it is in the cluster. It is proven if a controller of
 * the control plane makes exactly this. Owner references prove nothing about an object that an operator may have made:
 * its writer sets them. Never throws.
 */
export async function proveForeign(
  object: KubernetesObject,
  approved: Approved,
  facts: MachineryFacts,
): Promise<Proof> {
  return proofFrom(facts, (by) => proveMade(object, { approved, facts: by }));
}

async function proveMade(object: KubernetesObject, of: Pick<Case, 'approved' | 'facts'>): Promise<void> {
  const { name } = object.metadata;
  const made = MADE.filter((m) => m.kind === kindOf(object) && (m.name === undefined || m.name === name));
  const reasons: string[] = [];
  for (const { prove } of made) {
    try {
      return await prove(asCreated(object, of));
    } catch (thrown) {
      if (!(thrown instanceof Unproven)) throw thrown;
      reasons.push(thrown.message);
    }
  }
  throw new Unproven(['no commit has it', ...reasons.slice(-1)].join(', and '));
}

type Made = { readonly kind: string; readonly name?: string; readonly prove: (of: Case) => Promise<void> };

// Objects that the control plane makes besides pods and what makes pods. The name only chooses the proof.
const MADE: readonly Made[] = [
  { kind: 'ConfigMap', name: 'kube-root-ca.crt', prove: proveRootCertificate },
  { kind: 'ServiceAccount', name: 'default', prove: proveDefaultAccount },
  { kind: 'PersistentVolumeClaim', prove: proveClaimOfPod },
  { kind: 'PersistentVolumeClaim', prove: proveClaimOfSet },
  { kind: 'resource.k8s.io/ResourceClaim', prove: proveResourceClaim },
  { kind: 'Service', name: 'kubernetes', prove: proveApiService },
];

async function proveApiService({ write: { object } }: Case): Promise<void> {
  demand(object !== undefined && isApiService(object), 'it is not the one of the API server');
}

/**
 * Tests whether a Service is the one of kube-apiserver itself, which keeps it and its endpoints as they are: only what
 * makes it that one is compared.
 */
export function isApiService({ metadata, ...service }: KubernetesObject): boolean {
  const { selector, type } = record(service['spec']);
  const { component, provider } = metadata.labels ?? {};
  const isNamed = metadata.namespace === 'default' && metadata.name === 'kubernetes';
  return (
    isNamed && component === 'apiserver' && provider === 'kubernetes' && selector === undefined && type === 'ClusterIP'
  );
}

// A claim gets its volume after it was made.
function asCreated(object: KubernetesObject, of: Pick<Case, 'approved' | 'facts'>): Case {
  const { volumeName: _, ...spec } = record(object['spec']);
  const created = object.kind === 'PersistentVolumeClaim' ? { ...object, spec } : object;
  const write = {
    ...{ operation: 'CREATE', user: '', groups: [], subresource: '' },
    ...{ ref: refOf(object), object: created, oldObject: undefined },
  };
  return { ...of, write };
}
