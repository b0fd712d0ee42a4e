import { CountersignError, limitedCommand } from '../model/index.ts';
import { type GitResult, type RunGitOptions, runProgram } from './run-program.ts';

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

export type RunGit = (program: string, args: readonly string[], options?: RunGitOptions) => Promise<GitResult>;

/**
 * Runs the `git` program once, without a shell. `input` goes to its standard input. Gives up after `timeoutMs` (default
 * two minutes).
 */
export const runGit: RunGit = async (program, args, options = {}) => {
  try {
    return await runProgram(withinMemory(program, args, options.memory), options);
  } catch (cause) {
    throw new CountersignError('tool-missing', `cannot run \`${program}\``, { cause, hint: 'install git' });
  }
};

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
