import type { ViolationCode } from '../model/index.ts';
import { durationMs, type WaiverDocument } from '../model/index.ts';
import { repositoryUri } from './approval.ts';
import { verifyDetached } from './detached.ts';
import type { TrustStore } from './trust-store.ts';

/** What a waiver's signature covers: everything in it, and the repository it was made for. */
export function waiverStatement(document: Pick<WaiverDocument, 'metadata' | 'spec'>, repository: string): unknown {
  return { repository: repositoryUri(repository), name: document.metadata.name, spec: document.spec };
}

export type VerifiedWaiver =
  | { readonly kind: 'verified'; readonly approver: string; readonly until: number }
  | { readonly kind: 'refused'; readonly code: ViolationCode; readonly reason: string };

/**
 * Whether a waiver counts: signed by a person whom the TrustPolicy lets waive, and for no longer than it lets them.
 * A waiver that has ended is still verified; whether it counts at a moment is asked where it is applied.
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
    return refused('waiver-by-platform', `\`${signed.principal}\` is no person`);
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
    return refused('waiver-from-the-future', 'it is dated ahead');
  return { kind: 'verified', approver: signed.principal, until };
}
