import { existsSync } from 'node:fs';
import { CountersignError } from '../model/index.ts';
import type { GitAccess } from './access.ts';
import type { GitObject } from './object.ts';

/** A repository on disk. Every object it returns was hashed again and matches its id. */
export interface Repository {
  /**
   * Fetches a branch and the approvals from a remote. The branch becomes `refs/countersign/source/<branch>`. Throws
   * `git-rewound` if approvals were lost: their history only grows.
   */
  fetch(url: string, branch: string, access?: GitAccess): Promise<void>;
  /** Returns the object id of a ref, or undefined. */
  resolve(ref: string): Promise<string | undefined>;
  /** Reads any object; throws `git-object-missing` or `git-object-corrupt`. */
  read(id: string): Promise<GitObject>;
  /**
   * Lists ids of the commits reachable from `to` but not from `from` (`NO_REVISION`: all), parents before children, in
   * batches.
   */
  listCommits(from: string, to: string): AsyncIterable<readonly string[]>;
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  /**
   * Returns the paths where `tree` differs from an automatic merge of the two commits; undefined if that merge has
   * conflicts.
   */
  differsFromMerge(parents: readonly [string, string], tree: string): Promise<readonly string[] | undefined>;
  close(): void;
}

/** Returns the ref of a fetched branch in our own repository. */
export function sourceRef(branch: string): string {
  return `refs/countersign/source/${branch}`;
}
export const APPROVALS_REF = 'refs/countersign/approvals';

/** Returns the URL without user name, password and query, for use in messages and on the ledger. */
export function redactUrl(url: string): string {
  if (!/^[a-z+]+:\/\//i.test(url)) return url;
  try {
    const parsed = new URL(url);
    parsed.username = '';
    parsed.password = '';
    parsed.search = '';
    return parsed.href;
  } catch {
    return '(unreadable address)';
  }
}

/** Throws `git-shallow` if the history is truncated: a verdict on part of a history is worthless. */
export function refuseShallow(gitDirectory: string): void {
  if (existsSync(`${gitDirectory}/shallow`)) {
    throw new CountersignError('git-shallow', 'the repository is shallow: its history is truncated', {
      hint: 'run `git fetch --unshallow` (in GitHub Actions: `fetch-depth: 0`)',
    });
  }
}
