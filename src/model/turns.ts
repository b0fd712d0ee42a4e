import { constants, setPriority } from 'node:os';

const SLICE_MS = 1; // of the event loop, at a time
const PAUSE_MS = 3; // for whoever waits for an answer
const HOPS = 4; // microtasks until whoever was let go has done its part
const waiting: (() => void)[] = [];
let begun = performance.now();
let isScheduled = false;
let isAsked = () => false;

/**
 * From here on, work in bulk on this thread takes a rest between its slices for as long as `asked()` holds: somebody
 * waits for answers.
 */
export function standBackWhile(asked: () => boolean): void {
  isAsked = asked;
}

/**
 * Lets the event loop go round where work in bulk has had this thread for a millisecond: requests that came meanwhile
 * go first. All such work shares one slice, so that many tasks side by side keep it no longer than one.
 */
export function breathe(): Promise<void> {
  if (waiting.length === 0 && !isLong()) return Promise.resolve();
  return new Promise((go) => {
    waiting.push(go);
    schedule();
  });
}

/** `items.map(of)`, for many items, letting others have their turn between them. */
export async function mapInTurns<T, R>(items: readonly T[], of: (item: T, i: number) => R): Promise<R[]> {
  const made: R[] = [];
  for (const [i, item] of items.entries()) {
    if (isLong()) await breathe();
    made.push(of(item, i));
  }
  return made;
}

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  if (isAsked()) setTimeout(slice, PAUSE_MS);
  else setImmediate(slice);
}

async function slice(): Promise<void> {
  begun = performance.now();
  while (waiting.length > 0 && !isLong()) {
    waiting.shift()?.();
    for (let hop = 0; hop < HOPS; hop++) await undefined;
  }
  isScheduled = false;
  if (waiting.length > 0) schedule();
}

function isLong(): boolean {
  return performance.now() - begun > SLICE_MS;
}

/**
 * Has everything else on the machine go before this thread, and before what it starts from here on; for work that can
 * wait. On Linux, priorities are of threads (setpriority(2)); elsewhere they would be of the whole process, and nothing
 * changes.
 */
export function giveWay(): void {
  if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
}
