import { diffTrees, NativeRepository, readCommit, signWithGitKey, UserRepository } from '../../src/git/index.ts';
import {
  approvalPath,
  changeDigest,
  encodeEnvelope,
  FORGE_REVIEW,
  type ForgeReview,
  preAuthEncoding,
  repositoryUri,
} from '../../src/trust/index.ts';
import type { Fleet, Person } from './fleet.ts';

/** A forge's review as an importer signs for it, pushed like an approval. */
export async function importReview(
  importer: Person,
  fleet: Fleet,
  from: string,
  commit: string,
  review: {
    reviewer: string;
    state?: 'approved' | 'rejected' | 'dismissed';
    commit?: string | undefined;
    openedBy?: string;
    forge?: string;
    at?: string;
  },
): Promise<void> {
  fleet.become(importer);
  const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
  const { tree } = await readCommit(repository, commit);
  const statement: ForgeReview = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ uri: repositoryUri(fleet.url), digest: { gitCommit: commit, gitTree: tree } }],
    predicateType: FORGE_REVIEW,
    predicate: {
      targetRef: 'refs/heads/main',
      fromID: from,
      headID: commit,
      targetID: tree,
      changeDigest: { sha256: changeDigest(await diffTrees(repository, from, commit)) },
      environments: [],
      forge: review.forge ?? 'forge.example.test',
      request: 'https://forge.example.test/team/fleet/pulls/12',
      review: '1',
      reviewer: { id: review.reviewer, login: `user-${review.reviewer}` },
      state: review.state ?? 'approved',
      ...('commit' in review ? (review.commit === undefined ? {} : { commit: review.commit }) : { commit }),
      submittedAt: review.at ?? new Date().toISOString(),
      ...(review.openedBy === undefined ? {} : { openedBy: { id: review.openedBy, login: 'opener' } }),
      raw: '0'.repeat(64),
      importedAt: new Date().toISOString(),
      reason: '',
    },
  };
  const payload = Buffer.from(JSON.stringify(statement));
  const user = new UserRepository(fleet.work);
  const signature = await signWithGitKey(user, preAuthEncoding(payload));
  const envelope = encodeEnvelope(payload, signature.armored, 'key');
  await user.publishApprovals([{ path: approvalPath(statement, envelope), content: envelope }], 'origin');
  repository.close();
}
