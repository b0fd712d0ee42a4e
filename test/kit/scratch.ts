import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** A directory for one test file, gone when its tests are over. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-test-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
