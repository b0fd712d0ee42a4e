import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const GOLDEN = fileURLToPath(new URL('../golden', import.meta.url));

/**
 * Compares with `test/golden/NAME`, which is written where it is missing: delete it to have it written anew, and read
 * the difference.
 */
export function golden(name: string, text: string): void {
  const file = join(GOLDEN, name);
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    assert.fail(`${file} was missing and is written now: read it, and run the test again`);
  }
  assert.equal(text, readFileSync(file, 'utf8'));
}
