import { totalmem } from 'node:os';

const SHARE = 0.4; // of a container's memory; the service has the rest

/**
 * Bytes of memory that a process beside the service may take, so that the container is not ended for it; infinite where
 * the container, or the machine without one, has no limit.
 */
export function memoryShare(): number {
  const limit = process.constrainedMemory();
  // Without a limit, the system gives no number, or one beyond all memory.
  return limit > 0 && limit < totalmem() ? limit * SHARE : Number.POSITIVE_INFINITY;
}
