import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** An account that is neither root nor anyone who runs tests. */
export const OTHER = 65534;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const isRoot = process.getuid?.() === 0;

/** Runs our own code as another account; as this account, where that is not root. */
export type OtherAccount = {
  /** Where it finds a file of the repository. */
  readonly path: (file: string) => string;
  /** Runs Node.js, and returns what it prints. */
  readonly node: (args: readonly string[]) => Promise<string>;
};

/**
 * The other account. Where the repository is below a private directory, it sees the repository at a place of its own,
 * by a mount that no other process has. Returns the reason, if this machine does not permit that.
 */
export function otherAccount(directory: string): OtherAccount | string {
  const direct: OtherAccount = {
    path: (file) => join(ROOT, file),
    node: (args) => said(process.execPath, args, isRoot ? { uid: OTHER, gid: OTHER } : {}),
  };
  const look = ['--eval', 'require("node:fs").readFileSync(process.argv[1])', join(ROOT, 'package.json')];
  if (!isRoot || spawnSync(process.execPath, look, { uid: OTHER, gid: OTHER, cwd: '/' }).status === 0) return direct;
  const place = join(directory, 'repository');
  mkdirSync(place);
  const seen = (path: string) => (path.startsWith(ROOT) ? join(place, path.slice(ROOT.length)) : path);
  const mounted =
    'mount --bind "$0" "$1" && shift && exec setpriv --reuid "$1" --regid "$1" --clear-groups "$2" "${@:3}"';
  const args = (more: readonly string[]) => [
    ...['--mount', 'bash', '-c', mounted, ROOT, place],
    ...[String(OTHER), seen(process.execPath), ...more],
  ];
  const tried = spawnSync('unshare', args(['--version']), { cwd: '/', encoding: 'utf8' });
  if (tried.status !== 0)
    return `another account cannot read the repository, nor see it by a mount: ${tried.stderr?.trim() ?? tried.error}`;
  return { path: (file) => join(place, file), node: (more) => said('unshare', args(more), {}) };
}

async function said(
  program: string,
  args: readonly string[],
  account: { uid?: number; gid?: number },
): Promise<string> {
  const env = { PATH: process.env['PATH'] };
  const child = spawn(program, args, { ...account, env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (text += data));
  await once(child, 'close');
  return text;
}
