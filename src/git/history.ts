import type { ViolationCode } from '../model/index.ts';
import {
  type Commit,
  CountersignError,
  isNoRevision,
  type PathChange,
  type Tag,
  type TreeEntry,
  Turns,
} from '../model/index.ts';
import { expectType, MAX_BYTES, ObjectTooLarge } from './object.ts';
import { parseCommit } from './parse-commit.ts';
import { parseTag } from './parse-tag.ts';
import { parseTree, type TreeLine } from './parse-tree.ts';
import type { Repository } from './repository.ts';

/** A parsed commit with the tags it carries, or why it is refused. */
export type ReadCommit =
  | { readonly kind: 'commit'; readonly commit: Commit; readonly mergeTags: readonly Tag[] }
  | { readonly kind: 'malformed'; readonly id: string; readonly code: ViolationCode; readonly reason: string };

const MAX_FILES = 100_000; // the largest fleet repositories we know have a tenth of this
// of trees read together: nested directories can multiply without a single file
const MAX_LINES = 4 * MAX_FILES;

/**
 * Reads commits concurrently. A malformed commit is returned as refused, not thrown: it is part of someone's history.
 */
export function readCommits(repository: Pick<Repository, 'read'>, ids: readonly string[]): Promise<ReadCommit[]> {
  return Promise.all(
    ids.map(async (id) => {
      const object = await repository.read(id).catch(tooLarge);
      if (object === undefined || (object.type === 'commit' && object.bytes.length > MAX_BYTES.commit))
        return {
          kind: 'malformed',
          id,
          code: 'commit-too-large',
          reason: `it is larger than ${MAX_BYTES.commit} bytes`,
        };
      const parsed = parseCommit(id, expectType(id, object, 'commit'));
      return parsed.kind === 'commit' ? withTags(parsed.commit) : parsed;
    }),
  );
}

function tooLarge(thrown: unknown): undefined {
  if (!(thrown instanceof ObjectTooLarge)) throw thrown;
}

// gitformat-signature: a merge of a signed tag contains the whole tag, and the tag names the merged commit.
function withTags(commit: Commit): ReadCommit {
  const mergeTags: Tag[] = [];
  for (const bytes of commit.mergeTags) {
    const parsed = parseTag(bytes, commit.id.length as 40 | 64);
    const foreign = parsed.kind === 'tag' && !commit.parents.slice(1).includes(parsed.tag.object);
    if (parsed.kind === 'malformed' || foreign)
      return {
        kind: 'malformed',
        id: commit.id,
        code: 'mergetag-foreign',
        reason:
          parsed.kind === 'malformed'
            ? `the tag it carries is refused: ${parsed.reason}`
            : 'the tag it carries names none of its merged parents',
      };
    mergeTags.push(parsed.tag);
  }
  return { kind: 'commit', commit, mergeTags };
}

/** Reads one commit; throws `git-object-corrupt` if its bytes cannot be parsed. */
export async function readCommit(repository: Pick<Repository, 'read'>, id: string): Promise<Commit> {
  const parsed = parseCommit(id, expectType(id, await repository.read(id), 'commit'));
  if (parsed.kind === 'malformed')
    throw new CountersignError('git-object-corrupt', `the commit \`${id}\` is refused: ${parsed.reason}`);
  return parsed.commit;
}

