import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const VARIABLE = 'COUNTERSIGN_TEST_RUN';

/** What the files of one run share; undefined in a file that runs by itself. */
export function runDirectory(): string | undefined {
  return process.env[VARIABLE];
}

/** Makes it for the processes that are started from here on, and lets them keep what they compiled. */
export function openRunDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-run-'));
  process.env[VARIABLE] = directory;
  process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(new URL('../../.tools/compile-cache', import.meta.url));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
