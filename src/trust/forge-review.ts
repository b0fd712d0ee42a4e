import { z } from 'zod';
import type { ViolationCode } from '../model/index.ts';
import {
  bindingOf,
  boundFields,
  digest,
  objectId,
  type ReadApproval,
  type Refused,
  subjectSchema,
} from './statement.ts';
import type { TrustStore } from './trust-store.ts';

/** Predicate type of a forge review signed by an importer (docs/approval-format.md). */
export const FORGE_REVIEW = 'https://countersign.dev/forge-review/v1';

const account = z.strictObject({ id: z.string().regex(/^\d+$/), login: z.string().max(200) });

export const forgeReviewSchema = z.strictObject({
  _type: z.literal('https://in-toto.io/Statement/v1'),
  subject: subjectSchema,
  predicateType: z.literal(FORGE_REVIEW),
  predicate: z.strictObject({
    ...boundFields,
    forge: z.string().max(200),
    request: z.string().max(500),
    review: z.string().max(100),
    reviewer: account,
    state: z.enum(['approved', 'rejected', 'dismissed']),
    /** The commit the reviewer looked at; absent if the forge does not say. */
    commit: objectId.optional(),
    submittedAt: z.iso.datetime().optional(),
    openedBy: account.optional(),
    mergedBy: account.optional(),
    /** SHA-256 of the forge's own answer, stored next to this statement. */
    raw: digest,
    importedAt: z.iso.datetime(),
    reason: z.string().max(2000),
  }),
});

/** A forge review as stated by its importer. */
export type ForgeReview = z.infer<typeof forgeReviewSchema>;

/**
 * Evaluates a signed import: it counts as a review by the person who owns the account. The class is B if the forge
 * names that very commit, otherwise C. Refuses importers the policy does not allow for that forge, and unknown
 * accounts.
 */
export function readForgeReview(
  review: ForgeReview,
  signer: { principal: string; key: string },
  store: TrustStore,
  envelope: string,
): ReadApproval {
  const refused = (code: ViolationCode, reason: string): Refused => ({ kind: 'refused', code, reason });
  const { predicate } = review;
  if (store.importers.get(signer.principal)?.has(predicate.forge) !== true)
    return refused('importer-not-allowed', `\`${signer.principal}\` may not import reviews of \`${predicate.forge}\``);
  const binding = bindingOf(review);
  if (binding === undefined) return refused('approval-unreadable', 'its subject differs from the reviewed change');
  const principal = store.byAccount.get(`${predicate.forge}/${predicate.reviewer.id}`);
  if (principal === undefined || store.kindOf(principal) !== 'person')
    return refused(
      'account-unknown',
      `the account \`${predicate.reviewer.login}\` (${predicate.reviewer.id}) ` +
        `of \`${predicate.forge}\` does not belong to a person in the policy`,
    );
  const opener =
    predicate.openedBy === undefined ? undefined : store.byAccount.get(`${predicate.forge}/${predicate.openedBy.id}`);
  return {
    kind: 'statement',
    decision: predicate.state === 'approved' ? 'approve' : predicate.state === 'rejected' ? 'reject' : 'revoke',
    binding: { ...binding, rollback: false },
    at: Date.parse(
      predicate.state === 'dismissed' ? predicate.importedAt : (predicate.submittedAt ?? predicate.importedAt),
    ),
    makers: opener === undefined ? [] : [opener],
    approval: {
      principal,
      key: signer.key,
      importer: signer.principal,
      from: predicate.fromID,
      commit: predicate.headID,
      tree: predicate.targetID,
      issuedAt: predicate.submittedAt ?? predicate.importedAt,
      reason: predicate.reason,
      envelope,
      class: predicate.commit === predicate.headID ? 'B' : 'C',
    },
  };
}
