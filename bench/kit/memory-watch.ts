import { readdirSync, readFileSync } from 'node:fs';
import { median } from './figures.ts';

type Sample = { readonly mib: number; readonly text: string };

/**
 * The memory of a process and of everything it started, looked at four times a second. Pages that processes share count
 * once (Pss).
 */
export class MemoryWatch {
  readonly #pid: number;
  readonly #timer: NodeJS.Timeout;
  readonly #last: Sample[] = [];
  #peak: Sample = { mib: 0, text: '' };

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => this.#look(), 250);
  }

  /** The most so far, with the share of the service's own process. */
  get peak(): Sample {
    return this.#peak;
  }

  /** The median of the last five seconds. */
  now(): Sample {
    const mib = median(this.#last.map((s) => s.mib));
    return this.#last.find((s) => s.mib === mib) ?? this.#peak;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const all = treeOf(this.#pid).map((pid) => ({ pid, mib: Math.round(pssOf(pid) / 1024) }));
    const mib = all.reduce((sum, one) => sum + one.mib, 0);
    const own = all.find((one) => one.pid === this.#pid)?.mib ?? 0;
    const sample = { mib, text: `${mib} MiB (${own} its own, ${mib - own} of ${all.length - 1} programs)` };
    this.#last.push(sample);
    if (this.#last.length > 20) this.#last.shift();
    if (mib > this.#peak.mib) this.#peak = sample;
  }
}

function pssOf(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0; // it has ended
  }
}

function treeOf(root: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      parents.set(Number(name), Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1] ?? 0));
    } catch {} // it has ended
  }
  const isBelow = (pid: number): boolean => pid === root || (pid > 1 && isBelow(parents.get(pid) ?? 0));
  return [...parents.keys()].filter(isBelow);
}
