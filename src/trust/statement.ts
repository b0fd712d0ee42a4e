import { z } from 'zod';
import type { Approval, ViolationCode } from '../model/index.ts';

/** Whether a person approves a change, rejects it, or revokes an earlier statement. */
export const DECISIONS = ['approve', 'reject', 'revoke'] as const;
export type Decision = (typeof DECISIONS)[number];

export const objectId = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
export const digest = z.string().regex(/^[0-9a-f]{64}$/);

/** Binding of every statement on a change: an in-toto subject, and the part of the predicate shared by both kinds. */
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
  /** Without `match`, which depends on the change. */
  readonly approval: Omit<Approval, 'match'>;
  /** When it was issued, or given on the forge; milliseconds since 1970. */
  readonly at: number;
  /**
   * People who contributed to the change besides those its commits name: on a forge, the person who opened the request.
   */
  readonly makers: readonly string[];
};

/** A statement whose signature was verified and judged, or why an envelope does not count. */
export type ReadApproval = ReadStatement | Refused;
export type Refused = { readonly kind: 'refused'; readonly code: ViolationCode; readonly reason: string };

type Bound = {
  readonly subject: z.infer<typeof subjectSchema>;
  readonly predicate: Omit<Binding, 'uri' | 'changeDigest' | 'rollback'> & {
    readonly changeDigest: { readonly sha256: string };
  };
};

/** Returns the change a statement is bound to, if its subject matches its predicate. */
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
