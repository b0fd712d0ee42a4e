/**
 * Takes a write of the cluster's machinery and what is approved. Returns whether the content of the write follows from
 * what is approved: proven, unproven (with the fields that differ) or unknown. The name of a user chooses which proofs
 * are tried; it is never a proof.
 */
export { intoTemplate, leftDigest, templateDigest } from './approved-template.ts';
export { CONTROL_PLANE, DUTIES } from './duties.ts';
export { sampleDigest } from './injected.ts';
export { learnInjection } from './learn-injection.ts';
export type { Approved, MachineryFacts, MachineryWrite, Proof } from './proof.ts';
export { isPodOrMaker, proveChild } from './prove-child.ts';
export { GIVEN_TO_CLAIMS } from './prove-duty.ts';
export { isEndpoints, proveEndpoints } from './prove-endpoints.ts';
export { proveForeign } from './prove-foreign.ts';
export { APISERVER } from './prove-pod.ts';
export { INTO_PODS, proveWrite } from './prove-write.ts';
