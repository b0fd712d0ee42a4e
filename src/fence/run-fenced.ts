import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { limitedCommand } from '../model/index.ts';
import { watchMemory } from './memory.ts';

/**
 * How a program ended. `error` is what it wrote there, or what was done to it; `exceeded` the limit for which it was
 * ended.
 */
export type Ran = {
  readonly ok: boolean;
  readonly output: string;
  readonly error: string;
  readonly exceeded?: 'memory' | 'time' | 'size' | undefined;
};

/** What a program may take: bytes of memory, milliseconds, and bytes of output. */
export type RunLimits = { readonly memory: number; readonly ms: number; readonly size: number };

export type FencedFile = { readonly path: string; readonly content: Uint8Array };

const SHOWN = 4000; // characters kept of what a program complains
const NOWHERE = 'http://127.0.0.1:9'; // the discard port: nobody answers

/**
 * Runs a program in a directory with nothing but these files. It has no settings, no home, no PATH and no proxy that
 * leads anywhere; where the kernel allows it, no network at all. Memory has a hard limit, twice: the kernel refuses
 * more (setrlimit(2), RLIMIT_DATA), and the program and what it started are watched and ended.
 */
export async function runFenced(
  program: string,
  args: readonly string[],
  files: readonly FencedFile[],
  limits: RunLimits,
  isolation: readonly string[] = withoutNetwork(),
): Promise<Ran> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-fence-'));
  try {
    const root = join(directory, 'files');
    mkdirSync(root);
    for (const { path, content } of files) {
      const file = join(root, path);
      if (!file.startsWith(`${root}/`)) throw new Error(`\`${path}\` leads out of the repository`);
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
      GOMEMLIMIT: String(Math.floor(limits.memory * 0.9)), // collects earlier, instead of being ended
      GOMAXPROCS: '2',
      LANG: 'C.UTF-8',
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

// A network of its own that leads nowhere; containers may forbid making one, and then the rest of the fence stands
// alone.
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
      // The whole group: what it may have started goes with it.
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
      if (size > most) end(`it writes more than ${most} bytes`, 'size');
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
      if (
        ended === undefined &&
        code !== 0 &&
        (signal === 'SIGKILL' || /cannot allocate memory|out of memory/i.test(begin))
      )
        [ended, exceeded] = [outOfMemory, 'memory'];
      const ok = code === 0 && ended === undefined;
      resolve({ ok, output: Buffer.concat(out).toString('utf8'), error: ended ?? error.trim(), exceeded });
    });
  });
}
