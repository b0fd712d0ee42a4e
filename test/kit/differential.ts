import { execFileSync } from 'node:child_process';
import { type NativeRepository, parseCommit, sourceRepository } from '../../src/git/index.ts';
import { examineCommits, judgeCommit, type TrustStore } from '../../src/trust/index.ts';

/** What Git and we say of the same commits. */
export type Differential = {
  readonly commits: number;
  /** Commits that we refuse to take apart, with the code. */
  readonly malformed: Readonly<Record<string, number>>;
  /** Fields that we read otherwise than Git: `id field: git's, ours`. */
  readonly fields: readonly string[];
  /** Git's `%G?` beside our code, and how often. */
  readonly verdicts: Readonly<Record<string, number>>;
  readonly each: ReadonlyMap<string, { readonly git: string; readonly ours: string }>;
};

const FORMAT = ['%H', '%T', '%P', '%an', '%ae', '%at', '%cn', '%ce', '%ct', '%G?'];

/** Holds every commit under the ids against `git log`; `config` and `env` tell Git its keys. */
export async function differential(
  directory: string,
  repository: NativeRepository,
  store: TrustStore,
  ids: readonly string[],
  options: { config?: readonly string[]; env?: NodeJS.ProcessEnv; signatures?: boolean } = {},
): Promise<Differential> {
  const byGit = gitLog(directory, ids, options);
  const source = sourceRepository(repository);
  const malformed: Record<string, number> = {};
  const fields: string[] = [];
  const verdicts: Record<string, number> = {};
  const each = new Map<string, { git: string; ours: string }>();
  for (let i = 0; i < ids.length; i += 500) {
    for (const examined of await examineCommits(
      { ids: source.commitIds, read: source.commits },
      ids.slice(i, i + 500),
      store,
    )) {
      const id = examined.kind === 'facts' ? examined.facts.id : examined.id;
      const git = byGit.get(id) ?? [];
      const verdict =
        examined.kind === 'facts'
          ? await judgeCommit(examined.facts, store, {
              environment: '',
              branch: '',
              paths: undefined,
              moment: { at: Date.now(), basis: 'now' },
              notBefore: undefined,
            })
          : undefined;
      const ours = verdict?.code ?? (examined.kind === 'malformed' ? examined.code : '');
      if (examined.kind === 'malformed') malformed[examined.code] = (malformed[examined.code] ?? 0) + 1;
      const key = `git ${git.at(-1) ?? '?'}  ours ${ours}`;
      verdicts[key] = (verdicts[key] ?? 0) + 1;
      each.set(id, { git: git.at(-1) ?? '?', ours });
      if (examined.kind === 'malformed') continue;
      const raw = parseCommit(id, (await repository.read(id)).bytes);
      if (raw.kind !== 'commit' || raw.commit.id !== id) fields.push(`${id} raw: read twice, not the same`);
      const { tree, parents, author, committer } = examined.facts;
      const own = [
        id,
        tree,
        parents.join(' '),
        author.name,
        author.email,
        String(author.time),
        committer.name,
        committer.email,
        String(committer.time),
      ];
      own.forEach((value, n) => {
        if (value !== git[n])
          fields.push(`${id} ${FORMAT[n] ?? ''}: ${JSON.stringify(git[n])}, ${JSON.stringify(value)}`);
      });
    }
  }
  return { commits: ids.length, malformed, fields, verdicts, each };
}

function gitLog(
  directory: string,
  ids: readonly string[],
  options: { config?: readonly string[]; env?: NodeJS.ProcessEnv; signatures?: boolean },
): Map<string, string[]> {
  const format = options.signatures === false ? [...FORMAT.slice(0, -1), '-'] : FORMAT;
  const args = [
    ...(options.config ?? []).flatMap((c) => ['-c', c]),
    'log',
    '--no-walk=unsorted',
    '--stdin',
    `--format=tformat:${format.join('%x00')}%x00`,
    '--encoding=UTF-8',
  ];
  const out = execFileSync('git', args, {
    cwd: directory,
    input: ids.join('\n'),
    maxBuffer: 1 << 30,
    env: { ...process.env, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null', ...options.env },
    stdio: ['pipe', 'pipe', 'ignore'],
  }).toString('utf8');
  const rows = new Map<string, string[]>();
  for (const line of out.split('\0\n')) {
    const row = line.split('\0');
    if (row.length === FORMAT.length) rows.set(row[0] ?? '', row);
  }
  return rows;
}
