import { runCli } from './cli/index.ts';
import { readProcessSettings } from './config/index.ts';

const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => stopping.abort()); // the second one ends the process at once
}
// Whoever reads only the first lines (`… | head`) has had enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});
const terminal = process.stderr.isTTY === true;
process.exitCode = await runCli(process.argv.slice(2), {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  terminal,
  colour: terminal && process.stdout.isTTY === true && !readProcessSettings().noColor,
  signal: stopping.signal,
});
