import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LedgerReader } from '../../src/ledger/index.ts';
import type { EntryOf, EntryType, Recorded } from '../../src/model/index.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The result of one command line. */
export type CliResult = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs `countersign` as people do: its own process, its own exit code. */
export function countersign(
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<CliResult> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [`${ROOT}bin/countersign.mjs`, ...args], {
      cwd: options.cwd,
      env: { ...process.env, KUBECONFIG: '', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? 60_000,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (d) => (stdout += d));
    child.stderr.on('data', (d) => (stderr += d));
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

  get log(): string {
    return this.#log;
  }

  async stop(): Promise<number> {
    if (this.#child.exitCode === null) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }

  /** Waits for the log to say something. */
  async says(text: string, timeoutMs = 20_000): Promise<void> {
    await until(
      () => this.#log.includes(text),
      timeoutMs,
      () => `the service did not say \`${text}\`:\n${this.#log.slice(-3000)}`,
    );
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
    timeoutMs = 30_000,
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
  message: () => string,
): Promise<void> {
  for (const end = Date.now() + timeoutMs; ; ) {
    if (await attempt(test)) return;
    if (Date.now() > end) throw new Error(message());
    await new Promise((resolve) => setTimeout(resolve, 50));
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
