import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const HALF_MIB = 4; // half of the space for new objects: the smallest that costs no CPU while 2,000 are applied
const MAX_SURVIVORS = 1_000_000;
const LOST_MS = 1000; // for entries and answers that are on their way

const collect = process.argv[2] === 'serve' ? boundMemory() : () => {};
// After the bounds: V8 sizes its heap by what loading leaves in it.
const [{ runCli }, { readProcessSettings }] = await Promise.all([
  import('./cli/index.ts'),
  import('./config/index.ts'),
]);
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => stopping.abort()); // the second one ends the process at once
}
// A reader of only the first lines (`… | head`) closes the pipe.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});
const terminal = process.stderr.isTTY === true;
const io = {
  out: (text: string) => process.stdout.write(text),
  err: (text: string) => process.stderr.write(text),
  terminal,
  colour: terminal && process.stdout.isTTY === true && !readProcessSettings().noColor,
  signal: stopping.signal,
};
// Another replica runs the environment by now, and the rest of this process may wait for a ledger that does not answer.
const onLeaseLost = () => setTimeout(() => process.exit(2), LOST_MS).unref();
let isService = false;
const onRunning = () => {
  isService = true;
  collect();
};
process.exitCode = await runCli(process.argv.slice(2), io, { onRunning, onLeaseLost });
// All is closed and recorded. A connection that a client holds must not keep the service from ending.
if (isService) setTimeout(() => process.exit(), LOST_MS).unref();

/**
 * Bounds the memory of a service. Collecting sooner costs nothing measurable, because it happens on other threads.
 *
 * By default V8 lets the heap grow to several times the live objects before it collects again (270 MiB for 95 with 200
 * environments), and the space for new objects to 48 MiB in each thread. Only a command line can limit the second, so
 * it grows to its size here, in one step, and not again. Threads start with the same size, or less by their own limit.
 * Returns what collects the heap now: loading leaves a third of it, and V8 would wait until it has grown.
 */
function boundMemory(): () => void {
  setFlagsFromString('--heap-growing-percent=30');
  setFlagsFromString(`--min-semi-space-size=${HALF_MIB}`);
  setFlagsFromString(`--semi-space-growth-factor=${HALF_MIB}`); // from 1 MiB
  const survivors: object[] = [];
  while (youngBytes() < 2 * HALF_MIB * 1024 * 1024 && survivors.length < MAX_SURVIVORS)
    for (let i = 0; i < 1000; i++) survivors.push({});
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--expose-gc'); // to the threads, too: they collect once when they are loaded
  return runInNewContext('gc') as () => void;
}

function youngBytes(): number {
  return getHeapSpaceStatistics().find((s) => s.space_name === 'new_space')?.space_size ?? Number.POSITIVE_INFINITY;
}
