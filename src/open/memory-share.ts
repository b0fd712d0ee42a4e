import { totalmem } from 'node:os';

const SHARE = 0.4; // share of a container's memory; the service has the rest

/**
 * Returns the memory, in bytes, that a process next to the service may use without the container being killed. Infinite
 * if there is no limit on the container or machine.
 */
export function memoryShare(): number {
  const limit = process.constrainedMemory();
  // Without a limit, the system returns no number, or one larger than all memory.
  return limit > 0 && limit < totalmem() ? limit * SHARE : Number.POSITIVE_INFINITY;
}
