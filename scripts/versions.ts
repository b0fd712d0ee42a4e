import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, symlinkSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SUPPORTED, supportedRange, type Versioned } from '../src/model/index.ts';
import { type PlaneProgram, TOOLS, type ToolName } from '../src/tools/index.ts';
import { tool } from './tools.ts';

const TOOLS_DIRECTORY = fileURLToPath(new URL('../.tools', import.meta.url));
const PLANE: readonly PlaneProgram[] = ['kube-apiserver', 'kube-controller-manager', 'kubectl'];

/** Minor versions to run something with; what is left out is found as ever. */
export type Choice = Partial<Readonly<Record<Versioned, string>>>;

/**
 * Reads an argument such as `kubernetes=1.36`, `helm=newest` or `kubernetes=1.34,1.35`. Throws with the versions that
 * there are.
 */
export function readVersions(argument: string): readonly [Versioned, readonly string[]] {
  const [name = '', text = ''] = argument.split('=');
  const program = (Object.keys(SUPPORTED) as Versioned[]).find((p) => p.toLowerCase() === name);
  if (program === undefined)
    throw new Error(`\`${argument}\`: give kubernetes=VERSION, helm=VERSION or kustomize=VERSION`);
  const { oldest, newest } = supportedRange(program);
  const known = Object.keys(SUPPORTED[program]);
  return [
    program,
    text.split(',').map((word) => {
      const minor = word === 'oldest' ? oldest : word === 'newest' ? newest : word;
      if (known.includes(minor)) return minor;
      throw new Error(`\`${argument}\`: give ${known.join(', ')}, oldest or newest`);
    }),
  ];
}

/**
 * Returns the variables with which a command finds these versions before all others. Programs that are not there yet
 * are built, which takes minutes. Throws if a program states another version.
 */
export async function variablesOf(choice: Choice): Promise<Readonly<Record<string, string>>> {
  const { Kubernetes: kubernetes, Helm: helm, Kustomize: kustomize } = choice;
  const plane = kubernetes === undefined ? undefined : await planeOf(kubernetes);
  const renderers = [
    ...(helm === undefined ? [] : [await rendererOf('Helm', 'helm', helm, ['version', '--short'])]),
    ...(kustomize === undefined ? [] : [await rendererOf('Kustomize', 'kustomize', kustomize, ['version'])]),
  ];
  return {
    ...(plane === undefined ? {} : { KUBEBUILDER_ASSETS: plane }),
    ...(renderers.length === 0 ? {} : { PATH: [...renderers, process.env['PATH'] ?? ''].join(delimiter) }),
  };
}

async function planeOf(minor: string): Promise<string> {
  const programs = PLANE.map((program) => [program, named('Kubernetes', program, minor)] as const);
  const place = await linked(`kubernetes-${minor}`, [['etcd', 'etcd'], ...programs]);
  demandVersion(minor, join(place, 'kube-apiserver'), ['--version']);
  return place;
}

async function rendererOf(program: Versioned, name: string, minor: string, asking: readonly string[]): Promise<string> {
  const place = await linked(`${name}-${minor}`, [[name, named(program, name, minor)]]);
  demandVersion(minor, join(place, name), asking);
  return place;
}

/** Throws unless a program says that it is of a minor version: a run on another one would prove nothing. */
export function demandVersion(minor: string, file: string, asking: readonly string[]): void {
  const said = execFileSync(file, asking, { encoding: 'utf8' }).trim();
  if (/v(\d+\.\d+)/.exec(said)?.[1] !== minor) throw new Error(`\`${file}\` is not ${minor}, it says \`${said}\``);
}

/** Returns the name of a program of a version in the catalogue: the oldest has none in its name. */
export function named(program: Versioned, name: string, minor: string): ToolName {
  const full = minor === supportedRange(program).oldest ? name : `${name}-${minor}`;
  if (!Object.hasOwn(TOOLS, full)) throw new Error(`\`${full}\` is missing in src/tools/catalogue.ts`);
  return full as ToolName;
}

// A directory in which the programs have their usual names.
async function linked(directory: string, programs: readonly (readonly [string, ToolName])[]): Promise<string> {
  const place = join(TOOLS_DIRECTORY, 'versions', directory);
  mkdirSync(place, { recursive: true });
  for (const [name, from] of programs) {
    const fresh = join(place, `${name}.${process.pid}.new`);
    symlinkSync(await tool(from, { pinned: true }), fresh);
    renameSync(fresh, join(place, name));
  }
  return place;
}
