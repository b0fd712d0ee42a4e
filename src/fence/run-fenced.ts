import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { limitedCommand } from '../model/index.ts';
import { watchMemory } from './memory.ts';

/** Result of a program. `error` is its standard error, or why it was ended; `exceeded` is the limit it exceeded. */
export type Ran = {
  readonly ok: boolean;
  readonly output: string;
  readonly error: string;
  readonly exceeded?: 'memory' | 'time' | 'size' | undefined;
};

/** Limits of a program: bytes of memory, milliseconds, and bytes of output. */
export type RunLimits = { readonly memory: number; readonly ms: number; readonly size: number };

/** Command that takes the network away (default: what this system allows), and more variables of the program. */
export type Surroundings = {
  readonly isolation?: readonly string[];
  readonly variables?: Readonly<Record<string, string>>;
};

export type FencedFile = { readonly path: string; readonly content: Uint8Array };

// Messages that Go and the C library print first if the kernel refuses memory for the heap, a stack or a thread.
const OUT_OF_MEMORY = new RegExp(
  [
    'cannot allocate memory',
    'out of memory',
    'failed to (create new OS thread|reserve)',
    'newosproc',
    'pthread_create failed',
    'errno=1[12]\\b',
  ].join('|'),
  'i',
);
const SHOWN = 4000; // characters kept of a program's error output
const NOWHERE = 'http://127.0.0.1:9'; // the discard port: no one answers

/**
 * Runs a program in a directory that contains only these files. It has no settings, home, PATH or working proxy, and no
 * network at all if the kernel allows that. Memory is limited twice: the kernel refuses more (setrlimit(2),
 * RLIMIT_DATA), and a watch ends the program and its children.
 */
export async function runFenced(
  program: string,
  args: readonly string[],
  files: readonly FencedFile[],
  limits: RunLimits,
  { isolation = withoutNetwork(), variables = {} }: Surroundings = {},
): Promise<Ran> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-fence-'));
  try {
    const root = join(directory, 'files');
    mkdirSync(root);
    for (const { path, content } of files) {
      const file = join(root, path);
      if (!file.startsWith(`${root}/`)) throw new Error(`\`${path}\` is outside the repository`);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content, { flag: 'wx' });
    }
    const home = join(directory, 'home');
    mkdirSync(home);
    const env = {
      HOME: home,
      TMPDIR: home,
      XDG_CACHE_HOME: home,
      XDG_CONFIG_HOME: home,
      XDG_DATA_HOME: home,
      HELM_PLUGINS: join(home, 'no-plugins'),
      HELM_NO_PLUGINS: '1',
      PATH: '',
      HTTP_PROXY: NOWHERE,
      HTTPS_PROXY: NOWHERE,
      ALL_PROXY: NOWHERE,
      NO_PROXY: '',
      GOMEMLIMIT: String(Math.floor(limits.memory * 0.9)), // makes Go collect garbage earlier instead of being killed
      GOMAXPROCS: '2',
      LANG: 'C.UTF-8',
      ...variables,
    };
    return await run(
      [...limitedCommand({ memory: limits.memory, fileSize: 2 * limits.size }), ...isolation, program, ...args],
      root,
      env,
      limits,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

// A separate network namespace without routes. Containers may forbid creating one; then the rest of the fence must
// suffice.
export function withoutNetwork(): readonly string[] {
  if (process.platform !== 'linux') return [];
  const [unshare = '', ...args] = ['/usr/bin/unshare', '--user', '--map-current-user', '--net', '--'];
  const probe = spawnSync(unshare, [...args, '/bin/true'], { stdio: 'ignore', timeout: 5000 });
  return probe.status === 0 ? [unshare, ...args] : [];
}

function run(
  [program, ...args]: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  { memory, ms, size: most }: RunLimits,
): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(program as string, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const out: Buffer[] = [];
    let size = 0;
    let error = '';
    let begin = '';
    let ended: string | undefined;
    let exceeded: Ran['exceeded'];
    const end = (why: string, limit: Ran['exceeded']) => {
      if (ended === undefined) [ended, exceeded] = [why, limit];
      // The whole process group, including anything the program started.
      if (child.pid !== undefined)
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          child.kill('SIGKILL');
        }
    };
    const timer = setTimeout(() => end(`it takes longer than ${Math.round(ms / 100) / 10} s`, 'time'), ms);
    const outOfMemory = `it takes more than ${Math.round(memory / 1024 / 1024)} MiB of memory`;
    const watch = watchMemory(child.pid, memory, () => end(outOfMemory, 'memory'));
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > most) end(`it prints more than ${most} bytes`, 'size');
      else out.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      begin = (begin + chunk.toString('utf8')).slice(0, SHOWN);
      error = (error + chunk.toString('utf8')).slice(-SHOWN);
    });
    child.on('error', (cause) => {
      ended ??= `it cannot be run: ${cause.message}`;
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      watch.stop();
      // Go says so, before many lines about where, when the kernel refuses it memory; the system may end it too.
      if (ended === undefined && code !== 0 && (signal === 'SIGKILL' || OUT_OF_MEMORY.test(begin)))
        [ended, exceeded] = [outOfMemory, 'memory'];
      const ok = code === 0 && ended === undefined;
      resolve({ ok, output: Buffer.concat(out).toString('utf8'), error: ended ?? error.trim(), exceeded });
    });
  });
}
