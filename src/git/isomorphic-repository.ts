import fs, { existsSync, mkdirSync } from 'node:fs';
import { CountersignError, diskFull, isDiskFull, NO_REVISION } from '../model/index.ts';
import { type Limits, remoteCode } from '../outgoing/index.ts';
import type { GitAccess } from './access.ts';
import { httpClient } from './http-client.ts';
import { type GitObject, type ObjectType, verifyObjectId } from './object.ts';
import { parseCommit } from './parse-commit.ts';
import { APPROVALS_REF, type Repository, redactUrl, refuseShallow, sourceRef } from './repository.ts';

/** A repository read without the `git` program: HTTP(S) remotes and SHA-1 only, with the whole pack in memory. */
export class IsomorphicRepository implements Repository {
  readonly #gitdir: string;
  readonly #limits: Limits | undefined;
  #cache: object = {};

  constructor(directory: string, limits?: Limits) {
    this.#gitdir = directory;
    this.#limits = limits;
  }

  async fetch(url: string, branch: string, access: GitAccess = {}): Promise<void> {
    if (!/^https?:\/\//.test(url))
      throw new CountersignError(
        'git-unreachable',
        `without the \`git\` program, only http and https can be fetched, not \`${redactUrl(url)}\``,
        { hint: 'install git' },
      );
    const git = await library();
    const http = httpClient(access.ca, this.#limits);
    const onAuth = () =>
      access.password === undefined
        ? { cancel: true }
        : { username: access.username ?? 'git', password: access.password };
    try {
      if (!existsSync(`${this.#gitdir}/HEAD`)) {
        mkdirSync(this.#gitdir, { recursive: true });
        await git.init({ fs, gitdir: this.#gitdir, bare: true });
      }
      // the library only fetches from a named remote
      await git.addRemote({ fs, gitdir: this.#gitdir, remote: 'origin', url, force: true });
      const refs = await git.listServerRefs({ http, onAuth, url, protocolVersion: 1, prefix: 'refs/' });
      const fetchRef = async (remote: string, local: string) => {
        const oid = refs.find((r) => r.ref === remote)?.oid;
        if (oid === undefined) return false;
        await git.fetch({
          fs,
          http,
          onAuth,
          gitdir: this.#gitdir,
          url,
          remoteRef: remote,
          ref: remote,
          singleBranch: true,
          tags: false,
          cache: this.#cache,
        });
        await this.#advance(remote, local, oid, url);
        return true;
      };
      if (!(await fetchRef(`refs/heads/${branch}`, sourceRef(branch)))) {
        throw new CountersignError('git-ref-missing', `\`${redactUrl(url)}\` has no branch \`${branch}\``, {
          hint: 'push the branch, or correct `spec.source.branch`',
          recover: 'retry',
        });
      }
      await fetchRef(APPROVALS_REF, APPROVALS_REF);
      this.#cache = {}; // unbounded in the library: one per fetch
    } catch (thrown) {
      if (thrown instanceof CountersignError && !thrown.code.startsWith('forge-')) throw thrown;
      if (isDiskFull(thrown)) throw diskFull(this.#gitdir, thrown);
      throw new CountersignError('git-unreachable', `cannot fetch from \`${redactUrl(url)}\`: ${reasonOf(thrown)}`, {
        hint: 'check `spec.source.url`, the network and the credentials',
        recover: 'retry',
      });
    }
    refuseShallow(this.#gitdir);
  }

  async resolve(ref: string): Promise<string | undefined> {
    const git = await library();
    return git.resolveRef({ fs, gitdir: this.#gitdir, ref }).catch(() => undefined);
  }

  async read(id: string): Promise<GitObject> {
    const git = await library();
    const found = await git
      .readObject({ fs, gitdir: this.#gitdir, oid: id, format: 'content', cache: this.#cache })
      .catch((cause) => {
        throw new CountersignError('git-object-missing', `the object \`${id}\` is not in the repository`, {
          cause,
          recover: 'retry',
        });
      });
    const object: GitObject = { type: found.type as ObjectType, bytes: found.object as Uint8Array };
    verifyObjectId(id, object);
    return object;
  }

  async *listCommits(from: string, to: string): AsyncGenerator<readonly string[]> {
    refuseShallow(this.#gitdir);
    const excluded = from === NO_REVISION ? new Set<string>() : new Set(await this.#ancestors(from, new Set()));
    const ids = await this.#ancestors(to, excluded);
    for (let i = 0; i < ids.length; i += 512) yield ids.slice(i, i + 512);
  }

  async differsFromMerge(): Promise<never> {
    throw new CountersignError('tool-missing', 'a merge cannot be checked without the `git` program', {
      hint: 'install git 2.38 or later',
    });
  }

  async isAncestor(ancestor: string, descendant: string): Promise<boolean> {
    return ancestor === descendant || (await this.#ancestors(descendant, new Set())).includes(ancestor);
  }

  close(): void {}

  // Approvals only grow: anyone who could rewrite them could remove a rejection.
  async #advance(remote: string, local: string, oid: string, url: string): Promise<void> {
    const before = remote === APPROVALS_REF ? await this.resolve(local) : undefined;
    if (before !== undefined && !(await this.isAncestor(before, oid)))
      throw new CountersignError(
        'git-rewound',
        `the approvals at \`${redactUrl(url)}\` were rewritten: some are missing`,
        {
          hint: `forbid force-pushes to \`${APPROVALS_REF}\`, and push the old approvals again`,
        },
      );
    const git = await library();
    await git.writeRef({ fs, gitdir: this.#gitdir, ref: local, value: oid, force: true });
  }

  // Depth first with an explicit stack: parents before children, each commit once. A malformed commit has no parents to
  // follow.
  async #ancestors(start: string, excluded: ReadonlySet<string>): Promise<string[]> {
    const order: string[] = [];
    const entered = new Set<string>(excluded);
    const stack: { id: string; parents: string[] }[] = [];
    const enter = async (id: string) => {
      if (entered.has(id)) return;
      entered.add(id);
      const parsed = parseCommit(id, (await this.read(id)).bytes);
      stack.push({ id, parents: parsed.kind === 'commit' ? [...parsed.commit.parents] : [] });
    };
    await enter(start);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const parent = top.parents.shift();
      if (parent !== undefined) await enter(parent);
      else order.push((stack.pop() as { id: string }).id);
    }
    return order;
  }
}

// The library's messages quote the server; its own error names and the status are enough.
function reasonOf(thrown: unknown): string {
  if (thrown instanceof CountersignError) return thrown.message;
  const { code, data } = thrown as { code?: unknown; data?: { statusCode?: unknown } };
  const name = remoteCode(code) ?? 'the answer is not from a Git server';
  return typeof data?.statusCode === 'number' ? `${name}, status ${data.statusCode}` : name;
}

// Loaded on demand: with the `git` program, nothing needs it.
async function library() {
  return (await import('isomorphic-git')).default;
}
