import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** How a program ended. `error` is what it wrote there, or what was done to it. */
export type Ran = { readonly ok: boolean; readonly output: string; readonly error: string };

export type FencedFile = { readonly path: string; readonly content: Uint8Array };

const TIME_MS = 30_000;
const MAX_OUTPUT = 64 * 1024 * 1024; // 20,000 objects
const MEMORY = '1GiB';
const NOWHERE = 'http://127.0.0.1:9'; // the discard port: nobody answers

/**
 * Runs a program in a directory with nothing but these files. It has no settings, no home, no PATH and no proxy that leads
 * anywhere; where the kernel allows it, no network at all.
 */
export async function runFenced(program: string, args: readonly string[], files: readonly FencedFile[]): Promise<Ran> {
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
      GOMEMLIMIT: MEMORY,
      LANG: 'C.UTF-8',
    };
    const [file, ...before] = withoutNetwork();
    const command = file === undefined ? [program, ...args] : [file, ...before, program, ...args];
    return await run(command, root, env);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

let unshare: readonly string[] | undefined;

// A network of its own that leads nowhere; containers may forbid making one, and then the rest of the fence stands alone.
function withoutNetwork(): readonly string[] {
  if (unshare === undefined) {
    const command = ['/usr/bin/unshare', '--user', '--map-current-user', '--net', '--'];
    const tried =
      process.platform === 'linux'
        ? spawnSync(command[0] as string, [...command.slice(1), '/bin/true'], { stdio: 'ignore', timeout: 5000 })
        : undefined;
    unshare = tried?.status === 0 ? command : [];
  }
  return unshare;
}

function run([program, ...args]: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(program as string, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const out: Buffer[] = [];
    let size = 0;
    let error = '';
    let ended: string | undefined;
    const end = (why: string) => {
      ended ??= why;
      // The whole group: what it may have started goes with it.
      if (child.pid !== undefined)
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          child.kill('SIGKILL');
        }
    };
    const timer = setTimeout(() => end(`it took longer than ${TIME_MS / 1000} s`), TIME_MS);
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_OUTPUT) end(`it wrote more than ${MAX_OUTPUT} bytes`);
      else out.push(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      error = (error + chunk.toString('utf8')).slice(-4000);
    });
    child.on('error', (cause) => {
      ended ??= `it cannot be run: ${cause.message}`;
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ ok: code === 0 && ended === undefined, output: Buffer.concat(out).toString('utf8'), error: ended ?? error.trim() });
    });
  });
}
