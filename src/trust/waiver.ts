import type { ViolationCode } from '../model/index.ts';
import { durationMs, type WaiverDocument } from '../model/index.ts';
import { repositoryUri } from './approval.ts';
import { verifyDetached } from './detached.ts';
import type { TrustStore } from './trust-store.ts';

/** Returns the statement a waiver's signature covers: the whole waiver, and the repository it was made for. */
export function waiverStatement(document: Pick<WaiverDocument, 'metadata' | 'spec'>, repository: string): unknown {
  return { repository: repositoryUri(repository), name: document.metadata.name, spec: document.spec };
}

export type VerifiedWaiver =
  | { readonly kind: 'verified'; readonly approver: string; readonly until: number }
  | { readonly kind: 'refused'; readonly code: ViolationCode; readonly reason: string };

/**
 * Tests whether a waiver counts: a person whom the TrustPolicy allows must have signed it, for no longer than allowed.
 * An expired waiver is still verified; expiry is checked where the waiver is applied.
 */
export async function verifyWaiver(
  document: WaiverDocument,
  repository: string,
  store: TrustStore,
  now: number,
): Promise<VerifiedWaiver> {
  const refused = (code: ViolationCode, reason: string): VerifiedWaiver => ({ kind: 'refused', code, reason });
  if (document.signature === undefined) return refused('waiver-unsigned', 'it is not signed');
  const signed = await verifyDetached('waiver', waiverStatement(document, repository), document.signature, store, now);
  if (signed.kind === 'refused') return refused(signed.code, signed.reason);
  const { waivers } = store.policy.spec;
  if (store.kindOf(signed.principal) !== 'person')
    return refused('waiver-by-platform', `\`${signed.principal}\` is not a person`);
  if (!store.members(waivers.from).has(signed.principal))
    return refused(
      'waiver-not-allowed',
      `\`${signed.principal}\` may not waive rules: the TrustPolicy’s \`waivers.from\` does not name them`,
    );
  const [issued, until] = [Date.parse(document.spec.issuedAt), Date.parse(`${document.spec.until}T00:00:00Z`)];
  if (until - issued > durationMs(waivers.maximum))
    return refused(
      'waiver-too-long',
      `it runs until ${document.spec.until}, longer than the ${waivers.maximum} that the TrustPolicy allows`,
    );
  if (issued > now + durationMs(store.policy.spec.times.skew))
    return refused('waiver-from-the-future', 'it is dated in the future');
  return { kind: 'verified', approver: signed.principal, until };
}
