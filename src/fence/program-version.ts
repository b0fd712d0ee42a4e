import { type Versioned, versionTrouble } from '../model/index.ts';
import { runFenced } from './run-fenced.ts';

const ASKED = {
  helm: { program: 'Helm', args: ['version', '--short'] },
  kustomize: { program: 'Kustomize', args: ['version'] },
} as const satisfies Readonly<Record<string, { readonly program: Versioned; readonly args: readonly string[] }>>;

const LIMITS = { memory: 384 * 1024 * 1024, ms: 30_000, size: 10_000 };

/**
 * Asks `helm` or `kustomize` for its version, behind the fence. Returns why that is outside of the supported range, or
 * cannot be told; undefined if it is inside.
 */
export async function programVersionTrouble(name: keyof typeof ASKED, file: string): Promise<string | undefined> {
  const { program, args } = ASKED[name];
  const { ok, output, error } = await runFenced(file, args, [], LIMITS);
  return versionTrouble(program, ok ? output.trim() : error, `\`${file}\``);
}
