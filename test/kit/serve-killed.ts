import { runCli } from '../../src/cli/index.ts';

// `countersign serve` that ends itself with SIGKILL at a step: nothing is flushed, closed or told.
const [step, ...args] = process.argv.slice(2);
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
      if (at === step) process.kill(process.pid, 'SIGKILL');
    },
  },
);