/** Lists every file under `directory` (`.`: all) of a tree, sorted by path; empty if the directory does not exist. */
export async function listTree(
  repository: Pick<Repository, 'read'>,
  tree: string,
  directory = '.',
  turns = new Turns(),
): Promise<TreeEntry[]> {
  const parts = directory.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..'))
    throw new CountersignError('config-invalid', `the path \`${directory}\` leaves the repository`);
  let at = tree;
  for (const part of parts) {
    const line = (await linesOf(repository, at)).find((l) => l.name === part && l.mode === '40000');
    if (line === undefined) return [];
    at = line.id;
  }
  const files: TreeEntry[] = [];
  await collect(repository, at, parts.length === 0 ? '' : `${parts.join('/')}/`, files, { lines: MAX_LINES, turns });
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Returns the content of a file found by `listTree`. */
export async function readBlob(repository: Pick<Repository, 'read'>, id: string): Promise<Uint8Array> {
  return expectType(id, await repository.read(id), 'blob');
}

/**
 * Returns every path whose mode or content differs between two commits (`NO_REVISION`: none yet), sorted. A rename is a
 * removal and an addition.
 */
export async function diffTrees(
  repository: Pick<Repository, 'read'>,
  from: string,
  to: string,
  turns = new Turns(),
): Promise<PathChange[]> {
  const changes: PathChange[] = [];
  const before = isNoRevision(from) ? undefined : (await readCommit(repository, from)).tree;
  await diff(repository, before, (await readCommit(repository, to)).tree, '', changes, { lines: MAX_LINES, turns });
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Remaining number of tree lines to read. */
type Budget = { lines: number; readonly turns: Turns };

async function collect(
  repository: Pick<Repository, 'read'>,
  tree: string,
  prefix: string,
  files: TreeEntry[],
  budget: Budget,
): Promise<void> {
  for (const line of await linesWithin(budget, repository, tree)) {
    await budget.turns.breathe();
    if (line.mode === '40000') await collect(repository, line.id, `${prefix}${line.name}/`, files, budget);
    else files.push({ path: prefix + line.name, mode: line.mode, blob: line.id });
    if (files.length > MAX_FILES)
      throw new CountersignError('git-object-corrupt', `the tree has more than ${MAX_FILES} files`, {
        hint: 'point `spec.source.path` at a smaller directory',
      });
  }
}

// A few small trees that contain each other many times expand into more directories than any machine can walk.
async function linesWithin(budget: Budget, repository: Pick<Repository, 'read'>, tree: string): Promise<TreeLine[]> {
  const lines = await linesOf(repository, tree);
  budget.lines -= lines.length + 1;
  if (budget.lines >= 0) return lines;
  throw new CountersignError(
    'git-object-corrupt',
    `more than ${MAX_LINES} files and directories would have to be read`,
    {
      hint: 'split the change, or point `spec.source.path` at a smaller directory',
    },
  );
}

// Subtrees with the same id are equal and are skipped: the cost depends only on the changes.
async function diff(
  repository: Pick<Repository, 'read'>,
  before: string | undefined,
  after: string | undefined,
  prefix: string,
  changes: PathChange[],
  budget: Budget,
): Promise<void> {
  if (before === after) return;
  const old = new Map(
    (before === undefined ? [] : await linesWithin(budget, repository, before)).map((l) => [l.name, l]),
  );
  const now = new Map(
    (after === undefined ? [] : await linesWithin(budget, repository, after)).map((l) => [l.name, l]),
  );
  for (const name of new Set([...old.keys(), ...now.keys()])) {
    const a = old.get(name);
    const b = now.get(name);
    if (a?.id === b?.id && a?.mode === b?.mode) continue;
    await budget.turns.breathe();
    await diff(repository, treeOf(a), treeOf(b), `${prefix}${name}/`, changes, budget);
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

/** Returns one file or directory of a commit, or undefined if the path does not exist. */
export async function findPath(
  repository: Pick<Repository, 'read'>,
  commit: string,
  path: string,
): Promise<TreeLine | undefined> {
  let found: TreeLine | undefined;
  let tree: string | undefined = (await readCommit(repository, commit)).tree;
  for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
    found = tree === undefined ? undefined : (await linesOf(repository, tree)).find((line) => line.name === name);
    tree = treeOf(found);
  }
  return found;
}

/**
 * Returns the ids of some directories at a commit, by path; those that do not exist are left out. Reads only the trees
 * above them, each once.
 */
export async function directoryIds(
  repository: Pick<Repository, 'read'>,
  commit: string,
  directories: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const root = (await readCommit(repository, commit)).tree;
  const trees = new Map<string, Promise<ReadonlyMap<string, TreeLine>>>();
  const linesByName = (tree: string) => {
    const known = trees.get(tree) ?? linesOf(repository, tree).then((lines) => new Map(lines.map((l) => [l.name, l])));
    trees.set(tree, known);
    return known;
  };
  const found = new Map<string, string>();
  for (const directory of directories) {
    let tree: string | undefined = root;
    for (const name of directory.split('/').filter((part) => part !== '' && part !== '.'))
      tree = tree === undefined ? undefined : treeOf((await linesByName(tree)).get(name));
    if (tree !== undefined) found.set(directory, tree);
  }
  return found;
}

/**
 * Returns the paths where a merge differs from an automatic merge of its parents. A merge in which every path comes
 * from a parent may still have dropped a side's change, so it is made again. With more than two parents, it returns the
 * paths that match none of them.
 */
export async function mergeAdds(
  repository: Repository,
  merge: { tree: string; parents: readonly string[]; id: string },
  turns = new Turns(),
): Promise<readonly string[]> {
  const differing = async (parent: string) =>
    new Set((await diffTrees(repository, parent, merge.id, turns)).map((p) => p.path));
  const [first, second, ...others] = merge.parents as [string, string, ...string[]];
  if (others.length === 0) {
    const different = await repository.differsFromMerge([first, second], merge.tree);
    if (different !== undefined) return different;
  }
  const sets = await Promise.all(merge.parents.map(differing));
  const ofNone = [...(sets[0] ?? [])].filter((path) => sets.every((set) => set.has(path)));
  // Conflicts were resolved by taking one side whole: a choice that an automatic merge would not make.
  return ofNone.length > 0 || others.length > 0 ? ofNone : ['(conflicts)'];
}
