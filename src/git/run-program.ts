import { spawn } from 'node:child_process';

// Imports nothing else: a thread that loads all our words takes 15 MiB more.

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

const TIMEOUT_MS = 120_000;
const MAX_ERRORS = 1024 * 1024;

/** Runs a program once. Gives up after `timeoutMs`. Rejects with the system's error if it cannot be started. */
export function runProgram(
  [file, ...words]: readonly [string, ...string[]],
  options: RunGitOptions,
): Promise<GitResult> {
  return new Promise((resolve, reject) => {
    const { cwd, env, withChildren = false, timeoutMs = TIMEOUT_MS } = options;
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
      reject(cause);
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      const stderr = ended ?? Buffer.concat(err).toString('utf8').trim();
      resolve({ code: ended === undefined ? (code ?? 1) : 1, stdout: Buffer.concat(out), stderr });
    });
    child.stdin.on('error', () => {}); // git may close its input early; its exit code reports that
    child.stdin.end(options.input ?? '');
  });
}
