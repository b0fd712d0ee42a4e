import { constants, setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import type { GitAnswer, GitTask } from './run-beside.ts';
import { runProgram } from './run-program.ts';

// Runs one program per message, concurrently. All of it serves changes, which can wait while requests are answered, so
// it gives way like `giveWay` of `model/`, which is not imported here: its room takes 15 MiB more in each thread.
if (process.platform === 'linux') setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
parentPort?.on('message', ({ id, command, options }: GitTask) => {
  const tell = (answer: GitAnswer) => parentPort?.postMessage(answer);
  runProgram(command, options).then(
    (result) => tell({ id, result }),
    () => tell({ id, failed: true }),
  );
});
