import { openRunDirectory } from './run-directory.ts';

/** Before the first test file of a run without a cluster. */
export function globalSetup(): void {
  openRunDirectory();
}
