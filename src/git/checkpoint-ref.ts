import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { CountersignError, diskFull, saysDiskFull } from '../model/index.ts';
import { accessEnvironment, type GitAccess } from './access.ts';
import { complaint, type GitProgram, remoteReason, runGit } from './run-git.ts';
import type { GitResult } from './run-program.ts';

const REF = 'refs/countersign/checkpoints';
const FILE = 'checkpoint';
const IDENTITY = 'Countersign <countersign@localhost>';

/** Signs the bytes of a commit and returns an armored SSH signature (namespace `git`). */
export type SignCommit = (payload: Buffer) => string;

/**
 * Keeps checkpoints as signed commits on `refs/countersign/checkpoints` of a separate repository. Each commit follows
 * the previous one. If the server refuses non-fast-forward pushes (`receive.denyNonFastForwards`), no checkpoint can be
 * removed.
 */
export class CheckpointRef {
  readonly #url: string;
  readonly #directory: string;
  readonly #git: GitProgram;
  readonly #access: () => Promise<GitAccess>;
  readonly #sign: SignCommit;
  readonly #clock: () => Date;

  constructor(parts: {
    url: string;
    directory: string;
    git: GitProgram;
    access: () => Promise<GitAccess>;
    sign: SignCommit;
    clock: () => Date;
  }) {
    this.#url = parts.url;
    this.#directory = parts.directory;
    this.#git = parts.git;
    this.#access = parts.access;
    this.#sign = parts.sign;
    this.#clock = parts.clock;
  }

  /** Returns the checkpoint in the newest commit, or undefined. Throws `git-unreachable` (retry). */
  async read(): Promise<string | undefined> {
    const tip = await this.#tip();
    return tip === undefined ? undefined : this.#must(['cat-file', 'blob', `${tip}:${FILE}`], undefined, false);
  }

  /** Adds a commit with a newer checkpoint. Throws `push-refused` (retry). */
  async write(note: string): Promise<void> {
    const parent = await this.#tip();
    const blob = await this.#must(['hash-object', '-w', '--stdin'], note);
    const tree = await this.#must(['mktree'], `100644 blob ${blob}\t${FILE}\n`);
    const time = `${Math.floor(this.#clock().getTime() / 1000)} +0000`;
    const size = note.split('\n')[1] ?? '';
    const headers = [
      `tree ${tree}`,
      ...(parent === undefined ? [] : [`parent ${parent}`]),
      `author ${IDENTITY} ${time}`,
      `committer ${IDENTITY} ${time}`,
    ];
    const message = `\n\ncheckpoint over ${size} entries\n`;
    const signature = this.#sign(Buffer.from(headers.join('\n') + message));
    const signed = `${headers.join('\n')}\ngpgsig ${signature.trimEnd().replaceAll('\n', '\n ')}${message}`;
    const commit = await this.#must(['hash-object', '-w', '-t', 'commit', '--stdin'], signed);
    const pushed = await this.#run(
      ['push', '--quiet', '--end-of-options', this.#url, `${commit}:${REF}`],
      undefined,
      true,
    );
    if (pushed.code !== 0)
      throw new CountersignError(
        'push-refused',
        `the repository refused the checkpoint: ${remoteReason(pushed.stderr) ?? 'git gave no known reason'}`,
        {
          recover: 'retry',
          hint: `allow pushes to \`${REF}\``,
        },
      );
  }

  async #tip(): Promise<string | undefined> {
    mkdirSync(this.#directory, { recursive: true });
    await this.#must(['init', '--quiet', '--bare', '.']);
    const listed = await this.#run(['ls-remote', '--end-of-options', this.#url, REF], undefined, true);
    if (listed.code !== 0)
      throw new CountersignError(
        'git-unreachable',
        `cannot reach the checkpoint repository: ${remoteReason(listed.stderr) ?? 'git gave no known reason'}`,
        {
          recover: 'retry',
        },
      );
    const tip = /^[0-9a-f]{40,64}/.exec(listed.stdout.toString('utf8'))?.[0];
    if (tip === undefined) return undefined;
    const fetched = await this.#run(
      ['fetch', '--quiet', '--no-tags', '--end-of-options', this.#url, `+${REF}:${REF}`],
      undefined,
      true,
    );
    if (fetched.code !== 0)
      throw new CountersignError(
        'git-unreachable',
        `cannot fetch checkpoints: ${remoteReason(fetched.stderr) ?? 'git gave no known reason'}`,
        {
          recover: 'retry',
        },
      );
    return tip;
  }

  async #must(args: readonly string[], input?: string, trim = true): Promise<string> {
    const result = await this.#run(args, input);
    if (result.code !== 0 && saysDiskFull(result.stderr)) throw diskFull(this.#directory);
    if (result.code !== 0)
      throw new CountersignError('git-unreachable', `git ${args[0] ?? ''} failed: ${complaint(result.stderr)}`, {
        recover: 'retry',
      });
    const text = result.stdout.toString('utf8');
    return trim ? text.trim() : text;
  }

  async #run(args: readonly string[], input?: string, isRemote = false): Promise<GitResult> {
    const access = isRemote ? accessEnvironment(this.#url, await this.#access()) : {};
    const env = {
      PATH: this.#git.path,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: '/dev/null',
      GIT_TERMINAL_PROMPT: '0',
      GIT_ALLOW_PROTOCOL: 'http:https:ssh:file',
      LC_ALL: 'C',
      HOME: '/nonexistent',
      ...access,
    };
    return runGit(this.#git.file, args, {
      cwd: this.#directory,
      env,
      timeoutMs: 60_000,
      withChildren: isRemote,
      ...(input === undefined ? {} : { input }),
    });
  }
}

/** Returns an armored SSH signature (OpenSSH PROTOCOL.sshsig); `sign` provides the Ed25519 signature. */
export function sshSignature(payload: Buffer, publicKey: Buffer, sign: (bytes: Buffer) => Buffer): string {
  const field = (bytes: Buffer | string) => {
    const content = Buffer.from(bytes);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(content.length);
    return Buffer.concat([length, content]);
  };
  const rest = [field('git'), field(''), field('sha512')];
  const signed = Buffer.concat([Buffer.from('SSHSIG'), ...rest, field(createHash('sha512').update(payload).digest())]);
  const version = Buffer.from([0, 0, 0, 1]);
  const key = Buffer.concat([field('ssh-ed25519'), field(publicKey)]);
  const signature = Buffer.concat([field('ssh-ed25519'), field(sign(signed))]);
  const blob = Buffer.concat([Buffer.from('SSHSIG'), version, field(key), ...rest, field(signature)]).toString(
    'base64',
  );
  return `-----BEGIN SSH SIGNATURE-----\n${(blob.match(/.{1,70}/g) ?? []).join('\n')}\n-----END SSH SIGNATURE-----\n`;
}
