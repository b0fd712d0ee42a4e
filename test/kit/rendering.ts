import { openFence, type ReadingProcess } from '../../src/fence/index.ts';
import type { ProcessLimits } from '../../src/render/index.ts';

/** Limits that no honest test meets; `with` narrows some of them. */
export const LIMITS: ProcessLimits = {
  objects: 20_000,
  values: 1_000_000,
  size: 32 * 1024 * 1024,
  memory: 384 * 1024 * 1024,
  ms: 120_000,
};

type Programs = Parameters<typeof openFence>[0];

/** A fence whose output is read by a process as the service has it; `reading` is for the caller to close. */
export function fenceOf(programs: Programs, reading: ReadingProcess, store?: Parameters<typeof openFence>[2]) {
  return openFence(programs, (texts, limits) => reading.texts(texts, limits), store);
}
