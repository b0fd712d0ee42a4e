import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { runCli } from '../../src/cli/index.ts';
import { LedgerReader } from '../../src/ledger/index.ts';
import type { EntryOf, EntryType, Recorded } from '../../src/model/index.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The result of one command line. */
export type CliResult = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs one command line of `countersign` in this process. What is about the process itself: `countersignProcess`. */
export async function countersign(
  args: readonly string[],
  { cwd }: { readonly cwd?: string } = {},
): Promise<CliResult> {
  process.env['KUBECONFIG'] = '';
  let stdout = '';
  let stderr = '';
  const before = process.cwd();
  if (cwd !== undefined) process.chdir(cwd); // of all calls at that moment: such a call is alone
  try {
    const code = await runCli(args, {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += text;
      },
      terminal: false,
      colour: false,
      signal: new AbortController().signal,
    });
    return { code, stdout, stderr };
  } finally {
    process.chdir(before);
  }
}

type ProcessOptions = { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv; readonly input?: string | Buffer };

/** Runs `countersign` as people do: its own process, directory, environment, standard input and exit code. */
export function countersignProcess(args: readonly string[], options: ProcessOptions = {}): Promise<CliResult> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [`${ROOT}bin/countersign.mjs`, ...args], {
      cwd: options.cwd,
      env: { ...process.env, KUBECONFIG: '', ...options.env },
      stdio: 'pipe',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (d) => (stdout += d));
    child.stderr.on('data', (d) => (stderr += d));
    child.stdin.on('error', () => {}); // it may end before it read everything
    child.stdin.end(options.input);
    child.on('close', (code) => resolve({ code: code ?? 137, stdout, stderr }));
  });
}

/** A running `countersign serve`. */
export class Service {
  readonly data: string;
  readonly #child: ChildProcess;
  #log = '';
  readonly ended: Promise<number>;

  constructor(script: string, args: readonly string[], data: string, env: NodeJS.ProcessEnv = {}) {
    this.data = data;
    this.#child = spawn(process.execPath, [script, ...args, '--data', data], {
      env: { ...process.env, KUBECONFIG: '', ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child.stderr?.on('data', (d) => (this.#log += d));
    this.ended = new Promise((resolve) =>
      this.#child.on('close', (code, signal) => resolve(signal === null ? (code ?? 1) : 137)),
    );
  }

  static start(args: readonly string[], data: string, env: NodeJS.ProcessEnv = {}): Service {
    return new Service(`${ROOT}bin/countersign.mjs`, ['serve', ...args], data, env);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get log(): string {
    return this.#log;
  }

  async stop(): Promise<number> {
    if (this.#child.exitCode === null) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 60_000);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }

  /** Waits until it killed itself. */
  async killed(step: string): Promise<void> {
    const code = await this.ended;
    if (code !== 137) throw new Error(`the service was not killed at ${step} but ended with ${code}:\n${this.#log}`);
  }

  /** Waits for the log to say something. */
  async says(text: string, timeoutMs = 120_000): Promise<void> {
    await until(
      () => this.#log.includes(text),
      timeoutMs,
      () => `the service did not say \`${text}\`:\n${this.#log.slice(-3000)}`,
    );
  }

  /** Waits until an environment was looked at again, so many times. */
  async looksAgain(times = 3, environment = 'production'): Promise<void> {
    for (let i = 0; i < times; i++) {
      const from = new Date().toISOString();
      await until(
        async () => (await this.#lookedAt(environment)) > from,
        120_000,
        () => `\`${environment}\` is not looked at:\n${this.#log.slice(-3000)}`,
      );
    }
  }

  async #lookedAt(environment: string): Promise<string> {
    const { stdout } = await countersign(['status', '--data', this.data, '--output', 'json']);
    const all = JSON.parse(stdout) as { environment: string; looked: string }[];
    return all.find((s) => s.environment === environment)?.looked ?? '';
  }

  /** Every entry of a type so far. */
  entries<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[] {
    const reader = new LedgerReader(`${this.data}/ledger.db`);
    try {
      return reader.all(type, environment);
    } finally {
      reader.close();
    }
  }

  evidence<T>(ref: { sha256: string; size: number }): T {
    const reader = new LedgerReader(`${this.data}/ledger.db`);
    try {
      return reader.evidence(ref) as T;
    } finally {
      reader.close();
    }
  }

  /** Waits until an entry of the type satisfies the test, and gives it. */
  async entry<T extends EntryType>(
    type: T,
    environment: string,
    test: (entry: EntryOf<T>) => boolean,
    timeoutMs = 120_000,
  ): Promise<Recorded<EntryOf<T>>> {
    let found: Recorded<EntryOf<T>> | undefined;
    await until(
      () => {
        found = this.entries(type, environment).find((r) => test(r.entry));
        return found !== undefined;
      },
      timeoutMs,
      () => `no \`${type}\` entry as expected:\n${this.#log.slice(-3000)}`,
    );
    return found as Recorded<EntryOf<T>>;
  }
}

/** Looks until the test holds; throws the message when it does not in time. */
export async function until(
  test: () => boolean | Promise<boolean>,
  timeoutMs: number,
  message: () => string | Promise<string>,
): Promise<void> {
  for (const end = Date.now() + timeoutMs; ; ) {
    if (await attempt(test)) return;
    if (Date.now() > end) throw new Error(await message());
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

// The ledger may not be there yet while the service starts.
async function attempt(test: () => boolean | Promise<boolean>): Promise<boolean> {
  try {
    return await test();
  } catch {
    return false;
  }
}
