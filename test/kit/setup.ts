import type { ControlPlane } from './control-plane.ts';
import { livingPlane, sharePlane } from './plane.ts';
import { openRunDirectory } from './run-directory.ts';

let plane: ControlPlane | undefined;

/** Before the first test file of a run: what all of them share, a control plane among it. */
export async function globalSetup(): Promise<void> {
  const run = openRunDirectory();
  plane = await livingPlane();
  sharePlane(run, plane);
}

export async function globalTeardown(): Promise<void> {
  await plane?.stop();
}
