import { type CommitFacts, type CommitVerdict, type Moment, sha256, type Tag } from '../model/index.ts';
import { examineSignature } from './examine-signature.ts';
import { judgeCommit } from './judge-commit.ts';
import type { TrustStore } from './trust-store.ts';

/**
 * Judges a signed tag under the name it was found by. The name is signed too: otherwise a tag object moved to another
 * ref could pass an old release for a new one.
 */
export async function verifyTag(
  id: string,
  tag: Tag,
  foundAs: string,
  store: TrustStore,
  moment: Moment,
): Promise<CommitVerdict> {
  const tagger = tag.tagger ?? { name: '', email: '', time: Math.floor(moment.at / 1000) };
  const facts: CommitFacts = {
    id,
    tree: '',
    parents: [tag.object],
    author: tagger,
    committer: tagger,
    subject: `tag ${tag.name} of ${tag.object.slice(0, 12)}`,
    coAuthors: [],
    allows: [],
    payload: sha256(tag.payload),
    signature: await examineSignature(store, tag.payload, tag.signature),
    mergeTags: [],
  };
  const verdict = await judgeCommit(facts, store, {
    environment: '',
    branch: '',
    paths: undefined,
    moment,
    notBefore: undefined,
  });
  if (tag.name === foundAs || verdict.outcome === 'refused') return verdict;
  return {
    ...verdict,
    outcome: 'refused',
    code: 'tag-renamed',
    reason: `it is signed as \`${tag.name.slice(0, 100)}\`, not as \`${foundAs.slice(0, 100)}\``,
    hint: 'make the tag again: `git tag -s`',
  };
}
