import { isAbsolute, resolve } from 'node:path';
import { CountersignError, isObjectId, NO_REVISION } from '../model/index.ts';
import { APPROVALS_REF } from './repository.ts';
import { complaint, runGit } from './run-git.ts';
import type { GitResult } from './run-program.ts';

const ATTEMPTS = 5;

/**
 * A person's own checkout, with their Git configuration and credentials. Approvals are made in it and pushed from it.
 */
export class UserRepository {
  readonly #directory: string;
  readonly #program: string;

  constructor(directory: string, program = 'git') {
    this.#directory = directory;
    this.#program = program;
  }

  /** Returns the Git directory with the objects; throws `git-unreachable` outside a repository. */
  async gitDirectory(): Promise<string> {
    const result = await this.#run(['rev-parse', '--git-common-dir']);
    if (result.code !== 0)
      throw new CountersignError('git-unreachable', `\`${this.#directory}\` is not a Git repository`, {
        hint: 'run this inside a checkout or name one with --repo',
      });
    const path = result.stdout.toString('utf8').trim();
    return isAbsolute(path) ? path : resolve(this.#directory, path);
  }

  /** Returns the commit a name stands for; throws `git-ref-missing`. */
  async commit(name: string): Promise<string> {
    const result = await this.#run(['rev-parse', '--verify', '--quiet', '--end-of-options', `${name}^{commit}`]);
    const id = result.stdout.toString('utf8').trim();
    if (result.code !== 0 || !isObjectId(id))
      throw new CountersignError('git-ref-missing', `\`${name}\` is not a commit here`, {
        hint: await this.#absent(name),
      });
    return id;
  }

  // Returns the hint for a commit that is not here: an ancestor beyond the first commit cannot be fetched.
  async #absent(name: string): Promise<string> {
    const base = name.replace(/[~^].*$/s, '');
    if (base === name || base === '') return 'fetch it first: `git fetch origin`';
    const { code } = await this.#run(['rev-parse', '--verify', '--quiet', '--end-of-options', `${base}^{commit}`]);
    if (code !== 0) return 'fetch it first: `git fetch origin`';
    const shallow = await this.#run(['rev-parse', '--is-shallow-repository']);
    return shallow.stdout.toString('utf8').trim() === 'true'
      ? `the clone is shallow; fetch the rest: \`git fetch --unshallow\``
      : `\`${base}\` has no such ancestor: name an older commit that exists, or ${NO_REVISION} for none`;
  }

  /** Returns the object a tag names: a tag object, or a commit for a lightweight tag; throws `git-ref-missing`. */
  async tag(name: string): Promise<string> {
    const result = await this.#run(['rev-parse', '--verify', '--quiet', '--end-of-options', `refs/tags/${name}`]);
    const id = result.stdout.toString('utf8').trim();
    if (result.code !== 0 || !isObjectId(id))
      throw new CountersignError('git-ref-missing', `there is no tag \`${name}\` here`, {
        hint: 'fetch it first: `git fetch --tags`',
      });
    return id;
  }

  async config(key: string): Promise<string | undefined> {
    const result = await this.#run(['config', '--get', key]);
    return result.code === 0 ? result.stdout.toString('utf8').trim() : undefined;
  }

