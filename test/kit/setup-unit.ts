import { openRunDirectory } from './run-directory.ts';

/** Before the first test file of a quick run: without a cluster, and without what takes long by its nature. */
export function globalSetup(): void {
  openRunDirectory();
  process.env['COUNTERSIGN_TEST_QUICK'] ??= 'true';
}
