import type { ViolationCode } from '../model/index.ts';
import { canonicalJson } from '../model/index.ts';
import { examineSignature } from './examine-signature.ts';
import { judgeSignature } from './judge-signature.ts';
import type { TrustStore } from './trust-store.ts';

/**
 * Kinds of signed statements other than commits and approvals. Each has its own type, so that none can pass for
 * another.
 */
export type Signed = 'bundle' | 'waiver' | 'erasure';

/** Returns the bytes that are signed: DSSE's pre-authentication encoding of canonical JSON under a type of its own. */
export function signedBytes(kind: Signed, statement: unknown): Uint8Array {
  const type = `application/vnd.countersign.${kind}+json`;
  const payload = Buffer.from(canonicalJson(statement));
  return Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload]);
}

/** Returns who signed a statement, or why the signature does not count at that moment (milliseconds since 1970). */
export async function verifyDetached(
  kind: Signed,
  statement: unknown,
  armored: string,
  store: TrustStore,
  now: number,
): Promise<
  | { readonly kind: 'signed'; readonly principal: string }
  | { readonly kind: 'refused'; readonly code: ViolationCode; readonly reason: string }
> {
  const fact = await examineSignature(store, signedBytes(kind, statement), armored);
  if (fact.kind !== 'good')
    return {
      kind: 'refused',
      code: fact.kind === 'bad' ? fact.code : 'unsigned',
      reason: fact.kind === 'bad' ? fact.reason : 'it is not signed',
    };
  const refusal = await judgeSignature(fact, store, { at: now, basis: 'now' }, fact.signedAt ?? now);
  return refusal === undefined ? { kind: 'signed', principal: fact.principal } : { kind: 'refused', ...refusal };
}
