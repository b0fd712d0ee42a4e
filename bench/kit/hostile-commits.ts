import { randomBytes } from 'node:crypto';
import { type Fleet, run } from '../../test/kit/fleet.ts';

const MANIFESTS = 'clusters/production';
const CHART = 'charts/web';
const MIB = 1024 * 1024;
const LINE = 'mallory <mallory@example.test> 1750000000 +0000';
const NAMES = {
  GIT_AUTHOR_NAME: 'mallory',
  GIT_AUTHOR_EMAIL: 'mallory@example.test',
  GIT_COMMITTER_NAME: 'mallory',
  GIT_COMMITTER_EMAIL: 'mallory@example.test',
};

/** A commit that nobody trusted has signed, and what is wrong with it. */
export type HostileCommit = { readonly kind: string; readonly id: string };

/** Makes `count` commits on top of the fleet's head, of ten kinds in turn. None is pushed. */
export function hostileCommits(fleet: Fleet, count: number): HostileCommit[] {
  const kinds = Object.entries(makersFor(fleet, fleet.head()));
  return Array.from({ length: count }, (_, i) => {
    const [kind, make] = kinds[i % kinds.length] as (typeof kinds)[number];
    return { kind, id: make(i) };
  });
}

function makersFor(fleet: Fleet, base: string): Readonly<Record<string, (i: number) => string>> {
  const git = (args: readonly string[], input?: string | Buffer, env = {}) =>
    run('git', args, { cwd: fleet.work, env: { ...NAMES, ...env }, ...(input === undefined ? {} : { input }) });
  const blob = (content: string | Buffer) => git(['hash-object', '-w', '--stdin'], content);
  const commitOf = (tree: string, i: number) => git(['commit-tree', tree, '-p', base, '-m', `push ${i}`]);
  const withFiles = (files: Readonly<Record<string, string | Buffer>>) => {
    const env = { GIT_INDEX_FILE: `${fleet.work}/.git/hostile-index` };
    git(['read-tree', base], undefined, env);
    const lines = Object.entries(files).map(([path, content]) => `100644 ${blob(content)}\t${path}\n`);
    git(['update-index', '--add', '--index-info'], lines.join(''), env);
    return git(['write-tree'], undefined, env);
  };
  const raw = (text: string | Buffer) => git(['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], text);
  const ownTree = git(['rev-parse', `${base}^{tree}`]);
  const header = (more = '') => `tree ${ownTree}\nparent ${base}\nauthor ${LINE}\ncommitter ${LINE}\n${more}\n`;
  const manifest = (i: number, content: string | Buffer) =>
    commitOf(withFiles({ [`${MANIFESTS}/push-${i}.yaml`]: content }), i);
  return {
    'a megabyte of empty objects': (i) =>
      manifest(i, `apiVersion: v1\nkind: List\nitems: [${'{},'.repeat(350_000)}{}]\n`),
    'aliases of aliases': (i) => manifest(i, aliases()),
    'nesting without end': (i) => manifest(i, '['.repeat(500_000)),
    'a message of many megabytes': (i) =>
      raw(`${header()}push ${i}\n\n${randomBytes(((i % 40) * MIB) / 2 + MIB).toString('hex')}`),
    'trees of trees': (i) => commitOf(treeBomb(git, i), i),
    'a chart that loops': (i) =>
      commitOf(
        withFiles({
          [`${CHART}/templates/loop.yaml`]: `{{- range $i, $e := until 1000000000 }}\n# {{ $i }} ${i}\n{{- end }}\n`,
        }),
        i,
      ),
    'a long run of commits': (i) => longRun(git, base, i),
    'bytes that are no text': (i) => manifest(i, randomBytes(MIB)),
    'headers that are none': (i) =>
      raw(`${header(`gpgsig ${randomBytes(MIB).toString('base64')}\nx-${i} \0\x01\n`)}push ${i}\n`),
    'thousands of files': (i) => commitOf(manyFiles(git, base, blob(`push: ${i}\n`)), i),
  };
}

type Git = (args: readonly string[], input?: string) => string;

function aliases(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let i = 1; i < 12; i++)
    lines.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`);
  return `${lines.join('\n')}\n`;
}

// Ten trees of ten entries that are all the next tree: ten thousand million files.
function treeBomb(git: Git, i: number): string {
  const leaf = git(['hash-object', '-w', '--stdin'], `push ${i}`);
  const lines = (mode: string, type: string, id: string) =>
    Array.from({ length: 10 }, (_, n) => `${mode} ${type} ${id}\t${n}\n`).join('');
  let tree = git(['mktree'], lines('100644', 'blob', leaf));
  for (let depth = 0; depth < 10; depth++) tree = git(['mktree'], lines('040000', 'tree', tree));
  return tree;
}

function longRun(git: Git, base: string, i: number): string {
  const commits = Array.from(
    { length: 1000 },
    (_, n) =>
      `commit refs/heads/run-${i}\ncommitter ${LINE}\ndata 6\nrun${n % 10}\n\n${n === 0 ? `from ${base}\n` : ''}\n`,
  );
  git(['fast-import', '--quiet', '--force'], commits.join(''));
  return git(['rev-parse', `refs/heads/run-${i}`]);
}

function manyFiles(git: Git, base: string, id: string): string {
  const lines = Array.from({ length: 5000 }, (_, n) => `100644 blob ${id}\tf${n}.yaml\n`);
  const production = git(['mktree'], lines.join(''));
  const clusters = git(['mktree'], `040000 tree ${production}\tproduction\n`);
  const rest = git(['ls-tree', base])
    .split('\n')
    .filter((line) => !line.endsWith('\tclusters'));
  return git(['mktree'], `${[...rest, `040000 tree ${clusters}\tclusters`].join('\n')}\n`);
}
