import { readdirSync, readFileSync } from 'node:fs';

/** A running memory watch. */
export type MemoryWatch = { readonly stop: () => void };

const LOOK_MS = 25; // a program that does nothing else allocates about 50 MiB in that time
const PAGE = 4096;

/**
 * Calls `exceeded` once a process and its children hold more than `limit` bytes of memory. Linux only (proc(5)); on
 * other systems only the limits set at start apply.
 */
export function watchMemory(pid: number | undefined, limit: number, exceeded: () => void): MemoryWatch {
  if (pid === undefined || process.platform !== 'linux') return { stop: () => {} };
  const timer = setInterval(() => {
    if (residentOf(pid) <= limit) return;
    clearInterval(timer);
    exceeded();
  }, LOOK_MS).unref();
  return { stop: () => clearInterval(timer) };
}

// Programs here start few processes: unshare(1), which becomes the program itself, and its own threads.
function residentOf(pid: number): number {
  try {
    const resident = Number(readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')[1]) * PAGE;
    const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1')
        .split(' ')
        .filter((id) => id !== '')
        .map(Number),
    );
    return children.reduce((sum, child) => sum + residentOf(child), resident);
  } catch {
    return 0; // it has exited
  }
}
