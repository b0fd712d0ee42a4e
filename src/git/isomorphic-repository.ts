import fs, { existsSync, mkdirSync } from 'node:fs';
import git from 'isomorphic-git';
import http from 'isomorphic-git/http/node';
import { CountersignError, messageOf, NO_REVISION } from '../model/index.ts';
import { type GitObject, type ObjectType, verifyObjectId } from './object.ts';
import { parseCommit } from './parse-commit.ts';
import { APPROVALS_REF, type Repository, redactUrl, refuseShallow, sourceRef } from './repository.ts';

/** A repository read without the `git` program: HTTP(S) remotes and SHA-1 only, the whole pack in memory. */
export class IsomorphicRepository implements Repository {
  readonly #gitdir: string;
  #cache: object = {};

  constructor(directory: string) {
    this.#gitdir = directory;
  }

  async fetch(url: string, branch: string): Promise<void> {
    if (!/^https?:\/\//.test(url))
      throw new CountersignError(
        'git-unreachable',
        `without the \`git\` program only http and https can be fetched, not \`${redactUrl(url)}\``,
        { hint: 'install git' },
      );
    try {
      if (!existsSync(`${this.#gitdir}/HEAD`)) {
        mkdirSync(this.#gitdir, { recursive: true });
        await git.init({ fs, gitdir: this.#gitdir, bare: true });
      }
      await git.addRemote({ fs, gitdir: this.#gitdir, remote: 'origin', url, force: true }); // the library fetches for a named remote only
      const refs = await git.listServerRefs({ http, url, protocolVersion: 1, prefix: 'refs/' });
      const fetchRef = async (remote: string, local: string) => {
        const oid = refs.find((r) => r.ref === remote)?.oid;
        if (oid === undefined) return false;
        await git.fetch({
          fs,
          http,
          gitdir: this.#gitdir,
          url,
          remoteRef: remote,
          ref: remote,
          singleBranch: true,
          tags: false,
          cache: this.#cache,
        });
        await git.writeRef({ fs, gitdir: this.#gitdir, ref: local, value: oid, force: true });
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
      if (thrown instanceof CountersignError) throw thrown;
      throw new CountersignError('git-unreachable', `cannot fetch from \`${redactUrl(url)}\`: ${messageOf(thrown)}`, {
        cause: thrown,
        hint: 'check `spec.source.url`, the network and the credentials',
        recover: 'retry',
      });
    }
    refuseShallow(this.#gitdir);
  }

  async resolve(ref: string): Promise<string | undefined> {
    return git.resolveRef({ fs, gitdir: this.#gitdir, ref }).catch(() => undefined);
  }

  async read(id: string): Promise<GitObject> {
    const found = await git.readObject({ fs, gitdir: this.#gitdir, oid: id, format: 'content', cache: this.#cache }).catch((cause) => {
      throw new CountersignError('git-object-missing', `the object \`${id}\` is not in the repository`, { cause, recover: 'retry' });
    });
    const object: GitObject = { type: found.type as ObjectType, bytes: found.object as Uint8Array };
    verifyObjectId(id, object);
    return object;
  }

  async listCommits(from: string, to: string): Promise<string[]> {
    refuseShallow(this.#gitdir);
    const excluded = from === NO_REVISION ? new Set<string>() : new Set(await this.#ancestors(from, new Set()));
    return this.#ancestors(to, excluded);
  }

  async isAncestor(ancestor: string, descendant: string): Promise<boolean> {
    return ancestor === descendant || (await this.#ancestors(descendant, new Set())).includes(ancestor);
  }

  close(): void {}

  // Depth first with a stack of our own: parents before children, each commit once. A malformed commit has no parents to follow.
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
