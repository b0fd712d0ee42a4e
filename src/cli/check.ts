import type { ProcessSettings } from '../config/index.ts';
import { assess } from '../gate/index.ts';
import { NativeRepository, sourceRepository, UserRepository } from '../git/index.ts';
import { CountersignError, NO_REVISION } from '../model/index.ts';
import { openTrustStore, verifyCommit } from '../trust/index.ts';
import { EXIT, type Io } from './io.ts';
import { chooseEnvironment, gitProgram, openConfiguration, openGate } from './open.ts';
import { commitRow, count, showVerdict } from './show-verdict.ts';

export type CheckOptions = {
  repo: string;
  config: string[];
  trust?: string;
  environment?: string;
  base?: string;
  head: string;
  remote: string;
  fetch: boolean;
  output: 'text' | 'json';
};
export type ProvenanceOptions = { repo: string; config: string[]; trust?: string; environment?: string; output: 'text' | 'json' | 'jsonl' };

/** `countersign check`: the verdict the cluster would give, before the merge. Records nothing, so it can allow nothing. */
export async function check(options: CheckOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    if (options.fetch && (await user.config(`remote.${options.remote}.url`)) !== undefined) await user.fetchApprovals(options.remote);
    const head = await user.commit(options.head);
    const from = await findBase(user, repository, options, environment.spec.source, head, settings);
    const gate = await openGate(configuration, environment, sourceRepository(repository), () => new Date());
    const { verdict } = await assess(gate, from, head);
    io.out(options.output === 'json' ? `${JSON.stringify(verdict, null, 2)}\n` : showVerdict(verdict, io));
    return verdict.outcome === 'allowed' ? EXIT.yes : EXIT.no;
  } finally {
    repository.close();
  }
}

/** `countersign provenance`: one verdict per commit of a range, on signatures alone. */
export async function provenance(range: string, options: ProvenanceOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const configuration = openConfiguration({ config: options.trust === undefined ? options.config : [options.trust] });
  const policy =
    options.trust !== undefined || configuration.environments.length === 0
      ? configuration.trustPolicies[0]
      : configuration.trustPolicies.find((t) => t.metadata.name === chooseEnvironment(configuration, options.environment).spec.trust);
  if (policy === undefined)
    throw new CountersignError('usage', 'there is no TrustPolicy', { hint: 'name a file that holds one with --trust' });
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const [a, b] = range.includes('..') ? range.split('..', 2) : [undefined, range];
    const to = await user.commit(b || 'HEAD');
    const from = a === undefined ? NO_REVISION : await user.commit(a || 'HEAD');
    const store = await openTrustStore(policy);
    const history = await sourceRepository(repository).history(from, to);
    const verdicts = await Promise.all(
      history.commits.map((commit) => verifyCommit(commit, store, { branch: '', paths: undefined, at: Date.now() })),
    );
    const all = [
      ...verdicts,
      ...history.malformed.map((m) => ({
        commit: m.id,
        subject: '',
        author: '',
        committer: '',
        committedAt: 0,
        outcome: 'refused' as const,
        code: 'malformed',
        reason: m.reason,
      })),
    ];
    const refused = all.filter((v) => v.outcome === 'refused').length;
    if (options.output === 'jsonl') for (const v of all) io.out(`${JSON.stringify(v)}\n`);
    else if (options.output === 'json') io.out(`${JSON.stringify(all, null, 2)}\n`);
    else io.out(`${all.map((v) => commitRow(v, io)).join('\n')}\n\n${count(all.length, 'commit')}, ${refused} refused\n`);
    return refused === 0 ? EXIT.yes : EXIT.no;
  } finally {
    repository.close();
  }
}

/** A person's checkout, with its objects read as the service reads them. */
export async function openCheckout(
  directory: string,
  settings: ProcessSettings,
): Promise<{ user: UserRepository; repository: NativeRepository }> {
  const git = gitProgram(settings);
  if (git === undefined) throw new CountersignError('tool-missing', 'there is no `git` on the PATH', { hint: 'install git' });
  const user = new UserRepository(directory, git.file);
  return { user, repository: new NativeRepository(await user.gitDirectory(), git) };
}

// Named, told by the CI at hand, or where the head left the environment's branch.
async function findBase(
  user: UserRepository,
  repository: NativeRepository,
  options: CheckOptions,
  source: { branch: string; baseline?: string | undefined },
  head: string,
  settings: ProcessSettings,
): Promise<string> {
  const named = options.base ?? settings.ciBase;
  if (named !== undefined) return named === NO_REVISION ? NO_REVISION : user.commit(named);
  for (const candidate of [`${options.remote}/${source.branch}`, source.branch]) {
    const tip = await user.commit(candidate).catch(() => undefined);
    if (tip !== undefined && tip !== head && (await repository.isAncestor(tip, head))) return tip;
  }
  throw new CountersignError('usage', `cannot tell what \`${options.head}\` is to be compared with`, {
    hint: `use --base with the commit that is applied now, for example --base ${options.remote}/${source.branch}`,
  });
}
