import type { Limits } from '../outgoing/index.ts';
import { IsomorphicRepository } from './isomorphic-repository.ts';
import { NativeRepository } from './native-repository.ts';
import type { Repository } from './repository.ts';
import type { GitProgram } from './run-git.ts';

/**
 * Opens or creates a bare repository at `directory`. It uses the `git` program if there is one, otherwise
 * isomorphic-git, which only supports HTTP(S) and SHA-1.
 */
export function openRepository(directory: string, git: GitProgram | undefined, limits?: Limits): Repository {
  return git === undefined ? new IsomorphicRepository(directory, limits) : new NativeRepository(directory, git);
}
