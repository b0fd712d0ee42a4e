import type { Limits } from '../outgoing/index.ts';
import { IsomorphicRepository } from './isomorphic-repository.ts';
import { NativeRepository } from './native-repository.ts';
import type { Repository } from './repository.ts';
import type { GitProgram } from './run-git.ts';

/**
 * Opens (or creates) a bare repository at `directory`: on the `git` program where there is one, else on
 * isomorphic-git, which fetches over HTTP(S) only and reads SHA-1 repositories only.
 */
export function openRepository(directory: string, git: GitProgram | undefined, limits?: Limits): Repository {
  return git === undefined ? new IsomorphicRepository(directory, limits) : new NativeRepository(directory, git);
}
