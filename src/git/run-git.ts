import { spawn } from 'node:child_process';
import { CountersignError, limitedCommand } from '../model/index.ts';

/** The `git` program and the search path it may find its own helpers (ssh) on. */
export type GitProgram = {
  readonly file: string;
  readonly path: string;
  /** Where objects lie that a push brings, while a hook decides whether they stay (git-receive-pack(1), quarantine). */
  readonly quarantine?: { readonly directory: string; readonly alternates: string } | undefined;
  /** What starts it, where that is not `runGit` itself. */
  readonly run?: RunGit;
  /** Bytes of memory that a process which reads what others pushed may take; no limit where it is not given. */
  readonly memory?: number;
  /** How long one fetch may take (default two minutes). */
  readonly fetchMs?: number;
};

export type GitResult = { readonly code: number; readonly stdout: Buffer; readonly stderr: string };

export type RunGitOptions = {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: Uint8Array | string;
  readonly timeoutMs?: number;
  /**
   * Ends what git started, too: a helper that talks to a server goes on without it. Not where git may ask a person at a
   * terminal.
   */
  readonly withChildren?: boolean;
  /** Bytes of memory, for each process. */
  readonly memory?: number | undefined;
};
export type RunGit = (program: string, args: readonly string[], options?: RunGitOptions) => Promise<GitResult>;

const TIMEOUT_MS = 120_000;
const MAX_ERRORS = 1024 * 1024;

/**
 * Runs the `git` program once with no shell. `input` goes to its standard input. Gives up after `timeoutMs` (default
 * two minutes).
 */
export const runGit: RunGit = (program, args, options = {}) =>
  new Promise((resolve, reject) => {
    const { cwd, env, withChildren = false, timeoutMs = TIMEOUT_MS } = options;
    const [file, ...words] = withinMemory(program, args, options.memory);
    const child = spawn(file, words, { cwd, env, stdio: 'pipe', detached: withChildren });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let errors = 0;
    let ended: string | undefined;
    const end = (why: string) => {
      ended ??= why;
      if (!withChildren || child.pid === undefined) child.kill('SIGKILL');
      else
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          child.kill('SIGKILL');
        }
    };
    const timer = setTimeout(() => end(`fatal: it was not done within ${timeoutMs / 1000} s`), timeoutMs);
    child.stdout.on('data', (d: Buffer) => out.push(d));
    child.stderr.on('data', (d: Buffer) => {
      errors += d.length;
      if (errors > MAX_ERRORS) end(`fatal: it complains with more than ${MAX_ERRORS} bytes`);
      else err.push(d);
    });
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(new CountersignError('tool-missing', `cannot run \`${program}\``, { cause, hint: 'install git' }));
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      const stderr = ended ?? Buffer.concat(err).toString('utf8').trim();
      resolve({ code: ended === undefined ? (code ?? 1) : 1, stdout: Buffer.concat(out), stderr });
    });
    child.stdin.on('error', () => {}); // git may close its input early; its exit code tells
    child.stdin.end(options.input ?? '');
  });

/** A command whose memory the kernel limits, where a limit is given. */
export function withinMemory(
  program: string,
  args: readonly string[],
  memory: number | undefined,
): [string, ...string[]] {
  if (memory === undefined) return [program, ...args];
  const [file = program, ...words] = [...limitedCommand({ memory }), program, ...args];
  return [file, ...words];
}

/**
 * Why a remote did not answer, in our own words: git repeats what a server writes, and a server may write anything.
 * Returns undefined for complaints that are not known.
 */
export function remoteReason(stderr: string): string | undefined {
  const status = /The requested URL returned error: (\d{3})\b/.exec(stderr)?.[1];
  if (status !== undefined) return `it answers ${status}`;
  // of the address itself, before anyone was asked
  const transport = /^fatal: transport '([a-z0-9+.-]{1,32})' not allowed$/m.exec(stderr)?.[1];
  if (transport !== undefined) return `transport '${transport}' not allowed`;
  return REASONS.find(([pattern]) => pattern.test(stderr))?.[1];
}

/**
 * Why nothing is fetched from a server whose objects Git's own checks refuse: whoever may push can bring such objects.
 */
export const UNSOUND = 'its objects are not sound';

const REASONS: readonly (readonly [RegExp, string])[] = [
  [/^fatal: it was not done within/m, 'it was not done in time'],
  [/^fatal: it complains with more than/m, 'it writes too much'],
  [
    /out of memory|Out of memory|mmap failed|unable to allocate|malloc failed/,
    'what was pushed takes more memory than git may use here',
  ],
  [/Could not resolve host/, 'its name is not known'],
  [/Failed to connect|Connection refused|Couldn't connect/, 'nothing listens there'],
  [
    /Authentication failed|could not read Username|could not read Password|terminal prompts disabled/,
    'it wants other credentials',
  ],
  [/Permission denied/, 'it does not take the key'],
  [
    /SSL certificate problem|certificate verify failed|server verification failed|SSL peer certificate/,
    'its certificate is not trusted',
  ],
  [/Operation (?:too slow|timed out)|timed out|timeout/i, 'it is too slow'],
  [/repository '[^']*' not found|not appear to be a git repository|does not exist/, 'there is no repository'],
  [
    /not valid: is this a git repository|bad line length|protocol error|invalid server response|unable to parse/,
    'it is not a Git server',
  ],
  [/unable to find remote helper/, 'it is not an address that can be fetched'],
  [
    /early EOF|unexpected disconnect|hung up|RPC failed|transfer closed|Empty reply|Recv failure|expected flush|unexpected flush/,
    'it broke off',
  ],
  [/fsck|bad object|inflate|invalid (?:tree|commit|object)|index-pack failed|unpack/, UNSOUND],
];

/** The last line of git's complaint that says what happened, without addresses that hold credentials. */
export function complaint(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => /^(fatal|error|remote):/.test(line));
  const line = lines.find((l) => l.startsWith('fatal')) ?? lines.at(-1) ?? stderr.split('\n').at(-1) ?? '';
  return line.replace(/^(fatal|error|remote): /, '').replaceAll(/\/\/[^/@\s]*@/g, '//');
}
