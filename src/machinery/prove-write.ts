import { CountersignError, messageOf } from '../model/index.ts';
import { CHILDREN, type Duty, dutiesOf } from './duties.ts';
import {
  type Approved,
  freshly,
  kindOf,
  type MachineryFacts,
  type MachineryWrite,
  type Proof,
  Unproven,
} from './proof.ts';

/**
 * Proves a write of the machinery by its content: one of the duties of its user must cover it. A user that is not of
 * the control plane, but was declared (`spec.admission.controllers`), needs a proof for pods and what makes pods; for
 * everything else, undefined is returned. Never throws: what cannot be determined is `unknown`.
 */
export async function proveWrite(
  write: MachineryWrite,
  approved: Approved,
  facts: MachineryFacts,
): Promise<Proof | undefined> {
  const own = dutiesOf(write);
  const duties = (own ?? CHILDREN).filter((d) => fits(d, write));
  const isDebugging = write.operation === 'CONNECT' || INTO_PODS.has(write.subresource);
  if (own === undefined && duties.length === 0 && !isDebugging) return undefined;
  let answer: Proof | undefined;
  for (const duty of duties) {
    const proof = await proofFrom(facts, (by) => duty.prove({ write, approved, facts: by }));
    if (proof.kind === 'proven') return proof;
    // of several, the one that could not be determined is the more careful answer
    if (answer === undefined || proof.kind === 'unknown') answer = proof;
  }
  return answer ?? { kind: 'unproven', reason: `no duty of \`${write.user}\` covers it` };
}

/** Subresources that change a running pod beyond its template. No controller writes them. */
export const INTO_PODS: ReadonlySet<string> = new Set(['ephemeralcontainers', 'resize', 'binding']);

function fits({ operations, kinds, subresource = '' }: Duty, write: MachineryWrite): boolean {
  return (
    operations.some((o) => o === write.operation) &&
    subresource === write.subresource &&
    (kinds === 'any' || kinds.includes(kindOf(write.ref)))
  );
}

/**
 * Runs a proof and returns its result. Cached facts about the cluster may be older than the object, so a proof that
 * fails with them is run again with facts that are all read now.
 */
export async function proofFrom(facts: MachineryFacts, prove: (by: MachineryFacts) => Promise<void>): Promise<Proof> {
  const proof = await proofOf(() => prove(facts));
  return proof.kind === 'unproven' ? proofOf(() => prove(freshly(facts))) : proof;
}

async function proofOf(prove: () => Promise<void>): Promise<Proof> {
  try {
    await prove();
    return { kind: 'proven' };
  } catch (thrown) {
    return whyNot(thrown);
  }
}

function whyNot(thrown: unknown): Proof {
  if (thrown instanceof Unproven) return { kind: 'unproven', reason: thrown.message, ...thrown.more };
  // Only the cluster's silence leaves it open. A write that breaks its proof is not proven.
  return thrown instanceof CountersignError && thrown.recover === 'retry'
    ? { kind: 'unknown', reason: messageOf(thrown) }
    : { kind: 'unproven', reason: `its proof failed: ${messageOf(thrown)}` };
}
