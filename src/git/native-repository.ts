import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CountersignError,
  diskFull,
  isDiskFull,
  isObjectId,
  NO_REVISION,
  Recent,
  saysDiskFull,
} from '../model/index.ts';
import { accessEnvironment, type GitAccess } from './access.ts';
import { type GitObject, MAX_BYTES, ObjectTooLarge, type ObjectType, verifyObjectId } from './object.ts';
import { APPROVALS_REF, type Repository, redactUrl, refuseShallow, sourceRef } from './repository.ts';
import { complaint, type GitProgram, remoteReason, runGit, UNSOUND, withinMemory } from './run-git.ts';
import type { RunGitOptions } from './run-program.ts';

// No configuration, hooks, replacements or prompts may change a history.
const ENVIRONMENT = {
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
  GIT_NO_REPLACE_OBJECTS: '1',
  GIT_GRAFT_FILE: '/dev/null',
  GIT_ALLOW_PROTOCOL: 'http:https:ssh:file',
  GIT_OPTIONAL_LOCKS: '0',
  LC_ALL: 'C',
};
const SAFE = [
  '-c',
  'core.hooksPath=/dev/null',
  '-c',
  'transfer.fsckObjects=true',
  '-c',
  'fetch.recurseSubmodules=no',
  '-c',
  'protocol.version=2',
  '-c',
  'http.lowSpeedLimit=1000',
  '-c',
  'http.lowSpeedTime=30',
  '-c',
  'gc.auto=0',
  '-c',
  'advice.graftFileDeprecated=false',
  '-c',
  'core.bigFileThreshold=16m', // larger blobs are written to disk, not held in memory, while a pack is unpacked
];
const UNSOUND_HINT =
  '`git fsck` in that repository names them; find out who pushed them, and remove them from the branch';
const FETCH_MS = 120_000;
const FEW = 256; // largest range of commits that is cached
const REMEMBERED = 1000;
const BATCH = 128; // commits examined together, which are in memory with all their bytes
const WALK_TIMEOUT_MS = 30 * 60_000;

/**
 * A repository read through the `git` program: one long-lived `cat-file --batch`, and a short process for everything
 * else.
 */
export class NativeRepository implements Repository {
  readonly #directory: string;
  readonly #git: GitProgram;
  #reader: ObjectReader | undefined;
  #closed = false;
  readonly #ancestors = new Recent<Promise<boolean>>(REMEMBERED);
  readonly #ranges = new Recent<readonly string[]>(REMEMBERED);

  constructor(directory: string, git: GitProgram) {
    this.#directory = directory;
    this.#git = git;
  }

