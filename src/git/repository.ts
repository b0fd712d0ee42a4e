import { existsSync } from 'node:fs';
import { CountersignError } from '../model/index.ts';
import type { GitAccess } from './access.ts';
import type { GitObject } from './object.ts';

/** A repository on disk. Every object it gives was hashed again and is what its id says. */
export interface Repository {
  /**
   * Fetches a branch and the approvals from a remote; the branch is then `refs/countersign/source/<branch>`. Throws
   * `git-rewound` when the approvals lost something: their history only grows.
   */
  fetch(url: string, branch: string, access?: GitAccess): Promise<void>;
  /** The object id a ref stands for, or undefined. */
  resolve(ref: string): Promise<string | undefined>;
  /** Any object; throws `git-object-missing` or `git-object-corrupt`. */
  read(id: string): Promise<GitObject>;
  /**
   * Ids of the commits reachable from `to` and not from `from` (`NO_REVISION`: all), parents before children, in
   * batches.
   */
  listCommits(from: string, to: string): AsyncIterable<readonly string[]>;
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  /**
   * Paths at which `tree` differs from what an automatic merge of the two commits gives; undefined when that has
   * conflicts.
   */
  differsFromMerge(parents: readonly [string, string], tree: string): Promise<readonly string[] | undefined>;
  close(): void;
}

/** Where a fetched branch and the fetched approvals stand in our own repository. */
export function sourceRef(branch: string): string {
  return `refs/countersign/source/${branch}`;
}
export const APPROVALS_REF = 'refs/countersign/approvals';

/** The URL without user name, password and query: what may stand in a message or on the ledger. */
export function redactUrl(url: string): string {
  if (!/^[a-z+]+:\/\//i.test(url)) return url;
  try {
    const parsed = new URL(url);
    parsed.username = '';
    parsed.password = '';
    parsed.search = '';
    return parsed.href;
  } catch {
    return '(an address that cannot be read)';
  }
}

/** Throws `git-shallow` where history was cut off: a verdict on part of a history is no verdict. */
export function refuseShallow(gitDirectory: string): void {
  if (existsSync(`${gitDirectory}/shallow`)) {
    throw new CountersignError('git-shallow', 'the repository is shallow: its history is cut off', {
      hint: 'run `git fetch --unshallow` (in GitHub Actions: `fetch-depth: 0`)',
    });
  }
}
