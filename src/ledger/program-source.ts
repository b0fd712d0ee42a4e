import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { fileURLToPath } from 'node:url';

/** A module of ours as a program of one file, without its types: what is handed out to be run elsewhere. */
export function programSource(module: URL): string {
  const file = fileURLToPath(module);
  const source = readFileSync(file, 'utf8');
  return file.endsWith('.ts') ? withoutTypes(source) : source;
}

// Node says of every use that this function is experimental; whoever exports a ledger has no use for that.
function withoutTypes(source: string): string {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(source);
  } finally {
    process.emitWarning = emitWarning;
  }
}