  /** Returns the changes between two commits, like `git diff --stat`. */
  async summary(from: string, to: string): Promise<string> {
    return (await this.#run(['diff', '--stat', '--no-color', from, to])).stdout.toString('utf8').trimEnd();
  }

  /**
   * Fetches the approvals of a remote; it may have none. Throws `git-unreachable`: yesterday's approvals are not
   * today's.
   */
  async fetchApprovals(remote: string): Promise<void> {
    const result = await this.#run([
      'fetch',
      '--quiet',
      '--no-tags',
      '--end-of-options',
      remote,
      `+${APPROVALS_REF}*:${APPROVALS_REF}*`,
    ]);
    if (result.code !== 0) {
      throw new CountersignError(
        'git-unreachable',
        `cannot fetch approvals from \`${remote}\`: ${complaint(result.stderr)}`,
        {
          hint: 'check the remote and the network; `countersign check --no-fetch` uses the local approvals',
          recover: 'retry',
        },
      );
    }
  }

  /**
   * Adds files to the approvals and pushes them. Files are named for their content, so if another approver was faster,
   * they are added on top. Throws `push-refused`; then nothing remains locally.
   */
  async publishApprovals(
    files: readonly { readonly path: string; readonly content: string }[],
    remote: string | undefined,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (remote !== undefined) await this.fetchApprovals(remote);
      const parent = (await this.#run(['rev-parse', '--verify', '--quiet', APPROVALS_REF])).stdout
        .toString('utf8')
        .trim();
      const commit = await this.#commitFiles(parent, files);
      const result =
        remote === undefined
          ? { code: 0, stderr: '' }
          : await this.#run(['push', '--quiet', remote, `${commit}:${APPROVALS_REF}`]);
      if (result.code === 0) {
        await this.#must(['update-ref', APPROVALS_REF, commit]);
        return;
      }
      if (
        attempt === ATTEMPTS ||
        !/rejected|fetch first|non-fast-forward|failed to update ref|cannot lock ref/.test(result.stderr)
      ) {
        throw new CountersignError('push-refused', `\`${remote}\` refused the approval: ${complaint(result.stderr)}`, {
          hint: `allow pushes to \`${APPROVALS_REF}\`, or use --no-push and push it another way`,
        });
      }
    }
  }

  async #commitFiles(
    parent: string,
    files: readonly { readonly path: string; readonly content: string }[],
  ): Promise<string> {
    let tree: string | undefined = parent === '' ? undefined : parent;
    for (const { path, content } of files)
      tree = await this.#treeWith(tree, path.split('/'), await this.#must(['hash-object', '-w', '--stdin'], content));
    // The signature is inside the file; this commit only carries it and is not signed again.
    const identity = [
      '-c',
      `user.name=${(await this.config('user.name')) ?? 'approver'}`,
      '-c',
      `user.email=${(await this.config('user.email')) ?? 'approver@localhost'}`,
    ];
    const what = files.map((f) => f.path.split('/').at(-2) ?? '')[0] ?? '';
    return this.#must([
      ...identity,
      'commit-tree',
      '--no-gpg-sign',
      ...(parent === '' ? [] : ['-p', parent]),
      '-m',
      `approve ${what}`,
      tree ?? '',
    ]);
  }

  // Rebuilds only the trees along the path.
  async #treeWith(treeish: string | undefined, path: readonly string[], blob: string): Promise<string> {
    const [name, ...rest] = path as [string, ...string[]];
    const listed = treeish === undefined ? '' : await this.#must(['ls-tree', '-z', treeish]);
    const lines = listed.split('\0').filter((line) => line !== '' && line.slice(line.indexOf('\t') + 1) !== name);
    const present = listed.split('\0').find((line) => line.slice(line.indexOf('\t') + 1) === name);
    const [mode, type, id] =
      rest.length === 0
        ? ['100644', 'blob', blob]
        : ['040000', 'tree', await this.#treeWith(present?.split(/[ \t]/)[2], rest, blob)];
    return this.#must(
      ['mktree', '-z'],
      [...lines, `${mode} ${type} ${id}\t${name}`].map((line) => `${line}\0`).join(''),
    );
  }

  async #must(args: readonly string[], input?: string): Promise<string> {
    const result = await this.#run(args, input);
    if (result.code !== 0)
      throw new CountersignError('git-unreachable', `git ${args[0] ?? ''} failed: ${complaint(result.stderr)}`);
    return result.stdout.toString('utf8').trim();
  }

  #run(args: readonly string[], input?: string): Promise<GitResult> {
    return runGit(this.#program, args, { cwd: this.#directory, ...(input === undefined ? {} : { input }) });
  }
}
