import { setFlagsFromString } from 'node:v8';
import { runCli } from './cli/index.ts';
import { readProcessSettings } from './config/index.ts';

const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => stopping.abort()); // the second one ends the process at once
}
// A reader of only the first lines (`… | head`) closes the pipe.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});
// By default V8 lets the heap grow to several times the live objects before it collects again: 270 MiB for 95 with 200
// environments. Collecting sooner costs nothing measurable, because it happens on another thread.
const onStart = () => setFlagsFromString('--heap-growing-percent=30');
const terminal = process.stderr.isTTY === true;
const io = {
  out: (text: string) => process.stdout.write(text),
  err: (text: string) => process.stderr.write(text),
  terminal,
  colour: terminal && process.stdout.isTTY === true && !readProcessSettings().noColor,
  signal: stopping.signal,
};
process.exitCode = await runCli(process.argv.slice(2), io, { onStart });
