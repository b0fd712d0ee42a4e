import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { runDirectory } from './run-directory.ts';

/** Someone with a freshly made key; everything they do with git is really signed (or really not). */
export type Person = {
  readonly name: string;
  readonly email: string;
  readonly format: 'ssh' | 'openpgp';
  readonly publicKey: string;
  readonly signingKey: string;
  readonly gnupgHome?: string;
};

// Each commit and push would start a process that looks whether there is anything to tidy up.
const NO_UPKEEP = '[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[receive]\n\tautogc = false\n';
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
  const made = oncePerRun(`ssh-${name}-${type}${bits ?? ''}`, (at) => {
    const size = bits === undefined ? [] : ['-b', String(bits)];
    run('ssh-keygen', ['-q', '-t', type, ...size, '-N', '', '-C', `${name}@example.test`, '-f', join(at, 'key')]);
  });
  cpSync(join(made, 'key'), key);
  cpSync(join(made, 'key.pub'), `${key}.pub`);
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
  const made = oncePerRun(`gpg-${name}`, (at) => {
    const env = { GNUPGHOME: at };
    const who = `${name} <${name}@example.test>`;
    run('gpg', ['--batch', '--quiet', '--passphrase', '', '--quick-generate-key', who, 'ed25519', 'sign', 'never'], {
      env,
    });
    writeFileSync(join(at, 'public'), run('gpg', ['--armor', '--export', `${name}@example.test`], { env }));
    endGpg(at);
  });
  cpSync(made, home, { recursive: true, filter: (file) => !file.includes('S.gpg-agent') });
  chmodSync(home, 0o700);
  const publicKey = readFileSync(join(home, 'public'), 'utf8');
  return {
    name,
    email: `${name}@example.test`,
    format: 'openpgp',
    publicKey,
    signingKey: `${name}@example.test`,
    gnupgHome: home,
  };
}

const askedFor = new Map<string, number>();

/**
 * The directory of a key: made by the first file of a run that asks for it, found by the others. Who asks twice in one
 * file gets two.
 */
function oncePerRun(name: string, make: (directory: string) => void): string {
  const serial = askedFor.get(name) ?? 0;
  askedFor.set(name, serial + 1);
  const keys = join(runDirectory() ?? ownDirectory(), 'keys');
  mkdirSync(keys, { recursive: true });
  const directory = join(keys, `${name}-${serial}`);
  if (existsSync(directory)) return directory;
  const fresh = mkdtempSync(join(keys, 'new-'));
  make(fresh);
  try {
    renameSync(fresh, directory);
  } catch {
    rmSync(fresh, { recursive: true }); // another file was faster
  }
  return directory;
}

let own: string | undefined;

function ownDirectory(): string {
  if (own === undefined) {
    const directory = mkdtempSync(join(tmpdir(), 'countersign-keys-'));
    process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
    own = directory;
  }
  return own;
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
    for (const at of [['--bare', this.bare], [this.work]])
      run('git', ['init', '--quiet', '--template=', '--initial-branch=main', ...at]);
    appendFileSync(join(this.bare, 'config'), `[http]\n\treceivepack = true\n${NO_UPKEEP}`);
    appendFileSync(join(this.work, '.git', 'config'), NO_UPKEEP);
    // What is put into the bare repository by itself is there for the people too.
    mkdirSync(join(this.work, '.git', 'objects', 'info'), { recursive: true });
    writeFileSync(join(this.work, '.git', 'objects', 'info', 'alternates'), `${join(this.bare, 'objects')}\n`);
  }

  /** The address the working copy pushes to and approvals are bound to. */
  remote(url: string): void {
    this.url = url;
    const fetch = '+refs/heads/*:refs/remotes/origin/*';
    // A push is not what a server of ours is there for: it goes into the repository that the server shows.
    const isServed = /^https?:/.test(url) && url.endsWith(`/${basename(this.bare)}`);
    const push = isServed ? `\tpushurl = ${quoted(this.bare)}\n` : '';
    this.#configure('remote', `[remote "origin"]\n\turl = ${quoted(url)}\n${push}\tfetch = ${fetch}\n`);
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

  /** Adds a file to a branch of the bare repository that nobody has checked out, here and there. */
  addTo(ref: string, person: Person, path: string, content: string): void {
    const [here, there] = [join(this.work, '.git', ref), join(this.bare, ref)];
    const from = existsSync(there) ? `from ${readFileSync(there, 'utf8')}` : '';
    const data = (text: string) => `data ${Buffer.byteLength(text)}\n${text}\n`;
    const head = `commit ${ref}\ncommitter ${person.name} <${person.email}> ${++this.#time} +0000\n`;
    const input = `${head}${data('added')}${from}M 100644 inline ${path}\n${data(content)}`;
    run('git', ['-C', this.bare, 'fast-import', '--quiet'], { input });
    mkdirSync(dirname(here), { recursive: true });
    cpSync(there, here);
  }

  head(): string {
    const at = join(this.work, '.git');
    const head = readFileSync(join(at, 'HEAD'), 'utf8').trim();
    const file = join(at, head.replace('ref: ', ''));
    if (!head.startsWith('ref: ')) return head;
    return existsSync(file) ? readFileSync(file, 'utf8').trim() : run('git', ['rev-parse', 'HEAD'], { cwd: this.work });
  }

  /** Makes the person's key the one `countersign approve` signs with here. */
  become(person: Person): void {
    const lines = settingsOf(person).map(([key, value]) => {
      const [section = '', name = ''] = key.split('.');
      return `[${section}]\n\t${name} = ${quoted(value)}\n`;
    });
    this.#configure('person', lines.join(''));
  }

  // A part of the working copy's configuration, in the place of what was there under that name.
  #configure(part: string, text: string): void {
    const file = join(this.work, '.git', 'config');
    const [begin, end] = [`# ${part}\n`, `# end of ${part}\n`];
    const before = readFileSync(file, 'utf8');
    const [head = '', rest = ''] = before.split(begin);
    const tail = rest.slice(rest.indexOf(end) + end.length);
    writeFileSync(file, `${head}${tail}${begin}${text}${end}`);
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

function quoted(value: string): string {
  return JSON.stringify(value); // as Git reads it too: backslashes, quotes and line ends are written alike
}
