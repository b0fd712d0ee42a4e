import { setTimeout as wait } from 'node:timers/promises';
import { CountersignError, type ObjectRef, refText } from '../model/index.ts';
import type { ClusterPort, LiveState, ReconcilePorts } from './ports.ts';

const LOOK_MS = 100;
const TELL_MS = 10_000;
const NAMED = 5;

/** A written object, and the generation the write gave it. */
export type Written = { readonly ref: ObjectRef; readonly generation: number };

export type HealthWait = {
  readonly timeoutMs: number;
  /** Whether something newer must be applied instead; polled continuously. */
  readonly superseded: () => boolean;
  readonly progress: (message: string) => void;
  /** The uid of the only object, which will not come back once it is gone. It counts if it was healthy until then. */
  readonly uid?: string;
};

/**
 * Waits until every object is healthy. Throws `not-healthy` as soon as one cannot become healthy, or on timeout, naming
 * the first few and their messages. Returns false if something newer came first.
 */
export async function awaitHealth(
  written: readonly Written[],
  ports: ReconcilePorts,
  options: HealthWait,
): Promise<boolean> {
  const end = performance.now() + options.timeoutMs;
  let told = performance.now();
  for (let waiting = written; ; ) {
    const says = (w: Written) => stateOf(w, ports.cluster, options.uid);
    waiting = waiting.filter((w) => says(w).state !== 'current');
    if (waiting.length === 0) return true;
    const seen = waiting.filter((w) => says(w).state === 'failed');
    const isSure = await Promise.all(seen.map(({ ref }) => hasFailed(ref, ports)));
    const hopeless = seen.filter((w, i) => isSure[i] && says(w).state === 'failed');
    const over = performance.now() > end;
    if (hopeless.length > 0 || over)
      throw new CountersignError(
        'not-healthy',
        `${sentence(hopeless.length > 0 ? hopeless : waiting, says)}` +
          `${over ? `, after ${Math.round(options.timeoutMs / 1000)} s` : ''}`,
        { hint: 'fix it with a new commit; `spec.health` of the environment sets how long objects may take' },
      );
    if (options.superseded()) return false;
    if (performance.now() - told > TELL_MS) {
      told = performance.now();
      options.progress(`waiting for ${waiting.length} of ${written.length}: ${sentence(waiting, says)}`);
    }
    await wait(LOOK_MS);
  }
}

// The watch may not have seen yet that a new object has the name.
async function hasFailed(ref: ObjectRef, { cluster }: ReconcilePorts): Promise<boolean> {
  return cluster.live(ref) !== undefined || (await cluster.read(ref)) === undefined;
}

function stateOf({ ref, generation }: Written, cluster: ClusterPort, uid: string | undefined): LiveState['health'] {
  const live = cluster.live(ref);
  if (live === undefined && uid !== undefined && cluster.endedWell(ref) === uid)
    return { state: 'current', message: 'it is gone, and was healthy before' };
  if (live === undefined) return { state: uid === undefined ? 'progressing' : 'failed', message: 'it is gone' };
  return live.generation < generation
    ? { state: 'progressing', message: 'its new state has not been seen yet' }
    : live.health;
}

function sentence(waiting: readonly Written[], says: (w: Written) => LiveState['health']): string {
  const named = waiting.slice(0, NAMED).map((w) => `${refText(w.ref)}: ${says(w).message}`);
  return `${named.join('; ')}${waiting.length > NAMED ? ` (and ${waiting.length - NAMED} more)` : ''}`;
}
