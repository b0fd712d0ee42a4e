import { readFileSync } from 'node:fs';
import { runCli } from '../../src/cli/index.ts';

// `countersign serve` that ends itself with SIGKILL at the step that a file names: nothing is flushed, closed or told.
const [file = '', ...args] = process.argv.slice(2);
process.exitCode = await runCli(
  ['serve', ...args],
  {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    terminal: false,
    colour: false,
    signal: new AbortController().signal,
  },
  {
    onStep: (at) => {
      if (readFileSync(file, 'utf8') === at) process.kill(process.pid, 'SIGKILL');
    },
  },
);
