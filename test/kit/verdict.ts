import { type Repository, sourceRepository } from '../../src/git/index.ts';
import type { CommitVerdict, Moment, PathChange } from '../../src/model/index.ts';
import { examineCommits, judgeCommit, malformedVerdict, type TrustStore } from '../../src/trust/index.ts';

/** The verdict on one commit of a repository under a policy, as seen at a time (default: now). */
export async function verdictUnder(
  store: TrustStore,
  repository: Repository,
  commit: string,
  options: { at?: number; notBefore?: number; paths?: readonly PathChange[] } = {},
): Promise<CommitVerdict> {
  const source = sourceRepository(repository);
  const moment: Moment = { at: options.at ?? Date.now(), basis: 'ledger' };
  const [examined] = await examineCommits({ ids: source.commitIds, read: source.commits }, [commit], store);
  if (examined?.kind !== 'facts') return malformedVerdict(examined as Parameters<typeof malformedVerdict>[0], moment);
  return judgeCommit(examined.facts, store, {
    environment: 'production',
    branch: 'main',
    paths: options.paths ?? [],
    moment,
    notBefore: options.notBefore,
  });
}
