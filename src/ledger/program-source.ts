import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Returns one of our modules as a single-file program without types, to be run elsewhere. */
export function programSource(module: URL): string {
  const file = fileURLToPath(module);
  const source = readFileSync(file, 'utf8');
  return file.endsWith('.ts') ? withoutTypes(source) : source;
}

// Node warns on each use that this function is experimental, which does not concern someone who exports a ledger.
function withoutTypes(source: string): string {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(source);
  } finally {
    process.emitWarning = emitWarning;
  }
}
