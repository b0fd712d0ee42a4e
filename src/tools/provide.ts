import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createGunzip } from 'node:zlib';
import { CountersignError, messageOf } from '../model/index.ts';
import { TOOLS, type Tool, type ToolName } from './catalogue.ts';
import { findOnPath, isExecutable } from './find-on-path.ts';

/** Where to search and where to store; `say` gets a line for each slow step. */
export type ToolSettings = {
  readonly path: string;
  readonly kubebuilderAssets: string | undefined;
  /** Where programs are kept between runs. */
  readonly cache: string;
  /** Directory of the Go modules in `catalogue.ts`. */
  readonly root: string;
  readonly say: (line: string) => void;
  /** Accepts only the pinned version: a competitor in a benchmark must not be an arbitrary installed version. */
  readonly pinned?: boolean;
  /** Maps the publisher's address to the one to use; tests substitute their own server. */
  readonly mirror?: (url: string) => string;
  readonly tools?: Readonly<Record<string, Tool>>;
};

const CONNECT_MS = 10_000;
const MAX_ARCHIVE = 512 * 1024 * 1024; // ten times the largest pinned one
const DOWNLOAD_MS = 600_000;
const BUILD_MS = 1_800_000;

/**
 * Returns the file of a program. Throws `tool-missing`; its message lists every attempt, and its hint says how to
 * provide the program by hand.
 */
export async function provide(name: ToolName | string, settings: ToolSettings): Promise<string> {
  const tool = (settings.tools ?? TOOLS)[name as ToolName] as Tool;
  const cached = join(settings.cache, `${name}-${tool.version}`);
  const installed =
    (settings.kubebuilderAssets === undefined ? undefined : findOnPath(name, settings.kubebuilderAssets)) ??
    findOnPath(name, settings.path);
  const found = (settings.pinned === true ? undefined : installed) ?? (isExecutable(cached) ? cached : undefined);
  if (found !== undefined) return found;
  mkdirSync(settings.cache, { recursive: true });
  const tried = ['not in KUBEBUILDER_ASSETS or PATH'];
  for (const [way, attempt] of [
    ['archive', download],
    ['Go build', build],
  ] as const) {
    try {
      await attempt(name, tool, cached, settings);
      return cached;
    } catch (thrown) {
      tried.push(`${way}: ${messageOf(thrown)}`);
      settings.say(`${name}: ${way} failed: ${messageOf(thrown)}`);
    }
  }
  throw new CountersignError(
    'tool-missing',
    `cannot get the program \`${name}\` ${tool.version} (${tried.join('; ')})`,
    {
      hint: tool.byHand,
    },
  );
}

async function download(name: string, tool: Tool, target: string, settings: ToolSettings): Promise<void> {
  const platform = `${process.platform}-${process.arch === 'x64' ? 'amd64' : process.arch}`;
  const sha512 = tool.archive?.sha512[platform];
  if (tool.archive === undefined || sha512 === undefined) throw new Error(`no archive is pinned for ${platform}`);
  const url = tool.archive.url.replace('{platform}', platform);
  const archive = join(settings.cache, `${sha512.slice(0, 16)}.tar.gz`);
  if (!existsSync(archive))
    await fetchTo((settings.mirror ?? ((u) => u))(url), archive, sha512, (line) => settings.say(`${name}: ${line}`));
  await unpack(archive, tool.archive.member, target);
}

