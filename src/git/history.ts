import { type Commit, CountersignError, NO_REVISION, type PathChange, type TreeEntry } from '../model/index.ts';
import { expectType } from './object.ts';
import { parseCommit } from './parse-commit.ts';
import { parseTree, type TreeLine } from './parse-tree.ts';
import type { Repository } from './repository.ts';

/** The commits of a change, oldest first, and those that could not be taken apart. */
export type History = {
  readonly commits: readonly Commit[];
  readonly malformed: readonly { readonly id: string; readonly reason: string }[];
};

const MAX_FILES = 100_000; // the largest fleet repositories we know of have a tenth of this

/** Reads every commit reachable from `to` and not from `from`. */
export async function readHistory(repository: Repository, from: string, to: string): Promise<History> {
  const commits: Commit[] = [];
  const malformed: { id: string; reason: string }[] = [];
  for (const id of await repository.listCommits(from, to)) {
    const parsed = parseCommit(id, expectType(id, await repository.read(id), 'commit'));
    if (parsed.kind === 'commit') commits.push(parsed.commit);
    else malformed.push({ id, reason: parsed.reason });
  }
  return { commits, malformed };
}

/** One commit; throws `git-object-corrupt` when its bytes cannot be taken apart. */
export async function readCommit(repository: Pick<Repository, 'read'>, id: string): Promise<Commit> {
  const parsed = parseCommit(id, expectType(id, await repository.read(id), 'commit'));
  if (parsed.kind === 'malformed') throw new CountersignError('git-object-corrupt', `the commit \`${id}\` is refused: ${parsed.reason}`);
  return parsed.commit;
}

/** Every file under `directory` (`.`: all) of a tree, sorted by path; empty when the directory does not exist. */
export async function listTree(repository: Pick<Repository, 'read'>, tree: string, directory = '.'): Promise<TreeEntry[]> {
  const parts = directory.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw new CountersignError('config-invalid', `the path \`${directory}\` leaves the repository`);
  let at = tree;
  for (const part of parts) {
    const line = (await linesOf(repository, at)).find((l) => l.name === part && l.mode === '40000');
    if (line === undefined) return [];
    at = line.id;
  }
  const files: TreeEntry[] = [];
  await collect(repository, at, parts.length === 0 ? '' : `${parts.join('/')}/`, files);
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** The content of a file found by `listTree`. */
export async function readBlob(repository: Pick<Repository, 'read'>, id: string): Promise<Uint8Array> {
  return expectType(id, await repository.read(id), 'blob');
}

/** Every path whose mode or content differs between two commits (`NO_REVISION`: nothing yet), sorted; renames are a removal and an addition. */
export async function diffTrees(repository: Pick<Repository, 'read'>, from: string, to: string): Promise<PathChange[]> {
  const changes: PathChange[] = [];
  const before = from === NO_REVISION ? undefined : (await readCommit(repository, from)).tree;
  await diff(repository, before, (await readCommit(repository, to)).tree, '', changes);
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function collect(repository: Pick<Repository, 'read'>, tree: string, prefix: string, files: TreeEntry[]): Promise<void> {
  for (const line of await linesOf(repository, tree)) {
    if (line.mode === '40000') await collect(repository, line.id, `${prefix}${line.name}/`, files);
    else files.push({ path: prefix + line.name, mode: line.mode, blob: line.id });
    if (files.length > MAX_FILES)
      throw new CountersignError('git-object-corrupt', `the tree has more than ${MAX_FILES} files`, {
        hint: 'point `spec.source.path` at a smaller directory',
      });
  }
}

// Subtrees with the same id are equal and are not read: the cost is that of what changed.
async function diff(
  repository: Pick<Repository, 'read'>,
  before: string | undefined,
  after: string | undefined,
  prefix: string,
  changes: PathChange[],
): Promise<void> {
  if (before === after) return;
  const old = new Map((before === undefined ? [] : await linesOf(repository, before)).map((l) => [l.name, l]));
  const now = new Map((after === undefined ? [] : await linesOf(repository, after)).map((l) => [l.name, l]));
  for (const name of new Set([...old.keys(), ...now.keys()])) {
    const a = old.get(name);
    const b = now.get(name);
    if (a?.id === b?.id && a?.mode === b?.mode) continue;
    await diff(repository, treeOf(a), treeOf(b), `${prefix}${name}/`, changes);
    const [x, y] = [fileOf(a), fileOf(b)];
    if (x !== undefined || y !== undefined) changes.push({ path: prefix + name, before: x, after: y });
  }
}

function treeOf(line: TreeLine | undefined): string | undefined {
  return line?.mode === '40000' ? line.id : undefined;
}

function fileOf(line: TreeLine | undefined): { mode: string; blob: string } | undefined {
  return line === undefined || line.mode === '40000' ? undefined : { mode: line.mode, blob: line.id };
}

async function linesOf(repository: Pick<Repository, 'read'>, tree: string): Promise<TreeLine[]> {
  return parseTree(tree, expectType(tree, await repository.read(tree), 'tree'));
}