  async fetch(url: string, branch: string, access: GitAccess = {}): Promise<void> {
    await this.#create();
    const refspecs = [`+refs/heads/${branch}:${sourceRef(branch)}`, `${APPROVALS_REF}*:${APPROVALS_REF}*`];
    const { fetchMs = FETCH_MS, memory } = this.#git;
    const args = ['fetch', '--no-progress', '--no-tags', '--no-write-fetch-head', '--end-of-options', url, ...refspecs];
    const result = await this.#run(
      args,
      { ...this.#env(), ...accessEnvironment(url, access) },
      { timeoutMs: fetchMs, withChildren: true, memory },
    );
    if (result.code !== 0) throw fetchFailed(url, branch, result.stderr, this.#directory);
    refuseShallow(this.#directory);
  }

  async resolve(ref: string): Promise<string | undefined> {
    const result = await this.#run(['rev-parse', '--verify', '--quiet', '--end-of-options', `${ref}^{commit}`]);
    const id = result.stdout.toString('utf8').trim();
    return result.code === 0 && isObjectId(id) ? id : undefined;
  }

  async read(id: string): Promise<GitObject> {
    // Parallel work that outlives a failure must not start a program that no one ends.
    if (this.#closed)
      throw new CountersignError('git-object-missing', 'the repository was closed during a read', {
        recover: 'retry',
      });
    this.#reader ??= new ObjectReader(this.#spawn(['cat-file', '--batch']));
    const reader = this.#reader;
    const object = await reader.read(id).catch((thrown) => {
      if (thrown instanceof ObjectTooLarge) reader.retire();
      if (reader.isOver && this.#reader === reader) this.#reader = undefined;
      throw thrown;
    });
    verifyObjectId(id, object);
    return object;
  }

  async *listCommits(from: string, to: string): AsyncGenerator<readonly string[]> {
    refuseShallow(this.#directory);
    const key = `${from} ${to}`;
    const known = isObjectId(to) ? this.#ranges.get(key) : undefined;
    if (known !== undefined) {
      if (known.length > 0) yield known;
      return;
    }
    const range = from === NO_REVISION ? [to] : [to, `^${from}`];
    const args = [...SAFE, 'rev-list', '--topo-order', '--reverse', '--end-of-options', ...range];
    const few: string[] = [];
    let count = 0;
    for await (const ids of streamIds(
      spawn(this.#git.file, args, { env: this.#env(), stdio: 'pipe', timeout: WALK_TIMEOUT_MS, killSignal: 'SIGKILL' }),
      to,
    )) {
      count += ids.length;
      if (count <= FEW) few.push(...ids);
      yield ids;
    }
    if (count <= FEW) this.#ranges.set(key, few);
  }

  // Commits are immutable, so the answer is cached: environments on one branch ask the same question.
  async isAncestor(ancestor: string, descendant: string): Promise<boolean> {
    const key = `${ancestor} ${descendant}`;
    const known = isObjectId(ancestor) && isObjectId(descendant) ? this.#ancestors.get(key) : undefined;
    if (known !== undefined) return known;
    const asked = this.#run(['merge-base', '--is-ancestor', '--end-of-options', ancestor, descendant]).then(
      (result) => {
        if (result.code > 1) this.#ancestors.delete(key); // a missing commit may still arrive
        return result.code === 0;
      },
    );
    this.#ancestors.set(key, asked);
    return asked;
  }

  // The merge writes into a separate folder: a person's checkout is only read. It runs as if bare, so that attributes
  // of a work tree cannot choose a merge driver, which would be a program.
  async differsFromMerge(parents: readonly [string, string], tree: string): Promise<readonly string[] | undefined> {
    const scratch = await mkdtemp(join(tmpdir(), 'countersign-merge-'));
    try {
      const env = {
        ...this.#env(),
        GIT_OBJECT_DIRECTORY: scratch,
        GIT_ALTERNATE_OBJECT_DIRECTORIES: join(this.#directory, 'objects'),
      };
      const merged = await this.#run(
        ['-c', 'core.bare=true', 'merge-tree', '--write-tree', '--no-messages', '--end-of-options', ...parents],
        env,
      );
      if (merged.code > 1)
        throw new CountersignError('tool-missing', `git cannot make the merge: ${complaint(merged.stderr)}`, {
          hint: 'install git 2.38 or later, which is needed to judge merges',
        });
      const made = merged.stdout.toString('utf8').split('\n', 1)[0] ?? '';
      if (merged.code === 1) return undefined;
      if (made === tree) return [];
      const different = await this.#run(
        ['diff-tree', '-r', '-z', '--name-only', '--no-renames', '--end-of-options', made, tree],
        env,
      );
      return different.stdout
        .toString('utf8')
        .split('\0')
        .filter((path) => path !== '');
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  close(): void {
    this.#closed = true;
    this.#reader?.close();
    this.#reader = undefined;
  }

  async #create(): Promise<void> {
    if (existsSync(`${this.#directory}/HEAD`)) return;
    makeDirectory(this.#directory);
    const result = await this.#run(['init', '--quiet', '--bare', '--template=', this.#directory], {
      ...ENVIRONMENT,
      PATH: this.#git.path,
    });
    if (result.code !== 0 && saysDiskFull(result.stderr)) throw diskFull(this.#directory);
    if (result.code !== 0)
      throw new CountersignError(
        'git-unreachable',
        `cannot create a repository at \`${this.#directory}\`: ${complaint(result.stderr)}`,
      );
  }

  #run(args: readonly string[], env = this.#env(), more: RunGitOptions = {}): ReturnType<typeof runGit> {
    const { file, run = runGit } = this.#git;
    return run(file, [...SAFE, ...args], { ...more, env });
  }

  #spawn(args: readonly string[]): ChildProcessWithoutNullStreams {
    const { file, memory } = this.#git;
    const [program, ...words] = withinMemory(file, [...SAFE, ...args], memory);
    return spawn(program, words, { env: this.#env(), stdio: 'pipe' });
  }

  #env(): NodeJS.ProcessEnv {
    const { path, quarantine } = this.#git;
    const objects =
      quarantine === undefined
        ? {}
        : { GIT_OBJECT_DIRECTORY: quarantine.directory, GIT_ALTERNATE_OBJECT_DIRECTORIES: quarantine.alternates };
    return { ...ENVIRONMENT, PATH: path, GIT_DIR: this.#directory, ...objects };
  }
}

// rev-list prints as it walks; ids are passed on in batches and never held all at once.
async function* streamIds(child: ChildProcessWithoutNullStreams, to: string): AsyncGenerator<readonly string[]> {
  const err: Buffer[] = [];
  child.stderr.on('data', (d: Buffer) => err.push(d));
  const ended = new Promise<number>((resolve) => {
    child.on('error', () => resolve(-1));
    child.on('close', (code) => resolve(code ?? 1));
  });
  child.stdin.on('error', () => {});
  child.stdin.end();
  let rest = '';
  let batch: string[] = [];
  try {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      const lines = (rest + chunk.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (isObjectId(line)) batch.push(line);
        if (batch.length < BATCH) continue;
        yield batch;
        batch = [];
      }
    }
    const code = await ended;
    if (code === -1) throw new CountersignError('tool-missing', 'cannot run `git`', { hint: 'install git' });
    if (code !== 0)
      throw new CountersignError(
        'git-object-missing',
        `cannot walk the history of \`${to}\`: ${complaint(Buffer.concat(err).toString('utf8'))}`,
        {
          recover: 'retry',
        },
      );
    if (batch.length > 0) yield batch;
  } finally {
    child.kill('SIGKILL');
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true });
  } catch (thrown) {
    throw isDiskFull(thrown) ? diskFull(directory, thrown) : thrown;
  }
}

function fetchFailed(url: string, branch: string, stderr: string, directory: string): CountersignError {
  if (saysDiskFull(stderr)) return diskFull(directory);
  const where = redactUrl(url);
  if (/^fatal: couldn't find remote ref/m.test(stderr))
    return new CountersignError('git-ref-missing', `\`${where}\` has no branch \`${branch}\``, {
      hint: 'push the branch, or correct `spec.source.branch`',
      recover: 'retry',
    });
  if (new RegExp(`\\[rejected\\].*${APPROVALS_REF}`).test(stderr))
    return new CountersignError('git-rewound', `the approvals at \`${where}\` were rewritten: some are missing`, {
      hint: `forbid force-pushes to \`${APPROVALS_REF}\`, and push the old approvals again`,
    });
  if (/Host key verification failed|No \S+ host key is known/.test(stderr))
    return new CountersignError(
      'git-unreachable',
      `the host key of \`${where}\` is not the one in \`knownHostsFile\``,
      {
        hint: 'compare it with what the forge publishes before you add it',
      },
    );
  if (/unable to update url base from redirection|redirect/i.test(stderr))
    return new CountersignError(
      'git-unreachable',
      `\`${where}\` redirects elsewhere, and credentials are for one server only`,
      {
        hint: 'set `spec.source.url` to the address it redirects to',
      },
    );
  const reason = remoteReason(stderr) ?? 'git gave up';
  return new CountersignError('git-unreachable', `cannot fetch from \`${where}\`: ${reason}`, {
    hint: reason === UNSOUND ? UNSOUND_HINT : 'check `spec.source.url`, the network and the credentials',
    recover: 'retry',
  });
}

type Wanted = {
  readonly id: string;
  readonly resolve: (object: GitObject) => void;
  readonly reject: (reason: Error) => void;
};

// Implements the protocol of `git cat-file --batch`: one id per line in, `id type size LF bytes LF` out, in order.
// Environments on one branch share it. A missing or oversized object fails only its own read, so pushing one delays no
// one else.
class ObjectReader {
  isOver = false;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #wanted: Wanted[] = [];
  #chunks: Buffer[] = [];
  #held = 0;
  #need = 1;
  #skip = 0;

  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stdout.on('data', (chunk: Buffer) => this.#take(chunk));
    child.stdin.on('error', () => {});
    child.stderr.resume();
    child.on('error', (cause) =>
      this.#fail(new CountersignError('tool-missing', 'cannot run `git`', { cause, hint: 'install git' })),
    );
    child.on('close', () =>
      this.#fail(new CountersignError('git-object-missing', 'git ended while reading an object', { recover: 'retry' })),
    );
    child.unref();
  }

  read(id: string): Promise<GitObject> {
    if (!isObjectId(id))
      return Promise.reject(new CountersignError('git-object-missing', `\`${id}\` is not an object id`));
    return new Promise((resolve, reject) => {
      this.#wanted.push({ id, resolve, reject });
      this.#child.stdin.write(`${id}\n`);
    });
  }

  /** Answers pending requests, then ends. Git keeps the memory of each object, which may be hundreds of megabytes. */
  retire(): void {
    this.isOver = true;
    this.#child.stdin.end();
  }

  close(): void {
    this.isOver = true;
    this.#child.kill();
  }

  #take(bytes: Buffer): void {
    const chunk = bytes.subarray(Math.min(this.#skip, bytes.length));
    this.#skip -= bytes.length - chunk.length;
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    if (this.#held < this.#need) return;
    let buffer = Buffer.concat(this.#chunks);
    while (true) {
      const used = this.#answer(buffer);
      if (used === 0) break;
      buffer = buffer.subarray(used);
    }
    this.#chunks = [buffer];
    this.#held = buffer.length;
  }

  // Answers the oldest request if the buffer holds the whole answer; returns the number of bytes used.
  #answer(buffer: Buffer): number {
    this.#need = buffer.length + 1;
    const end = buffer.indexOf(0x0a);
    const next = this.#wanted[0];
    if (end < 0 || next === undefined) return 0;
    const [id, type, length] = buffer.toString('latin1', 0, end).split(' ');
    const size = Number(length);
    if (type === 'missing' || id !== next.id || !Number.isInteger(size)) {
      this.#wanted.shift();
      if (type !== 'missing' || id !== next.id) this.close(); // the rest could be mistaken for another object
      next.reject(
        new CountersignError('git-object-missing', `the object \`${next.id}\` is not in the repository`, {
          hint: 'fetch again; a partial clone cannot be judged',
          recover: 'retry',
        }),
      );
      return end + 1;
    }
    const whole = end + 1 + size + 1;
    if (size > (MAX_BYTES[type as ObjectType] ?? 0)) {
      this.#wanted.shift();
      next.reject(new ObjectTooLarge(next.id, type as ObjectType));
      const here = Math.min(whole, buffer.length);
      this.#skip = whole - here; // the rest of it is discarded as it arrives
      return here;
    }
    if (buffer.length < whole) {
      this.#need = whole;
      return 0;
    }
    this.#wanted.shift();
    next.resolve({ type: type as ObjectType, bytes: Buffer.from(buffer.subarray(end + 1, end + 1 + size)) });
    return whole;
  }

  #fail(reason: Error): void {
    this.isOver = true;
    for (const wanted of this.#wanted.splice(0)) wanted.reject(reason);
  }
}
