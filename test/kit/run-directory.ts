import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BUNDLE = fileURLToPath(new URL('../../policies/dist/bundle.tar.gz', import.meta.url));
const VARIABLE = 'COUNTERSIGN_TEST_RUN';

/** What the files of one run share; undefined in a file that runs by itself. */
export function runDirectory(): string | undefined {
  return process.env[VARIABLE];
}

/**
 * Makes it for the processes that are started from here on, and lets them keep what they compiled. Throws if the rules
 * are not compiled: a service without them waits for ever.
 */
export function openRunDirectory(): string {
  if (!existsSync(BUNDLE)) throw new Error('the rules are not compiled: run `npm run build:policies` first');
  const directory = mkdtempSync(join(tmpdir(), 'countersign-run-'));
  process.env[VARIABLE] = directory;
  process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(new URL('../../.tools/compile-cache', import.meta.url));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
