import type { Commit, PathChange, TreeEntry } from '../model/index.ts';
import { diffTrees, listTree, readBlob, readCommit, readHistory } from './history.ts';
import { APPROVALS_REF, type Repository } from './repository.ts';

/** A repository as the gate reads it: histories, differences, files and approvals. */
export function sourceRepository(repository: Repository): {
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  history(from: string, to: string): Promise<{ commits: readonly Commit[]; malformed: readonly { id: string; reason: string }[] }>;
  diff(from: string, to: string): Promise<readonly PathChange[]>;
  tree(commit: string): Promise<string>;
  files(tree: string, directory: string): Promise<readonly TreeEntry[]>;
  blob(id: string): Promise<Uint8Array>;
  approvals(ref: string): Promise<readonly { path: string; text: string }[]>;
} {
  return {
    isAncestor: (ancestor, descendant) => repository.isAncestor(ancestor, descendant),
    history: (from, to) => readHistory(repository, from, to),
    diff: (from, to) => diffTrees(repository, from, to),
    tree: async (commit) => (await readCommit(repository, commit)).tree,
    files: (tree, directory) => listTree(repository, tree, directory),
    blob: (id) => readBlob(repository, id),
    approvals: async (ref) => {
      const tip = await repository.resolve(APPROVALS_REF);
      if (tip === undefined) return [];
      const files = await listTree(repository, (await readCommit(repository, tip)).tree, `v1/${ref}`);
      return Promise.all(
        files.map(async ({ path, blob }) => ({ path, text: Buffer.from(await readBlob(repository, blob)).toString('utf8') })),
      );
    },
  };
}
