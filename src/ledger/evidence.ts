import { canonicalJson, type EvidenceRef, sha256 } from '../model/index.ts';

/** A value too large for an entry: its bytes, and the reference that the entry holds. */
export type Evidence = { readonly ref: EvidenceRef; readonly bytes: string };

/** Returns the canonical bytes of a value and their digest. */
export function evidenceRef(value: unknown): Evidence {
  const bytes = canonicalJson(value);
  return { ref: { sha256: sha256(bytes), size: Buffer.byteLength(bytes) }, bytes };
}
