import { spawn } from 'node:child_process';
import { CountersignError } from '../model/index.ts';

/** The `git` program and the search path it may find its own helpers (ssh) on. */
export type GitProgram = {
  readonly file: string;
  readonly path: string;
  /** Where objects lie that a push brings, while a hook decides whether they stay (git-receive-pack(1), quarantine). */
  readonly quarantine?: { readonly directory: string; readonly alternates: string } | undefined;
  /** What starts it, where that is not `runGit` itself. */
  readonly run?: RunGit;
};

export type GitResult = { readonly code: number; readonly stdout: Buffer; readonly stderr: string };

export type RunGitOptions = {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: Uint8Array | string;
  readonly timeoutMs?: number;
};
export type RunGit = (program: string, args: readonly string[], options?: RunGitOptions) => Promise<GitResult>;

/** Runs the `git` program once with no shell. `input` goes to its standard input. Gives up after `timeoutMs` (default two minutes). */
export const runGit: RunGit = (program, args, options = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env,
      stdio: 'pipe',
      timeout: options.timeoutMs ?? 120_000,
      killSignal: 'SIGKILL',
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (d: Buffer) => out.push(d));
    child.stderr.on('data', (d: Buffer) => err.push(d));
    child.on('error', (cause) => reject(new CountersignError('tool-missing', `cannot run \`${program}\``, { cause, hint: 'install git' })));
    child.on('close', (code, signal) => {
      const stderr = Buffer.concat(err).toString('utf8').trim();
      resolve({ code: code ?? 1, stdout: Buffer.concat(out), stderr: signal === null ? stderr : `git was stopped by ${signal} ${stderr}` });
    });
    child.stdin.on('error', () => {}); // git may close its input early; its exit code tells
    child.stdin.end(options.input ?? '');
  });

/** The last line of git's complaint that says what happened, without addresses that hold credentials. */
export function complaint(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => /^(fatal|error|remote):/.test(line));
  const line = lines.find((l) => l.startsWith('fatal')) ?? lines.at(-1) ?? stderr.split('\n').at(-1) ?? '';
  return line.replace(/^(fatal|error|remote): /, '').replaceAll(/\/\/[^/@\s]*@/g, '//');
}
