import { CountersignError, isNoRevision, type PathChange, Recent, Turns } from '../model/index.ts';
import {
  diffTrees,
  directoryIds,
  findPath,
  listTree,
  mergeAdds,
  readBlob,
  readCommit,
  readCommits,
} from './history.ts';
import { expectType } from './object.ts';
import { parseTree } from './parse-tree.ts';
import { APPROVALS_REF, type Repository } from './repository.ts';

const DIFFS_KEPT = 8; // environments on one branch are judged one after the other, between the same commits
const MAX_KEPT = 20_000; // changes of one of them, some hundred bytes each
const MAX_STATEMENTS = 10_000; // for one change; a thousand people may each change their mind
const MAX_STATEMENT = 64 * 1024; // larger files are not statements, and count as empty
const MAX_FILE = 4 * 1024 * 1024; // a TrustPolicy with the keyrings of hundreds of people

/**
 * Wraps a repository as the gate reads it: histories, differences, files and approvals. Gates that share one compute
 * the difference between two commits once.
 */
export function sourceRepository(repository: Repository, turns = new Turns()) {
  const diffs = new Recent<Promise<readonly PathChange[]>>(DIFFS_KEPT);
  return {
    isAncestor: (ancestor: string, descendant: string) => repository.isAncestor(ancestor, descendant),
    commitIds: (from: string, to: string) => repository.listCommits(from, to),
    commits: (ids: readonly string[]) => readCommits(repository, ids),
    diff: (from: string, to: string): Promise<readonly PathChange[]> => {
      const pair = `${from} ${to}`;
      const diff = diffs.get(pair) ?? diffTrees(repository, from, to, turns);
      diffs.set(pair, diff);
      diff.then(
        (changes) => changes.length > MAX_KEPT && diffs.delete(pair),
        () => diffs.delete(pair),
      );
      return diff;
    },
    mergeAdds: (merge: { id: string; tree: string; parents: readonly string[] }) => mergeAdds(repository, merge, turns),
    tree: async (commit: string) => (await readCommit(repository, commit)).tree,
    time: async (commit: string) =>
      isNoRevision(commit) ? undefined : (await readCommit(repository, commit)).committer.time,
    directoryIds: (commit: string, directories: readonly string[]) => directoryIds(repository, commit, directories),
    files: (tree: string, directory: string) => listTree(repository, tree, directory, turns),
    blob: (id: string) => readBlob(repository, id),
    /** Returns a file's id and content at a commit, or undefined if it does not exist. */
    file: async (commit: string, path: string) => {
      const line = await findPath(repository, commit, path);
      if (line === undefined) return undefined;
      if (!/^100/.test(line.mode))
        throw new CountersignError('config-invalid', `\`${path}\` is not a file in ${commit.slice(0, 12)}`);
      const bytes = await readBlob(repository, line.id);
      if (bytes.length > MAX_FILE)
        throw new CountersignError(
          'config-invalid',
          `\`${path}\` is larger than ${MAX_FILE} bytes in ${commit.slice(0, 12)}`,
        );
      return { id: line.id, text: Buffer.from(bytes).toString('utf8') };
    },
    /**
     * Returns the text of one stored envelope by the SHA-256 of its content, which is its file name; undefined if it
     * does not exist. No other file is read. It may be under a branch other than `ref`: branches can be renamed, and
     * the signed content says what the envelope is for.
     */
    envelope: async (ref: string, { from, tree, envelope }: { from: string; tree: string; envelope: string }) => {
      const tip = await repository.resolve(APPROVALS_REF);
      if (tip === undefined) return undefined;
      const name = `${from}-${tree}/${envelope}.json`;
      const stored = async (place: string) => {
        const line = await findPath(repository, tip, `${place}/${name}`);
        if (line?.mode !== '100644') return undefined;
        const bytes = await readBlob(repository, line.id);
        return bytes.length > MAX_STATEMENT ? undefined : Buffer.from(bytes).toString('utf8');
      };
      const text = await stored(`v1/${ref}`);
      if (text !== undefined) return text;
      for (const place of await filedBranches(repository, tip)) {
        const elsewhere = await stored(place);
        if (elsewhere !== undefined) return elsewhere;
      }
      return undefined;
    },
    /** Returns stored approvals of a ref filed for a tree the filter accepts; the others are not read. */
    approvals: async (ref: string, wanted: (tree: string) => boolean) => {
      const tip = await repository.resolve(APPROVALS_REF);
      const place = tip === undefined ? undefined : await findPath(repository, tip, `v1/${ref}`);
      if (place?.mode !== '40000') return [];
      const changes = parseTree(place.id, expectType(place.id, await repository.read(place.id), 'tree'));
      const filed = changes.filter((c) => c.mode === '40000' && wanted(c.name.split('-')[1] ?? ''));
      const listed = await Promise.all(
        filed.map(async (c) =>
          (await listTree(repository, c.id, '.', turns)).map((f) => ({ ...f, path: `v1/${ref}/${c.name}/${f.path}` })),
        ),
      );
      // a link or a submodule is not a statement
      const files = listed.flat().filter((f) => f.mode === '100644');
      if (files.length > MAX_STATEMENTS)
        throw new CountersignError(
          'git-object-corrupt',
          `there are ${files.length} statements on one change, but the limit is ${MAX_STATEMENTS}`,
          {
            hint: `find out who pushes to \`${APPROVALS_REF}\``,
          },
        );
      const stored: { path: string; text: string }[] = [];
      for (const { path, blob } of files) {
        // one at a time: none should be large, but anyone can push one that is
        const bytes = await readBlob(repository, blob);
        stored.push({ path, text: bytes.length > MAX_STATEMENT ? '' : Buffer.from(bytes).toString('utf8') });
      }
      return stored;
    },
  };
}

const FILED = /^[0-9a-f]{40,64}-[0-9a-f]{40,64}$/; // a directory of the statements on one change
const MAX_BRANCHES = 1000;

// Returns the directories with statements: branches, whose names may contain slashes.
async function filedBranches(repository: Repository, tip: string): Promise<readonly string[]> {
  const places: string[] = [];
  const top = await findPath(repository, tip, 'v1/refs/heads');
  const waiting = top?.mode === '40000' ? [{ place: 'v1/refs/heads', id: top.id }] : [];
  for (let next = waiting.shift(); next !== undefined && places.length < MAX_BRANCHES; next = waiting.shift()) {
    const lines = parseTree(next.id, expectType(next.id, await repository.read(next.id), 'tree')).filter(
      (l) => l.mode === '40000',
    );
    if (lines.some((l) => FILED.test(l.name))) places.push(next.place);
    for (const { name, id } of lines)
      if (!FILED.test(name) && waiting.length < MAX_BRANCHES) waiting.push({ place: `${next.place}/${name}`, id });
  }
  return places;
}
