import type { ProcessSettings } from '../config/index.ts';
import { assess } from '../gate/index.ts';
import { type NativeRepository, sourceRepository, type UserRepository } from '../git/index.ts';
import { CountersignError, NO_REVISION } from '../model/index.ts';
import { EXIT, type Io } from './io.ts';
import { chooseEnvironment, openCheckout, openConfiguration, openGate } from './open.ts';
import { showVerdict } from './show-verdict.ts';

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
/** `countersign check`: the verdict the cluster would give, before the merge. Records nothing, so it can allow nothing. */
export async function check(options: CheckOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    if (options.fetch && (await user.config(`remote.${options.remote}.url`)) !== undefined) await user.fetchApprovals(options.remote);
    const head = await user.commit(options.head);
    const from = await findBase(user, repository, options, environment.spec.source, head, settings);
    const opened = await openGate(configuration, environment, sourceRepository(repository), () => new Date());
    const { verdict } = await assess(opened.gate, from, head).finally(opened.close);
    io.out(options.output === 'json' ? `${JSON.stringify(verdict, null, 2)}\n` : showVerdict(verdict, io));
    return verdict.outcome === 'allowed' ? EXIT.yes : EXIT.no;
  } finally {
    repository.close();
  }
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
