import { z } from 'zod';
import type { Approval, ViolationCode } from '../model/index.ts';

/** Whether a person lets a change through, stands against it, or takes back what they said. */
export const DECISIONS = ['approve', 'reject', 'revoke'] as const;
export type Decision = (typeof DECISIONS)[number];

export const objectId = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
export const digest = z.string().regex(/^[0-9a-f]{64}$/);

/**
 * What every statement on a change is bound to: an in-toto subject, and the part of the predicate that both kinds
 * share.
 */
export const subjectSchema = z
  .array(z.strictObject({ uri: z.string(), digest: z.strictObject({ gitCommit: objectId, gitTree: objectId }) }))
  .length(1);
export const boundFields = {
  targetRef: z.string(),
  fromID: objectId,
  headID: objectId,
  targetID: objectId,
  changeDigest: z.strictObject({ sha256: digest }),
  environments: z.array(z.string()),
};

export type Binding = {
  readonly uri: string;
  readonly targetRef: string;
  readonly fromID: string;
  readonly headID: string;
  readonly targetID: string;
  readonly changeDigest: string;
  readonly environments: readonly string[];
  readonly rollback: boolean;
};

/** A verified statement on a change. */
export type ReadStatement = {
  readonly kind: 'statement';
  readonly decision: Decision;
  readonly binding: Binding;
  /** Without `match`, which is known only beside a change. */
  readonly approval: Omit<Approval, 'match'>;
  /** When it was issued, or given on the forge; milliseconds since 1970. */
  readonly at: number;
  /** People who had a hand in the change beside what its commits say: on a forge, who opened the request. */
  readonly makers: readonly string[];
};

/** A statement whose signature was verified and judged, or why an envelope counts for nothing. */
export type ReadApproval = ReadStatement | Refused;
export type Refused = { readonly kind: 'refused'; readonly code: ViolationCode; readonly reason: string };

type Bound = {
  readonly subject: z.infer<typeof subjectSchema>;
  readonly predicate: Omit<Binding, 'uri' | 'changeDigest' | 'rollback'> & {
    readonly changeDigest: { readonly sha256: string };
  };
};

/** What a statement is bound to, if its subject is what its predicate names. */
export function bindingOf({ subject: [subject], predicate }: Bound): Omit<Binding, 'rollback'> | undefined {
  if (subject?.digest.gitTree !== predicate.targetID || subject.digest.gitCommit !== predicate.headID) return undefined;
  const { targetRef, fromID, headID, targetID, environments } = predicate;
  return {
    uri: subject.uri,
    targetRef,
    fromID,
    headID,
    targetID,
    environments,
    changeDigest: predicate.changeDigest.sha256,
  };
}