// Downloads into a `.part` file, which a later attempt resumes. The file becomes the archive only if its checksum
// matches.
async function fetchTo(url: string, file: string, sha512: string, say: (line: string) => void): Promise<void> {
  const part = `${file}.part`;
  const have = existsSync(part) ? statSync(part).size : 0;
  say(have === 0 ? `downloading ${url}` : `resuming the download of ${url} at ${mib(have)}`);
  const connect = AbortSignal.timeout(CONNECT_MS);
  const overall = new AbortController();
  const timer = setTimeout(() => overall.abort(new Error('the download took too long')), DOWNLOAD_MS);
  try {
    const response = await startFetch(url, have, overall.signal, connect);
    if (have > 0 && response.status !== 206) rmSync(part);
    if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
    const total = Number(response.headers.get('content-length') ?? 0) + (response.status === 206 ? have : 0);
    const out = openSync(part, 'a');
    try {
      let got = response.status === 206 ? have : 0;
      let told = 0;
      for await (const chunk of response.body) {
        got += chunk.length;
        if (got > MAX_ARCHIVE) throw new Error(`the archive is larger than ${mib(MAX_ARCHIVE)}`);
        writeSync(out, chunk);
        if (total > 0 && got / total >= told + 0.1) {
          told = Math.floor((got / total) * 10) / 10;
          say(`${mib(got)} of ${mib(total)}`);
        }
      }
    } finally {
      closeSync(out);
    }
  } finally {
    clearTimeout(timer);
  }
  const digest = await digestOf(part);
  if (digest !== sha512) {
    rmSync(part);
    throw new Error(
      `the archive is not the pinned one: its SHA-512 is ${digest.slice(0, 16)}…, not ${sha512.slice(0, 16)}…`,
    );
  }
  renameSync(part, file);
}

async function startFetch(url: string, have: number, overall: AbortSignal, connect: AbortSignal): Promise<Response> {
  const headers = have > 0 ? { range: `bytes=${have}-` } : {};
  // The short limit only covers the start of the answer. It is raced, not passed on, so that a long body may continue.
  const pending = fetch(url, { headers, signal: overall });
  const late = new Promise<never>((_, reject) =>
    connect.addEventListener('abort', () => reject(new Error('no answer'))),
  );
  return Promise.race([pending, late]).catch((thrown) => {
    throw new Error(`cannot reach ${new URL(url).host}: ${messageOf((thrown as Error).cause ?? thrown)}`);
  });
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha512');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function unpack(archive: string, member: string, target: string): Promise<void> {
  const { parseTar } = await import('nanotar');
  const chunks: Buffer[] = [];
  for await (const chunk of createReadStream(archive).pipe(createGunzip())) chunks.push(chunk as Buffer);
  const file = parseTar(Buffer.concat(chunks)).find((f) => f.name.replace(/^\.\//, '') === member);
  if (file?.data === undefined) throw new Error(`the archive has no \`${member}\``);
  const fresh = `${target}.${process.pid}.new`; // two processes may install it at the same time
  await writeFile(fresh, file.data);
  chmodSync(fresh, 0o755);
  renameSync(fresh, target);
}

async function build(name: string, tool: Tool, target: string, settings: ToolSettings): Promise<void> {
  const go = findOnPath('go', settings.path);
  if (go === undefined) throw new Error('`go` is not on the PATH');
  const module = resolve(settings.root, tool.go.module);
  if (!existsSync(join(module, 'go.mod'))) throw new Error(`there is no Go module at ${tool.go.module}`);
  settings.say(`${name}: building ${tool.version} with Go; the first time this takes a minute or more`);
  const fresh = `${resolve(target)}.${process.pid}.new`;
  const started = Date.now();
  const beat = setInterval(
    () => settings.say(`${name}: still building (${Math.round((Date.now() - started) / 1000)} s)`),
    30_000,
  );
  try {
    await runGo(go, ['build', '-trimpath', '-o', fresh, '-ldflags', tool.go.ldflags ?? '', tool.go.package], module);
  } finally {
    clearInterval(beat);
  }
  renameSync(fresh, target);
  settings.say(`${name}: built in ${Math.round((Date.now() - started) / 1000)} s`);
}

function runGo(go: string, args: readonly string[], cwd: string): Promise<void> {
  return new Promise((done, reject) => {
    const child = spawn(go, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'], timeout: BUILD_MS });
    let said = '';
    child.stderr.on('data', (d: Buffer) => {
      said = (said + d.toString('utf8')).slice(-2000);
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? done() : reject(new Error(`go build exited with ${code}: ${said.trim().split('\n').at(-1) ?? ''}`)),
    );
  });
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
