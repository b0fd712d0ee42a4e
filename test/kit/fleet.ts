import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Someone with a freshly made key; everything they do with git is really signed (or really not). */
export type Person = {
  readonly name: string;
  readonly email: string;
  readonly format: 'ssh' | 'openpgp';
  readonly publicKey: string;
  readonly signingKey: string;
  readonly gnupgHome?: string;
};

const QUIET = { GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null', GIT_TERMINAL_PROMPT: '0' };

export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; input?: string | Buffer } = {},
): string {
  return execFileSync(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...QUIET, ...options.env },
    input: options.input,
    stdio: ['pipe', 'pipe', 'pipe'],
    encoding: 'utf8',
  }).trim();
}

/** A person with an SSH key of the type. */
export function sshPerson(
  directory: string,
  name: string,
  type: 'ed25519' | 'ecdsa' | 'rsa' = 'ed25519',
  bits?: number,
): Person {
  const key = join(directory, `${name}-${type}`);
  run('ssh-keygen', [
    '-q',
    '-t',
    type,
    ...(bits === undefined ? [] : ['-b', String(bits)]),
    '-N',
    '',
    '-C',
    `${name}@example.test`,
    '-f',
    key,
  ]);
  return {
    name,
    email: `${name}@example.test`,
    format: 'ssh',
    publicKey: readFileSync(`${key}.pub`, 'utf8').trim(),
    signingKey: key,
  };
}

/** A person with an OpenPGP key in a keyring of their own. Call `endGpg` with the home when done. */
export function openPgpPerson(directory: string, name: string): Person {
  const home = join(directory, `gnupg-${name}`);
  mkdirSync(home, { mode: 0o700 });
  const env = { GNUPGHOME: home };
  run(
    'gpg',
    [
      '--batch',
      '--quiet',
      '--passphrase',
      '',
      '--quick-generate-key',
      `${name} <${name}@example.test>`,
      'ed25519',
      'sign',
      'never',
    ],
    { env },
  );
  const publicKey = run('gpg', ['--armor', '--export', `${name}@example.test`], { env });
  return {
    name,
    email: `${name}@example.test`,
    format: 'openpgp',
    publicKey,
    signingKey: `${name}@example.test`,
    gnupgHome: home,
  };
}

export function endGpg(home: string): void {
  run('gpgconf', ['--kill', 'all'], { env: { GNUPGHOME: home } });
}

/** A bare repository and a working copy of it, in which different people act. */
export class Fleet {
  readonly bare: string;
  readonly work: string;
  url: string;
  // A clock for commits: seconds apart, so that histories look like histories.
  #time: number;

  constructor(directory: string, name = 'fleet') {
    this.bare = join(directory, `${name}.git`);
    this.work = join(directory, name);
    this.url = this.bare;
    this.#time = Math.floor(Date.now() / 1000) - 86_400;
    run('git', ['init', '--quiet', '--bare', '--initial-branch=main', this.bare]);
    run('git', ['-C', this.bare, 'config', 'http.receivepack', 'true']);
    run('git', ['init', '--quiet', '--initial-branch=main', this.work]);
  }

  /** The address the working copy pushes to and approvals are bound to. */
  remote(url: string): void {
    this.url = url;
    if (run('git', ['remote'], { cwd: this.work }) !== '') this.git(undefined, 'remote', 'remove', 'origin');
    this.git(undefined, 'remote', 'add', 'origin', url);
  }

  git(person: Person | undefined, ...args: string[]): string {
    this.#time += 5;
    const date = `${this.#time} +0000`;
    return run('git', [...configOf(person), ...args], {
      cwd: this.work,
      env: {
        GIT_AUTHOR_DATE: date,
        GIT_COMMITTER_DATE: date,
        ...(person?.gnupgHome === undefined ? {} : { GNUPGHOME: person.gnupgHome }),
      },
    });
  }

  /** Writes files (undefined: removes) and commits them; signed unless told otherwise. Gives the commit id. */
  commit(
    person: Person,
    message: string,
    files: Readonly<Record<string, string | undefined>>,
    options: { sign?: boolean; author?: Person } = {},
  ): string {
    for (const [path, content] of Object.entries(files)) {
      const file = join(this.work, path);
      if (content === undefined) rmSync(file);
      else {
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, content);
      }
    }
    this.git(person, 'add', '--all');
    const author = options.author === undefined ? [] : ['--author', `${options.author.name} <${options.author.email}>`];
    this.git(
      person,
      'commit',
      '--quiet',
      '--allow-empty',
      options.sign === false ? '--no-gpg-sign' : '-S',
      '-m',
      message,
      ...author,
    );
    return this.head();
  }

  /** `git revert` of a commit, signed. */
  revert(person: Person, commit: string): string {
    this.git(person, 'revert', '--no-edit', '-S', commit);
    return this.head();
  }

  push(...refs: string[]): void {
    this.git(undefined, 'push', '--quiet', 'origin', ...(refs.length === 0 ? ['main'] : refs));
  }

  head(): string {
    return run('git', ['rev-parse', 'HEAD'], { cwd: this.work });
  }

  /** Makes the person's key the one `countersign approve` signs with here. */
  become(person: Person): void {
    for (const [key, value] of settingsOf(person)) this.git(undefined, 'config', key, value);
  }

  read(path: string): string {
    return existsSync(join(this.work, path)) ? readFileSync(join(this.work, path), 'utf8') : '';
  }
}

function settingsOf(person: Person): [string, string][] {
  return [
    ['user.name', person.name],
    ['user.email', person.email],
    ['user.signingkey', person.signingKey],
    ['gpg.format', person.format],
  ];
}

function configOf(person: Person | undefined): string[] {
  return person === undefined ? [] : settingsOf(person).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
}
