import { spawn } from 'node:child_process';
import { CountersignError, limitedCommand } from '../model/index.ts';

/** The `git` program, and the search path for its own helpers such as ssh. */
export type GitProgram = {
  readonly file: string;
  readonly path: string;
  /** Where the objects of a push are while a hook decides on them (git-receive-pack(1), quarantine). */
  readonly quarantine?: { readonly directory: string; readonly alternates: string } | undefined;
  /** Starts the program, if not `runGit` itself. */
  readonly run?: RunGit;
  /** Memory limit, in bytes, of a process that reads pushed data; no limit if absent. */
  readonly memory?: number;
  /** Time limit for one fetch (default two minutes). */
  readonly fetchMs?: number;
};

export type GitResult = { readonly code: number; readonly stdout: Buffer; readonly stderr: string };

export type RunGitOptions = {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: Uint8Array | string;
  readonly timeoutMs?: number;
  /**
   * Also ends processes that git started: a helper that talks to a server would continue. Do not use it where git may
   * ask a person at a terminal.
   */
  readonly withChildren?: boolean;
  /** Memory limit, in bytes, of each process. */
  readonly memory?: number | undefined;
};
export type RunGit = (program: string, args: readonly string[], options?: RunGitOptions) => Promise<GitResult>;

const TIMEOUT_MS = 120_000;
const MAX_ERRORS = 1024 * 1024;

/**
 * Runs the `git` program once, without a shell. `input` goes to its standard input. Gives up after `timeoutMs` (default
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
    child.stdin.on('error', () => {}); // git may close its input early; its exit code reports that
    child.stdin.end(options.input ?? '');
  });

/** Wraps a command so that the kernel limits its memory, if a limit is given. */
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
 * Describes in our own words why a remote failed, because git repeats all text from a server. Returns undefined for
 * unknown errors.
 */
export function remoteReason(stderr: string): string | undefined {
  const status = /The requested URL returned error: (\d{3})\b/.exec(stderr)?.[1];
  if (status !== undefined) return `it answers ${status}`;
  // about the address itself, before any server was asked
  const transport = /^fatal: transport '([a-z0-9+.-]{1,32})' not allowed$/m.exec(stderr)?.[1];
  if (transport !== undefined) return `transport '${transport}' not allowed`;
  return REASONS.find(([pattern]) => pattern.test(stderr))?.[1];
}

/** Reason for refusing a server whose objects fail Git's own checks. Anyone who may push can cause this. */
export const UNSOUND = 'its objects are not sound';

const REASONS: readonly (readonly [RegExp, string])[] = [
  [/^fatal: it was not done within/m, 'it did not finish in time'],
  [/^fatal: it complains with more than/m, 'it prints too much'],
  [
    /out of memory|Out of memory|mmap failed|unable to allocate|malloc failed/,
    'the pushed objects need more memory than git may use here',
  ],
  [/Could not resolve host/, 'its host name is unknown'],
  [/Failed to connect|Connection refused|Couldn't connect/, 'it refuses connections'],
  [
    /Authentication failed|could not read Username|could not read Password|terminal prompts disabled/,
    'it rejects the credentials',
  ],
  [/Permission denied/, 'it rejects the key'],
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
  [/unable to find remote helper/, 'its address cannot be fetched from'],
  [/early EOF|unexpected disconnect|hung up|RPC failed|transfer closed/, 'it broke off'],
  [/Empty reply|Recv failure|expected flush|unexpected flush/, 'it broke off'],
  [/fsck|bad object|inflate|invalid (?:tree|commit|object)|index-pack failed|unpack/, UNSOUND],
];

/** Returns the line of git's error output that says what happened, without addresses that contain credentials. */
export function complaint(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => /^(fatal|error|remote):/.test(line));
  const line = lines.find((l) => l.startsWith('fatal')) ?? lines.at(-1) ?? stderr.split('\n').at(-1) ?? '';
  return line.replace(/^(fatal|error|remote): /, '').replaceAll(/\/\/[^/@\s]*@/g, '//');
}
