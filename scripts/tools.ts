import { fileURLToPath } from 'node:url';
import { readProcessSettings } from '../src/config/index.ts';
import { provide, type ToolName, type ToolSettings } from '../src/tools/index.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The programs this repository’s own scripts, demo and tests need, kept under `.tools/`. */
export function tool(name: ToolName, options: { pinned?: boolean } = {}): Promise<string> {
  return provide(name, { ...toolSettings(), ...options });
}

function toolSettings(): ToolSettings {
  const { path, kubebuilderAssets } = readProcessSettings();
  return {
    path,
    kubebuilderAssets,
    cache: `${ROOT}.tools`,
    root: ROOT,
    say: (line) => process.stderr.write(`${line}\n`),
  };
}
