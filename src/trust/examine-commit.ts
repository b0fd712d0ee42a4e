import { type Commit, type CommitFacts, type SignatureFact, sha256, subjectOf, type Tag } from '../model/index.ts';
import { examineSignature } from './examine-signature.ts';
import type { TrustStore } from './trust-store.ts';

const MAX_SUBJECT = 500; // characters kept of a first line; a verdict has one for each commit
const MAX_ALLOWS = 100;
const MAX_ADDRESS = 320; // RFC 3696, erratum 1690; no principal has a longer one

/** A parsed commit with the tags it carries. Readers of commits create these, so that trust needs no reader. */
export type ReadCommit = { readonly commit: Commit; readonly mergeTags: readonly Tag[] };

/**
 * Returns the facts kept about a commit: everything but its bytes, with the results of checking its signatures.
 * Independent of the clock.
 */
export async function examineCommit(
  { commit, mergeTags }: ReadCommit,
  store: TrustStore,
  examine: (payload: Uint8Array, signature: string | undefined) => Promise<SignatureFact> = (payload, signature) =>
    examineSignature(store, payload, signature),
): Promise<CommitFacts> {
  const tags: { name: string; signature: SignatureFact }[] = [];
  for (const tag of mergeTags) tags.push({ name: tag.name, signature: await examine(tag.payload, tag.signature) });
  return {
    id: commit.id,
    tree: commit.tree,
    parents: commit.parents,
    author: commit.author,
    committer: commit.committer,
    subject: copyOf(subjectOf(commit).slice(0, MAX_SUBJECT)),
    allows: [...commit.message.matchAll(/^countersign-allow:[ \t]*(\S.*)$/gim)]
      .slice(0, MAX_ALLOWS)
      .map((m) => copyOf((m[1] ?? '').trim().replaceAll(/\s+/g, ' '))),
    coAuthors: [
      ...new Set(
        [...commit.message.matchAll(/^co-authored-by:.*<([^>\n]*)>/gim)].map((m) => (m[1] ?? '').trim().toLowerCase()),
      ),
    ]
      .filter((address) => address.length <= MAX_ADDRESS)
      .map(copyOf),
    payload: sha256(commit.payload),
    signature: await examine(commit.payload, commit.signature),
    mergeTags: tags,
  };
}

// A substring keeps the whole text in memory (V8's sliced strings), and facts are kept for many commits.
function copyOf(text: string): string {
  return Buffer.from(text).toString('utf8');
}
