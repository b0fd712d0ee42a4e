import { diffTrees, listTree, readBlob, readCommit, readHistory } from './history.ts';
import { APPROVALS_REF, type Repository } from './repository.ts';

/** A repository as the gate reads it: histories, differences, files and approvals. */
export function sourceRepository(repository: Repository) {
  return {
    isAncestor: (ancestor: string, descendant: string) => repository.isAncestor(ancestor, descendant),
    history: (from: string, to: string) => readHistory(repository, from, to),
    diff: (from: string, to: string) => diffTrees(repository, from, to),
    tree: async (commit: string) => (await readCommit(repository, commit)).tree,
    files: (tree: string, directory: string) => listTree(repository, tree, directory),
    blob: (id: string) => readBlob(repository, id),
    approvals: async (ref: string) => {
      const tip = await repository.resolve(APPROVALS_REF);
      if (tip === undefined) return [];
      const files = await listTree(repository, (await readCommit(repository, tip)).tree, `v1/${ref}`);
      return Promise.all(
        files.map(async ({ path, blob }) => ({ path, text: Buffer.from(await readBlob(repository, blob)).toString('utf8') })),
      );
    },
  };
}
